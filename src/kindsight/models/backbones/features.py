"""Build a backbone as a Keras model: pixels to feature maps, and pixels to features.

Features are statistics over space (:data:`.backbone.STATISTICS`, :data:`.backbone.PROFILES`) of
the maps of the network's later stages, and the mean of its last maps. Early stages respond to
texture and late ones to objects; a head on all of them rarely needs fine-tuning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.backbones.applications import build_application
from kindsight.models.backbones.backbone import PROFILES, TOP, Backbone, Stage, make_layout
from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.weights import download_weights, load_state
from kindsight.models.formats.hdf5 import load_h5_weights
from kindsight.models.graph import as_functional, cut_points, feature_stages, last_maps, output_of

__all__ = ["build_feature_model", "build_network", "network_layout"]

# Keeps the gradient of the square root finite for a channel that is constant over an image.
_VARIANCE_FLOOR = 1e-6


def build_network(
    backbone: Backbone,
    size: tuple[int, int] | None = None,
    weights: str = "imagenet",
    seed: int = 0,
    input_size: tuple[int, int] | None = None,
) -> Any:
    """Build a backbone as a Keras model, from pixels to its last feature maps.

    The model maps float32 (batch, height, width, 3) with values 0-255 to float32 (batch, h, w,
    channels). SettingsError for a size that the backbone cannot have; WeightsError for weights that
    are missing, damaged, or of another network.

    Parameters
    ----------
    size : tuple of int, optional
        (height, width) in pixels at which features are computed; default: the backbone's own.
    weights : str
        ``"imagenet"``, ``"none"`` (random) or a weights file; ignored for a user's own Keras file.
    input_size : tuple of int, optional
        (height, width) of the images, which an EfficientNet-Lite resizes to `size`.
    """
    import keras

    size = backbone.check_size(size or backbone.size)
    keras.utils.set_random_seed(seed % 2**32)
    if backbone.file is not None:
        return _load_keras_backbone(backbone, size)
    if backbone.builder:
        network = build_application(backbone, size)
    else:
        keras.utils.clear_session()
        state = None
        if weights != "none" and not weights.endswith(".h5"):
            state = load_state(backbone.name, None if weights == "imagenet" else weights)
        network = build_efficientnet_lite(
            backbone.name, size, state, classes=None, input_size=input_size
        )
        maps = network.get_layer("top_relu").output
        network = keras.Model(network.input, maps, name=network.name)
    if weights.endswith(".h5"):
        load_h5_weights(network, Path(weights))
    elif backbone.builder and weights == "imagenet":
        load_h5_weights(network, download_weights(backbone))
    return network


def _load_keras_backbone(backbone: Backbone, size: tuple[int, int]) -> Any:
    """Load a user's Keras file, up to its last feature maps."""
    import keras

    path = backbone.file
    try:
        model = keras.models.load_model(path, compile=False, safe_mode=True)
        graph = as_functional(model)
        if tuple(graph.inputs[0].shape[1:3]) != size:  # it accepts any size: fix this one
            pixels = keras.Input((*size, 3), name="pixels")
            graph = as_functional(keras.models.clone_model(model, input_tensors=pixels))
            graph.set_weights(model.get_weights())
    except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError(
            f"Keras cannot load {path} without running code from it: {str(error)[:300]}"
        ) from None
    maps = output_of(graph, last_maps(graph).name)
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in backbone.name)
    return keras.Model(graph.inputs[0], maps, name=name or "model")


def network_layout(backbone: Backbone, network: Any) -> tuple[tuple[Stage, ...], FeatureLayout]:
    """Return the stages whose statistics are features, and the features' layout."""
    stages = backbone.stages
    if not stages:
        found = feature_stages(network, network.input_shape[1:3])
        # The mean of the last maps is a feature anyway: they are a stage only if there is no other.
        last = cut_points(network)[-1].name
        chosen = [point for point in found if point.name != last] or found
        stages = tuple(Stage(point.name, int(point.shape[2] or 0)) for point in chosen)
    return stages, make_layout(stages, int(network.output_shape[-1]))


def build_feature_model(backbone: Backbone, network: Any) -> tuple[Any, FeatureLayout]:
    """Append the statistics of its stages to a network of :func:`build_network`.

    The model maps float32 (batch, height, width, 3) with values 0-255 to float32 (batch,
    layout.width), the layer ``"features"``. ``keras.models.load_model`` needs nothing of kindsight.
    """
    import keras

    ops = keras.ops
    stages, layout = network_layout(backbone, network)
    statistics = []
    for stage in stages:
        values = output_of(network, stage.layer)
        mean, largest = ops.mean(values, axis=(1, 2)), ops.max(values, axis=(1, 2))
        statistics += [mean, largest, _deviation(values, (1, 2))]
        if PROFILES[0] in stage.statistics:
            for other in (2, 1):  # the axis over which rows, and columns, are averaged
                means = ops.mean(values, axis=other)  # (batch, lines, channels)
                statistics += [_deviation(means, 1), ops.max(means, axis=1), ops.min(means, axis=1)]
    statistics.append(keras.layers.GlobalAveragePooling2D(name=TOP)(network.output))
    features = keras.layers.Concatenate(name="features")(statistics)
    return keras.Model(network.input, features, name=f"{network.name}_features"), layout


def _deviation(values: Any, axis: Any) -> Any:
    """Return the standard deviation."""
    import keras

    # From squared deviations: the mean of squares minus the squared mean would lose precision for
    # nearly constant channels, and differently in Keras and in LiteRT.
    return keras.ops.sqrt(keras.ops.var(values, axis=axis) + _VARIANCE_FLOOR)
