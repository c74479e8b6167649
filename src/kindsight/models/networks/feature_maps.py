"""What each layer of a network makes of one image: its feature maps.

:func:`collect_maps` runs in the process that Keras lives in; all else is NumPy.
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
from kindsight.models.graph import call_inputs, producer
from kindsight.models.networks.fine_tuned import ENSEMBLE_LAYER, FINE_TUNED_LAYER
from kindsight.models.worker.process import KerasProcess

__all__ = [
    "MAX_LAYERS",
    "MAX_MAPS",
    "CollectedMaps",
    "LayerMaps",
    "brightness",
    "collect_maps",
    "collect_maps_in_worker",
    "evenly",
    "read_maps",
    "write_maps",
]

MAX_LAYERS = 16
"""Layers shown at most."""

MAX_MAPS = 64
"""Maps of a layer shown at most."""

# They hand on what they get, shift and scale each map (which is shown scaled anyway), or add an
# edge to it: their maps would look like those of the layer before.
_UNSHOWN = (
    "InputLayer", "Rescaling", "Normalization", "BatchNormalization", "LayerNormalization",
    "Resizing", "Dropout", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "ZeroPadding2D", "Cropping2D", "Identity",
)  # fmt: skip

_FACTS = ("name", "kind", "channels", "low", "high", "silent")


@dataclass(frozen=True, eq=False)
class LayerMaps:
    """The maps of one layer.

    Attributes
    ----------
    name, kind : str
        The layer's name, and its class in Keras.
    channels : int
        How many maps it has.
    shown : int array (n,)
        Which of them are in `maps`, from 0.
    maps : float32 array (n, height, width)
        As the layer gives them.
    low, high : float
        The smallest and largest value of all its maps.
    silent : int
        How many of all its maps are the same everywhere.
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
    """Choose at most `limit` of the numbers below `count`, evenly, the first and last with them."""
    if count <= limit:
        return list(range(count))
    if limit < 2:
        return [0][:limit]
    return [round(place * (count - 1) / (limit - 1)) for place in range(limit)]


