"""Heads on frozen features: they turn a backbone's features into logits.

A head is fitted with NumPy and exists in three forms: as NumPy here, as Keras layers by
:func:`add_head`, and written into model files by :mod:`.assemble`. So that the three cannot
differ, each head describes itself once, as a chain of :class:`HeadLayer`.

Softmax and temperature are not part of the network (see
:func:`kindsight.evaluation.calibration.to_probabilities`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.heads.base import FEATURES, LOGITS, Head, HeadLayer

__all__ = [
    "FEATURES",
    "LOGITS",
    "EnsembleHead",
    "Head",
    "HeadLayer",
    "LinearHead",
    "RBFHead",
    "add_head",
]

Floats = NDArray[np.float32]

MAX_HEADS = 16


@dataclass(frozen=True, eq=False)
class LinearHead(Head):
    """One dense layer: logits = features @ kernel + bias.

    `kernel`, float32 (d, k), includes the standardisation of the features, if there was one; `bias`
    is float32 (k,).
    """

    kernel: Floats
    bias: Floats
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        classes = self._convert("kernel", None, None)[1]
        self._convert("bias", classes)

    def _shape(self) -> tuple[int, int]:
        return self.kernel.shape[0], self.kernel.shape[1]

    def scaled(self, factor: float) -> LinearHead:
        """Return the head with its logits multiplied by `factor`."""
        return LinearHead(_times(self.kernel, factor), _times(self.bias, factor))

    def _logits(self, rows: Floats) -> Floats:
        return rows @ self.kernel + self.bias

    def layers(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers."""
        return (HeadLayer("dense", LOGITS, (FEATURES,), self.classes, self.kernel, self.bias),)


