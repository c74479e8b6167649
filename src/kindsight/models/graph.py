"""The graph of a Keras model: its connections, cut layers, stages and last feature maps.

At a cut layer no skip connection bypasses the layer, so that the network can be cut in two there
(an articulation point of the graph).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError, WeightsError

__all__ = [
    "CutPoint",
    "as_functional",
    "call_inputs",
    "cut_points",
    "feature_stages",
    "last_maps",
    "output_of",
    "producer",
]

MAX_STAGES = 4
# A stage ends where the next map has an area smaller by this factor or more.
AREA_FACTOR = 2.5
# Maps of an eighth of the image's size or less respond to more than edges. 6, not 8: padding.
MIN_STRIDE = 6.0


def call_inputs(operation: Any) -> list[list[Any]]:
    """Return the input tensors of each call of a layer or operation.

    Keras has no public access to a graph's connections: its private names are used in this module
    only.
    """
    return [list(node.input_tensors) for node in operation._inbound_nodes]


def producer(tensor: Any) -> Any:
    """Return the layer or operation whose output a Keras tensor is."""
    return tensor._keras_history.operation


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
