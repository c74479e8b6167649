"""The feature maps of a network's layers for one image.

:func:`collect_maps` runs in the Keras worker process; the rest is NumPy.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import KindsightError, SettingsError
from kindsight.models.formats.load_keras import load_keras_file
from kindsight.models.graph import call_inputs, layer_path, producer
from kindsight.models.networks.fine_tuned import ENSEMBLE_LAYER, FINE_TUNED_LAYER
from kindsight.models.worker.process import KerasProcess

__all__ = [
    "MAX_LAYERS", "MAX_MAPS", "CollectedMaps", "LayerMaps", "brightness", "collect_maps",
    "collect_maps_in_worker", "evenly", "read_maps", "write_maps",
]  # fmt: skip

MAX_LAYERS = 16
"""Maximum number of layers shown."""

MAX_MAPS = 64
"""Maximum number of feature maps shown per layer."""

# Layers whose feature maps would look like those of the layer before: they pass on, scale, shift
# or pad each map.
_HIDDEN_LAYERS = (
    "InputLayer", "Rescaling", "Normalization", "BatchNormalization", "LayerNormalization",
    "Resizing", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "ZeroPadding2D", "Cropping2D", "Identity",
)  # fmt: skip

_FACTS = ("name", "kind", "channels", "low", "high", "silent")


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The feature maps of one layer.

    `kind` is its class in Keras and `channels` the number of its maps; `maps`, float32 (n, height,
    width), are of the channels `shown`; `low` and `high` are the smallest and largest value, and
    `silent` the number of constant channels, of all of them.
    """

    name: str
    kind: str
    channels: int
    shown: NDArray[np.int64]
    maps: NDArray[np.float32]
    low: float
    high: float
    silent: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of a map."""
        return int(self.maps.shape[1]), int(self.maps.shape[2])


def evenly(count: int, limit: int) -> list[int]:
    """Return at most `limit` evenly spaced numbers below `count`, with the first and last."""
    if count <= limit:
        return list(range(count))
    if limit < 2:
        return [0][:limit]
    return [round(k * (count - 1) / (limit - 1)) for k in range(limit)]


def brightness(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Scale feature maps (n, height, width) to uint8: the mean to 128, a standard deviation to 64.

    Constant maps and values that are not finite become 0.
    """
    values = maps.astype(np.float64)
    with np.errstate(all="ignore"):
        mean = values.mean(axis=(1, 2), keepdims=True)
        spread = values.std(axis=(1, 2), keepdims=True)
        constant = np.ptp(values, axis=(1, 2), keepdims=True) == 0
        scaled = 128 + 64 * (values - mean) / spread
    scaled = np.where(constant | ~np.isfinite(scaled), 0, scaled)
    result: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return result


class CollectedMaps(NamedTuple):
    """The feature maps of an image, from input to output.

    `left_out` names the layers with feature maps that were not selected; `within` is whether the
    layers belong to a network nested in the model, such as one of an ensemble.
    """

    layers: list[LayerMaps]
    left_out: list[str]
    within: bool


def collect_maps_in_worker(
    process: KerasProcess,
    model: Path,
    pixels: NDArray[np.uint8],
    *,
    max_layers: int = MAX_LAYERS,
    max_maps: int = MAX_MAPS,
) -> CollectedMaps:
    """Run :func:`collect_maps` in the Keras worker process.

    SettingsError for pixels that are not one image (height, width, 3); KindsightError when Keras
    cannot load or run the model, or the model has no layers with maps.
    """
    if np.ndim(pixels) != 3 or not np.size(pixels):
        raise SettingsError(
            f"`pixels` must be one image (height, width, 3); got the shape {np.shape(pixels)}."
        )
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        file, out = Path(folder, "pixels.npy"), Path(folder, "out.npz")
        np.save(file, pixels, allow_pickle=False)
        result = process.run_job(
            job="maps", model=str(Path(model).resolve()), pixels=str(file), out=str(out),
            max_layers=max_layers, max_maps=max_maps,
        )  # fmt: skip
        return CollectedMaps(read_maps(result["layers"], out), result["left_out"], result["within"])


