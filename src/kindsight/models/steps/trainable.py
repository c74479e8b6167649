"""One network being trained: its weights, the step, and what has to be kept to go on exactly."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.formats.convert import write_both_forms
from kindsight.models.networks.small_cnn import SmallCNN, build_small_cnn
from kindsight.models.networks.transfer import TransferNetwork
from kindsight.models.steps.cut_networks import TransferForward
from kindsight.models.steps.forward import Forward, KerasForward
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.steps.small_cnn import SmallCNNForward
from kindsight.models.steps.updates import Arrays, Updates

if TYPE_CHECKING:
    from kindsight.models.networks.transfer import TransferNetwork

__all__ = [
    "TrainableNetwork",
    "make_forward",
    "set_threads",
]

# SECTION: From what a network is told to be to how it is trained.


def make_forward(
    network: SmallCNN | TransferNetwork | Forward,
    classes: int,
    seed: int,
    compute_dtype: str = "float32",
) -> Forward:
    """Build a network, and return the fastest way to train it.

    Parameters
    ----------
    network : SmallCNN, TransferNetwork or Forward
        One that is built is returned as it is.
    classes : int
        2 or more.
    seed : int
        For the weights that are drawn.
    compute_dtype : str
        ``"float32"`` or ``"bfloat16"``: of convolutions in steps.
    """
    if isinstance(network, TransferNetwork):
        return TransferForward(network, classes, seed, compute_dtype)
    if not isinstance(network, SmallCNN):
        return network
    model = build_small_cnn(network, classes, seed)
    # Batch normalisation is over the whole batch, and may turn a maximum into a minimum.
    if network.batch_norm:
        return KerasForward(model, lambda name: network.l2)
    return SmallCNNForward(network, model, compute_dtype)


# Fewer images than this are not worth a shard of their own.
SHARD = 4


def set_threads(cores: int, *, sharded: bool) -> None:
    """Say how the cores are shared; to be called before anything is computed.

    Afterwards the process stays as it is.

    Parameters
    ----------
    cores : int
        How many there are.
    sharded : bool
        Whether batches are computed in shards. Then each operation runs on one thread, and as many
        side by side as there are cores. Otherwise each gets all cores. Sums are in the same order
        each time.
    """
    import tensorflow as tf

    within, beside = (1, cores) if sharded else (cores, 1)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(within)
        tf.config.threading.set_inter_op_parallelism_threads(beside)
    except RuntimeError:  # TensorFlow has begun to compute, with all cores for each operation
        sharded = False
    if not sharded:
        tf.config.experimental.enable_op_determinism()


class TrainableNetwork:
    """A network with its optimiser.

    Parameters
    ----------
    network : SmallCNN, TransferNetwork or Forward
        One to be built, or one that is.
    classes : int
        2 or more.
    seed : int
        For the first weights.
    shards : int
        In how many parts a batch is computed, at most: as many as there are cores. Sums are
        rounded differently with another number.
    class_weight : sequence of float, optional
        How much an image of each class counts; 1 if omitted.
    compute_dtype : str
        ``"float32"`` or ``"bfloat16"``: of the convolutions in steps. A small network with batch
        normalisation takes float32 whatever is asked.
    layer_decay : float
        Above 0 to 1: by this each layer learns slower than the one above it (J. Howard and S.
        Ruder, "Universal language model fine-tuning", ACL 2018).
    ema_decay : float
        0 to below 1. Above 0 what is judged and kept is a running mean of the weights (B. Polyak
        and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM Journal on
        Control and Optimization 30, 1992), which keeps this share of itself in each step.
    early : bool
        Whether that mean keeps less of itself while few steps of a phase are done.
    """

    def __init__(
        self,
        network: SmallCNN | TransferNetwork | Forward,
        classes: int,
        seed: int,
        shards: int,
        class_weight: Sequence[float] | None = None,
        compute_dtype: str = "float32",
        *,
        layer_decay: float = 1.0,
        ema_decay: float = 0.0,
        early: bool = True,
    ) -> None:
        self.classes, self._shards = classes, shards
        self._class_weight = class_weight
        self._forward: Forward = make_forward(network, classes, seed, compute_dtype)
        self._updates = Updates(
            self._forward.parameters, self._forward.others, shards, layer_decay=layer_decay,
            ema_decay=ema_decay, early=early,
        )  # fmt: skip
        self._traced: dict[Any, Any] = {}

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Begin a phase, its optimiser as new.

        Parameters
        ----------
        optimizer : Optimizer
        label_smoothing : float
        freeze : str or int
            Which layers of a backbone do not learn, as :func:`.freezing.freeze` takes it.
        """
        self._smoothing = label_smoothing
        self._updates.begin(optimizer, self._forward.begin(freeze))
        self._traced = {}

    def step(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        rate: float,
        address: tuple[int, int],
    ) -> tuple[float, int]:
        """Learn from one batch.

        Parameters
        ----------
        images : array
            uint8 (n, height, width, 3); or what else the network takes in this phase.
        targets : array
            float32 (n, classes), rows that sum to 1.
        rate : float
            The learning rate.
        address : (int, int)
            Where chance in the network is found, 0 to 2**31.

        Returns
        -------
        loss : float
            The sum of the images' cross-entropies with their targets, in nats: without label
            smoothing, class weights and L2.
        right : int
            How many are most probable in their target's class.
        """
        given = self._forward.arrays(images)
        step = self._function("step", given)
        self._updates.done += 1
        loss, right = step(
            given,
            targets,
            np.float32(rate),
            np.float32(self._updates.done),
            np.array(address, np.int64),
        )
        return float(loss), int(right)

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of cross-entropies with some images' classes, and how many are right."""
        given = self._forward.arrays(images)
        evaluation = self._function("evaluation", given)
        with self._updates.answering():
            loss, right = evaluation(given, targets)
        return float(loss), int(right)

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return the logits of some images, float32 (n, classes)."""
        given = self._forward.arrays(images)
        answer = self._function("logits", given)
        with self._updates.answering():
            return np.asarray(answer(given))

    def _function(self, name: str, given: Any) -> Any:
        """Return what was traced for arrays like these, or trace it."""
        import tensorflow as tf

        arrays, shards = tf.nest.flatten(given), 1
        if self._forward.sharded:
            shards = max(1, min(self._shards, len(arrays[0]) // SHARD))
        key = (name, shards, *((array.dtype, array.shape[1:]) for array in arrays))
        if key not in self._traced:
            spec = tf.nest.map_structure(
                lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), given
            )
            trace = {
                "step": self._trace_step,
                "evaluation": self._trace_evaluation,
                "logits": self._trace_logits,
            }
            self._traced[key] = trace[name](shards, spec)
        return self._traced[key]

    def _trace_logits(self, shards: int, spec: Any) -> Any:
        import tensorflow as tf

        return tf.function(
            lambda images: self._forward.logits(images, shards),
            autograph=False,
            input_signature=[spec],
        )

    def _trace_step(self, shards: int, spec: Any) -> Any:
        import tensorflow as tf

        weights = None
        if self._class_weight is not None:
            weights = np.array(self._class_weight, np.float32)[:, None]

        def step(images: Any, targets: Any, rate: Any, update: Any, address: Any) -> Any:
            smoothed = targets * (1 - self._smoothing) + self._smoothing / self.classes

            def loss_of(logits: Any) -> Any:
                losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
                if weights is not None:
                    losses *= tf.matmul(targets, weights)[:, 0]
                return tf.reduce_mean(losses)

            logits, gradients = self._forward.differentiate(images, loss_of, address, shards)
            self._updates.apply(gradients, rate, update)
            same = tf.equal(tf.argmax(logits, 1), tf.argmax(targets, 1))
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(same, tf.int32))

        signature = [
            spec,
            tf.TensorSpec((None, self.classes), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((), tf.float32),
            tf.TensorSpec((2,), tf.int64),
        ]
        return tf.function(step, autograph=False, input_signature=signature).get_concrete_function()

    def _trace_evaluation(self, shards: int, spec: Any) -> Any:
        import tensorflow as tf

        def evaluation(images: Any, targets: Any) -> Any:
            logits = self._forward.logits(images, shards)
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, logits)
            same = tf.equal(tf.argmax(logits, 1), targets)
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(same, tf.int32))

        signature = [spec, tf.TensorSpec((None,), tf.int64)]
        return tf.function(evaluation, autograph=False, input_signature=signature)

    # State -----------------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """Return copies of everything that is learned, by name: the means, where there are."""
        return self._updates.weights()

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`weights` gave.

        Raises
        ------
        ValueError
            For arrays of other names or shapes; nothing is taken then.
        """
        self._updates.set_weights(arrays)

    def state(self) -> Arrays:
        """Return copies of the weights and of what the optimiser keeps."""
        return self._updates.state()

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`state` gave, in the same phase; ValueError as above."""
        self._updates.set_state(arrays)

    # Files -----------------------------------------------------------------------------------

    def save(
        self,
        keras_file: str | os.PathLike[str],
        tflite_file: str | os.PathLike[str],
        model: Any = None,
    ) -> float:
        """Write the network, pixels to logits, in both forms.

        Parameters
        ----------
        keras_file, tflite_file : path
        model : keras.Model, optional
            In its place: another one, of which it is a part.

        Returns
        -------
        float
            The largest difference between the two on generated images, as a share of the
            largest logit.

        Raises
        ------
        ParityError
            Where that is too much.
        """
        self.set_weights(self.weights())
        self._forward.write_back()
        return write_both_forms(model or self._forward.model, keras_file, tflite_file)
