"""Build a backbone in Keras, with its weights, and append its features. Needs TensorFlow.

The features of a stage are statistics of its maps. Weights come from PyTorch files or from HDF5
files, of which Keras has two formats: the older one (``.h5``) lists layers by name, in the model's
order; the newer one (``.weights.h5``) has a group per layer, named by the layer's class and a
number. Either may include the classifier, which is ignored. The file and every tensor are checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import KindsightError, SettingsError, WeightsError
from kindsight.models.backbones.applications import build_application
from kindsight.models.backbones.backbone import (
    PROFILES,
    TOP,
    Backbone,
    FeatureLayout,
    Stage,
    make_layout,
)
from kindsight.models.backbones.efficientnet_lite import build_efficientnet_lite
from kindsight.models.backbones.torch_networks import build_torch_network
from kindsight.models.backbones.torch_state import TORCH_SUFFIXES, read_state
from kindsight.models.backbones.weights import download_weights, load_state
from kindsight.models.formats.load_keras import (
    MAX_H5_BYTES,
    check_h5,
    flat_backbone,
    load_keras_file,
)
from kindsight.models.graph import cut_points, feature_stages, output_of

__all__ = ["build_feature_model", "build_network", "load_h5_weights"]

# Keeps the gradient of the square root finite for a channel that is constant over an image.
_VARIANCE_FLOOR = 1e-6
DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError)
Tensors = list[list[NDArray[Any]]]


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
    from_torch = weights.endswith(TORCH_SUFFIXES)
    if backbone.required_file is not None or (backbone.builder and from_torch):
        return _build_torch_network(backbone, size, weights)
    if backbone.builder:
        network = build_application(backbone, size)
    else:
        keras.utils.clear_session()
        state = None
        if weights != "none" and not weights.endswith(".h5"):
            state = load_state(backbone.name, None if weights == "imagenet" else weights)
        try:
            network = build_efficientnet_lite(
                backbone.name, size, state, classes=None, input_size=input_size
            )
        except WeightsError as error:
            raise WeightsError(f"{weights} is not for {backbone.name}. {error}") from None
        maps = network.get_layer("top_relu").output
        network = keras.Model(network.input, maps, name=network.name)
    if weights.endswith(".h5"):
        load_h5_weights(network, Path(weights))
    elif backbone.builder and weights == "imagenet":
        load_h5_weights(network, download_weights(backbone))
    return network


def _build_torch_network(backbone: Backbone, size: tuple[int, int], weights: str) -> Any:
    """Build a network with the weights of a PyTorch or safetensors file, or random ones."""
    state = None if weights == "none" else read_state(weights)
    try:
        return build_torch_network(backbone, size, state)
    except WeightsError as error:
        raise WeightsError(f"{weights} is not for {backbone.name}. {error}") from None


def _load_keras_backbone(backbone: Backbone, size: tuple[int, int]) -> Any:
    """Load a user's Keras file, up to its last feature maps."""
    assert backbone.file is not None
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in backbone.name)
    model = load_keras_file(backbone.file)
    try:
        return flat_backbone(model, size, name or "model")
    except SettingsError as error:
        inputs = len(getattr(model, "inputs", None) or ())
        cure = "Save a network that takes the image alone."
        if inputs == 1:
            cure = (
                "Save one of its outputs alone: "
                "keras.Model(model.input, model.outputs[0]).save('one.keras')."
            )
        raise WeightsError(f"{backbone.file} must have one input and one output. {cure}") from error
    except KindsightError:
        raise
    except Exception as error:  # whatever layers raise for an image of this size
        raise WeightsError(
            f"The layers of {backbone.file} cannot be built for images of {size[0]} x {size[1]} "
            "pixels. Use another `size`; `debug` shows the error of Keras."
        ) from error


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
        statistics.append(ops.mean(values, axis=(1, 2)))
        if stage.only:
            continue
        statistics += [ops.max(values, axis=(1, 2)), _deviation(values, (1, 2))]
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


def load_h5_weights(model: Any, path: Path) -> None:
    """Copy a weights file, with or without the classifier, into a model without its classifier.

    WeightsError for a file that is missing, damaged, hostile, or of another network.
    """
    import h5py

    owners = [layer for layer in model.layers if layer.weights]
    try:
        if path.stat().st_size > MAX_H5_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, more than {MAX_H5_BYTES}")
        with h5py.File(path, "r") as file:
            check_h5(file)
            group = file.get("model_weights", file)
            old = any(name in group.attrs for name in ("layer_names", "layer_names0"))
            found = _by_name(group) if old else _by_class(group, model.layers)
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged or is not a weights file of Keras: "
            f"{str(error) or type(error).__name__}."
        ) from None
    if len(found) < len(owners):
        raise WeightsError(
            f"{path} is not for {model.name}, which has {len(owners)} layers with weights: it has "
            f"{len(found)}."
        )
    for layer, arrays in zip(owners, found, strict=False):
        # The older format has the trainable weights of a layer first.
        order = layer.trainable_weights + layer.non_trainable_weights if old else layer.weights
        _set(layer, order, arrays, path, model.name)


def _by_name(group: Any) -> Tensors:
    """Read the older format: layers with weights, in the model's order."""
    found = []
    for name in _texts(group.attrs, "layer_names"):
        names = _texts(group[name].attrs, "weight_names")
        if names:
            found.append([np.asarray(group[name][weight]) for weight in names])
    return found


def _texts(attributes: Any, name: str) -> list[str]:
    """Read a list of names, which Keras splits if it is too long for one attribute."""
    if name in attributes:
        values = list(attributes[name])
    else:
        values, chunk = [], 0
        while f"{name}{chunk}" in attributes:
            values += list(attributes[f"{name}{chunk}"])
            chunk += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _by_class(file: Any, layers: list[Any]) -> Tensors:
    """Read the newer format: groups named by class and number, as Keras counts them."""
    # Private, but it is the function that named the groups when Keras wrote them.
    from keras.src.utils.naming import to_snake_case

    groups = file["layers"]
    counts: dict[str, int] = {}
    found = []
    for layer in layers:
        kind = to_snake_case(type(layer).__name__)
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        if layer.weights:
            found.append(_read_group(groups[f"{kind}_{number}" if number else kind], layer))
    return found


def _read_group(group: Any, layer: Any) -> list[NDArray[Any]]:
    """Read a layer's tensors, including those of nested layers."""
    inner = getattr(layer, "layers", None)
    if inner:
        return [array for arrays in _by_class(group, inner) for array in arrays]
    variables = group["vars"]
    return [np.asarray(variables[str(number)]) for number in range(len(variables))]


def _set(
    layer: Any, variables: list[Any], arrays: list[NDArray[Any]], path: Path, network: str
) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in arrays]
    if shapes != found or not all(np.isfinite(array).all() for array in arrays):
        values = ", not all finite" * (shapes == found)
        raise WeightsError(
            f"{path} is not for {network}, whose layer {layer.name!r} needs finite tensors of the "
            f"shapes {shapes}: it has {found}{values}."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