def collect_maps(
    model: str | Path, pixels: NDArray[np.uint8], max_layers: int, max_maps: int
) -> CollectedMaps:
    """Return the feature maps of a saved network for one image, uint8 (height, width, 3).

    If there are more layers, or maps of a layer, than the maximum, evenly spaced ones are selected.
    KindsightError if the network has no layer with feature maps, or several inputs; WeightsError
    for a file that cannot be loaded, see :func:`.load_keras_file`.
    """
    import keras

    network = load_keras_file(Path(model))
    inner = _image_network(network) or network
    cut, above = _fine_tuned_top(inner)
    below = inner if above is None else keras.Model(inner.inputs, cut)
    sections = [section for section in (below, above) if section is not None]
    layers = [layer for section in sections for layer in section.layers if _has_maps(layer)]
    if not layers or len(network.inputs) != 1:
        raise KindsightError(
            "Cannot show feature maps: the network has "
            f"{len(network.inputs)} inputs and {len(layers)} layers with feature maps among its "
            f"{len(network.layers)}; it needs one input and at least one such layer."
        )
    chosen = [layers[k] for k in evenly(len(layers), max_layers)]
    inputs, outputs = [np.asarray(pixels, np.float32)[None]], []
    for section in sections:
        shown = [layer.output for layer in chosen if layer in section.layers]
        passed = cut if section is below else []
        if not shown and not passed:
            continue
        values = keras.Model(section.inputs, [*shown, *passed])(inputs, training=False)
        values = values if isinstance(values, list) else [values]
        outputs += values[: len(shown)]
        inputs = values[len(shown) :]
    left_out = [layer_path(layer.name) for layer in layers if layer not in chosen]
    maps = [
        _maps(layer, np.asarray(output)[0], max_maps)
        for layer, output in zip(chosen, outputs, strict=True)
    ]
    several = any(layer.name == ENSEMBLE_LAYER for layer in network.layers)
    return CollectedMaps(maps, left_out, several or inner is not network)


def write_maps(layers: Sequence[LayerMaps], path: str | Path) -> list[dict[str, Any]]:
    """Write the arrays of layers as ``.npz``; return the rest as JSON values."""
    arrays: dict[str, Any] = {str(k): layer.maps for k, layer in enumerate(layers)}
    np.savez(path, **arrays)
    return [
        {**{name: getattr(layer, name) for name in _FACTS}, "shown": layer.shown.tolist()}
        for layer in layers
    ]


def read_maps(facts: Sequence[Mapping[str, Any]], path: str | Path) -> list[LayerMaps]:
    """Restore what :func:`write_maps` wrote and returned."""
    with np.load(path, allow_pickle=False) as arrays:
        return [
            LayerMaps(
                shown=np.array(each["shown"], np.int64),
                maps=arrays[str(k)],
                **{name: each[name] for name in _FACTS},
            )
            for k, each in enumerate(facts)
        ]


def _image_network(network: Any) -> Any:
    """Return the network or one nested in it with maps of the same images, a fine-tuned first."""
    if any(_has_maps(layer) for layer in network.layers):
        return network
    nested = [
        _image_network(layer)
        for layer in network.layers
        if hasattr(layer, "layers") and layer.input_shape == network.input_shape
    ]
    found = [one for one in nested if one is not None]
    return next(
        (one for one in found if _fine_tuned_top(one)[1] is not None), next(iter(found), None)
    )


def _fine_tuned_top(network: Any) -> tuple[list[Any], Any]:
    """Return the tensors at the cut of a fine-tuned network, and its top, if it has one."""
    for layer in network.layers:
        if layer.name == FINE_TUNED_LAYER and hasattr(layer, "layers"):
            known = set(network.operations)
            for tensors in call_inputs(layer):
                if all(producer(tensor) in known for tensor in tensors):
                    return tensors, layer
    return [], None


def _has_maps(layer: Any) -> bool:
    """Whether a layer has feature maps larger than one pixel that are worth showing."""
    if type(layer).__name__ in _HIDDEN_LAYERS:
        return False
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # several outputs, or several calls
        return False
    return len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1


def _maps(layer: Any, values: NDArray[np.float32], max_maps: int) -> LayerMaps:
    channels = values.shape[-1]
    shown = evenly(channels, max_maps)
    spans = np.ptp(values, axis=(0, 1))
    maps = np.ascontiguousarray(np.moveaxis(values[..., shown], -1, 0), np.float32)
    return LayerMaps(
        layer_path(layer.name), type(layer).__name__, channels, np.array(shown, np.int64), maps,
        float(values.min()), float(values.max()), int((spans == 0).sum()),
    )  # fmt: skip
