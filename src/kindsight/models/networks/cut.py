"""Cutting a network at a layer that the user names.

:func:`cut_network` gives the network up to a layer, such as InceptionV3's ``"mixed7"``;
:func:`complete_layer` is how layers are named everywhere: as the network names them, where a
beginning that only one layer has is enough, and near misses are suggested. Which layers train is
said in :mod:`.freezing`, and the head put on top by :mod:`.top`. Plain functions on Keras models,
for the process that Keras lives in.
"""

from __future__ import annotations

import difflib
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import as_functional, cut_points, output_of

__all__ = ["complete_layer", "cut_network"]


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
