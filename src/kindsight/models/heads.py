"""Heads on frozen features: they turn a backbone's features into logits.

A head is fitted with NumPy and exists in three forms: as NumPy here, as Keras layers by
:func:`.keras_heads.add_head`, and written into model files by :mod:`.assemble`. So that the three
cannot differ, each head describes itself once, as a chain of :class:`HeadLayer`.

Softmax and temperature are not part of the network (see
:func:`kindsight.evaluation.calibration.to_probabilities`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["FEATURES", "LOGITS", "EnsembleHead", "Head", "HeadLayer", "LinearHead", "RBFHead"]

# Images whose logits are computed at a time; bounds the memory of an RBF head's kernel values.
_ROWS = 4096

FEATURES = "features"
"""The name of the layer of features."""

LOGITS = "logits"
"""The name of the last layer."""

Floats = NDArray[np.float32]
MAX_HEADS = 16


@dataclass(frozen=True)
class HeadLayer:
    """One layer of a head.

    ``"dense"`` is activation(input @ kernel + bias), ``"multiply"`` the elementwise product of its
    inputs; ``"column"`` makes each value a row of its own, whose ``"maximum"`` follows. Inputs are
    names of earlier layers, or ``"features"``; the last layer is ``"logits"``.
    `kernel` is float32 (inputs, width), `bias` float32 (width,); both None except of a dense layer.
    """

    kind: Literal["dense", "multiply", "concatenate", "column", "maximum"]
    name: str
    inputs: tuple[str, ...]
    width: int
    kernel: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    activation: Literal["linear", "exponential"] = "linear"


@dataclass(frozen=True, eq=False)
class Head(ABC):
    """A head on frozen features: linear, RBF, or an ensemble of heads.

    Arrays are converted to contiguous float32 and checked on creation: WeightsError for one whose
    shape does not fit the others', or that is not finite.
    """

    kind: ClassVar[str]
    _kinds: ClassVar[dict[str, type[Head]]] = {}

    def __init_subclass__(cls) -> None:
        Head._kinds[cls.kind] = cls

    @property
    def features(self) -> int:
        """Number of features it takes."""
        return self._shape()[0]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self._shape()[1]

    @abstractmethod
    def _shape(self) -> tuple[int, int]:
        """Return the numbers of features and classes."""

    @abstractmethod
    def layers(self) -> tuple[HeadLayer, ...]:
        """Return the head as a chain of layers: each takes the output of the one before it."""

    @abstractmethod
    def scaled(self, factor: float) -> Head:
        """Return the head with its logits multiplied by `factor`."""

    @abstractmethod
    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a bounded number of rows."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits, float32 (n, k), from features (n, d), not standardised.

        WeightsError for features of another width.
        """
        values = np.asarray(features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.features:
            raise WeightsError(
                f"This head needs features of shape (n, {self.features}); got {values.shape}."
            )
        result = np.empty((len(values), self.classes), np.float32)
        for start in range(0, len(values), _ROWS):
            result[start : start + _ROWS] = self._logits(values[start : start + _ROWS])
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays for ``np.savez``; ``"kind"`` names the kind of head."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                arrays[field.name] = np.asarray(value, np.float32)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> Head:
        """Return the head of a :meth:`to_arrays`.

        WeightsError for an unknown kind, missing or unknown arrays, or arrays that do not fit.
        """
        kinds = Head._kinds
        kind = str(arrays["kind"]) if "kind" in arrays else "none"
        if kind not in kinds:
            raise WeightsError(f"A head must be of kind {' or '.join(kinds)}; got {kind!r}.")
        return kinds[kind]._from({k: array for k, array in arrays.items() if k != "kind"})

    @classmethod
    def _from(cls, arrays: Mapping[str, NDArray[Any]]) -> Head:
        known = {field.name for field in fields(cls)}
        required = known - {"linear_kernel"}
        if not required <= arrays.keys() <= known:
            raise WeightsError(
                f"A {cls.kind} head must have the arrays {', '.join(sorted(required))}; got "
                f"{', '.join(sorted(arrays))}."
            )
        return cls(**arrays)

    def _convert(self, name: str, *shape: int | None) -> tuple[int, ...]:
        """Convert an attribute to read-only float32, check it, and return its shape."""
        try:
            array = np.array(getattr(self, name), np.float32, order="C")
        except (TypeError, ValueError):
            raise WeightsError(f"A head's {name} must be an array of numbers.") from None
        fits = array.ndim == len(shape) and all(
            size > 0 and want in (None, size) for size, want in zip(array.shape, shape, strict=True)
        )
        if not fits or not np.isfinite(array).all():
            wanted = ", ".join("any" if want is None else str(want) for want in shape)
            raise WeightsError(
                f"A head's {name} must be finite and of shape ({wanted}); got {array.shape}"
                f"{' with values that are not finite' * fits}."
            )
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        converted: tuple[int, ...] = array.shape
        return converted


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
    """The sum of the logits of two or more heads for the same classes, each on its own features.

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
    """Return a layer of one head with a unique name, on the features of all heads."""
    inputs = tuple(
        source if name == FEATURES else _member_name(number, name) for name in layer.inputs
    )
    kernel = layer.kernel
    if FEATURES in layer.inputs:
        assert layer.kind == "dense" and layer.kernel is not None
        kernel = np.zeros((width, layer.width), np.float32)
        kernel[columns] = layer.kernel
    return replace(layer, name=_member_name(number, layer.name), inputs=inputs, kernel=kernel)
