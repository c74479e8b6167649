"""Forward passes of the small CNN and of the modern CNN, faster on CPUs than Keras's.

- Bias and ReLU are applied after the pooling, to a quarter of the values. Both are monotonic, so
  the maximum is the same.
- The batch is computed in shards, one per core: no synchronisation within an operation, and sums
  in an order that does not depend on threads.
- Convolutions in training may use bfloat16; see :mod:`.compute_dtype`. Evaluation is float32.
- A large dense kernel is split into pieces, whose gradients and updates are computed in parallel;
  its backward product is kernel times transposed gradient, which is faster.

A shard of the modern CNN is computed on one thread and normalised by its own statistics (ghost
batch normalisation, Hoffer et al. 2017, arXiv:1705.08741), so that shards need not wait for each
other. Their size does not depend on the machine, and neither does the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.models.networks.keras_heads import UNIT
from kindsight.models.networks.small_cnn import (
    BATCH_NORM_EPSILON,
    BATCH_NORM_MOMENTUM,
    ModernCNN,
    SmallCNN,
)
from kindsight.models.steps.forward import Parameter, split_batch

__all__ = ["ModernCNNForward", "SmallCNNForward"]

N = TypeVar("N", SmallCNN, ModernCNN)

# A larger dense kernel is split into at most PIECES pieces.
PIECE = 2**20  # numbers
PIECES = 8

SHARD = 32
"""Images of a shard of the modern CNN."""


class _CNNForward(Generic[N]):
    """What the two forward passes share, from a built model with initial weights.

    `compute_dtype` is of convolutions in training.
    """

    sharded = True
    shard_images = 0
    parameters: list[Parameter]

    def __init__(self, network: N, model: Any, compute_dtype: str) -> None:
        self._network: N = network
        self.model, self._compute_dtype = model, compute_dtype
        self._layers = [layer for layer in model.layers if layer.trainable_variables]
        self.others: list[tuple[str, Any]] = []

    def arrays(self, images: Any) -> Any:
        """Return the images of a batch."""
        return images

    def begin(self, frozen: str | int) -> list[bool]:
        """Train all parameters in the next phase."""
        return [True] * len(self.parameters)

    def _pooled(self, maps: Any) -> Any:
        import tensorflow as tf

        if self._network.pooling == "average":
            return tf.reduce_mean(maps, [1, 2])
        if self._network.pooling == "max":
            return tf.reduce_max(maps, [1, 2])
        return tf.reshape(maps, (-1, maps.shape[1] * maps.shape[2] * maps.shape[3]))

    def _dropped(self, x: Any, random_key: Any) -> Any:
        """Apply dropout in training, where there is a `random_key`."""
        import tensorflow as tf

        rate = self._network.dropout
        if random_key is None or not rate:
            return x
        keep = tf.random.stateless_uniform(tf.shape(x), random_key) >= rate
        return tf.where(keep, x / (1 - rate), 0.0)

    def _two_columns(self, x: Any) -> Any:
        """Return the logits; of two classes, zero and the output of the unit, as Keras's model."""
        import tensorflow as tf

        return tf.pad(x, [[0, 0], [1, 0]]) if self._layers[-1].name == UNIT else x


