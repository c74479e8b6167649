"""Cut a Keras model at a layer."""

from __future__ import annotations

import difflib
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import as_functional, cut_points, output_of

__all__ = ["complete_layer", "cut_network"]


def complete_layer(model: Any, name: str) -> str:
    """Return the full name of a layer, given its name or an unambiguous beginning of it.

    SettingsError if no layer matches, with the nearest names; or if several do.
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
            f"Layer name {name!r} is ambiguous: it matches {len(starts)} layers, {shown}."
        )
    near = difflib.get_close_matches(name.lower(), names, 3, 0.6)
    hint = f" Did you mean {' or '.join(repr(known) for known in near)}?" if near else ""
    hint = hint or f" Its last layers are {', '.join(names[-4:])}."
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
            f"Cannot cut {model.name} at {layer!r}: other layers bypass it, or its output is not a "
            f"feature map. Use one of: {_examples(model)}."
        )
    graph = as_functional(model)
    return keras.Model(graph.inputs[0], output_of(model, layer), name=f"{model.name}_to_{layer}")


def _examples(model: Any) -> str:
    """Return the last possible cut for each size of feature maps."""
    ends: dict[tuple[int | None, ...], str] = {}
    for point in cut_points(model)[1:]:
        if len(point.shape) == 3:
            ends[point.shape[:2]] = point.name
    return ", ".join(ends.values())
