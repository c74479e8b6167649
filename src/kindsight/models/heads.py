"""The head: what turns a backbone's features into logits.

A head is arrays, fitted with NumPy, and is written down three times: as NumPy here, as ordinary
Keras layers by :func:`add_head`, and by :mod:`.assemble` straight into model files. So that the
three cannot drift apart, each head describes itself once as a chain of :class:`HeadStep`.

The output is logits. Softmax and temperature are no part of the network: they live in the bundle
(see :func:`kindsight.evaluation.calibration.to_probabilities`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.head_steps import FEATURES, LOGITS, HeadLayers, HeadStep
from kindsight.models.summed_head import SummedHead

__all__ = [
    "FEATURES",
    "LOGITS",
    "CurvedHead",
    "HeadLayers",
    "HeadStep",
    "LinearHead",
    "SummedHead",
    "add_head",
]


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

    def scaled(self, factor: float) -> LinearHead:
        """Return the head whose logits are as many times as large."""
        return LinearHead(_times(self.kernel, factor), _times(self.bias, factor))

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

    def scaled(self, factor: float) -> CurvedHead:
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


def _times(values: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    return np.asarray(values.astype(np.float64) * factor, np.float32)


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
