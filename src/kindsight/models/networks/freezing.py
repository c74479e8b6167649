"""Saying which layers of a network train, and showing it.

What a user may write is read by :func:`parse_freeze` ("all", "none", a number, a layer's name)
and done by :func:`freeze`; :func:`summarise` says part by part what trains. Batch normalisation
stays in inference mode, also in layers that train (:func:`freeze_batch_norm`), unless told
otherwise. Plain functions on Keras models, for the process that Keras lives in.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import CutPoint, as_functional, call_inputs, cut_points, producer
from kindsight.models.networks.cut import complete_layer

__all__ = [
    "FREEZES",
    "Part",
    "freeze",
    "freeze_batch_norm",
    "frozen_border",
    "layers_up_to",
    "parse_freeze",
    "summarise",
]

FREEZES = ("all", "none")
NORMALISATION = "BatchNormalization"


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
        :func:`freeze_batch_norm`.

    Raises
    ------
    SettingsError
        For another word, a number of more layers than there are, or no such layer.
    """
    owners = [layer for layer in model.layers if layer.weights]
    choice = parse_freeze(what)
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
        frozen = layers_up_to(model, complete_layer(model, choice))
        count = sum(layer.name in frozen for layer in owners)
        # In the order of the graph, so that what is counted is what lies below.
        owners.sort(key=lambda layer: layer.name not in frozen)
    for number, layer in enumerate(owners):
        layer.trainable = number >= count
    if not train_normalisation:
        freeze_batch_norm(model)


def parse_freeze(what: str | int) -> str | int:
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


def layers_up_to(model: Any, name: str) -> set[str]:
    """Return the names of a layer and of all that it depends on."""
    operations = {operation.name: operation for operation in as_functional(model).operations}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found or current not in operations:
            continue
        found.add(current)
        for tensors in call_inputs(operations[current]):
            waiting += [producer(tensor).name for tensor in tensors]
    return found


def freeze_batch_norm(model: Any) -> None:
    """Keep batch normalisation as it was learned, whatever else trains.

    Its means and variances are of the images that the network was trained on; batches of a few
    images would replace them by worse ones. A layer that does not train runs in inference mode
    in Keras, also when the model is called for training.
    """
    for layer in model.layers:
        if type(layer).__name__ == NORMALISATION:
            layer.trainable = False
        elif getattr(layer, "layers", None):
            freeze_batch_norm(layer)


def frozen_border(model: Any, learning: Collection[str]) -> CutPoint | None:
    """Find the last layer that gives maps, and below which nothing learns.

    What it gives for an image is the same in every epoch.

    Parameters
    ----------
    model : keras.Model
        From pixels to maps.
    learning : collection of str
        The names of the layers that learn.

    Returns
    -------
    CutPoint or None
        None where no layer with weights lies below.
    """
    found = None
    owners = {layer.name for layer in model.layers if layer.weights}
    for point in cut_points(model):
        below = layers_up_to(model, point.name)
        if not below.isdisjoint(learning):
            break
        if len(point.shape) == 3 and not below.isdisjoint(owners):
            found = point
    return found


@dataclass(frozen=True)
class Part:
    """A run of layers that end at one place where everything passes through.

    Parameters
    ----------
    name : str
        The layer at its end.
    output : tuple of int or None
        Of what it gives for one image.
    layers : int
        How many layers with weights it has.
    parameters, trainable : int
        Numbers in them, and how many of those train.
    names : tuple of str
        Of these layers.
    """

    name: str
    output: tuple[int | None, ...]
    layers: int
    parameters: int
    trainable: int
    names: tuple[str, ...] = ()


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
        From the image to the output; together all of the model's layers.
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
        here = layers_up_to(model, name) - done
        done |= here
        owners = [layer for layer in model.layers if layer.name in here and layer.weights]
        found.append(
            Part(
                name,
                shapes[name],
                len(owners),
                sum(layer.count_params() for layer in owners),
                sum(_count(layer.trainable_weights) for layer in owners),
                tuple(layer.name for layer in owners),
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
