"""Forward pass of the modern CNN, fast on CPUs: the batch in shards of a fixed number of images.

Each shard is computed on one thread and normalised by its own statistics (ghost batch
normalisation, Hoffer et al. 2017, arXiv:1705.08741), so that shards need not wait for each other.
Their size does not depend on the machine, and neither does the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from kindsight.models.networks.keras_heads import UNIT
from kindsight.models.networks.modern_cnn import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    ModernCNN,
)
from kindsight.models.steps.forward import Parameter, split_batch

__all__ = ["ModernCNNForward"]

SHARD = 32
"""Images of a shard."""


class ModernCNNForward:
    """The modern CNN, from a built model; `compute_dtype` is of convolutions in training."""

    sharded = True
    shard_images = SHARD

    def __init__(self, network: ModernCNN, model: Any, compute_dtype: str = "float32") -> None:
        self._network, self.model, self._compute_dtype = network, model, compute_dtype
        self._two = any(layer.name == UNIT for layer in model.layers)
        layers = [layer for layer in model.layers if layer.trainable_variables]
        self._norms = [layer for layer in layers if layer.name.startswith("norm_")]
        self.parameters = [
            Parameter(
                f"{layer.name}/{variable.name}", (variable.value,), variable.name == "kernel",
                network.l2 if variable.name == "kernel" else 0.0,
            )
            for layer in layers
            for variable in layer.trainable_variables
        ]  # fmt: skip
        self.others = [
            (f"{layer.name}/{variable.name}", variable.value)
            for layer in self._norms
            for variable in (layer.moving_mean, layer.moving_variance)
        ]

    def arrays(self, images: Any) -> Any:
        """Return the images of a batch."""
        return images

    def begin(self, frozen: str | int) -> list[bool]:
        """Train all parameters in the next phase."""
        return [True] * len(self.parameters)

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], random_key: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Return logits in training mode, and the gradients of a loss of them.

        Arguments are as of :meth:`.small_cnn.SmallCNNForward.differentiate`. The moving statistics
        take the mean over the shards.
        """
        import tensorflow as tf

        values = [item.pieces[0].read_value() for item in self.parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(values)
            parts = [self._features(values, shard) for shard in split_batch(images, shards)]
            logits = self._head(values, [features for features, _ in parts], random_key)
            loss = loss_of(logits)
        gradients = tape.gradient(loss, values)
        for number, (_, moving) in enumerate(self.others):
            batch = tf.add_n([statistics[number] for _, statistics in parts]) / len(parts)
            moving.assign_sub((moving.read_value() - batch) * (1 - BATCH_NORM_MOMENTUM))
        return logits, gradients

    def logits(self, images: Any, shards: int) -> Any:
        """Return logits in inference mode."""
        values = [item.pieces[0].read_value() for item in self.parameters]
        moving = [variable.read_value() for _, variable in self.others]
        parts = [self._features(values, shard, moving)[0] for shard in split_batch(images, shards)]
        return self._head(values, parts, None)

    def write_back(self) -> None:
        """Do nothing: the model's own variables are trained."""

    def _features(
        self, values: list[Any], images: Any, moving: list[Any] | None = None
    ) -> tuple[Any, list[Any]]:
        """Return the features of a shard, and the mean and variance of each normalisation.

        With `moving` statistics these normalise instead, as in inference.
        """
        import tensorflow as tf

        compute_dtype = "float32" if moving is not None else self._compute_dtype
        x, statistics = images, []
        for number, conv in enumerate(self._network.convolutions):
            kernel, gamma, beta = values[3 * number : 3 * number + 3]
            # Scale the kernel instead of the pixels, which are more.
            kernel = kernel * np.float32(1 / 255) if number == 0 else kernel
            x = tf.nn.conv2d(tf.cast(x, compute_dtype), tf.cast(kernel, compute_dtype), 1, "SAME")
            if conv.pools:
                x = tf.nn.max_pool2d(x, 2, 2, "VALID")
            x = tf.cast(x, tf.float32)
            if moving is None:
                x, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                    x, gamma, beta, epsilon=BATCH_NORM_EPSILON, is_training=True
                )
                statistics += [mean, variance]
            else:
                mean, variance = moving[2 * number : 2 * number + 2]
                scale = gamma * tf.math.rsqrt(variance + BATCH_NORM_EPSILON)
                x = x * scale + (beta - mean * scale)
            x = tf.nn.relu(x)
        if self._network.pooling == "average":
            return tf.reduce_mean(x, [1, 2]), statistics
        if self._network.pooling == "max":
            return tf.reduce_max(x, [1, 2]), statistics
        return tf.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3])), statistics

    def _head(self, values: list[Any], parts: list[Any], random_key: Any) -> Any:
        """Return the logits of the shards' features."""
        import tensorflow as tf

        x = tf.concat(parts, 0) if len(parts) > 1 else parts[0]
        pairs = values[3 * len(self._norms) :]
        for kernel, bias in zip(pairs[:-2:2], pairs[1:-2:2], strict=True):
            x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))
        rate = self._network.dropout
        if random_key is not None and rate:
            keep = tf.random.stateless_uniform(tf.shape(x), random_key) >= rate
            x = tf.where(keep, x / (1 - rate), 0.0)
        x = tf.nn.bias_add(tf.matmul(x, pairs[-2]), pairs[-1])
        # Logits of two classes: zero and the output of the unit, as in the Keras model.
        return tf.pad(x, [[0, 0], [1, 0]]) if self._two else x
