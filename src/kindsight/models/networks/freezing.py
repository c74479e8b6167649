"""Freeze layers of a Keras model, and summarise which are trainable."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import (
    CutPoint,
    as_functional,
    call_inputs,
    complete_layer,
    cut_points,
    producer,
)

__all__ = [
    "FREEZES",
    "count_frozen",
    "freeze",
    "freeze_batch_norm",
    "last_frozen_layer",
    "layers_up_to",
    "parse_freeze",
    "summarise",
]

FREEZES = ("all", "none")


def freeze(model: Any, frozen: str | int, *, train_batch_norm: bool = False) -> None:
    """Set ``trainable`` of the layers of a backbone without head.

    `frozen` is ``"all"``, ``"none"``, the first N layers with weights, or a layer's name: it and
    all layers before it. With `train_batch_norm`, batch normalisation of trainable layers is
    trained; see :func:`freeze_batch_norm`. SettingsError for more layers than the model has, or an
    unknown layer.
    """
    owners, count = count_frozen(model, frozen)
    for number, layer in enumerate(owners):
        layer.trainable = number >= count
    if not train_batch_norm:
        freeze_batch_norm(model)


def count_frozen(model: Any, frozen: str | int) -> tuple[list[Any], int]:
    """Return the layers with weights, frozen ones first, and how many :func:`freeze` freezes."""
    owners = [layer for layer in model.layers if layer.weights]
    choice = parse_freeze(frozen)
    if choice == "none":
        return owners, 0
    if choice == "all":
        return owners, len(owners)
    if isinstance(choice, int):
        if choice > len(owners):
            raise SettingsError(
                f"`freeze` must be at most {len(owners)}, the layers of {model.name} with weights; "
                f"got {choice}."
            )
        return owners, choice
    below = layers_up_to(model, complete_layer(model, choice))
    owners.sort(key=lambda layer: layer.name not in below)
    return owners, sum(layer.name in below for layer in owners)


def parse_freeze(frozen: str | int) -> str | int:
    """Return ``"all"``, ``"none"``, a number or a layer's name; SettingsError for other values."""
    if isinstance(frozen, int) and not isinstance(frozen, bool) and frozen >= 0:
        return frozen
    if isinstance(frozen, str) and frozen.strip():
        text = frozen.strip()
        return int(text) if re.fullmatch(r"\d{1,6}", text) else text
    raise SettingsError(
        f"`freeze` must be {', '.join(FREEZES)}, a number of layers, or a layer's name; "
        f"got {frozen!r}."
    )


def layers_up_to(model: Any, name: str) -> set[str]:
    """Return the names of a layer and of all layers that it depends on."""
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
    """Freeze batch normalisation in all layers, which keeps it in inference mode in Keras.

    Statistics of small batches would replace better ones of the pretraining images.
    """
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
        elif getattr(layer, "layers", None):
            freeze_batch_norm(layer)


def last_frozen_layer(model: Any, trainable: Collection[str]) -> CutPoint | None:
    """Return the last cut point with feature maps below which no layer is trainable.

    Its output for an image is the same in every epoch. None if no layer with weights is below.
    """
    found = None
    owners = {layer.name for layer in model.layers if layer.weights}
    for point in cut_points(model):
        below = layers_up_to(model, point.name)
        if not below.isdisjoint(trainable):
            break
        if len(point.shape) == 3 and not below.isdisjoint(owners):
            found = point
    return found


@dataclass(frozen=True)
class LayerBlock:
    """Consecutive layers that end at a cut point.

    `name` is the last layer's, `output` the shape of its output for one image; `layers` and `names`
    are of layers with weights; `parameters` and `trainable` are numbers of parameters.
    """

    name: str
    output: tuple[int | None, ...]
    layers: int
    parameters: int
    trainable: int
    names: tuple[str, ...] = ()


def summarise(model: Any, ends: tuple[str, ...] | None = None) -> list[LayerBlock]:
    """Return the blocks of a network from input to output, with sizes and parameters.

    `ends` are last layers of blocks, unknown ones ignored; default: where the size of the maps
    changes.
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
        parameters = sum(layer.count_params() for layer in owners)
        trainable = sum(_count(layer.trainable_weights) for layer in owners)
        own = tuple(layer.name for layer in owners)
        found.append(LayerBlock(name, shapes[name], len(owners), parameters, trainable, own))
    return found


def _size_ends(points: list[Any]) -> list[str]:
    return [
        point.name
        for point, following in itertools.pairwise(points)
        if point.shape[:-1] != following.shape[:-1]
    ]


def _count(variables: list[Any]) -> int:
    return sum(math.prod(int(side) for side in variable.shape) for variable in variables)
