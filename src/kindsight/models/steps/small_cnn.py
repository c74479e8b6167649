"""Forward pass of the small CNN: the same function as in Keras, a third faster on CPUs.

- Bias and ReLU are applied after the pooling, to a quarter of the values. Both are monotonic, so
  the maximum is the same.
- The batch is computed in shards, one per core: no synchronisation within an operation, and sums
  in an order that does not depend on threads.
- Convolutions in training may use bfloat16; see :mod:`.compute_dtype`. Evaluation is float32.
- A large dense kernel is split into pieces, whose gradients and updates are computed in parallel;
  its backward product is kernel times transposed gradient, which is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.networks.keras_heads import UNIT
from kindsight.models.networks.small_cnn import SmallCNN
from kindsight.models.steps.forward import Parameter, split_batch

__all__ = ["SmallCNNForward"]

# A larger dense kernel is split into at most PIECES pieces.
PIECE = 2**20  # numbers
PIECES = 8


class SmallCNNForward:
    """The small CNN without batch normalisation, from a built model with initial weights.

    `compute_dtype` is of convolutions in training.
    """

    sharded = True
    shard_images = 0

    def __init__(self, network: SmallCNN, model: Any, compute_dtype: str = "float32") -> None:
        self._network, self.model, self._compute_dtype = network, model, compute_dtype
        self._layers = [layer for layer in model.layers if layer.trainable_variables]
        self.parameters = [
            Parameter(f"{layer.name}/{name}", _split_kernel(value.numpy()), name == "kernel", l2)
            for layer in self._layers
            for name, value, l2 in (("kernel", layer.kernel, network.l2), ("bias", layer.bias, 0.0))
        ]
        self.others: list[tuple[str, Any]] = []

    def arrays(self, images: Any) -> Any:
        """Return the images of a batch."""
        return images

    def begin(self, frozen: str | int) -> list[bool]:
        """Train all parameters in the next phase."""
        return [True] * len(self.parameters)

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
        rate = self._network.dropout
        if random_key is not None and rate:
            keep = tf.random.stateless_uniform(tf.shape(x), random_key) >= rate
            x = tf.where(keep, x / (1 - rate), 0.0)
        kernel, bias = pairs[-1]
        x = tf.nn.bias_add(_dense(x, kernel), bias)
        # Logits of two classes: zero and the output of the unit, as in the Keras model.
        return tf.pad(x, [[0, 0], [1, 0]]) if self._layers[-1].name == UNIT else x

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
        if self._network.pooling == "average":
            return tf.reduce_mean(x, [1, 2])
        if self._network.pooling == "max":
            return tf.reduce_max(x, [1, 2])
        return tf.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))


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
