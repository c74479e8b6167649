"""Optimizers: Keras's update rules, each as a single operation of TensorFlow.

Keras composes an update of a dozen operations that each traverse the weights, which is slow for
dense layers with millions of them. TensorFlow has the same formulas as fused operations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["OPTIMIZERS", "Optimizer"]

OPTIMIZERS = ("rmsprop", "adam", "adamw", "sgd")

RHO = 0.9
BETAS = (0.9, 0.999)
EPSILON = 1e-7


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, with Keras's default constants.

    Parameters
    ----------
    name : str
        ``"rmsprop"`` (Tieleman & Hinton 2012), ``"adam"`` (Kingma & Ba 2015), ``"adamw"``
        (Loshchilov & Hutter 2019) or ``"sgd"``.
    momentum : float
        0 to below 1; of SGD and RMSprop.
    weight_decay : float
        Of AdamW, for kernels.
    """

    name: str = "rmsprop"
    momentum: float = 0.0
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the state arrays of a variable."""
        if self.name == "rmsprop":
            return ("velocity", "momentum") if self.momentum else ("velocity",)
        if self.name == "sgd":
            return ("momentum",) if self.momentum else ()
        return ("momentum", "velocity")

    @property
    def scratch(self) -> bool:
        """Whether an update needs a scratch array of the variable's shape."""
        return self.name == "rmsprop" and not self.momentum

    def apply(
        self, variable: Any, slots: list[Any], gradient: Any, rate: Any, update: Any, decayed: bool
    ) -> Any:
        """Update a variable, within a traced function; return the operation.

        `slots` are the state arrays of :attr:`slots`, initially zero, then the scratch array, if
        needed, which no other update may use at the same time. `rate` is the learning rate, a
        scalar tensor; `update` the number of the update, from 1.0; `decayed` whether weight decay
        applies.
        """
        import tensorflow as tf

        ops, handles = tf.raw_ops, [slot.handle for slot in slots]
        if self.name == "rmsprop":
            return ops.ResourceApplyRMSProp(
                var=variable.handle, ms=handles[0], mom=handles[1], lr=rate, rho=RHO,
                momentum=self.momentum, epsilon=EPSILON, grad=gradient,
            )  # fmt: skip
        if self.name == "sgd" and self.momentum:
            return ops.ResourceApplyKerasMomentum(
                var=variable.handle, accum=handles[0], lr=rate, grad=gradient,
                momentum=self.momentum,
            )  # fmt: skip
        if self.name == "sgd":
            return ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
        if self.weight_decay and decayed:
            variable.assign_sub(variable * (rate * self.weight_decay))
        first, second = (tf.constant(beta, tf.float32) for beta in BETAS)
        return ops.ResourceApplyAdam(
            var=variable.handle, m=handles[0], v=handles[1], beta1_power=first**update,
            beta2_power=second**update, lr=rate, beta1=first, beta2=second, epsilon=EPSILON,
            grad=gradient,
        )  # fmt: skip
