"""A network in training: weights, training steps, evaluation and state for checkpoints."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.networks.keras_heads import with_score_features
from kindsight.models.networks.small_cnn import (
    ModernCNN,
    SmallCNN,
    build_modern_cnn,
    build_small_cnn,
)
from kindsight.models.networks.transfer import TransferNetwork
from kindsight.models.runtime import write_both_forms
from kindsight.models.steps.backbones import TransferForward
from kindsight.models.steps.forward import Forward, KerasForward
from kindsight.models.steps.optimizers import Arrays, Optimizer, Updates
from kindsight.models.steps.small_cnn import ModernCNNForward, SmallCNNForward
from kindsight.models.worker.device import on_gpu

__all__ = ["TrainableNetwork", "set_threads"]

# Fewer images are not worth a shard.
MIN_SHARD = 4


def make_forward(
    network: SmallCNN | ModernCNN | TransferNetwork | Forward,
    classes: int,
    seed: int,
    compute_dtype: str = "float32",
) -> Forward:
    """Return the fastest forward pass of a network, built from its settings or built already."""
    if isinstance(network, TransferNetwork):
        return TransferForward(network, classes, seed, compute_dtype)
    if isinstance(network, ModernCNN):
        return ModernCNNForward(network, build_modern_cnn(network, classes, seed), compute_dtype)
    if not isinstance(network, SmallCNN):
        return network
    model = build_small_cnn(network, classes, seed)
    # Batch normalisation needs the whole batch, and a negative factor swaps maximum and minimum.
    if network.batch_norm:
        return KerasForward(model, lambda name: network.l2)
    return SmallCNNForward(network, model, compute_dtype)


def set_threads(cores: int, *, sharded: bool) -> None:
    """Set how TensorFlow uses the cores, before it computes anything, for the rest of the process.

    If batches are computed in shards (`sharded`), each operation runs on one thread, and as many in
    parallel as there are cores; otherwise one on all cores. Sums are in the same order each time.
    On a GPU nothing is set: some of its operations cannot keep an order.
    """
    if on_gpu():
        return
    import tensorflow as tf

    within, between = (1, cores) if sharded else (cores, 1)
    current = (
        tf.config.threading.get_intra_op_parallelism_threads(),
        tf.config.threading.get_inter_op_parallelism_threads(),
    )
    if sharded and current == (within, between):
        return  # an earlier job of this process set them
    try:
        tf.config.threading.set_intra_op_parallelism_threads(within)
        tf.config.threading.set_inter_op_parallelism_threads(between)
    except RuntimeError:  # TensorFlow computes already, each operation on all cores
        sharded = False
    if not sharded:
        tf.config.experimental.enable_op_determinism()


class TrainableNetwork:
    """A network with its optimizer.

    Parameters
    ----------
    network : SmallCNN, ModernCNN, TransferNetwork or Forward
        Settings of a network, or a built one.
    classes : int
        2 or more.
    seed : int
        Of the initial weights.
    shards : int
        Maximum number of shards of a batch, usually the number of cores. Another number rounds
        sums differently. Of a modern CNN the size of the shards is fixed instead.
    class_weight : sequence of float, optional
        Weight of each class in the loss; 1 if omitted.
    compute_dtype : str
        ``"float32"`` or ``"bfloat16"``, of convolutions in training steps. Ignored for a small
        CNN with batch normalisation, which uses float32.
    layer_decay : float
        Layer-wise learning-rate decay, above 0 to 1: factor per layer from the top down (J.
        Howard and S. Ruder, "Universal language model fine-tuning", ACL 2018).
    ema_decay : float
        0 to below 1. Above 0, the EMA of the weights with this decay is evaluated and saved (B.
        Polyak and A. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
        Journal on Control and Optimization 30, 1992).
    ema_warmup : bool
        Whether the decay of the EMA is smaller in the first steps of a phase.
    """

    def __init__(
        self,
        network: SmallCNN | ModernCNN | TransferNetwork | Forward,
        classes: int,
        seed: int,
        shards: int,
        class_weight: Sequence[float] | None = None,
        compute_dtype: str = "float32",
        *,
        layer_decay: float = 1.0,
        ema_decay: float = 0.0,
        ema_warmup: bool = True,
    ) -> None:
        self.classes, self._shards = classes, shards
        self._class_weight = class_weight
        self._forward: Forward = make_forward(network, classes, seed, compute_dtype)
        self._updates = Updates(
            self._forward.parameters, self._forward.others, shards, layer_decay=layer_decay,
            ema_decay=ema_decay, ema_warmup=ema_warmup,
        )  # fmt: skip
        self._traced: dict[Any, Any] = {}

    def begin(
        self, optimizer: Optimizer, label_smoothing: float = 0.0, freeze: str | int = "none"
    ) -> None:
        """Start a phase with a new optimizer state; `freeze` as of :func:`.freezing.freeze`."""
        self._smoothing = label_smoothing
        self._updates.begin(optimizer, self._forward.begin(freeze))
        self._traced = {}

    def step(
        self,
        images: NDArray[np.uint8],
        targets: NDArray[np.float32],
        learning_rate: float,
        random_key: tuple[int, int],
    ) -> tuple[float, int]:
        """Train on one batch; return the loss and the number of correct predictions.

        `images` are uint8 (n, height, width, 3), or what else the network takes in this phase;
        `targets` are float32 (n, classes), whose rows sum to 1; `random_key` is the key of the
        network's random numbers, 0 to below 2**31. The loss is the sum of the cross-entropies in
        nats, without label smoothing, class weights and L2.
        """
        inputs = self._forward.arrays(images)
        step = self._function("step", inputs)
        self._updates.done += 1
        rate, update = np.float32(learning_rate), np.float32(self._updates.done)
        loss, correct = step(inputs, targets, rate, update, np.array(random_key, np.int64))
        return float(loss), int(correct)

    def evaluate(self, images: NDArray[np.uint8], targets: NDArray[np.int64]) -> tuple[float, int]:
        """Return the sum of cross-entropies in nats, and the number of correct predictions."""
        inputs = self._forward.arrays(images)
        evaluation = self._function("evaluation", inputs)
        with self._updates.averaged():
            loss, correct = evaluation(inputs, targets)
        return float(loss), int(correct)

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return logits, float32 (n, classes)."""
        inputs = self._forward.arrays(images)
        logits = self._function("logits", inputs)
        with self._updates.averaged():
            return np.asarray(logits(inputs))

    def _function(self, name: str, inputs: Any) -> Any:
        """Return the traced function for inputs of these shapes; trace it once."""
        import tensorflow as tf

        arrays, shards = tf.nest.flatten(inputs), 1
        if self._forward.shard_images:
            shards = max(1, len(arrays[0]) // self._forward.shard_images)
        elif self._forward.sharded:
            shards = max(1, min(self._shards, len(arrays[0]) // MIN_SHARD))
        key = (name, shards, *((array.dtype, array.shape[1:]) for array in arrays))
        if key not in self._traced:
            spec = tf.nest.map_structure(
                lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), inputs
            )
            self._traced[key] = getattr(self, f"_trace_{name}")(shards, spec)
        return self._traced[key]

    def _trace_logits(self, shards: int, spec: Any) -> Any:
        import tensorflow as tf

        def logits(images: Any) -> Any:
            return self._forward.logits(images, shards)

        return tf.function(logits, autograph=False, input_signature=[spec])

    def _trace_step(self, shards: int, spec: Any) -> Any:
        import tensorflow as tf

        weights = None
        if self._class_weight is not None:
            weights = np.array(self._class_weight, np.float32)[:, None]

        def step(images: Any, targets: Any, rate: Any, update: Any, random_key: Any) -> Any:
            smoothed = targets * (1 - self._smoothing) + self._smoothing / self.classes

            def loss_of(logits: Any) -> Any:
                losses = tf.nn.softmax_cross_entropy_with_logits(smoothed, logits)
                if weights is not None:
                    losses *= tf.matmul(targets, weights)[:, 0]
                return tf.reduce_mean(losses)

            logits, gradients = self._forward.differentiate(images, loss_of, random_key, shards)
            self._updates.apply(gradients, rate, update)
            same = tf.equal(tf.argmax(logits, 1), tf.argmax(targets, 1))
            losses = tf.nn.softmax_cross_entropy_with_logits(targets, logits)
            return tf.reduce_sum(losses), tf.reduce_sum(tf.cast(same, tf.int32))

        number = tf.TensorSpec((), tf.float32)
        target_spec = tf.TensorSpec((None, self.classes), tf.float32)
        signature = [spec, target_spec, number, number, tf.TensorSpec((2,), tf.int64)]
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

    def weights(self) -> Arrays:
        """Return copies of the weights by name, of their EMA if there is one."""
        return self._updates.weights()

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore :meth:`weights`; ValueError for other names or shapes, and nothing changes."""
        self._updates.set_weights(arrays)

    def state(self) -> Arrays:
        """Return copies of the weights and the optimizer's state."""
        return self._updates.state()

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore :meth:`state` in the same phase; ValueError as for :meth:`set_weights`."""
        self._updates.set_state(arrays)

    def save(
        self,
        keras_file: str | os.PathLike[str],
        tflite_file: str | os.PathLike[str],
        model: Any = None,
    ) -> float:
        """Save the network, or a `model` that contains it, as ``.keras`` and ``.tflite``.

        A second output is the input of the last dense layer, see :mod:`.keras_heads`.

        Returns the largest difference between both on generated images, relative to the largest
        logit; ParityError if that is too large.
        """
        self.set_weights(self.weights())
        self._forward.write_back()
        whole = with_score_features(model or self._forward.model)
        return write_both_forms(whole, keras_file, tflite_file)
