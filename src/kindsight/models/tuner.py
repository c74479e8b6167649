"""The upper part of a network being fine-tuned: its step, its mean weights, its state."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.convert import write_both_forms
from kindsight.models.divided import (
    DividedNetwork,
    answering_together,
    layers_after,
)
from kindsight.models.heads import LOGITS
from kindsight.models.learned import (
    UPDATES,
    Arrays,
    assign_arrays,
    layer_depths,
    part_updates,
)
from kindsight.models.optimizers import Optimizer
from kindsight.models.precision import multiplying

__all__ = ["Tuner"]

# The head is fitted already, to thousands of numbers at once: at the pace of the layers below, the
# first steps would undo it.
HEAD_PACE = 0.1

MEAN, SLOT, WEIGHT = "mean/", "slot", "weight/"


class Tuner:
    """A network with its optimiser; a :class:`kindsight.training.loop.Learner`.

    What is judged and kept are not the weights of the last step but a running mean of them (B.
    Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal
    on Control and Optimization 30, 1992), which little data makes less of a gamble.

    Parameters
    ----------
    network : DividedNetwork
    inputs : callable
        From a batch as the loop has it to the arrays that `network.upper` takes.
    classes : int
    layer_decay : float
        By this each layer learns slower than the one above it (J. Howard and S. Ruder, "Universal
        language model fine-tuning", ACL 2018).
    average : float
        Over how many of the last steps the mean runs, about.
    class_weight : sequence of float, optional
        How much a picture of each class counts; 1 if omitted.
    precision : str
        In which numbers convolutions over all channels are multiplied in a step, ``"float32"`` or
        ``"bfloat16"`` (see :mod:`.precision`); weights, what is judged and what is written are
        float32 in any case.
    """

    def __init__(
        self,
        network: DividedNetwork,
        inputs: Callable[[Any], Sequence[NDArray[Any]]],
        classes: int,
        *,
        layer_decay: float = 1.0,
        average: float = 1.0,
        class_weight: Sequence[float] | None = None,
        precision: str = "float32",
    ) -> None:
        import tensorflow as tf

        self._network, self._inputs, self.classes = network, inputs, classes
        self._variables = [variable.value for variable in network.upper.trainable_variables]
        self._names = [variable.path for variable in network.upper.trainable_variables]
        places = layer_depths(self._names)
        self._paces = [
            layer_decay**place * (HEAD_PACE if name.startswith(LOGITS) else 1)
            for place, name in zip(places, self._names, strict=True)
        ]
        self._share = 1.0 / max(1.0, average)
        self._class_weight, self._precision = class_weight, precision
        self._means = [tf.Variable(variable) for variable in self._variables]
        self._optimizer, self._smoothing, self._updates = Optimizer(), 0.0, 0
        self._slots: list[list[Any]] = []
        self._learning = [True] * len(self._variables)
        self._step: Any = None
        self._judged = tf.function(
            lambda arrays: network.upper(arrays, training=False),
            autograph=False,
            reduce_retracing=True,
        )

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Begin a phase, its optimiser as new.

        Parameters
        ----------
        optimizer : Optimizer
        label_smoothing : float
        freeze : str
            The stage up to which layers do not learn in this phase; all that can where ``"none"``.
        """
        import tensorflow as tf

        learning = None
        if freeze != "none":
            learning = layers_after(self._network.upper, str(freeze))
        self._learning = [
            learning is None or name.split("/")[0] in learning for name in self._names
        ]

        self._optimizer, self._smoothing, self._updates = optimizer, label_smoothing, 0
        count = len(optimizer.slots) + optimizer.scratch
        self._slots = [
            [tf.Variable(tf.zeros_like(variable)) for _ in range(count)]
            for variable in self._variables
        ]
        self._step = tf.function(self._learn, autograph=False, reduce_retracing=True)

    def step(
        self, pictures: Any, targets: NDArray[np.float32], rate: float, address: tuple[int, int]
    ) -> tuple[float, int]:
        """Learn from one batch; see :meth:`kindsight.models.trainer.Trainer.step`."""
        self._updates += 1
        arrays = [np.asarray(array, np.float32) for array in self._inputs(pictures)]
        loss, right = self._step(arrays, targets, np.float32(rate), np.float32(self._updates))
        return float(loss), int(right)

    def _learn(self, arrays: Any, targets: Any, rate: Any, update: Any) -> Any:
        import tensorflow as tf

        variables = list(itertools.compress(self._variables, self._learning))
        smoothed = targets * (1 - self._smoothing) + self._smoothing / self.classes
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            # Without dropout, and with batch normalisation as in use.
            with multiplying(self._network.upper, self._precision):
                logits = self._network.upper(arrays, training=False)
            losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
            if self._class_weight is not None:
                weights = np.array(self._class_weight, np.float32)[:, None]
                losses *= tf.matmul(targets, weights)[:, 0]
            loss = tf.reduce_mean(losses)
        gradients = tape.gradient(loss, variables)
        kept = zip(self._slots, self._paces, self._means, strict=True)
        for variable, gradient, (slots, pace, mean) in zip(
            variables, gradients, itertools.compress(kept, self._learning), strict=True
        ):
            kernel = len(variable.shape) > 1
            self._optimizer.apply(variable, slots, gradient, rate * pace, update, kernel)
            mean.assign_add((variable - mean) * self._share)
        same = tf.equal(tf.argmax(logits, 1), tf.argmax(targets, 1))
        told = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        return tf.reduce_sum(told), tf.reduce_sum(tf.cast(same, tf.int32))

    def evaluate(self, pictures: Any, targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of cross-entropies with some pictures' classes, and how many are right.

        By the mean weights.
        """
        logits = self.logits(pictures).astype(np.float64)
        logits -= logits.max(1, keepdims=True)
        losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(len(targets)), targets]
        return float(losses.sum()), int((logits.argmax(1) == targets).sum())

    def logits(self, pictures: Any) -> NDArray[np.float32]:
        """Return the logits of some pictures by the mean weights, float32 (n, classes)."""
        arrays = [np.asarray(array, np.float32) for array in self._inputs(pictures)]
        kept = [variable.numpy() for variable in self._variables]
        for variable, mean in zip(self._variables, self._means, strict=True):
            variable.assign(mean)
        found = np.asarray(self._judged(arrays))
        for variable, value in zip(self._variables, kept, strict=True):
            variable.assign(value)
        return found

    # State -----------------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """Return copies of the mean weights, by name."""
        return {n: mean.numpy() for n, mean in zip(self._names, self._means, strict=True)}

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`weights` gave, as mean weights and as those of the last step.

        Raises
        ------
        ValueError
            For arrays of other names or shapes; nothing is taken then.
        """
        for variables in (self._means, self._variables):
            pairs = zip(self._names, variables, strict=True)
            assign_arrays({name: (variable,) for name, variable in pairs}, arrays)

    def state(self) -> Arrays:
        """Return copies of both kinds of weights and of what the optimiser keeps."""
        named = {name: variable.numpy() for name, variable in self._state().items()}
        return {**named, UPDATES: np.array([self._updates], np.float32)}

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`state` gave, in the same phase; ValueError as above."""
        rest, updates = part_updates(arrays)
        assign_arrays({name: (variable,) for name, variable in self._state().items()}, rest)
        self._updates = updates

    def _state(self) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, variable, mean, slots in zip(
            self._names, self._variables, self._means, self._slots, strict=True
        ):
            named |= {WEIGHT + name: variable, MEAN + name: mean}
            named |= {f"{SLOT}{place}/{name}": slot for place, slot in enumerate(slots)}
        return named

    # Files -----------------------------------------------------------------------------------

    def save(
        self,
        keras_file: str | os.PathLike[str],
        tflite_file: str | os.PathLike[str],
        frozen: Any = None,
        share: float = 1.0,
    ) -> float:
        """Write the whole network, pixels to logits, in both forms, with the mean weights.

        Parameters
        ----------
        keras_file, tflite_file : path
        frozen : keras.Model, optional
            Pixels to logits, to answer together with it.
        share : float
            Of this network in that answer: 1 for the network alone.

        Returns
        -------
        float
            The largest difference between the two on generated pictures, as a share of the
            largest logit.

        Raises
        ------
        AgreementError
            Where that is too much.
        """
        self.set_weights(self.weights())
        model = self._network.full
        if frozen is not None and share < 1:
            model = answering_together(model, frozen, share)
        return write_both_forms(model, keras_file, tflite_file)