class SmallCNNForward(_CNNForward[SmallCNN]):
    """The small CNN without batch normalisation."""

    def __init__(self, network: SmallCNN, model: Any, compute_dtype: str = "float32") -> None:
        super().__init__(network, model, compute_dtype)
        self.parameters = [
            Parameter(f"{layer.name}/{name}", _split_kernel(value.numpy()), name == "kernel", l2)
            for layer in self._layers
            for name, value, l2 in (("kernel", layer.kernel, network.l2), ("bias", layer.bias, 0.0))
        ]

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], random_key: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Return logits in training mode, and the gradients of a loss of them by each piece.

        `images` are uint8 (n, height, width, 3), n at least `shards`; `random_key` is int64 (2,),
        the key of the random numbers of dropout.
        """
        import tensorflow as tf

        values = [[piece.read_value() for piece in item.pieces] for item in self.parameters]
        flat = [piece for pieces in values for piece in pieces]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = self._logits(values, images, random_key, shards)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, images: Any, shards: int) -> Any:
        """Return logits in inference mode."""
        values = [[piece.read_value() for piece in item.pieces] for item in self.parameters]
        return self._logits(values, images, None, shards)

    def write_back(self) -> None:
        """Copy the trained weights into the Keras model."""
        for number, layer in enumerate(self._layers):
            pair = (_whole(item) for item in self.parameters[2 * number : 2 * number + 2])
            layer.set_weights(list(pair))

    def _logits(self, values: list[Any], images: Any, random_key: Any, shards: int) -> Any:
        import tensorflow as tf

        depth = len(self._network.filters)
        pairs = [(values[k], values[k + 1][0]) for k in range(0, len(values), 2)]
        compute_dtype = "float32" if random_key is None else self._compute_dtype
        features = [
            self._features(pairs[:depth], shard, compute_dtype)
            for shard in split_batch(images, shards)
        ]
        x = tf.concat(features, 0) if shards > 1 else features[0]
        for kernel, bias in pairs[depth:-1]:
            x = tf.nn.relu(tf.nn.bias_add(_dense(x, kernel), bias))
        x = self._dropped(x, random_key)
        kernel, bias = pairs[-1]
        x = tf.nn.bias_add(_dense(x, kernel), bias)
        return self._two_columns(x)

    def _features(self, pairs: list[Any], images: Any, compute_dtype: str) -> Any:
        """Return the features of a shard."""
        import tensorflow as tf

        x = images
        for number, ((kernel,), bias) in enumerate(pairs):
            # Scale the kernel instead of the pixels, which are more.
            scaled = kernel * np.float32(1 / 255) if number == 0 else kernel
            x = tf.nn.conv2d(tf.cast(x, compute_dtype), tf.cast(scaled, compute_dtype), 1, "VALID")
            pooled = tf.cast(tf.nn.max_pool2d(x, 2, 2, "VALID"), tf.float32)
            x = tf.nn.relu(tf.nn.bias_add(pooled, bias))
        return self._pooled(x)


def _dense(x: Any, kernel: list[Any]) -> Any:
    """Multiply by a kernel in pieces."""
    import tensorflow as tf

    if len(kernel) == 1:
        return tf.matmul(x, kernel[0])
    rows = [piece.shape[0] for piece in kernel]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def multiply(x: Any, *pieces: Any) -> Any:
        columns = tf.split(x, rows, axis=1)
        products = [tf.matmul(column, piece) for column, piece in zip(columns, pieces, strict=True)]

        def gradient(upstream: Any) -> Any:
            back = [tf.transpose(tf.matmul(p, upstream, transpose_b=True)) for p in pieces]
            return (
                tf.concat(back, 1),
                *(tf.matmul(column, upstream, transpose_a=True) for column in columns),
            )

        return tf.add_n(products), gradient

    return multiply(x, *kernel)


def _split_kernel(value: NDArray[np.float32]) -> tuple[Any, ...]:
    """Return a value as a variable; a large kernel as several, split along its first axis."""
    import tensorflow as tf

    pieces = min(PIECES, -(-value.size // PIECE)) if value.ndim == 2 else 1
    return tuple(tf.Variable(piece) for piece in np.array_split(value, pieces))


def _whole(item: Parameter) -> NDArray[np.float32]:
    return np.concatenate([piece.numpy() for piece in item.pieces])


class ModernCNNForward(_CNNForward[ModernCNN]):
    """The modern CNN."""

    shard_images = SHARD

    def __init__(self, network: ModernCNN, model: Any, compute_dtype: str = "float32") -> None:
        super().__init__(network, model, compute_dtype)
        self._norms = [layer for layer in self._layers if layer.name.startswith("norm_")]
        self.parameters = [
            Parameter(
                f"{layer.name}/{variable.name}", (variable.value,), variable.name == "kernel",
                network.l2 if variable.name == "kernel" else 0.0,
            )
            for layer in self._layers
            for variable in layer.trainable_variables
        ]  # fmt: skip
        self.others = [
            (f"{layer.name}/{variable.name}", variable.value)
            for layer in self._norms
            for variable in (layer.moving_mean, layer.moving_variance)
        ]

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], random_key: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Return logits in training mode, and the gradients of a loss of them.

        Arguments are as of :meth:`SmallCNNForward.differentiate`. The moving statistics
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
        return self._pooled(x), statistics

    def _head(self, values: list[Any], parts: list[Any], random_key: Any) -> Any:
        """Return the logits of the shards' features."""
        import tensorflow as tf

        x = tf.concat(parts, 0) if len(parts) > 1 else parts[0]
        pairs = values[3 * len(self._norms) :]
        for kernel, bias in zip(pairs[:-2:2], pairs[1:-2:2], strict=True):
            x = tf.nn.relu(tf.nn.bias_add(tf.matmul(x, kernel), bias))
        x = self._dropped(x, random_key)
        x = tf.nn.bias_add(tf.matmul(x, pairs[-2]), pairs[-1])
        return self._two_columns(x)
