"""The head: what turns a backbone's features into logits.

A head is arrays, fitted with NumPy, and is written down three times: as NumPy here, as ordinary
Keras layers by :func:`add_head`, and by :mod:`.assemble` straight into model files. So that the
three cannot drift apart, each head describes itself once as a chain of :class:`HeadStep`.

The output is logits. Softmax and temperature are no part of the network: they live in the bundle
(see :func:`kindsight.evaluation.calibration.to_probabilities`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError

__all__ = ["CurvedHead", "HeadLayers", "HeadStep", "LinearHead", "add_head"]

# Rows of features turned into logits at a time: bounds the memory of the expansion.
_ROWS = 4096

FEATURES = "features"
LOGITS = "logits"


@dataclass(frozen=True)
class HeadStep:
    """One layer of a head.

    Parameters
    ----------
    kind : str
        ``"dense"``: activation(input @ kernel + bias). ``"multiply"``: the product of its inputs,
        number by number. ``"concatenate"``: its inputs side by side.
    name : str
        The layer's name. The last step is named ``"logits"``.
    inputs : tuple of str
        Names of earlier steps, or ``"features"``.
    width : int
        Numbers that it gives for one picture.
    kernel, bias : float32 array (inputs, width) and (width,), or None
        Of a dense step only.
    activation : str
        Of a dense step only.
    """

    kind: Literal["dense", "multiply", "concatenate"]
    name: str
    inputs: tuple[str, ...]
    width: int
    kernel: NDArray[np.float32] | None = None
    bias: NDArray[np.float32] | None = None
    activation: Literal["linear", "exponential"] = "linear"


@dataclass(frozen=True, eq=False)
class HeadLayers(ABC):
    """A head as arrays; one of :class:`LinearHead` and :class:`CurvedHead`.

    Arrays are turned into contiguous float32 and checked when a head is made.

    Raises
    ------
    WeightsError
        For an array of another shape than the rest calls for, or one that is not finite.
    """

    kind: ClassVar[str]

    @property
    @abstractmethod
    def features(self) -> int:
        """How many features it takes."""

    @property
    @abstractmethod
    def classes(self) -> int:
        """How many logits it gives."""

    @abstractmethod
    def steps(self) -> tuple[HeadStep, ...]:
        """Return the head as a chain of layers: each step needs the one before it."""

    @abstractmethod
    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits of a bounded number of rows."""

    def logits(self, features: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the logits of pictures from their features.

        Parameters
        ----------
        features : array (n, d)
            As the backbone gives them, not standardised.

        Returns
        -------
        float32 array (n, k)

        Raises
        ------
        WeightsError
            For features of another width.
        """
        values = np.asarray(features, np.float32)
        if values.ndim != 2 or values.shape[1] != self.features:
            raise WeightsError(
                f"The features for this head must be of shape (n, {self.features}). "
                f"Received: {values.shape}."
            )
        result = np.empty((len(values), self.classes), np.float32)
        for start in range(0, len(values), _ROWS):
            result[start : start + _ROWS] = self._logits(values[start : start + _ROWS])
        return result

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Return a flat dict of arrays, for ``np.savez``; ``"kind"`` says which head it is."""
        arrays: dict[str, NDArray[Any]] = {"kind": np.array(self.kind)}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                arrays[field.name] = np.asarray(value, np.float32)
        return arrays

    @staticmethod
    def from_arrays(arrays: Mapping[str, NDArray[Any]]) -> HeadLayers:
        """Make a head from what :meth:`to_arrays` gave.

        Raises
        ------
        WeightsError
            For an unknown kind, an array too many or too few, or arrays that do not fit.
        """
        kinds = {head.kind: head for head in (LinearHead, CurvedHead)}
        kind = str(arrays["kind"]) if "kind" in arrays else "none"
        if kind not in kinds:
            raise WeightsError(f"A head must be of kind {' or '.join(kinds)}. Received: {kind!r}.")
        given = {name: array for name, array in arrays.items() if name != "kind"}
        known = {field.name for field in fields(kinds[kind])}
        needed = known - {"linear_kernel"}
        if not needed <= given.keys() <= known:
            raise WeightsError(
                f"A {kind} head must hold the arrays {', '.join(sorted(needed))}. "
                f"Received: {', '.join(sorted(given))}."
            )
        return kinds[kind](**given)

    def _take(self, name: str, *shape: int | None) -> tuple[int, ...]:
        """Turn an array into float32 in place, check it, and return its shape."""
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
                f"A head's {name} must be finite and of shape ({wanted}). "
                f"Received: {array.shape}{' with values that are not finite' * fits}."
            )
        array.setflags(write=False)
        object.__setattr__(self, name, array)
        shape_taken: tuple[int, ...] = array.shape
        return shape_taken


@dataclass(frozen=True, eq=False)
class LinearHead(HeadLayers):
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

    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        return rows @ self.kernel + self.bias

    def steps(self) -> tuple[HeadStep, ...]:
        """Return the head as a chain of layers."""
        return (HeadStep("dense", LOGITS, (FEATURES,), self.classes, self.kernel, self.bias),)


@dataclass(frozen=True, eq=False)
class CurvedHead(HeadLayers):
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
    kind: ClassVar[str] = "curved"

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

    def _logits(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        z = rows @ self.project_kernel + self.project_bias
        squares = np.square(z).sum(axis=1, keepdims=True)
        exponent = 2 * (z @ self.landmarks.T) - squares - np.square(self.landmarks).sum(axis=1)
        result: NDArray[np.float32] = np.exp(self.gamma * exponent) @ self.kernel + self.bias
        if self.linear_kernel is not None:
            result += z @ self.linear_kernel
        return result

    def steps(self) -> tuple[HeadStep, ...]:
        """Return the head as a chain of layers."""
        count, width = self.landmarks.shape
        gamma = np.float32(self.gamma)
        away = -gamma * np.square(self.landmarks).sum(axis=1)
        toward = np.concatenate([2 * gamma * self.landmarks.T, np.full((1, count), -gamma)])
        chain = [
            HeadStep(
                "dense", "head_project", (FEATURES,), width, self.project_kernel, self.project_bias
            ),
            HeadStep("multiply", "head_square", ("head_project", "head_project"), width),
            HeadStep(
                "dense",
                "head_norm",
                ("head_square",),
                1,
                np.ones((width, 1), np.float32),
                np.zeros(1, np.float32),
            ),
            HeadStep("concatenate", "head_point", ("head_project", "head_norm"), width + 1),
            HeadStep(
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
            chain.append(HeadStep("concatenate", last, inputs, count + width))
        chain.append(HeadStep("dense", LOGITS, (last,), self.classes, kernel, self.bias))
        return tuple(chain)


def add_head(features: Any, head: HeadLayers) -> Any:
    """Put a head on a Keras tensor of features.

    Parameters
    ----------
    features : keras.KerasTensor
        (batch, d).
    head : HeadLayers

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
