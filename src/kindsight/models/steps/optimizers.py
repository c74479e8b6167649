"""Updates of a network's weights: Keras's own rules, each as one operation of TensorFlow.

Keras composes an update of a dozen operations, each of which walks over the weights once more; for
a dense layer of millions of weights that takes as long as a good part of the network. The same
formulas exist in TensorFlow as single operations that walk once.
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
    """A rule of update, with the constants that Keras takes unasked.

    Parameters
    ----------
    name : str
        ``"rmsprop"`` (Tieleman & Hinton 2012), ``"adam"`` (Kingma & Ba 2015), ``"adamw"``
        (Loshchilov & Hutter 2019) or ``"sgd"``.
    momentum : float
        0 to below 1; of SGD and RMSprop.
    weight_decay : float
        What AdamW takes off each kernel in a step, as a share of the learning rate.
    """

    name: str = "rmsprop"
    momentum: float = 0.0
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of what is kept for each weight between steps."""
        if self.name == "rmsprop":
            return ("velocity", "momentum") if self.momentum else ("velocity",)
        if self.name == "sgd":
            return ("momentum",) if self.momentum else ()
        return ("momentum", "velocity")

    @property
    def scratch(self) -> bool:
        """Whether an update needs room for one more number a weight, whose value is of no use."""
        return self.name == "rmsprop" and not self.momentum

    def apply(
        self, variable: Any, slots: list[Any], gradient: Any, rate: Any, update: Any, decayed: bool
    ) -> Any:
        """Update a variable, within a traced function; return the operation.

        Parameters
        ----------
        variable : tf.Variable
        slots : list of tf.Variable
            As many as :attr:`slots` names, of its shape, zero before the first update; and the
            scratch, if there is one, which no other update may use at the same time.
        gradient : tf.Tensor
        rate : tf.Tensor
            The learning rate, a scalar.
        update : tf.Tensor
            Which update this is: 1.0 for the first.
        decayed : bool
            Whether weight decay is for this variable.
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
