"""What is learned, as arrays by name: taken back into variables whole, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["UPDATES", "Arrays", "assign_arrays", "layer_depths", "part_updates"]

Arrays = dict[str, NDArray[np.float32]]

UPDATES = "updates"
"""The name under which the number of updates is among the arrays of a state."""


def assign_arrays(
    named: Mapping[str, Sequence[Any]], arrays: Mapping[str, NDArray[np.float32]]
) -> None:
    """Give variables their values.

    Parameters
    ----------
    named : mapping of str to sequence of tf.Variable
        By name what an array is parted into along its first axis, often one variable.
    arrays : mapping
        float32, of the same names; as hostile as any file.

    Raises
    ------
    ValueError
        For arrays of other names or shapes; nothing is assigned then.
    """
    if named.keys() != arrays.keys():
        raise ValueError(f"other names: {sorted(named.keys() ^ arrays.keys())[:5]}")
    for name, variables in named.items():
        array, shape = arrays[name], tuple(variables[0].shape)
        if len(variables) > 1:
            shape = (sum(variable.shape[0] for variable in variables), *shape[1:])
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}")
    for name, variables in named.items():
        if len(variables) == 1:
            variables[0].assign(arrays[name])
            continue
        ends = np.cumsum([variable.shape[0] for variable in variables])[:-1]
        for variable, part in zip(variables, np.split(arrays[name], ends), strict=True):
            variable.assign(part)


def part_updates(arrays: Mapping[str, NDArray[np.float32]]) -> tuple[Arrays, int]:
    """Part a state into its other arrays and the number of updates; ValueError without one."""
    rest = dict(arrays)
    updates = rest.pop(UPDATES, np.zeros(0))
    if updates.shape != (1,):
        raise ValueError("updates is no number")
    return rest, int(updates[0])


def layer_depths(names: Sequence[str]) -> list[int]:
    """Return how far each variable's layer is from the output, counted in layers that learn.

    Parameters
    ----------
    names : sequence of str
        ``layer/kernel`` and the like, in the order of the layers.
    """
    layers = [name.rpartition("/")[0] for name in names]
    places = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
    return [len(places) - 1 - places[layer] for layer in layers]
