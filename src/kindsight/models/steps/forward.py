"""Forward passes: the parameters of a network, and its logits and gradients.

:class:`KerasForward` runs any Keras model; :mod:`.small_cnn` the small CNN, reordered for CPUs;
:mod:`.backbones` the trainable layers of a backbone.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Forward", "KerasForward", "Parameter", "split_batch"]


@dataclass(frozen=True)
class Parameter:
    """A trainable array.

    `name` is ``layer/kernel`` or ``layer/bias``; `pieces` are variables of its value, several if it
    is split along its first axis; `decayed` is whether weight decay applies; `l2` is the L2
    strength; `rate` a factor of the learning rate.
    """

    name: str
    pieces: tuple[Any, ...]
    decayed: bool
    l2: float = 0.0
    rate: float = 1.0


class Forward(Protocol):
    """What :class:`.trainable.TrainableNetwork` needs of a network.

    `model`, from pixels to logits, is saved. `sharded` is whether a batch can be computed in
    shards, each on one core; `shard_images` the number of images of a shard where it is a part of
    the result, else 0; `parameters` are in the order of the layers; `others` is other state
    that a step changes, by name.
    """

    model: Any
    sharded: bool
    shard_images: int
    parameters: list[Parameter]
    others: list[tuple[str, Any]]

    def arrays(self, images: Any) -> Any:
        """Convert a batch of the training loop to the network's input array, or arrays."""

    def begin(self, frozen: str | int) -> list[bool]:
        """Freeze layers for a phase; return which of the parameters are trained."""

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], random_key: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Return logits in training mode, and the gradients of a loss of them."""

    def logits(self, images: Any, shards: int) -> Any:
        """Return logits in inference mode."""

    def write_back(self) -> None:
        """Copy the trained weights into the Keras model."""


class KerasForward:
    """Any Keras model from pixels to logits; `l2_of` maps a kernel's name to its L2 strength.

    A batch is computed whole, as batch normalisation needs, unless a subclass is ``sharded``.
    """

    sharded = False
    shard_images = 0

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
        generators = [
            generator
            for layer in model._flatten_layers()
            for generator in layer.__dict__.values()
            if type(generator).__name__ == "SeedGenerator"
        ]
        self._seed_states = [generator.state for generator in generators]
        seed_ids = {id(state) for state in self._seed_states}
        self.others = [
            (_path(variable), variable.value)
            for variable in model.non_trainable_variables
            if id(variable) not in seed_ids
        ]

    def differentiate(
        self, images: Any, loss_of: Callable[[Any], Any], random_key: Any, shards: int
    ) -> tuple[Any, list[Any]]:
        """Return logits and gradients, None for a frozen parameter; see :class:`Forward`."""
        import tensorflow as tf

        self._set_seeds(random_key)
        below = self._below(images)
        flat = [item.pieces[0] for item in self.parameters]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(flat)
            logits = self._in_shards(below, shards, training=True)
            loss = loss_of(logits)
        return logits, tape.gradient(loss, flat)

    def logits(self, images: Any, shards: int) -> Any:
        """Return logits in inference mode."""
        return self._in_shards(self._below(images), shards, training=False)

    def _in_shards(self, below: Any, shards: int, *, training: bool) -> Any:
        """Return logits, computed in shards in parallel."""
        import tensorflow as tf

        found = [self._above(shard, training=training) for shard in split_batch(below, shards)]
        return tf.concat(found, 0) if shards > 1 else found[0]

    def _below(self, images: Any) -> Any:
        """Return the inputs of the trainable layers."""
        import tensorflow as tf

        return tf.cast(images, tf.float32)

    def _above(self, below: Any, *, training: bool) -> Any:
        """Return logits, given the inputs of the trainable layers."""
        return self.model(below, training=training)

    def arrays(self, images: Any) -> Any:
        """Return the images of a batch."""
        return images

    def begin(self, frozen: str | int) -> list[bool]:
        """Train all parameters in the next phase."""
        return [True] * len(self.parameters)

    def write_back(self) -> None:
        """Do nothing: the model's own variables are trained."""

    def _set_seeds(self, random_key: Any) -> None:
        """Set the random state of dropout layers, within a traced function."""
        import tensorflow as tf

        for number, state in enumerate(self._seed_states):
            # The state of Keras is two 32-bit words.
            state.assign(tf.cast((random_key + number) % 2**31, state.dtype))


def split_batch(batch: Any, shards: int) -> list[Any]:
    """Split a batch, an array or several, into shards of about the same size."""
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
