"""From a backbone's name to a Keras model: pixels to maps, and pixels to features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.backbones.applications import build_application
from kindsight.models.backbones.backbone import PROFILES, Backbone, Stage, make_layout
from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.weights import fetch, load_state
from kindsight.models.formats.hdf5 import load_h5_weights
from kindsight.models.graph import (
    as_functional,
    cut_points,
    feature_stages,
    last_maps,
    output_of,
)

__all__ = ["build_feature_model", "build_network", "network_layout"]

# Keeps the gradient of the square root finite where a channel is constant over an image.
_VARIANCE_FLOOR = 1e-6


def build_network(
    backbone: Backbone,
    size: tuple[int, int] | None = None,
    weights: str = "imagenet",
    seed: int = 0,
    input_size: tuple[int, int] | None = None,
) -> Any:
    """Build a backbone as a Keras model, from pixels to its last maps.

    Parameters
    ----------
    backbone : Backbone
        As :func:`.backbones.get_backbone` gives it.
    size : tuple of int, optional
        (height, width) of the images in pixels; the backbone's own if omitted.
    weights : str
        ``"imagenet"``, ``"none"`` (random, by the seed) or a weights file. A user's own Keras
        file brings its weights along.
    seed : int
        Of random weights.
    input_size : tuple of int, optional
        (height, width) of the images, where an EfficientNet-Lite is to bring them to `size`.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3) with values 0-255 to float32 (batch, h, w, channels);
        the scaling of pixels is within. Layers keep the names of the table.

    Raises
    ------
    SettingsError
        For a size that the backbone cannot take.
    WeightsError
        For weights that are absent, damaged, or do not fit.
    """
    import keras

    size = backbone.check_size(size or backbone.size)
    keras.utils.set_random_seed(seed % 2**32)
    if backbone.file is not None:
        return _load_own(backbone, size)
    if backbone.builder:
        network = build_application(backbone, size)
        if weights != "none":
            load_h5_weights(network, fetch(backbone) if weights == "imagenet" else Path(weights))
        return network
    keras.utils.clear_session()
    if weights.endswith(".h5"):
        state = None
    else:
        state = None if weights == "none" else load_state(backbone.name, _own_path(weights))
    network = build_efficientnet_lite(
        backbone.name, size, state, classes=None, input_size=input_size
    )
    network = keras.Model(network.input, network.get_layer("top_relu").output, name=network.name)
    if weights.endswith(".h5"):
        load_h5_weights(network, Path(weights))
    return network


def _own_path(weights: str) -> str | None:
    return None if weights == "imagenet" else weights


def _load_own(backbone: Backbone, size: tuple[int, int]) -> Any:
    """Load a user's Keras file, up to its last maps."""
    import keras

    path = backbone.file
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        graph = as_functional(model)
        if tuple(graph.inputs[0].shape[1:3]) != size:  # made for any size: fix this one
            pixels = keras.Input((*size, 3), name="pixels")
            graph = as_functional(keras.models.clone_model(model, input_tensors=pixels))
            graph.set_weights(model.get_weights())
    except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"{path}: A model must be one that Keras loads without code of the file's. "
            f"Received: {str(error)[:300]}"
        ) from None
    maps = output_of(graph, last_maps(graph).name)
    return keras.Model(graph.inputs[0], maps, name=_word(backbone.name))


def _word(name: str) -> str:
    kept = "".join(c if c.isascii() and c.isalnum() else "_" for c in name)
    return kept or "model"


def network_layout(backbone: Backbone, network: Any) -> tuple[tuple[Stage, ...], FeatureLayout]:
    """Return the stages whose statistics are features, and the features' layout.

    Parameters
    ----------
    backbone : Backbone
        With stages of the table, or without, where they are found by rule.
    network : keras.Model
        As :func:`build_network` builds it.
    """
    top = int(network.output_shape[-1])
    stages = backbone.stages
    if not stages:
        size = network.input_shape[1:3]
        found = feature_stages(network, size)
        # The last maps' mean comes anyway; where they are all there is, so do their others.
        last = cut_points(network)[-1].name
        kept = [point for point in found if point.name != last] or found
        stages = tuple(Stage(point.name, int(point.shape[2] or 0)) for point in kept)
    return stages, make_layout(stages, top)


def build_feature_model(backbone: Backbone, network: Any) -> tuple[Any, FeatureLayout]:
    """Put the statistics of its stages behind a network.

    Parameters
    ----------
    backbone : Backbone
    network : keras.Model
        As :func:`build_network` builds it.

    Returns
    -------
    model : keras.Model
        float32 (batch, height, width, 3) with values 0-255 to float32 (batch, layout.width); the
        last layer is named ``"features"``. It holds Keras's own layers and operations alone, so
        that ``keras.models.load_model`` restores it with nothing of kindsight at hand.
    layout : FeatureLayout
    """
    import keras

    ops = keras.ops
    stages, layout = network_layout(backbone, network)
    parts = []
    for stage in stages:
        values = output_of(network, stage.layer)
        parts += [
            ops.mean(values, axis=(1, 2)),
            ops.max(values, axis=(1, 2)),
            _deviation(values, (1, 2)),
        ]
        if PROFILES[0] in stage.statistics:
            for other in (2, 1):  # over which axis rows, and columns, are averaged
                parts += _profile(ops.mean(values, axis=other))
    parts.append(keras.layers.GlobalAveragePooling2D(name=backbone.top)(network.output))
    features = keras.layers.Concatenate(name="features")(parts)
    return keras.Model(network.input, features, name=f"{network.name}_features"), layout


def _profile(means: Any) -> list[Any]:
    """Return deviation, maximum and minimum over lines of (batch, lines, channels)."""
    import keras

    ops = keras.ops
    return [_deviation(means, 1), ops.max(means, axis=1), ops.min(means, axis=1)]


def _deviation(values: Any, axis: Any) -> Any:
    """Return the standard deviation.

    Its variance is the mean square of what is left after the mean: the mean of squares less the
    squared mean would lose what a nearly constant channel varies by, differently in Keras and in
    LiteRT.
    """
    import keras

    return keras.ops.sqrt(keras.ops.var(values, axis=axis) + _VARIANCE_FLOOR)
