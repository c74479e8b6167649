"""The graph of a Keras model: its connections, cut layers, stages and last feature maps.

At a cut layer no skip connection bypasses the layer, so that the network can be cut in two there
(an articulation point of the graph). Batch normalisation, a factor and a shift per channel, can be
folded into the preceding convolution: the network gives the same output in half the time.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError, WeightsError

__all__ = [
    "CutPoint", "as_functional", "call_inputs", "complete_layer", "cut_network", "cut_points",
    "feature_stages", "fold_batch_norm", "last_maps", "layer_path", "name_of_path", "output_of",
    "producer", "run_graph",
]  # fmt: skip

# Prefix of the names of all layers of a user's own network. It keeps them apart from the
# layers that are added to a network, whose names Keras numbers or kindsight chooses.
_ROOT = "own"
# A part of a path ends with a dot; a character that TensorFlow allows in no name is written as its
# number between double dots.
_NAME_CODE = re.compile(r"\.\.([0-9a-f]{1,5}|10[0-9a-f]{4})\.\.|\.")

MAX_STAGES = 4
# A stage ends where the next map has an area smaller by this factor or more.
AREA_FACTOR = 2.5
# Maps of an eighth of the image's size or less respond to more than edges. 6, not 8: padding.
MIN_STRIDE = 6.0
_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")


def call_inputs(operation: Any) -> list[list[Any]]:
    """Return the input tensors of each call of a layer or operation.

    Keras has no public access to a graph's connections: its private names are used in this module
    only.
    """
    return [list(node.input_tensors) for node in operation._inbound_nodes]


def producer(tensor: Any) -> Any:
    """Return the layer or operation whose output a Keras tensor is."""
    return tensor._keras_history.operation


def run_graph(model: Any, inputs: Any, call: Callable[..., Any]) -> Any:
    """Return the outputs of a functional model for other inputs, by a function of its operations.

    ``call(operation, *args, **kwargs)`` returns the outputs of each call of a layer or operation.
    """
    return model._run_through_graph(inputs, operation_fn=lambda found: found, call_fn=call)


def name_of_path(path: Sequence[str]) -> str:
    """Return a name that Keras and TensorFlow accept for a layer of a user's nested networks.

    `path` are the names of the network, or networks, that contain the layer, and its own.
    """
    parts = (re.sub(r"[^A-Za-z0-9_-]", lambda c: f"..{ord(c[0]):x}..", part) for part in path)
    return ".".join((_ROOT, *parts))


def layer_path(name: str) -> str:
    """Return the path ``outer/inner`` of a name of :func:`name_of_path`; other names unchanged."""
    if not name.startswith(f"{_ROOT}."):
        return name
    return _NAME_CODE.sub(
        lambda code: chr(int(code[1], 16)) if code[1] else "/", name.removeprefix(f"{_ROOT}.")
    )


@dataclass(frozen=True)
class CutPoint:
    """A layer at which a network can be cut.

    `shape` is of its output without the batch: (height, width, channels), or (values,).
    """

    name: str
    shape: tuple[int | None, ...]


def cut_points(model: Any) -> list[CutPoint]:
    """Return the layers that no connection bypasses, from input to output.

    SettingsError for a model with several inputs or outputs, or one that is not a graph of layers.
    """
    order = list(as_functional(model).operations)
    index = {id(operation): i for i, operation in enumerate(order)}
    last_use = [0] * len(order)
    for i, operation in enumerate(order):
        for tensors in call_inputs(operation):
            for tensor in tensors:
                # A layer may be used by other models, too: those calls are not of this graph.
                source = index.get(id(producer(tensor)))
                if source is not None:
                    last_use[source] = max(last_use[source], i)
    found, reach = [], 0
    for i, operation in enumerate(order):
        output: Any = getattr(operation, "output", None)
        if reach <= i and hasattr(output, "shape"):
            found.append(CutPoint(operation.name, tuple(output.shape[1:])))
        reach = max(reach, last_use[i])
    return found


def as_functional(model: Any) -> Any:
    """Return a model as a functional one; SettingsError as :func:`cut_points`."""
    inner = getattr(model, "_functional", None) or model  # private: of a Sequential
    ends = (getattr(inner, "inputs", None) or (), getattr(inner, "outputs", None) or ())
    if not hasattr(inner, "operations") or any(len(end) != 1 for end in ends):
        raise SettingsError(
            "A network must be a graph of layers with one input and one output; got "
            f"{type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    return inner


def output_of(model: Any, name: str) -> Any:
    """Return the output, a Keras tensor, of a layer or operation; SettingsError if unknown."""
    for operation in as_functional(model).operations:
        if operation.name == name:
            return operation.output
    raise SettingsError(f"The model {model.name!r} has no layer {name!r}.")


def last_maps(model: Any) -> CutPoint:
    """Return the last layer with feature maps, before a global pooling or a flattening.

    WeightsError if there is none.
    """
    kinds = _kinds(model)
    found = None
    for point in cut_points(model):
        if len(point.shape) != 3 or kinds[point.name].startswith("Global"):
            break
        found = point
    if found is None or kinds[found.name] == "InputLayer":
        raise WeightsError(
            f"The model {model.name!r} has no layer with feature maps (batch, height, width, "
            "channels)."
        )
    return found


def _kinds(model: Any) -> dict[str, str]:
    """Return the class of each layer by its name."""
    return {layer.name: type(layer).__name__ for layer in as_functional(model).operations}


def feature_stages(model: Any, size: tuple[int, int]) -> list[CutPoint]:
    """Return the layers whose statistics are features for images of a (height, width) in pixels.

    They are the ends of stages: cut points after which the maps have less than half the area;
    padding does not end a stage. At most the last four, whose maps have an eighth of the image's
    height and width or less.
    """
    kinds = _kinds(model)
    points = [
        point
        for point in cut_points(model)
        if len(point.shape) == 3 and kinds[point.name] not in ("InputLayer", "ZeroPadding2D")
    ]
    ends = [
        point
        for point, following in zip(points, [*points[1:], None], strict=True)
        if following is None or _area(point.shape) >= AREA_FACTOR * _area(following.shape)
    ]
    late = [
        point
        for point in ends
        if size[0] * size[1] >= MIN_STRIDE**2 * _area(point.shape) and _area(point.shape) > 1
    ]
    return (late or ends)[-MAX_STAGES:]


def _area(shape: tuple[int | None, ...]) -> int:
    return (shape[0] or 1) * (shape[1] or 1)


def complete_layer(model: Any, name: str) -> str:
    """Return the full name of a layer, given its path or an unambiguous beginning of it.

    SettingsError if no layer matches, with the nearest names; or if several do.
    """
    names = {layer_path(op.name): str(op.name) for op in as_functional(model).operations}
    if name in names or name in names.values():
        return names.get(name, name)
    starts = [known for known in names if name and known.startswith(name)]
    if len(starts) == 1:
        return names[starts[0]]
    if starts:
        shown = ", ".join(starts[:6]) + (", ..." if len(starts) > 6 else "")
        raise SettingsError(
            f"Layer name {name!r} is ambiguous: it matches {len(starts)} layers, {shown}."
        )
    # In a nested network the path begins with the network's name.
    near = [known for known in names if known.endswith(f"/{name}")][:3]
    near = near or difflib.get_close_matches(name.lower(), names, 3, 0.6)
    hint = f" Did you mean {' or '.join(repr(known) for known in near)}?" if near else ""
    hint = hint or f" Its last layers are {', '.join([*names][-4:])}."
    raise SettingsError(f"{model.name} has no layer {name!r}.{hint}")


def cut_network(model: Any, name: str) -> Any:
    """Return a network up to a layer, such as ``"mixed7"``; it shares its layers with `model`.

    The output is float32 (batch, h, w, channels). SettingsError for an unknown layer, one that
    other layers bypass, or one without feature maps.
    """
    import keras

    layer = complete_layer(model, name)
    points = {point.name: point.shape for point in cut_points(model)}
    if layer not in points or len(points[layer]) != 3:
        raise SettingsError(
            f"Cannot cut {model.name} at {layer_path(layer)!r}: other layers bypass it, or its "
            f"output is not a feature map. Use one of: {_examples(model)}."
        )
    graph = as_functional(model)
    return keras.Model(graph.inputs[0], output_of(model, layer), name=f"{model.name}_to_{layer}")


def _examples(model: Any) -> str:
    """Return the last possible cut for each size of feature maps."""
    ends: dict[tuple[int | None, ...], str] = {}
    for point in cut_points(model)[1:]:
        if len(point.shape) == 3:
            ends[point.shape[:2]] = point.name
    return ", ".join(map(layer_path, ends.values()))


def fold_batch_norm(model: Any) -> Any:
    """Copy a functional Keras model with its batch normalisation folded into convolutions.

    The layers keep their names; a folded normalisation becomes an identity layer. Normalisation
    that cannot be folded is not trainable.
    """
    import keras

    pairs = _foldable_pairs(model)
    convolutions = {convolution.name for convolution, _ in pairs}
    norms = {norm.name for _, norm in pairs}

    def copy(layer: Any) -> Any:
        if layer.name in norms:
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in convolutions:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **named: Any) -> Any:
        # Batch normalisation takes a mask, an identity layer does not.
        return layer(*args, **{name: value for name, value in named.items() if name != "mask"})

    copied = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in model.layers:
        if layer.name not in convolutions | norms and layer.weights:
            copied.get_layer(layer.name).set_weights(layer.get_weights())
    for convolution, norm in pairs:
        copied.get_layer(convolution.name).set_weights(_folded_weights(convolution, norm))
    for layer in copied.layers:
        layer.trainable = type(layer).__name__ != "BatchNormalization"
    return copied


def _foldable_pairs(model: Any) -> list[tuple[Any, Any]]:
    """Return each convolution whose only consumer is a batch normalisation, with that."""
    consumers: dict[str, dict[str, Any]] = {}
    for operation in model.operations:
        for tensors in call_inputs(operation):
            for tensor in tensors:
                consumers.setdefault(producer(tensor).name, {})[operation.name] = operation
    found = []
    for layer in model.layers:
        following = list(consumers.get(layer.name, {}).values())
        if (
            type(layer).__name__ in _CONVOLUTIONS
            and layer.activation.__name__ == "linear"
            and len(following) == 1
            and type(following[0]).__name__ == "BatchNormalization"
        ):
            found.append((layer, following[0]))
    return found


def _folded_weights(convolution: Any, norm: Any) -> list[NDArray[np.float32]]:
    """Return kernel and bias of a convolution with its normalisation."""
    kernel = convolution.kernel.numpy().astype(np.float64)
    mean, variance = (
        value.numpy().astype(np.float64) for value in (norm.moving_mean, norm.moving_variance)
    )
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * norm.gamma.numpy() if norm.scale else factor
    shift = norm.beta.numpy().astype(np.float64) if norm.center else np.zeros_like(mean)
    bias = convolution.bias.numpy() if convolution.use_bias else 0.0
    depthwise = type(convolution).__name__ == "DepthwiseConv2D"
    scaled = kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor)
    return [scaled.astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)]
