"""Networks as the training step sees them: what they learn, and logits with gradients.

:class:`KerasForward` runs any Keras model as it is; :mod:`.small_forward` the small network, in an
order that suits a CPU; :mod:`.transfer_forward` and :mod:`.divided_forward` parts of a backbone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Forward", "KerasForward", "Parameter", "parted"]


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
    """What a :class:`.trainer.TrainableNetwork` needs of a network.

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

    def arrays(self, images: Any) -> Any:
        """Return the arrays, or the one, that a batch is given as, of the loop's own."""

    def begin(self, what: str | int) -> list[bool]:
        """Begin a phase in which some layers are frozen; say which of the parameters learn."""

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits in training, and the gradients of a loss of them."""

    def logits(self, images: Any, shards: int) -> Any:
        """Compute logits as in use."""

    def write_back(self) -> None:
        """Put what was learned into the Keras model."""


class KerasForward:
    """Any Keras model from pixels to logits, as Keras itself runs it.

    A batch is computed whole, since batch normalisation looks at all of it, but for networks that
    say that they can be ``sharded``.

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
        self, images: Any, loss_of: Callable[[Any], Any], address: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Compute logits and gradients as :meth:`.SmallCNNForward.differentiate` does.

        The gradient is None for a parameter that the phase does not learn.
        """
        import tensorflow as tf

        self._draw(address)
        below = self._below(images)
        flat = [item.pieces[0] for item in self.parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = self._in_shards(below, shards, learning=True)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, images: Any, shards: int) -> Any:
        """Compute logits as in use."""
        return self._in_shards(self._below(images), shards, learning=False)

    def _in_shards(self, below: Any, shards: int, *, learning: bool) -> Any:
        """Return logits, computed in so many parts side by side."""
        import tensorflow as tf

        found = [self._above(part, learning=learning) for part in parted(below, shards)]
        return tf.concat(found, 0) if shards > 1 else found[0]

    def _below(self, images: Any) -> Any:
        """Return what the layers take that a gradient is wanted of."""
        import tensorflow as tf

        return tf.cast(images, tf.float32)

    def _above(self, below: Any, *, learning: bool) -> Any:
        """Return logits."""
        return self.model(below, training=learning)

    def arrays(self, images: Any) -> Any:
        """Return what a batch is given as: its images."""
        return images

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


def parted(batch: Any, shards: int) -> list[Any]:
    """Part a batch, an array or several, into so many of about the same size."""
    import tensorflow as tf

    if shards == 1:
        return [batch]
    count = tf.shape(tf.nest.flatten(batch)[0])[0]
    ends = [count * number // shards for number in range(shards + 1)]
    return [
        tf.nest.map_structure(lambda array, here=slice(*pair): array[here], batch)
        for pair in itertools.pairwise(ends)
    ]


def _path(variable: Any) -> str:
    path: str = variable.path
    return path
