"""Weights from an HDF5 file into a Keras model: looked over first, then tensor by tensor.

Keras has two forms of such files. The older one (``.h5``) lists layers by name, in the order in
which a model has them; the newer one (``.weights.h5``) has a group a layer, named by the layer's
class and number. Either may have been written with the classifier on top, which is left aside.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["check_h5", "load_h5_weights"]

MAX_FILE_BYTES = 4 * 10**9
MAX_ITEMS = 100_000
DAMAGE = (OSError, KeyError, RuntimeError, TypeError, ValueError, AttributeError, MemoryError)

Tensors = list[list[NDArray[Any]]]


def load_h5_weights(model: Any, path: Path) -> None:
    """Copy a weights file into a model, checking every tensor.

    Parameters
    ----------
    model : keras.Model
        Without its top.
    path : pathlib.Path
        Ending in ``.h5`` or ``.weights.h5``; written with or without the top.

    Raises
    ------
    WeightsError
        For a file that is absent, damaged, hostile, or of another network.
    """
    import h5py

    owners = [layer for layer in model.layers if layer.weights]
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"{path.stat().st_size} bytes, more than {MAX_FILE_BYTES}")
        with h5py.File(path, "r") as file:
            check_h5(file)
            group = file.get("model_weights", file)
            old = any(name in group.attrs for name in ("layer_names", "layer_names0"))
            found = _by_name(group) if old else _by_class(group, model.layers)
    except DAMAGE as error:
        raise WeightsError(
            f"{path}: A weights file must be a whole HDF5 file that Keras wrote. "
            f"Received: {str(error) or type(error).__name__}."
        ) from None
    if len(found) < len(owners):
        raise WeightsError(
            f"{path}: The weights must be those of {model.name}, of {len(owners)} layers with "
            f"weights. Received: {len(found)} layers."
        )
    for layer, arrays in zip(owners, found, strict=False):
        # The older form has a layer's trained tensors first, whatever it is made of.
        order = layer.trainable_weights + layer.non_trainable_weights if old else layer.weights
        _set(layer, order, arrays, path, model.name)


def check_h5(file: Any) -> None:
    """Refuse an HDF5 file that leads out of itself, or holds anything but numbers.

    Parameters
    ----------
    file : h5py.File

    Raises
    ------
    ValueError
        Saying what was found.
    """
    import h5py

    waiting, seen = [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > MAX_ITEMS:
                raise ValueError(f"more than {MAX_ITEMS} parts")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"a link that leads elsewhere: {name!r}")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)  # hard links may form a ring, which ends by the count
            elif item.is_virtual or item.external:
                raise ValueError(f"numbers that lie in another file: {name!r}")
            elif item.dtype.kind not in "fiu" and item.shape != ():
                raise ValueError(f"a tensor that is not of numbers: {name!r}")
            elif item.nbytes > MAX_FILE_BYTES:
                raise ValueError(f"a tensor of {item.nbytes} bytes: {name!r}")


def _by_name(group: Any) -> Tensors:
    """Read the older form: layers with weights, in the model's order."""
    found = []
    for name in _texts(group.attrs, "layer_names"):
        names = _texts(group[name].attrs, "weight_names")
        if names:
            found.append([np.asarray(group[name][weight]) for weight in names])
    return found


def _texts(attributes: Any, name: str) -> list[str]:
    """Read a list of names, which Keras takes apart where it is too long for one attribute."""
    if name in attributes:
        values = list(attributes[name])
    else:
        values, part = [], 0
        while f"{name}{part}" in attributes:
            values += list(attributes[f"{name}{part}"])
            part += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _by_class(file: Any, layers: list[Any]) -> Tensors:
    """Read the newer form, in which layers are named by class and number, as Keras counts them."""
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
    """Read a layer's tensors, or those of the layers within it."""
    inner = getattr(layer, "layers", None)
    if inner:
        return [array for part in _by_class(group, inner) for array in part]
    variables = group["vars"]
    return [np.asarray(variables[str(number)]) for number in range(len(variables))]


def _set(
    layer: Any, variables: list[Any], arrays: list[NDArray[Any]], path: Path, network: str
) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    given = [array.shape for array in arrays]
    if shapes != given or not all(np.isfinite(array).all() for array in arrays):
        values = " with values that are not finite" * (shapes == given)
        raise WeightsError(
            f"{path}: The weights must be those of {network}: layer {layer.name!r} has tensors of "
            f"shape {shapes}. Received: {given}{values}."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