def brightness(maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Bring each map to 0-255 by its own mean and spread.

    128 is the mean, and 64 a standard deviation, as the course has it: what lies two deviations
    from the mean is the darkest and the brightest.

    Parameters
    ----------
    maps : float array (n, height, width)

    Returns
    -------
    uint8 array (n, height, width)
        0 all over for a map that is the same everywhere, which has no spread to go by, and
        wherever a value is not a number.
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
    """The feature maps of an image.

    Attributes
    ----------
    layers : list of LayerMaps
        In the order in which the image goes through them.
    left_out : list of str
        Names of the layers that have maps and were not chosen.
    within : bool
        Whether they are of a network within the one that answers.
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

    Raises
    ------
    SettingsError
        For pixels that are not one image (height, width, 3).
    KindsightError
        When Keras cannot load or run the model, or the model has no layers with maps.
    """
    if np.ndim(pixels) != 3 or not np.size(pixels):
        raise SettingsError(
            f"`pixels` must be one image (height, width, 3); got the shape {np.shape(pixels)}."
        )
    with tempfile.TemporaryDirectory(prefix="kindsight-") as folder:
        file, out = Path(folder, "pixels.npy"), Path(folder, "out.npz")
        np.save(file, pixels, allow_pickle=False)
        result = process.run_job(
            job="maps",
            model=str(Path(model).resolve()),
            pixels=str(file),
            out=str(out),
            max_layers=max_layers,
            max_maps=max_maps,
        )
        return CollectedMaps(read_maps(result["layers"], out), result["left_out"], result["within"])


def collect_maps(
    model: str | Path, pixels: NDArray[np.uint8], max_layers: int, max_maps: int
) -> CollectedMaps:
    """Run one image through a saved network and keep what its layers make of it.

    Parameters
    ----------
    model : path
        A ``.keras`` file; pixels 0-255 in.
    pixels : uint8 array (height, width, 3)
        One image, of the size that the network takes.
    max_layers, max_maps : int
        More layers, and more maps of a layer, are chosen from evenly.

    Returns
    -------
    CollectedMaps

    Raises
    ------
    KindsightError
        If the network has no layer with maps, or takes more than pixels.
    """
    import keras

    network = keras.models.load_model(model, compile=False)
    seeing = _seeing(network) or network
    ends, above = _tuned_part(seeing)
    below = seeing if above is None else keras.Model(seeing.inputs, ends)
    parts = [part for part in (below, above) if part is not None]
    layers = [layer for part in parts for layer in part.layers if _has_maps(layer)]
    if not layers or len(network.inputs) != 1:
        raise KindsightError(
            "To show feature maps a network must have one input and layers with maps. Received: "
            f"{len(network.inputs)} inputs, {len(network.layers)} layers, {len(layers)} with maps."
        )
    chosen = [layers[place] for place in evenly(len(layers), max_layers)]
    given, outputs = [np.asarray(pixels, np.float32)[None]], []
    for part in parts:
        shown = [layer.output for layer in chosen if layer in part.layers]
        passed = ends if part is below else []
        if not shown and not passed:
            continue
        values = keras.Model(part.inputs, [*shown, *passed])(given, training=False)
        values = values if isinstance(values, list) else [values]
        outputs += values[: len(shown)]
        given = values[len(shown) :]
    left_out = [layer.name for layer in layers if layer not in chosen]
    maps = [
        _maps(layer, np.asarray(output)[0], max_maps)
        for layer, output in zip(chosen, outputs, strict=True)
    ]
    several = any(layer.name == ENSEMBLE_LAYER for layer in network.layers)
    return CollectedMaps(maps, left_out, several or seeing is not network)


def write_maps(layers: Sequence[LayerMaps], path: str | Path) -> list[dict[str, Any]]:
    """Write the arrays of layers as ``.npz``; return the rest, as JSON can hold it."""
    arrays: dict[str, Any] = {str(place): layer.maps for place, layer in enumerate(layers)}
    np.savez(path, **arrays)
    return [
        {**{name: getattr(layer, name) for name in _FACTS}, "shown": layer.shown.tolist()}
        for layer in layers
    ]


def read_maps(facts: Sequence[Mapping[str, Any]], path: str | Path) -> list[LayerMaps]:
    """Read what :func:`write_maps` wrote and returned."""
    with np.load(path, allow_pickle=False) as arrays:
        return [
            LayerMaps(
                shown=np.array(each["shown"], np.int64),
                maps=arrays[str(place)],
                **{name: each[name] for name in _FACTS},
            )
            for place, each in enumerate(facts)
        ]


def _seeing(network: Any) -> Any:
    """Return the network, or the first one within it that sees images of its size and has maps.

    One that was tuned comes before others.

    Networks that answer together, or over several views of an image, are layers of another one.
    """
    if any(_has_maps(layer) for layer in network.layers):
        return network
    within = [
        _seeing(layer)
        for layer in network.layers
        if hasattr(layer, "layers") and layer.input_shape == network.input_shape
    ]
    found = [one for one in within if one is not None]
    return next((one for one in found if _tuned_part(one)[1] is not None), next(iter(found), None))


def _tuned_part(network: Any) -> tuple[list[Any], Any]:
    """Return what passes the cut of a fine-tuned network, and the part above it, if there is one.

    That part is a layer of the network, called once.
    """
    for layer in network.layers:
        if layer.name == FINE_TUNED_LAYER and hasattr(layer, "layers"):
            known = set(network.operations)
            for tensors in call_inputs(layer):
                if all(producer(tensor) in known for tensor in tensors):
                    return tensors, layer
    return [], None


def _has_maps(layer: Any) -> bool:
    """Whether a layer gives maps that are larger than one pixel, and worth a look."""
    if type(layer).__name__ in _UNSHOWN:
        return False
    try:
        shape = layer.output.shape
    except (AttributeError, ValueError):  # several outputs, or used in several places
        return False
    return len(shape) == 4 and None not in shape[1:] and shape[1] * shape[2] > 1


def _maps(layer: Any, values: NDArray[np.float32], max_maps: int) -> LayerMaps:
    channels = values.shape[-1]
    shown = evenly(channels, max_maps)
    spans = np.ptp(values, axis=(0, 1))
    return LayerMaps(
        str(layer.name),
        type(layer).__name__,
        channels,
        np.array(shown, np.int64),
        np.ascontiguousarray(np.moveaxis(values[..., shown], -1, 0), np.float32),
        float(values.min()),
        float(values.max()),
        int((spans == 0).sum()),
    )
