"""Cutting a network at a layer, and saying which of its layers train.

Plain functions on Keras models, for the process that Keras lives in. Layers are named as the
network names them; a beginning that only one layer has is enough, and near misses are suggested.
"""

from __future__ import annotations

import difflib
import itertools
import re
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import as_functional, cut_points, output_of

__all__ = [
    "Part",
    "complete_layer",
    "cut_network",
    "freeze",
    "freeze_choice",
    "hold_normalisation",
    "summarise",
]

FREEZES = ("all", "none")
NORMALISATION = "BatchNormalization"


def complete_layer(model: Any, name: str) -> str:
    """Complete a layer's name.

    Parameters
    ----------
    model : keras.Model
    name : str
        A layer's name, or a beginning of it that no other layer has.

    Raises
    ------
    SettingsError
        For no such layer, with the nearest names; or for several.
    """
    names = [str(operation.name) for operation in as_functional(model).operations]
    if name in names:
        return name
    starts = [known for known in names if name and known.startswith(name)]
    if len(starts) == 1:
        return starts[0]
    if starts:
        shown = ", ".join(starts[:6]) + (", ..." if len(starts) > 6 else "")
        raise SettingsError(
            f"A layer must be named so that no other is meant. Received: {name!r}, with which "
            f"{len(starts)} layers begin: {shown}."
        )
    near = difflib.get_close_matches(name.lower(), names, 3, 0.6)
    hint = f" Did you mean {' or '.join(repr(known) for known in near)}?" if near else ""
    raise SettingsError(f"{model.name} must have the layer. Received: {name!r}.{hint}")


def cut_network(model: Any, name: str) -> Any:
    """Return a network up to a layer, that layer's output being the new network's.

    The layers are shared with `model`, weights and all.

    Parameters
    ----------
    model : keras.Model
        From pixels to maps, as :func:`.feature_model.build_network` builds it.
    name : str
        The layer, such as ``"mixed7"``; completed as by :func:`complete_layer`.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3) to float32 (batch, h, w, channels).

    Raises
    ------
    SettingsError
        For no such layer, one within a block of branches, or one that gives no maps.
    """
    import keras

    layer = complete_layer(model, name)
    points = {point.name: point.shape for point in cut_points(model)}
    if layer not in points or len(points[layer]) != 3:
        raise SettingsError(
            f"A network must be cut at a layer that everything passes through, and that gives maps "
            f"over space. Received: {layer!r}. Such are: {_some(model)}."
        )
    graph = as_functional(model)
    return keras.Model(graph.inputs[0], output_of(model, layer), name=f"{model.name}_to_{layer}")


def _some(model: Any) -> str:
    """Name the last layers at which each size of map ends."""
    ends: dict[tuple[int | None, ...], str] = {}
    for point in cut_points(model)[1:]:
        if len(point.shape) == 3:
            ends[point.shape[:2]] = point.name
    return ", ".join(ends.values())


def freeze(model: Any, what: str | int, *, train_normalisation: bool = False) -> None:
    """Say which layers of a network train.

    To be called before a head is put on it, whose layers are to train in any case.

    Parameters
    ----------
    model : keras.Model
        Its layers' ``trainable`` is set.
    what : str or int
        ``"all"``: none trains. ``"none"``: all train. A number: the first so many layers that
        have weights stay as they are. A layer's name: it and all before it stay.
    train_normalisation : bool
        Whether batch normalisation that is not frozen trains, too; see
        :func:`hold_normalisation`.

    Raises
    ------
    SettingsError
        For another word, a number of more layers than there are, or no such layer.
    """
    owners = [layer for layer in model.layers if layer.weights]
    choice = freeze_choice(what)
    if choice == "none":
        count = 0
    elif choice == "all":
        count = len(owners)
    elif isinstance(choice, int):
        if choice > len(owners):
            raise SettingsError(
                f"At most {len(owners)} layers of {model.name} have weights to freeze. "
                f"Received: {choice}."
            )
        count = choice
    else:
        frozen = _before(model, complete_layer(model, choice))
        count = sum(layer.name in frozen for layer in owners)
        # In the order of the graph, so that what is counted is what lies below.
        owners.sort(key=lambda layer: layer.name not in frozen)
    for number, layer in enumerate(owners):
        layer.trainable = number >= count
    if not train_normalisation:
        hold_normalisation(model)


def freeze_choice(what: str | int) -> str | int:
    """Read ``"all"``, ``"none"``, a number, or a layer's name from what a user wrote.

    Raises
    ------
    SettingsError
        For anything else.
    """
    if isinstance(what, int) and not isinstance(what, bool) and what >= 0:
        return what
    if isinstance(what, str) and what.strip():
        text = what.strip()
        return int(text) if re.fullmatch(r"\d{1,6}", text) else text
    raise SettingsError(
        f"freeze must be {', '.join(FREEZES)}, a number of layers, or a layer's name. "
        f"Received: {what!r}."
    )


def _before(model: Any, name: str) -> set[str]:
    """Return the names of a layer and of all that it depends on."""
    operations = {operation.name: operation for operation in as_functional(model).operations}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found or current not in operations:
            continue
        found.add(current)
        for node in operations[current]._inbound_nodes:
            waiting += [tensor._keras_history.operation.name for tensor in node.input_tensors]
    return found


def hold_normalisation(model: Any) -> None:
    """Keep batch normalisation as it was learned, whatever else trains.

    Its means and variances are of the pictures that the network was trained on; batches of a few
    pictures would replace them by worse ones. A layer that does not train runs in inference mode
    in Keras, also when the model is called for training.
    """
    for layer in model.layers:
        if type(layer).__name__ == NORMALISATION:
            layer.trainable = False
        elif getattr(layer, "layers", None):
            hold_normalisation(layer)


@dataclass(frozen=True)
class Part:
    """A run of layers that end at one place where everything passes through.

    Parameters
    ----------
    name : str
        The layer at its end.
    output : tuple of int or None
        Of what it gives for one picture.
    layers : int
        How many layers with weights it has.
    parameters, trainable : int
        Numbers in them, and how many of those train.
    """

    name: str
    output: tuple[int | None, ...]
    layers: int
    parameters: int
    trainable: int


def summarise(model: Any, ends: tuple[str, ...] | None = None) -> list[Part]:
    """Describe a network part by part: sizes, parameters, and which train.

    Parameters
    ----------
    model : keras.Model
    ends : tuple of str, optional
        The layers at which parts end, such as the table's cuts; those that the model does not
        have are passed over. Where the size of the maps changes, if omitted.

    Returns
    -------
    list of Part
        From the picture to the output; together all of the model's layers.
    """
    points = cut_points(model)
    names = [point.name for point in points]
    wanted = set(ends) if ends is not None else set(_size_ends(points))
    wanted.add(names[-1])
    shapes = {point.name: point.shape for point in points}
    done: set[str] = set()
    found = []
    for name in names:
        if name not in wanted:
            continue
        here = _before(model, name) - done
        done |= here
        owners = [layer for layer in model.layers if layer.name in here and layer.weights]
        found.append(
            Part(
                name,
                shapes[name],
                len(owners),
                sum(layer.count_params() for layer in owners),
                sum(_count(layer.trainable_weights) for layer in owners),
            )
        )
    return found


def _size_ends(points: list[Any]) -> list[str]:
    return [
        point.name
        for point, following in itertools.pairwise(points)
        if point.shape[:-1] != following.shape[:-1]
    ]


def _count(variables: list[Any]) -> int:
    total = 0
    for variable in variables:
        size = 1
        for side in variable.shape:
            size *= int(side)
        total += size
    return total
