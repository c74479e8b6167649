"""The graph of a Keras model: where everything passes through one layer.

At such a layer a network can be cut in two, and what it gives is all that the rest knows of the
image (an articulation point of the graph).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError, WeightsError

__all__ = ["CutPoint", "as_functional", "cut_points", "feature_stages", "last_maps", "output_of"]

STAGES = 4
# Two layers are of different stages where the larger one's map has this many times the area.
HALVED = 2.5
# From an eighth of the image's height and width on, maps say more than edges do.
SMALLEST_STEP = 6.0


@dataclass(frozen=True)
class CutPoint:
    """A layer through which everything passes.

    Parameters
    ----------
    name : str
        The layer's name.
    shape : tuple of int or None
        Of what it gives, without the batch: (height, width, channels), or (numbers,).
    """

    name: str
    shape: tuple[int | None, ...]


def cut_points(model: Any) -> list[CutPoint]:
    """List the layers through which everything passes, from the image to the output.

    Parameters
    ----------
    model : keras.Model
        Functional or sequential, of one input and one output.

    Raises
    ------
    SettingsError
        For a model of several inputs or outputs, or one that is not a graph of layers.
    """
    graph = as_functional(model)
    order = list(graph.operations)
    places = {id(operation): place for place, operation in enumerate(order)}
    last_use = [0] * len(order)
    for place, operation in enumerate(order):
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                source = places.get(id(tensor._keras_history.operation))
                # A layer may be used by other models, too: those nodes lead out of this one.
                if source is not None:
                    last_use[source] = max(last_use[source], place)
    found, reach = [], 0
    for place, operation in enumerate(order):
        output: Any = getattr(operation, "output", None)
        if reach <= place and hasattr(output, "shape"):
            found.append(CutPoint(operation.name, tuple(output.shape[1:])))
        reach = max(reach, last_use[place])
    return found


def as_functional(model: Any) -> Any:
    """Return the graph of a model; of a sequential one, the same layers as a graph.

    Raises
    ------
    SettingsError
        As :func:`cut_points`.
    """
    inner = getattr(model, "_functional", None) or model
    ends = (getattr(inner, "inputs", None) or (), getattr(inner, "outputs", None) or ())
    if not hasattr(inner, "operations") or any(len(end) != 1 for end in ends):
        raise SettingsError(
            "A network must be a graph of layers with one input and one output. "
            f"Received: {type(model).__name__} {getattr(model, 'name', '')!r}."
        )
    return inner


def output_of(model: Any, name: str) -> Any:
    """Return what a layer, or an operation between layers, gives: a Keras tensor.

    Raises
    ------
    SettingsError
        For a name that the model does not have.
    """
    for operation in as_functional(model).operations:
        if operation.name == name:
            return operation.output
    raise SettingsError(f"The model {model.name!r} must have a layer {name!r}; it has none.")


def last_maps(model: Any) -> CutPoint:
    """Find the last layer that gives maps over space: before a global pooling, or a flattening.

    Raises
    ------
    WeightsError
        Where there is none.
    """
    kinds = _kinds(model)
    found = None
    for point in cut_points(model):
        if len(point.shape) != 3 or kinds[point.name].startswith("Global"):
            break
        found = point
    if found is None or kinds[found.name] == "InputLayer":
        raise WeightsError(
            f"The model {model.name!r} must have a layer that gives maps over space (batch, "
            "height, width, channels). Received: none."
        )
    return found


def _kinds(model: Any) -> dict[str, str]:
    """Return the class of each layer by its name."""
    return {layer.name: type(layer).__name__ for layer in as_functional(model).operations}


def feature_stages(model: Any, size: tuple[int, int]) -> list[CutPoint]:
    """Choose by rule the layers whose statistics are features: ends of a network's stages.

    A stage ends where the next cut point's map is less than half as large; padding does not end
    one. At most four, the latest, from an eighth of the image's height and width on.

    Parameters
    ----------
    model : keras.Model
    size : tuple of int
        (height, width) of the images in pixels.
    """
    kinds = _kinds(model)
    passed_over = ("InputLayer", "ZeroPadding2D")
    points = [
        point
        for point in cut_points(model)
        if len(point.shape) == 3 and kinds[point.name] not in passed_over
    ]
    ends = [
        point
        for point, following in zip(points, [*points[1:], None], strict=True)
        if following is None or _area(point.shape) >= HALVED * _area(following.shape)
    ]
    late = [
        point
        for point in ends
        if size[0] * size[1] >= SMALLEST_STEP**2 * _area(point.shape) and _area(point.shape) > 1
    ]
    return (late or ends)[-STAGES:]


def _area(shape: tuple[int | None, ...]) -> int:
    return (shape[0] or 1) * (shape[1] or 1)
