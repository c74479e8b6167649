"""Copy the tensors of a PyTorch state dictionary into Keras layers.

PyTorch has channels before height and width, and outputs before inputs; Keras the opposite.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.formats.safetensors import read_safetensors
from kindsight.models.formats.torch_checkpoint import read_torch_file

__all__ = ["SAFETENSORS", "TORCH_SUFFIXES", "State", "copy_layer", "read_state", "tensor_of"]

SAFETENSORS = ".safetensors"
TORCH_SUFFIXES = (SAFETENSORS, ".pth", ".pt")
"""Endings of files that :func:`read_state` reads."""

State = Mapping[str, NDArray[Any]]

# What a whole model, or a training script, puts before the names of its parts.
_PREFIX = re.compile(r"^(module|model|backbone|vit|dinov2|dinov2_with_registers)\.")


def read_state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a state dictionary from a safetensors or PyTorch file; WeightsError as those readers.

    Names are without the prefix that a model around the network has put before all of them.
    """
    read = read_safetensors if str(path).endswith(SAFETENSORS) else read_torch_file
    return {_PREFIX.sub("", name): array for name, array in read(path).items()}


def tensor_of(state: State, name: str, shape: Iterable[int]) -> NDArray[np.float32]:
    """Return a tensor as float32; WeightsError unless it is there, of the shape, and finite."""
    if name not in state:
        raise WeightsError(f"The weights lack the tensor {name!r}.")
    array = np.asarray(state[name], np.float32)
    if array.shape != tuple(shape) or not np.isfinite(array).all():
        raise WeightsError(
            f"The tensor {name!r} must be finite and of shape {tuple(shape)}; its shape is "
            f"{array.shape}."
        )
    return array


def copy_layer(layer: Any, state: State, prefix: str) -> None:
    """Copy weight and bias, or a normalisation's four tensors, into a layer of Keras.

    `layer` is a convolution, depthwise or dense layer, or a batch or layer normalisation.
    WeightsError as :func:`tensor_of`.
    """
    arrays = []
    for suffix, variable in zip(_suffixes(layer), layer.weights, strict=True):
        shape = [int(side) for side in variable.shape]
        order = _keras_order(layer, len(shape))
        stored = [0] * len(shape)
        for side, axis in zip(shape, order, strict=True):
            stored[axis] = side
        arrays.append(np.transpose(tensor_of(state, f"{prefix}.{suffix}", stored), order))
    layer.set_weights(arrays)


def _suffixes(layer: Any) -> tuple[str, ...]:
    """Return PyTorch's names of a layer's tensors, in the order of ``layer.weights``."""
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return ("weight", "bias", "running_mean", "running_var")
    if kind == "LayerNormalization" or layer.use_bias:
        return ("weight", "bias")
    return ("weight",)


def _keras_order(layer: Any, dimensions: int) -> tuple[int, ...]:
    """Return PyTorch's axis of each axis of Keras."""
    if dimensions == 4:
        depthwise = type(layer).__name__ == "DepthwiseConv2D"
        return (2, 3, 0, 1) if depthwise else (2, 3, 1, 0)
    return tuple(reversed(range(dimensions)))
