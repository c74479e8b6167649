"""The head: what turns a backbone's features into logits.

A head is arrays, fitted with NumPy, and is written down three times: as NumPy here, as ordinary
Keras layers by :func:`add_head`, and by :mod:`.assemble` straight into model files. So that the
three cannot drift apart, each head describes itself once as a chain of :class:`HeadLayer`.

The output is logits. Softmax and temperature are no part of the network: they live in the bundle
(see :func:`kindsight.evaluation.calibration.to_probabilities`).
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

# SECTION: A head whose logits are a sum of other heads', each on features of its own.

Floats = NDArray[np.float32]

# More than this many heads are no head of ours.
MOST_HEADS = 16


@dataclass(frozen=True, eq=False)
class EnsembleHead(Head):
    """The sum of the logits of several heads.

    Parameters
    ----------
    heads : tuple of Head
        At least two, for the same classes. The first takes the first features, the second those
        that follow them, and so on.
    """

    heads: tuple[Head, ...]
    kind: ClassVar[str] = "summed"

    def __post_init__(self) -> None:
        known = all(isinstance(head, Head) for head in self.heads)
        if len(self.heads) < 2 or not known or len({head.classes for head in self.heads}) > 1:
            raise WeightsError(
                "Heads whose logits are summed must be two or more, for the same classes. "
                f"Received: {len(self.heads)} of them."
            )

    @property
    def features(self) -> int:
        """How many features it takes."""
        return sum(head.features for head in self.heads)

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return self.heads[0].classes

    def scaled(self, factor: float) -> EnsembleHead:
        """Return the head whose logits are as many times as large."""
        return EnsembleHead(tuple(head.scaled(factor) for head in self.heads))

    def _logits(self, rows: Floats) -> Floats:
        total, start = np.zeros((len(rows), self.classes), np.float32), 0
        for head in self.heads:
            total += head._logits(rows[:, start : start + head.features])
            start += head.features
        return total

    def steps(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers.

        Each head's layers come after those of the one before it, whose last numbers they are
        given, too, and multiply by nothing: two branches could be walked in either order. The last
        layer is all heads' last layers in one.
        """
        chain: list[HeadLayer] = []
        ends: list[tuple[str, int]] = [(FEATURES, self.features)]
        direct = np.zeros((self.features, self.classes), np.float32)
        kernels, bias, start = [direct], np.zeros(self.classes, np.float32), 0
        for number, head in enumerate(self.heads):
            columns = slice(start, start + head.features)
            start = columns.stop
            *inner, last = head.steps()
            assert last.kernel is not None and last.bias is not None
            bias += last.bias
            if not inner:  # from the features straight to the logits
                direct[columns] = last.kernel
                continue
            given, width = FEATURES, self.features
            if len(ends) > 1:
                before, more = ends[-1]
                given, width = _named(number, "given"), width + more
                chain.append(HeadLayer("concatenate", given, (FEATURES, before), width))
            for step in inner:
                chain.append(_moved(step, number, given, width, columns))
            ends.append((chain[-1].name, chain[-1].width))
            kernels.append(last.kernel)
        if not direct.any() and len(ends) > 1:
            ends, kernels = ends[1:], kernels[1:]
        name, width = ends[0]
        if len(ends) > 1:
            name, width = "head_all", sum(wide for _, wide in ends)
            chain.append(HeadLayer("concatenate", name, tuple(end for end, _ in ends), width))
        kernel = np.concatenate(kernels)
        chain.append(HeadLayer("dense", LOGITS, (name,), self.classes, kernel, bias))
        return tuple(chain)

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays: those of each head, by its number."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for number, head in enumerate(self.heads):
            arrays |= {f"{number}/{name}": array for name, array in head.to_arrays().items()}
        return arrays

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> EnsembleHead:
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for name, array in arrays.items():
            number, _, rest = name.partition("/")
            parts.setdefault(number, {})[rest] = array
        if len(parts) > MOST_HEADS or set(parts) != {str(number) for number in range(len(parts))}:
            raise WeightsError(
                f"A summed head must hold up to {MOST_HEADS} heads, numbered from 0 on. "
                f"Received: {', '.join(sorted(parts)[:MOST_HEADS])}."
            )
        if any(str(part.get("kind")) == cls.kind for part in parts.values()):
            raise WeightsError("A summed head must not hold another one.")
        return cls(tuple(Head.from_arrays(parts[str(k)]) for k in range(len(parts))))


def _named(number: int, name: str) -> str:
    return f"head{number}_{name.removeprefix('head_')}"


def _moved(step: HeadLayer, number: int, given: str, width: int, columns: slice) -> HeadLayer:
    """Return a step of one head with a name of its own, on the features of all."""
    inputs = tuple(given if name == FEATURES else _named(number, name) for name in step.inputs)
    kernel = step.kernel
    if FEATURES in step.inputs:
        assert step.kind == "dense" and step.kernel is not None
        kernel = np.zeros((width, step.width), np.float32)
        kernel[columns] = step.kernel
    name = _named(number, step.name)
    return HeadLayer(step.kind, name, inputs, step.width, kernel, step.bias, step.activation)


