"""One network being trained: its weights, the step, and what has to be kept to go on exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.convert import write_both_forms
from kindsight.models.forward import KerasForward, SmallCNNForward, make_forward
from kindsight.models.learned import UPDATES, Arrays, assign_arrays, part_updates
from kindsight.models.optimizers import Optimizer
from kindsight.models.small_cnn import SmallCNN, build_small_cnn

__all__ = ["Trainer", "set_threads"]

# Fewer pictures than this are not worth a shard of their own.
SHARD = 4


def set_threads(network: SmallCNN, cores: int) -> None:
    """Let each operation run on one thread, and as many side by side as there are cores.

    To be called before anything is computed; afterwards the process stays as it is. A network with
    batch normalisation is not computed in shards, so there each operation gets all cores.
    """
    import tensorflow as tf

    within, beside = (cores, 1) if network.batch_norm else (1, cores)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(within)
        tf.config.threading.set_inter_op_parallelism_threads(beside)
    except RuntimeError:  # TensorFlow has begun to compute
        pass
    if network.batch_norm:
        tf.config.experimental.enable_op_determinism()


class Trainer:
    """A network with its optimiser.

    Parameters
    ----------
    network : SmallCNN
    classes : int
        2 or more.
    seed : int
        For the first weights.
    shards : int
        In how many parts a batch is computed, at most: as many as there are cores. Sums are
        rounded differently with another number.
    class_weight : sequence of float, optional
        How much a picture of each class counts; 1 if omitted.
    precision : str
        ``"float32"`` or ``"bfloat16"``: of the convolutions in steps. A network with batch
        normalisation takes float32 whatever is asked.
    """

    def __init__(
        self,
        network: SmallCNN,
        classes: int,
        seed: int,
        shards: int,
        class_weight: Sequence[float] | None = None,
        precision: str = "float32",
    ) -> None:
        self.network, self.classes = network, classes
        self._shards = shards
        self._class_weight = class_weight
        self._model = build_small_cnn(network, classes, seed)
        self._forward: SmallCNNForward | KerasForward = make_forward(
            network, self._model, precision
        )
        self._updates = 0
        self._optimizer = Optimizer()
        self._slots: list[list[Any]] = []
        self._steps: dict[int, Any] = {}
        self._evaluations: dict[int, Any] = {}

    def begin(self, optimizer: Optimizer, label_smoothing: float = 0.0, layers: str = "") -> None:
        """Begin a phase, its optimiser as new; all layers learn in each."""
        import tensorflow as tf

        self._optimizer, self._smoothing = optimizer, label_smoothing
        self._updates = 0
        pieces = [piece for item in self._forward.parameters for piece in item.pieces]
        self._slots = [[tf.Variable(tf.zeros_like(p)) for _ in optimizer.slots] for p in pieces]
        self._scratch: dict[tuple[Any, int], Any] = {}
        if optimizer.scratch:
            # Two pieces of the same shape take turns at one, which then stays in a core's cache;
            # there are as many as cores, so that each has one to work with.
            for place, piece in enumerate(pieces):
                key = (tuple(piece.shape), place % self._shards)
                if key not in self._scratch:
                    self._scratch[key] = tf.Variable(tf.zeros_like(piece))
        self._steps = {}

    def step(
        self,
        pictures: NDArray[np.uint8],
        targets: NDArray[np.float32],
        rate: float,
        address: tuple[int, int],
    ) -> tuple[float, int]:
        """Learn from one batch.

        Parameters
        ----------
        pictures : array
            uint8 (n, height, width, 3).
        targets : array
            float32 (n, classes), rows that sum to 1.
        rate : float
            The learning rate.
        address : (int, int)
            Where chance in the network is found, 0 to 2**31.

        Returns
        -------
        loss : float
            The sum of the pictures' cross-entropies with their targets, in nats: without label
            smoothing, class weights and L2.
        right : int
            How many are most probable in their target's class.
        """
        shards = max(1, min(self._shards, len(pictures) // SHARD))
        if shards not in self._steps:
            self._steps[shards] = self._trace_step(shards)
        self._updates += 1
        loss, right = self._steps[shards](
            pictures,
            targets,
            np.float32(rate),
            np.float32(self._updates),
            np.array(address, np.int64),
        )
        return float(loss), int(right)

    def evaluate(
        self, pictures: NDArray[np.uint8], targets: NDArray[np.int64]
    ) -> tuple[float, int]:
        """Return the sum of cross-entropies with some pictures' classes, and how many are right."""
        shards = max(1, min(self._shards, len(pictures) // SHARD))
        if shards not in self._evaluations:
            self._evaluations[shards] = self._trace_evaluation(shards)
        loss, right = self._evaluations[shards](pictures, targets)
        return float(loss), int(right)

    def _trace_step(self, shards: int) -> Any:
        import tensorflow as tf

        weights = None
        if self._class_weight is not None:
            weights = np.array(self._class_weight, np.float32)[:, None]
        kernels = [item.kernel for item in self._forward.parameters for _ in item.pieces]
        pieces = [piece for item in self._forward.parameters for piece in item.pieces]

        def step(pictures: Any, targets: Any, rate: Any, update: Any, address: Any) -> Any:
            smoothed = targets * (1 - self._smoothing) + self._smoothing / self.classes

            def loss_of(logits: Any) -> Any:
                losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
                if weights is not None:
                    losses *= tf.matmul(targets, weights)[:, 0]
                return tf.reduce_mean(losses)

            logits, gradients = self._forward.differentiate(pictures, loss_of, address, shards)
            users: dict[Any, list[Any]] = {}
            for place, (piece, gradient) in enumerate(zip(pieces, gradients, strict=True)):
                key, slots = (tuple(piece.shape), place % self._shards), list(self._slots[place])
                if kernels[place] and self.network.l2:
                    gradient += 2 * self.network.l2 * piece  # noqa: PLW2901
                if key in self._scratch:
                    slots.append(self._scratch[key])
                with tf.control_dependencies(users.get(key, [])):
                    done = self._optimizer.apply(
                        piece, slots, gradient, rate, update, kernels[place]
                    )
                if key in self._scratch:
                    users[key] = [done]
            same = tf.equal(tf.argmax(logits, 1), tf.argmax(targets, 1))
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(same, tf.int32))

        return tf.function(
            step, autograph=False, input_signature=self._signature()
        ).get_concrete_function()

    def _signature(self) -> list[Any]:
        import tensorflow as tf

        return [
            tf.TensorSpec((None, *self.network.size, 3), tf.uint8),
            tf.TensorSpec((None, self.classes), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((2,), tf.int64),
        ]

    def _trace_evaluation(self, shards: int) -> Any:
        import tensorflow as tf

        def evaluation(pictures: Any, targets: Any) -> Any:
            logits = self._forward.logits(pictures, shards)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            same = tf.equal(tf.argmax(logits, 1), targets)
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(same, tf.int32))

        signature = [self._signature()[0], tf.TensorSpec((None,), tf.int64)]
        return tf.function(evaluation, autograph=False, input_signature=signature)

    # State -----------------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """Return copies of everything that is learned, by name."""
        return {
            name: np.concatenate([piece.numpy() for piece in pieces])
            for name, pieces in self._named_weights().items()
        }

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`weights` gave.

        Raises
        ------
        ValueError
            For arrays of other names or shapes; nothing is taken then.
        """
        assign_arrays(self._named_weights(), arrays)

    def state(self) -> Arrays:
        """Return copies of the weights and of what the optimiser keeps."""
        named = {f"weights/{name}": value for name, value in self.weights().items()}
        for name, slots in self._named_slots().items():
            named[name] = np.concatenate([slot.numpy() for slot in slots])
        return {**named, UPDATES: np.array([self._updates], np.float32)}

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`state` gave, in the same phase; ValueError as above."""
        rest, updates = part_updates(arrays)
        learned = {f"weights/{name}": pieces for name, pieces in self._named_weights().items()}
        assign_arrays({**learned, **self._named_slots()}, rest)
        self._updates = updates

    def _named_weights(self) -> dict[str, tuple[Any, ...]]:
        named = {item.name: item.pieces for item in self._forward.parameters}
        return {**named, **{name: (value,) for name, value in self._forward.others}}

    def _named_slots(self) -> dict[str, tuple[Any, ...]]:
        named, slots = {}, iter(self._slots)
        for item in self._forward.parameters:
            pieces = [next(slots) for _ in item.pieces]
            for place, name in enumerate(self._optimizer.slots):
                named[f"{name}/{item.name}"] = tuple(piece[place] for piece in pieces)
        return named

    # Files -----------------------------------------------------------------------------------

    def save(
        self, keras_file: str | os.PathLike[str], tflite_file: str | os.PathLike[str]
    ) -> float:
        """Write the network, pixels to logits, in both forms.

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
        self._forward.write_back()
        return write_both_forms(self._model, keras_file, tflite_file)
