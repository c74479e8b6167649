"""The small network as the training step sees it: what Keras computes, faster on a CPU.

The other order takes a third less time:

- ReLU and bias come after the pooling, on a quarter of the numbers. Both only ever rise with their
  input, so the maximum of four is the same before and after them.
- The batch is computed in shards, each on one core, which then needs nobody else's memory: no
  waiting on each other within an operation, and sums whose order does not depend on threads.
- Where the processor is faster with bfloat16, the convolutions of the training multiply in it and
  add up in float32; see :mod:`.compute_dtype`. Whatever is only evaluated is in float32.
- A large dense layer is parted into pieces, whose gradients and updates run side by side, and its
  backward product is formed as kernel times transposed gradient, for which there is a fast kernel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.heads.trainable import UNIT
from kindsight.models.networks.small_cnn import SmallCNN
from kindsight.models.steps.forward import Parameter, parted

__all__ = ["SmallCNNForward"]

# A kernel of more numbers than this is parted, into at most so many pieces.
PIECE = 2**20
PIECES = 8


class SmallCNNForward:
    """The small network without batch normalisation, computed fast.

    Parameters
    ----------
    network : SmallCNN
    model : keras.Model
        As :func:`.small_cnn.build_small_cnn` builds it; the first values are taken from it.
    compute_dtype : str
        ``"float32"`` or ``"bfloat16"``: of the convolutions in training.
    """

    sharded = True

    def __init__(self, network: SmallCNN, model: Any, compute_dtype: str = "float32") -> None:
        self._network, self.model, self._compute_dtype = network, model, compute_dtype
        self._layers = [layer for layer in model.layers if layer.trainable_variables]
        self.parameters = [
            Parameter(f"{layer.name}/{name}", _parted(value.numpy()), name == "kernel", l2)
            for layer in self._layers
            for name, value, l2 in (
                ("kernel", layer.kernel, network.l2),
                ("bias", layer.bias, 0.0),
            )
        ]
        self.others: list[tuple[str, Any]] = []

    def arrays(self, images: Any) -> Any:
        """Return what a batch is given as: its images."""
        return images

    def begin(self, what: str | int) -> list[bool]:
        """Begin a phase; everything learns."""
        return [True] * len(self.parameters)

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits in training, and the gradients of a loss of them.

        Parameters
        ----------
        images : tf.Tensor
            uint8 (n, height, width, 3), n no less than `shards`.
        loss_of : callable
            From logits to a scalar.
        address : tf.Tensor
            int64 (2,): where the chance of dropout is found.
        shards : int
            In how many parts the batch is computed.

        Returns
        -------
        logits : tf.Tensor
        gradients : list of tf.Tensor
            For each piece of each parameter.
        """
        import tensorflow as tf

        values = [[piece.read_value() for piece in item.pieces] for item in self.parameters]
        flat = [piece for pieces in values for piece in pieces]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = self._logits(values, images, address, shards)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, images: Any, shards: int) -> Any:
        """Compute logits as in use; `images` as in :meth:`differentiate`."""
        values = [[piece.read_value() for piece in item.pieces] for item in self.parameters]
        return self._logits(values, images, None, shards)

    def write_back(self) -> None:
        """Put what was learned into the Keras model."""
        for number, layer in enumerate(self._layers):
            pair = (_whole(item) for item in self.parameters[2 * number : 2 * number + 2])
            layer.set_weights(list(pair))

    def _logits(self, values: list[Any], images: Any, address: Any, shards: int) -> Any:
        import tensorflow as tf

        depth = len(self._network.filters)
        pairs = [(values[place], values[place + 1][0]) for place in range(0, len(values), 2)]
        compute_dtype = "float32" if address is None else self._compute_dtype
        towers = [
            self._tower(pairs[:depth], part, compute_dtype) for part in parted(images, shards)
        ]
        x = tf.concat(towers, 0) if shards > 1 else towers[0]
        for kernel, bias in pairs[depth:-1]:
            x = tf.nn.relu(tf.nn.bias_add(_dense(x, kernel), bias))
        rate = self._network.dropout
        if address is not None and rate:
            kept = tf.random.stateless_uniform(tf.shape(x), address) >= rate
            x = tf.where(kept, x / (1 - rate), 0.0)
        kernel, bias = pairs[-1]
        x = tf.nn.bias_add(_dense(x, kernel), bias)
        # One unit: its output beside a zero, as the Keras model has it.
        return tf.pad(x, [[0, 0], [1, 0]]) if self._layers[-1].name == UNIT else x

    def _tower(self, pairs: list[Any], images: Any, compute_dtype: str) -> Any:
        """Compute features of some images."""
        import tensorflow as tf

        x = images
        for number, ((kernel,), bias) in enumerate(pairs):
            # The scaling of the pixels is the kernel's: they are many, it is small.
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
    """Multiply by a kernel in pieces; see the head of this module."""
    import tensorflow as tf

    if len(kernel) == 1:
        return tf.matmul(x, kernel[0])
    rows = [piece.shape[0] for piece in kernel]

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def multiply(x: Any, *pieces: Any) -> Any:
        parts = tf.split(x, rows, axis=1)
        products = [tf.matmul(part, piece) for part, piece in zip(parts, pieces, strict=True)]

        def gradient(upstream: Any) -> Any:
            back = [tf.transpose(tf.matmul(p, upstream, transpose_b=True)) for p in pieces]
            return (
                tf.concat(back, 1),
                *(tf.matmul(part, upstream, transpose_a=True) for part in parts),
            )

        return tf.add_n(products), gradient

    return multiply(x, *kernel)


def _parted(value: NDArray[np.float32]) -> tuple[Any, ...]:
    """Make a value a variable, or several along its first axis where it is a large kernel."""
    import tensorflow as tf

    pieces = min(PIECES, -(-value.size // PIECE)) if value.ndim == 2 else 1
    return tuple(tf.Variable(part) for part in np.array_split(value, pieces))


def _whole(item: Parameter) -> NDArray[np.float32]:
    return np.concatenate([piece.numpy() for piece in item.pieces])