@dataclass(frozen=True, eq=False)
class RBFHead(Head):
    """A kernel machine with radial basis functions around landmarks in a projected space.

    ::

        z      = features @ project_kernel + project_bias
        a      = exp(-gamma * |z - landmark|^2)          one value per landmark
        logits = a @ kernel + bias  [+ z @ linear_kernel]

    As layers, the squared distance is expanded: a = exp(2 gamma z.landmark - gamma |z|^2 -
    gamma |landmark|^2), a dense layer with exponential activation on z and its squared length.

    Parameters
    ----------
    project_kernel, project_bias : float32 array (d, p) and (p,)
        Include the standardisation of the features.
    landmarks : float32 array (m, p)
    gamma : float
        Above 0; 1 / (2 * width^2) of a basis function.
    kernel, bias : float32 array (m, k) and (k,)
    linear_kernel : float32 array (p, k), optional

    References
    ----------
    C. Williams, M. Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000.
    """

    project_kernel: Floats
    project_bias: Floats
    landmarks: Floats
    gamma: Floats
    kernel: Floats
    bias: Floats
    linear_kernel: Floats | None = None
    kind: ClassVar[str] = "rbf"

    def __post_init__(self) -> None:
        width = self._convert("project_kernel", None, None)[1]
        self._convert("project_bias", width)
        count = self._convert("landmarks", None, width)[0]
        classes = self._convert("kernel", count, None)[1]
        self._convert("bias", classes)
        self._convert("gamma")
        if not self.gamma > 0:
            raise WeightsError(f"A head's gamma must be above 0; got {self.gamma}.")
        if self.linear_kernel is not None:
            self._convert("linear_kernel", width, classes)

    def _shape(self) -> tuple[int, int]:
        return self.project_kernel.shape[0], self.kernel.shape[1]

    def scaled(self, factor: float) -> RBFHead:
        """Return the head with its logits multiplied by `factor`."""
        linear = self.linear_kernel
        return replace(
            self,
            kernel=_times(self.kernel, factor),
            bias=_times(self.bias, factor),
            linear_kernel=None if linear is None else _times(linear, factor),
        )

    def _logits(self, rows: Floats) -> Floats:
        z = rows @ self.project_kernel + self.project_bias
        squares = np.square(z).sum(axis=1, keepdims=True)
        exponent = 2 * (z @ self.landmarks.T) - squares - np.square(self.landmarks).sum(axis=1)
        result: Floats = np.exp(self.gamma * exponent) @ self.kernel + self.bias
        if self.linear_kernel is not None:
            result += z @ self.linear_kernel
        return result

    def layers(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers."""
        count, width = self.landmarks.shape
        gamma = np.float32(self.gamma)
        bias = -gamma * np.square(self.landmarks).sum(axis=1)
        kernel = np.concatenate([2 * gamma * self.landmarks.T, np.full((1, count), -gamma)])
        ones, zero = np.ones((width, 1), np.float32), np.zeros(1, np.float32)
        chain = [
            HeadLayer(
                "dense", "head_project", (FEATURES,), width, self.project_kernel, self.project_bias,
            ),
            HeadLayer("multiply", "head_square", ("head_project", "head_project"), width),
            HeadLayer("dense", "head_norm", ("head_square",), 1, ones, zero),
            HeadLayer("concatenate", "head_point", ("head_project", "head_norm"), width + 1),
            HeadLayer(
                "dense", "head_kernel", ("head_point",), count,
                np.ascontiguousarray(kernel, np.float32), np.ascontiguousarray(bias, np.float32),
                "exponential",
            ),
        ]  # fmt: skip
        last, kernel = "head_kernel", self.kernel
        if self.linear_kernel is not None:
            # One dense layer on both inputs: in a chain, unlike in two branches and a sum, the
            # order of the layers in a Keras file does not depend on how a graph is traversed.
            last, kernel = "head_join", np.concatenate([self.kernel, self.linear_kernel])
            inputs = ("head_kernel", "head_project")
            chain.append(HeadLayer("concatenate", last, inputs, count + width))
        chain.append(HeadLayer("dense", LOGITS, (last,), self.classes, kernel, self.bias))
        return tuple(chain)


def _times(values: Floats, factor: float) -> Floats:
    return np.asarray(values.astype(np.float64) * factor, np.float32)


@dataclass(frozen=True, eq=False)
class EnsembleHead(Head):
    """The sum of the logits of two or more heads for the same classes, each on features of its own.

    The first head takes the first features, the second those that follow, and so on.
    """

    heads: tuple[Head, ...]
    kind: ClassVar[str] = "ensemble"

    def __post_init__(self) -> None:
        known = all(isinstance(head, Head) for head in self.heads)
        if len(self.heads) < 2 or not known or len({head.classes for head in self.heads}) > 1:
            raise WeightsError(
                "An ensemble head must have two or more heads, for the same classes; got "
                f"{len(self.heads)}."
            )

    def _shape(self) -> tuple[int, int]:
        return sum(head.features for head in self.heads), self.heads[0].classes

    def scaled(self, factor: float) -> EnsembleHead:
        """Return the head with its logits multiplied by `factor`."""
        return EnsembleHead(tuple(head.scaled(factor) for head in self.heads))

    def _logits(self, rows: Floats) -> Floats:
        total, start = np.zeros((len(rows), self.classes), np.float32), 0
        for head in self.heads:
            total += head._logits(rows[:, start : start + head.features])
            start += head.features
        return total

    def layers(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers.

        To keep it a chain, the first layer of each head also takes the last output of the head
        before it, with a kernel of zeros: parallel branches could be traversed in any order. The
        last layer combines the last layers of all heads.
        """
        chain: list[HeadLayer] = []
        ends: list[tuple[str, int]] = [(FEATURES, self.features)]
        direct = np.zeros((self.features, self.classes), np.float32)
        kernels, bias, start = [direct], np.zeros(self.classes, np.float32), 0
        for number, head in enumerate(self.heads):
            columns = slice(start, start + head.features)
            start = columns.stop
            *inner, last = head.layers()
            assert last.kernel is not None and last.bias is not None
            bias += last.bias
            if not inner:  # from the features straight to the logits
                direct[columns] = last.kernel
                continue
            source, width = FEATURES, self.features
            if len(ends) > 1:
                before, more = ends[-1]
                source, width = _member_name(number, "input"), width + more
                chain.append(HeadLayer("concatenate", source, (FEATURES, before), width))
            chain += [_member_layer(layer, number, source, width, columns) for layer in inner]
            ends.append((chain[-1].name, chain[-1].width))
            kernels.append(last.kernel)
        if not direct.any() and len(ends) > 1:
            ends, kernels = ends[1:], kernels[1:]
        name, width = ends[0]
        if len(ends) > 1:
            name, width = "head_all", sum(width for _, width in ends)
            chain.append(HeadLayer("concatenate", name, tuple(end for end, _ in ends), width))
        kernel = np.concatenate(kernels)
        chain.append(HeadLayer("dense", LOGITS, (name,), self.classes, kernel, bias))
        return tuple(chain)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays: those of each head, prefixed with its number."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for number, head in enumerate(self.heads):
            arrays |= {f"{number}/{name}": array for name, array in head.to_arrays().items()}
        return arrays

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> EnsembleHead:
        heads: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            number, _, rest = name.partition("/")
            heads.setdefault(number, {})[rest] = array
        if len(heads) > MAX_HEADS or set(heads) != {str(number) for number in range(len(heads))}:
            raise WeightsError(
                f"An ensemble head must hold up to {MAX_HEADS} heads, numbered from 0 on; got "
                f"{', '.join(sorted(heads)[:MAX_HEADS])}."
            )
        if any(str(head.get("kind")) == cls.kind for head in heads.values()):
            raise WeightsError("An ensemble head must not contain another one.")
        return cls(tuple(Head.from_arrays(heads[str(number)]) for number in range(len(heads))))


def _member_name(number: int, name: str) -> str:
    return f"head{number}_{name.removeprefix('head_')}"


def _member_layer(
    layer: HeadLayer, number: int, source: str, width: int, columns: slice
) -> HeadLayer:
    """Return a layer of one head with a name of its own, on the features of all heads."""
    inputs = tuple(
        source if name == FEATURES else _member_name(number, name) for name in layer.inputs
    )
    kernel = layer.kernel
    if FEATURES in layer.inputs:
        assert layer.kind == "dense" and layer.kernel is not None
        kernel = np.zeros((width, layer.width), np.float32)
        kernel[columns] = layer.kernel
    return replace(layer, name=_member_name(number, layer.name), inputs=inputs, kernel=kernel)


def add_head(features: Any, head: Head) -> Any:
    """Add a head to a Keras tensor of features, (batch, d); return the logits, (batch, k).

    The layers are trainable and have the head's arrays as weights; the last is ``"logits"``.
    """
    import keras

    tensors = {FEATURES: features}
    for step in head.layers():
        inputs = [tensors[name] for name in step.inputs]
        if step.kind == "dense":
            layer = keras.layers.Dense(step.width, activation=step.activation, name=step.name)
            tensors[step.name] = layer(inputs[0])
            layer.set_weights([step.kernel, step.bias])
        elif step.kind == "multiply":
            tensors[step.name] = keras.layers.Multiply(name=step.name)(inputs)
        else:
            tensors[step.name] = keras.layers.Concatenate(name=step.name)(inputs)
    return tensors[LOGITS]
