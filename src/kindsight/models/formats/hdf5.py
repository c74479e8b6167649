"""Load the weights of an HDF5 file into a Keras model, checking the file and every tensor.

Keras has two formats. The older one (``.h5``) lists layers by name, in the model's order; the newer
one (``.weights.h5``) has a group per layer, named by the layer's class and a number. Either may
include the classifier, which is ignored.
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
    """Copy a weights file, with or without the classifier, into a model without its classifier.

    WeightsError for a file that is missing, damaged, hostile, or of another network.
    """
    import h5py

    owners = [layer for layer in model.layers if layer.weights]
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ValueError(f"it has {path.stat().st_size} bytes, more than {MAX_FILE_BYTES}")
        with h5py.File(path, "r") as file:
            check_h5(file)
            group = file.get("model_weights", file)
            old = any(name in group.attrs for name in ("layer_names", "layer_names0"))
            found = _by_name(group) if old else _by_class(group, model.layers)
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged or is not a weights file of Keras: "
            f"{str(error) or type(error).__name__}."
        ) from None
    if len(found) < len(owners):
        raise WeightsError(
            f"{path} is not for {model.name}, which has {len(owners)} layers with weights: it has "
            f"{len(found)}."
        )
    for layer, arrays in zip(owners, found, strict=False):
        # The older format has the trainable weights of a layer first.
        order = layer.trainable_weights + layer.non_trainable_weights if old else layer.weights
        _set(layer, order, arrays, path, model.name)


def check_h5(file: Any) -> None:
    """Check that an HDF5 file refers to no other file and holds numbers only; ValueError if not."""
    import h5py

    waiting, seen = [file], 0
    while waiting:
        group = waiting.pop()
        for name in group:
            seen += 1
            if seen > MAX_ITEMS:
                raise ValueError(f"it has more than {MAX_ITEMS} items")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise ValueError(f"it has a link to another file: {name!r}")
            item = group[name]
            if isinstance(item, h5py.Group):
                waiting.append(item)  # hard links may form a ring, which the count ends
            elif item.is_virtual or item.external:
                raise ValueError(f"its tensor {name!r} is stored in another file")
            elif item.dtype.kind not in "fiu" and item.shape != ():
                raise ValueError(f"its tensor {name!r} does not hold numbers")
            elif item.nbytes > MAX_FILE_BYTES:
                raise ValueError(f"its tensor {name!r} has {item.nbytes} bytes")


def _by_name(group: Any) -> Tensors:
    """Read the older format: layers with weights, in the model's order."""
    found = []
    for name in _texts(group.attrs, "layer_names"):
        names = _texts(group[name].attrs, "weight_names")
        if names:
            found.append([np.asarray(group[name][weight]) for weight in names])
    return found


def _texts(attributes: Any, name: str) -> list[str]:
    """Read a list of names, which Keras splits if it is too long for one attribute."""
    if name in attributes:
        values = list(attributes[name])
    else:
        values, chunk = [], 0
        while f"{name}{chunk}" in attributes:
            values += list(attributes[f"{name}{chunk}"])
            chunk += 1
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _by_class(file: Any, layers: list[Any]) -> Tensors:
    """Read the newer format: groups named by class and number, as Keras counts them."""
    # Private, but it is the function that named the groups when Keras wrote them.
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
    """Read a layer's tensors, including those of nested layers."""
    inner = getattr(layer, "layers", None)
    if inner:
        return [array for arrays in _by_class(group, inner) for array in arrays]
    variables = group["vars"]
    return [np.asarray(variables[str(number)]) for number in range(len(variables))]


def _set(
    layer: Any, variables: list[Any], arrays: list[NDArray[Any]], path: Path, network: str
) -> None:
    shapes = [tuple(variable.shape) for variable in variables]
    found = [array.shape for array in arrays]
    if shapes != found or not all(np.isfinite(array).all() for array in arrays):
        values = ", not all finite" * (shapes == found)
        raise WeightsError(
            f"{path} is not for {network}, whose layer {layer.name!r} needs finite tensors of the "
            f"shapes {shapes}: it has {found}{values}."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
