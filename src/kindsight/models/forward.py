"""Networks as the training step sees them: what they learn, and logits with gradients.

:class:`KerasForward` runs any Keras model as it is. :class:`SmallCNNForward` computes what the
small network of Keras computes, in another order that takes a third less time on a CPU:

- ReLU and bias come after the pooling, on a quarter of the numbers. Both only ever rise with their
  input, so the maximum of four is the same before and after them.
- The batch is computed in shards, each on one core, which then needs nobody else's memory: no
  waiting on each other within an operation, and sums whose order does not depend on threads.
- Where the processor is faster with bfloat16, the convolutions of the training multiply in it and
  add up in float32; see :mod:`.precision`. Whatever is only evaluated is in float32.
- A large dense layer is parted into pieces, whose gradients and updates run side by side, and its
  backward product is formed as kernel times transposed gradient, for which there is a fast kernel.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.models.small_cnn import UNIT, SmallCNN, build_small_cnn
from kindsight.models.transfer import TransferNetwork

__all__ = ["Forward", "KerasForward", "Parameter", "SmallCNNForward", "make_forward"]

# A kernel of more numbers than this is parted, into at most so many pieces.
PIECE = 2**20
PIECES = 8


@dataclass(frozen=True)
class Parameter:
    """Something that is learned.

    Parameters
    ----------
    name : str
        ``layer/kernel`` or ``layer/bias``, as in the Keras model.
    pieces : tuple of tf.Variable
        Its value; several where it is parted along its first axis.
    kernel : bool
        Whether weight decay is for it.
    l2 : float
        The strength of its L2 penalty.
    pace : float
        The share of the learning rate at which it learns.
    """

    name: str
    pieces: tuple[Any, ...]
    kernel: bool
    l2: float = 0.0
    pace: float = 1.0


class Forward(Protocol):
    """What a :class:`.trainer.Trainer` needs of a network.

    Attributes
    ----------
    model : keras.Model
        From pixels to logits, to be written.
    sharded : bool
        Whether a batch can be computed in parts, each on one core.
    parameters : list of Parameter
        What is learned, in the order of the layers.
    others : list of (str, tf.Variable)
        What changes besides in a step, by name.
    """

    model: Any
    sharded: bool
    parameters: list[Parameter]
    others: list[tuple[str, Any]]

    def arrays(self, pictures: Any) -> Any:
        """Return the arrays, or the one, that a batch is given as, of the loop's own."""

    def begin(self, what: str | int) -> list[bool]:
        """Begin a phase in which some layers are frozen; say which of the parameters learn."""

    def differentiate(
        self, pictures: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits in training, and the gradients of a loss of them."""

    def logits(self, pictures: Any, shards: int) -> Any:
        """Compute logits as in use."""

    def write_back(self) -> None:
        """Put what was learned into the Keras model."""


class SmallCNNForward:
    """The small network without batch normalisation, computed fast.

    Parameters
    ----------
    network : SmallCNN
    model : keras.Model
        As :func:`.small_cnn.build_small_cnn` builds it; the first values are taken from it.
    precision : str
        ``"float32"`` or ``"bfloat16"``: of the convolutions in training.
    """

    sharded = True

    def __init__(self, network: SmallCNN, model: Any, precision: str = "float32") -> None:
        self._network, self.model, self._precision = network, model, precision
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

    def arrays(self, pictures: Any) -> Any:
        """Return what a batch is given as: its pictures."""
        return pictures

    def begin(self, what: str | int) -> list[bool]:
        """Begin a phase; everything learns."""
        return [True] * len(self.parameters)

    def differentiate(
        self, pictures: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits in training, and the gradients of a loss of them.

        Parameters
        ----------
        pictures : tf.Tensor
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
            logits = self._logits(values, pictures, address, shards)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, pictures: Any, shards: int) -> Any:
        """Compute logits as in use; `pictures` as in :meth:`differentiate`."""
        values = [[piece.read_value() for piece in item.pieces] for item in self.parameters]
        return self._logits(values, pictures, None, shards)

    def write_back(self) -> None:
        """Put what was learned into the Keras model."""
        for number, layer in enumerate(self._layers):
            pair = (_whole(item) for item in self.parameters[2 * number : 2 * number + 2])
            layer.set_weights(list(pair))

    def _logits(self, values: list[Any], pictures: Any, address: Any, shards: int) -> Any:
        import tensorflow as tf

        depth = len(self._network.filters)
        pairs = [(values[place], values[place + 1][0]) for place in range(0, len(values), 2)]
        precision = "float32" if address is None else self._precision
        towers = [self._tower(pairs[:depth], part, precision) for part in _shards(pictures, shards)]
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

    def _tower(self, pairs: list[Any], pictures: Any, precision: str) -> Any:
        """Compute features of some pictures."""
        import tensorflow as tf

        x = pictures
        for number, ((kernel,), bias) in enumerate(pairs):
            # The scaling of the pixels is the kernel's: they are many, it is small.
            scaled = kernel * np.float32(1 / 255) if number == 0 else kernel
            x = tf.nn.conv2d(tf.cast(x, precision), tf.cast(scaled, precision), 1, "VALID")
            pooled = tf.cast(tf.nn.max_pool2d(x, 2, 2, "VALID"), tf.float32)
            x = tf.nn.relu(tf.nn.bias_add(pooled, bias))
        if self._network.pooling == "average":
            return tf.reduce_mean(x, [1, 2])
        if self._network.pooling == "max":
            return tf.reduce_max(x, [1, 2])
        return tf.reshape(x, (-1, x.shape[1] * x.shape[2] * x.shape[3]))


class KerasForward:
    """Any Keras model from pixels to logits, as Keras itself runs it.

    Parameters
    ----------
    model : keras.Model
    l2_of : callable, optional
        From the name of a kernel to the strength of its L2 penalty.
    """

    sharded = False

    def __init__(self, model: Any, l2_of: Callable[[str], float] = lambda name: 0.0) -> None:
        self.model = model
        self.parameters = [
            Parameter(
                _path(variable),
                (variable.value,),
                _path(variable).endswith("kernel"),
                l2_of(_path(variable)) if _path(variable).endswith("kernel") else 0.0,
            )
            for variable in model.trainable_variables
        ]
        chance = [
            generator
            for layer in model._flatten_layers()
            for generator in layer.__dict__.values()
            if type(generator).__name__ == "SeedGenerator"
        ]
        self._chance = [generator.state for generator in chance]
        held = {id(state) for state in self._chance}
        self.others = [
            (_path(variable), variable.value)
            for variable in model.non_trainable_variables
            if id(variable) not in held
        ]

    def differentiate(
        self, pictures: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits and gradients as :meth:`SmallCNNForward.differentiate` does.

        The batch is computed whole, since batch normalisation looks at all of it. The gradient is
        None for a parameter that the phase does not learn.
        """
        import tensorflow as tf

        self._draw(address)
        below = self._below(pictures)
        flat = [item.pieces[0] for item in self.parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = self._above(below, learning=True)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, pictures: Any, shards: int) -> Any:
        """Compute logits as in use."""
        return self._above(self._below(pictures), learning=False)

    def _below(self, pictures: Any) -> Any:
        """Return what the layers take that a gradient is wanted of."""
        import tensorflow as tf

        return tf.cast(pictures, tf.float32)

    def _above(self, below: Any, *, learning: bool) -> Any:
        """Return logits."""
        return self.model(below, training=learning)

    def arrays(self, pictures: Any) -> Any:
        """Return what a batch is given as: its pictures."""
        return pictures

    def begin(self, what: str | int) -> list[bool]:
        """Begin a phase; everything learns."""
        return [True] * len(self.parameters)

    def write_back(self) -> None:
        """Do nothing: the model's own variables are learned."""

    def _draw(self, address: Any) -> None:
        """Say where the chance of a step is found, within a traced function."""
        import tensorflow as tf

        for number, state in enumerate(self._chance):
            # Keras keeps two words of 32 bits.
            state.assign(tf.cast((address + number) % 2**31, state.dtype))


def make_forward(
    network: SmallCNN | TransferNetwork | Forward,
    classes: int,
    seed: int,
    precision: str = "float32",
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
    precision : str
        ``"float32"`` or ``"bfloat16"``: of convolutions in steps.
    """
    if isinstance(network, TransferNetwork):
        from kindsight.models.transfer_forward import TransferForward

        return TransferForward(network, classes, seed, precision)
    if not isinstance(network, SmallCNN):
        return network
    model = build_small_cnn(network, classes, seed)
    # Batch normalisation is over the whole batch, and may turn a maximum into a minimum.
    if network.batch_norm:
        return KerasForward(model, lambda name: network.l2)
    return SmallCNNForward(network, model, precision)


def _shards(pictures: Any, shards: int) -> list[Any]:
    import tensorflow as tf

    if shards == 1:
        return [pictures]
    count = tf.shape(pictures)[0]
    ends = [count * number // shards for number in range(shards + 1)]
    return [pictures[start:end] for start, end in itertools.pairwise(ends)]


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


def _path(variable: Any) -> str:
    path: str = variable.path
    return path