@dataclass(frozen=True, eq=False)
class LinearHead(Head):
    """One dense layer: logits = features @ kernel + bias.

    Parameters
    ----------
    kernel : float32 array (d, k)
        Whoever fits it on standardised features folds the standardisation in.
    bias : float32 array (k,)
    """

    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    kind: ClassVar[str] = "linear"

    def __post_init__(self) -> None:
        classes = self._take("kernel", None, None)[1]
        self._take("bias", classes)

    @property
    def features(self) -> int:
        """How many features it takes."""
        return int(self.kernel.shape[0])

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return int(self.kernel.shape[1])

    def scaled(self, factor: float) -> LinearHead:
        """Return the head whose logits are as many times as large."""
        return LinearHead(_times(self.kernel, factor), _times(self.bias, factor))

    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows @ self.kernel + self.bias

    def steps(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers."""
        return (HeadLayer("dense", LOGITS, (FEATURES,), self.classes, self.kernel, self.bias),)


@dataclass(frozen=True, eq=False)
class RBFHead(Head):
    """Gaussian bumps around landmarks in a projected space: a kernel machine as dense layers.

    ::

        z      = features @ project_kernel + project_bias
        a      = exp(-gamma * |z - landmark|^2)          one number a landmark
        logits = a @ kernel + bias  [+ z @ linear_kernel]

    As layers, the squared distance is taken apart: a = exp(2 gamma z.landmark - gamma |z|^2 -
    gamma |landmark|^2), a dense layer with exponential activation over z and its squared length.

    Parameters
    ----------
    project_kernel, project_bias : float32 array (d, p) and (p,)
        The standardisation of the features is folded in.
    landmarks : float32 array (m, p)
    gamma : float
        Above 0; one over twice the squared width of a bump.
    kernel, bias : float32 array (m, k) and (k,)
    linear_kernel : float32 array (p, k), optional

    References
    ----------
    C. Williams, M. Seeger, "Using the Nystroem method to speed up kernel machines", NIPS 2000.
    """

    project_kernel: NDArray[np.float32]
    project_bias: NDArray[np.float32]
    landmarks: NDArray[np.float32]
    gamma: NDArray[np.float32]
    kernel: NDArray[np.float32]
    bias: NDArray[np.float32]
    linear_kernel: NDArray[np.float32] | None = None
    kind: ClassVar[str] = "rbf"

    def __post_init__(self) -> None:
        width = self._take("project_kernel", None, None)[1]
        self._take("project_bias", width)
        count = self._take("landmarks", None, width)[0]
        classes = self._take("kernel", count, None)[1]
        self._take("bias", classes)
        self._take("gamma")
        if not self.gamma > 0:
            raise WeightsError(f"A head's gamma must be above 0. Received: {self.gamma}.")
        if self.linear_kernel is not None:
            self._take("linear_kernel", width, classes)

    @property
    def features(self) -> int:
        """How many features it takes."""
        return int(self.project_kernel.shape[0])

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return int(self.kernel.shape[1])

    def scaled(self, factor: float) -> RBFHead:
        """Return the head whose logits are as many times as large."""
        linear = self.linear_kernel
        return replace(
            self,
            kernel=_times(self.kernel, factor),
            bias=_times(self.bias, factor),
            linear_kernel=None if linear is None else _times(linear, factor),
        )

    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        z = rows @ self.project_kernel + self.project_bias
        squares = np.square(z).sum(axis=1, keepdims=True)
        exponent = 2 * (z @ self.landmarks.T) - squares - np.square(self.landmarks).sum(axis=1)
        result: NDArray[np.float32] = np.exp(self.gamma * exponent) @ self.kernel + self.bias
        if self.linear_kernel is not None:
            result += z @ self.linear_kernel
        return result

    def steps(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers."""
        count, width = self.landmarks.shape
        gamma = np.float32(self.gamma)
        away = -gamma * np.square(self.landmarks).sum(axis=1)
        toward = np.concatenate([2 * gamma * self.landmarks.T, np.full((1, count), -gamma)])
        chain = [
            HeadLayer(
                "dense", "head_project", (FEATURES,), width, self.project_kernel, self.project_bias
            ),
            HeadLayer("multiply", "head_square", ("head_project", "head_project"), width),
            HeadLayer(
                "dense",
                "head_norm",
                ("head_square",),
                1,
                np.ones((width, 1), np.float32),
                np.zeros(1, np.float32),
            ),
            HeadLayer("concatenate", "head_point", ("head_project", "head_norm"), width + 1),
            HeadLayer(
                "dense",
                "head_kernel",
                ("head_point",),
                count,
                np.ascontiguousarray(toward, np.float32),
                np.ascontiguousarray(away, np.float32),
                "exponential",
            ),
        ]
        last, kernel = "head_kernel", self.kernel
        if self.linear_kernel is not None:
            # One dense layer over both paths: a chain, not two branches and a sum, so that the
            # order of the layers in a Keras file cannot depend on how a graph is walked.
            last, kernel = "head_join", np.concatenate([self.kernel, self.linear_kernel])
            inputs = ("head_kernel", "head_project")
            chain.append(HeadLayer("concatenate", last, inputs, count + width))
        chain.append(HeadLayer("dense", LOGITS, (last,), self.classes, kernel, self.bias))
        return tuple(chain)


def _times(values: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    return np.asarray(values.astype(np.float64) * factor, np.float32)


def add_head(features: Any, head: Head) -> Any:
    """Put a head on a Keras tensor of features.

    Parameters
    ----------
    features : keras.KerasTensor
        (batch, d).
    head : Head

    Returns
    -------
    keras.KerasTensor
        (batch, k), the output of a layer named ``"logits"``. The layers are trainable and hold
        the head's arrays.
    """
    import keras

    tensors = {FEATURES: features}
    for step in head.steps():
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
