"""What is learned of a network: its weights, their running mean, and what the optimiser keeps."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.steps.forward import Parameter
from kindsight.models.steps.optimizers import Optimizer

__all__ = [
    "UPDATES",
    "Arrays",
    "Updates",
    "assign_arrays",
    "layer_depths",
    "part_updates",
]

# SECTION: What is learned, as arrays by name: taken back into variables whole, or not at all.

Arrays = dict[str, NDArray[np.float32]]

UPDATES = "updates"
"""The name under which the number of updates is among the arrays of a state."""


def assign_arrays(
    named: Mapping[str, Sequence[Any]], arrays: Mapping[str, NDArray[np.float32]]
) -> None:
    """Give variables their values.

    Parameters
    ----------
    named : mapping of str to sequence of tf.Variable
        By name what an array is parted into along its first axis, often one variable.
    arrays : mapping
        float32, of the same names; as hostile as any file.

    Raises
    ------
    ValueError
        For arrays of other names or shapes; nothing is assigned then.
    """
    if named.keys() != arrays.keys():
        raise ValueError(f"other names: {sorted(named.keys() ^ arrays.keys())[:5]}")
    for name, variables in named.items():
        array, shape = arrays[name], tuple(variables[0].shape)
        if len(variables) > 1:
            shape = (sum(variable.shape[0] for variable in variables), *shape[1:])
        if array.shape != shape or array.dtype != np.float32:
            raise ValueError(f"{name} is {array.dtype} {array.shape}")
    for name, variables in named.items():
        if len(variables) == 1:
            variables[0].assign(arrays[name])
            continue
        ends = np.cumsum([variable.shape[0] for variable in variables])[:-1]
        for variable, part in zip(variables, np.split(arrays[name], ends), strict=True):
            variable.assign(part)


def part_updates(arrays: Mapping[str, NDArray[np.float32]]) -> tuple[Arrays, int]:
    """Part a state into its other arrays and the number of updates; ValueError without one."""
    rest = dict(arrays)
    updates = rest.pop(UPDATES, np.zeros(0))
    if updates.shape != (1,):
        raise ValueError("updates is no number")
    return rest, int(updates[0])


def layer_depths(names: Sequence[str]) -> list[int]:
    """Return how far each variable's layer is from the output, counted in layers that learn.

    Parameters
    ----------
    names : sequence of str
        ``layer/kernel`` and the like, in the order of the layers.
    """
    layers = [name.rpartition("/")[0] for name in names]
    places = {layer: place for place, layer in enumerate(dict.fromkeys(layers))}
    return [len(places) - 1 - places[layer] for layer in layers]


# While few steps are done, a running mean is of few: of (1 + step) / (10 + step), as TensorFlow's
# ExponentialMovingAverage has it.
AVERAGE_START = 10

MEAN, WEIGHTS = "mean/", "weights/"


class Updates:
    """The variables of a network, and how each is updated in a step.

    Parameters
    ----------
    items : sequence of Parameter
        What is learned, in the order of the layers.
    others : sequence of (str, tf.Variable)
        What changes besides, by name.
    shards : int
        How many updates go on side by side.
    layer_decay, ema_decay, early
        As :class:`.trainer.TrainableNetwork` takes them.
    """

    def __init__(
        self,
        items: Sequence[Parameter],
        others: Sequence[tuple[str, Any]],
        shards: int,
        *,
        layer_decay: float,
        ema_decay: float,
        early: bool,
    ) -> None:
        import tensorflow as tf

        self._items, self._others, self._shards = items, others, shards
        pairs = zip(items, layer_depths([item.name for item in items]), strict=True)
        self._paces = [item.pace * layer_decay**depth for item, depth in pairs]
        self._ema_decay, self._early = ema_decay, early
        self._means = [
            [tf.Variable(piece) for piece in item.pieces] if ema_decay else list(item.pieces)
            for item in items
        ]
        self._learning = [True] * len(items)
        self._optimizer = Optimizer()
        self._slots: list[list[list[Any]]] = []
        self._scratch: dict[tuple[Any, int], Any] = {}
        self.done = 0
        """How many there were in this phase."""

    def begin(self, optimizer: Optimizer, learning: Sequence[bool]) -> None:
        """Begin a phase, its optimiser as new; `learning` says which of the parameters learn."""
        import tensorflow as tf

        self._optimizer, self._learning, self.done = optimizer, list(learning), 0
        self._slots = [
            [[tf.Variable(tf.zeros_like(piece)) for _ in optimizer.slots] for piece in item.pieces]
            if learns
            else []
            for item, learns in zip(self._items, learning, strict=True)
        ]
        self._scratch = {}
        if optimizer.scratch:
            # Two pieces of the same shape take turns at one, which then stays in a core's cache;
            # there are as many as cores, so that each has one to work with.
            learned = itertools.compress(self._items, learning)
            for place, piece in enumerate(piece for item in learned for piece in item.pieces):
                key = (tuple(piece.shape), place % self._shards)
                if key not in self._scratch:
                    self._scratch[key] = tf.Variable(tf.zeros_like(piece))

    def apply(self, gradients: list[Any], rate: Any, update: Any) -> None:
        """Update what learns, within a traced function.

        Parameters
        ----------
        gradients : list of tf.Tensor
            For each piece of each parameter; those of what does not learn are not looked at.
        rate : tf.Tensor
            The learning rate, a scalar.
        update : tf.Tensor
            Which update this is: 1.0 for the first.
        """
        import tensorflow as tf

        share = self._ema_decay
        if self._early:
            share = tf.minimum(share, (1 + update) / (AVERAGE_START + update))
        users: dict[Any, list[Any]] = {}
        for place, (number, piece_number, gradient) in enumerate(self._learned(gradients)):
            item, pace = self._items[number], self._paces[number]
            piece, slots = item.pieces[piece_number], list(self._slots[number][piece_number])
            key = (tuple(piece.shape), place % self._shards)
            if item.l2:
                gradient += 2 * item.l2 * piece  # noqa: PLW2901
            if key in self._scratch:
                slots.append(self._scratch[key])
            own = rate if pace == 1 else rate * pace
            with tf.control_dependencies(users.get(key, [])):
                done = self._optimizer.apply(piece, slots, gradient, own, update, item.kernel)
            if key in self._scratch:
                users[key] = [done]
            if self._ema_decay:
                mean = self._means[number][piece_number]
                with tf.control_dependencies([done]):
                    mean.assign_add((piece.read_value() - mean) * (1 - share))

    def _learned(self, gradients: list[Any]) -> Iterator[tuple[int, int, Any]]:
        """Yield the parameter, the piece of it, and the gradient, of all that learns."""
        found = iter(gradients)
        for number, (item, learns) in enumerate(zip(self._items, self._learning, strict=True)):
            for piece_number in range(len(item.pieces)):
                gradient = next(found)
                if learns:
                    yield number, piece_number, gradient

    @contextmanager
    def answering(self) -> Iterator[None]:
        """Put the mean weights in the place of those that learn, while the block runs."""
        if not self._ema_decay:
            yield
            return
        pairs = [
            (piece, mean)
            for item, means in zip(self._items, self._means, strict=True)
            for piece, mean in zip(item.pieces, means, strict=True)
        ]
        kept = [piece.read_value() for piece, _ in pairs]
        for piece, mean in pairs:
            piece.assign(mean)
        try:
            yield
        finally:
            for (piece, _), value in zip(pairs, kept, strict=True):
                piece.assign(value)

    # State -----------------------------------------------------------------------------------

    def weights(self) -> Arrays:
        """Return copies of everything that is learned, by name: the means, where there are."""
        return _whole(self._named(self._means))

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`weights` gave, as means and as the weights of the last step.

        Raises
        ------
        ValueError
            For arrays of other names or shapes; nothing is taken then.
        """
        assign_arrays(self._named(self._means), arrays)
        if self._ema_decay:
            assign_arrays(self._named([item.pieces for item in self._items]), arrays)

    def state(self) -> Arrays:
        """Return copies of the weights and of what the optimiser keeps."""
        return {**_whole(self._named_state()), UPDATES: np.array([self.done], np.float32)}

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Take back what :meth:`state` gave, in the same phase; ValueError as above."""
        rest, done = part_updates(arrays)
        assign_arrays(self._named_state(), rest)
        self.done = done

    def _named(self, values: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        pairs = zip(self._items, values, strict=True)
        named: dict[str, Sequence[Any]] = {item.name: pieces for item, pieces in pairs}
        return {**named, **{name: (value,) for name, value in self._others}}

    def _named_state(self) -> dict[str, Sequence[Any]]:
        now = self._named([item.pieces for item in self._items])
        named = {WEIGHTS + name: pieces for name, pieces in now.items()}
        if self._ema_decay:
            pairs = zip(self._items, self._means, strict=True)
            named |= {MEAN + item.name: means for item, means in pairs}
        for item, slots in zip(self._items, self._slots, strict=True):
            for place, name in enumerate(self._optimizer.slots if slots else ()):
                named[f"{name}/{item.name}"] = tuple(piece[place] for piece in slots)
        return named


def _whole(named: Mapping[str, Sequence[Any]]) -> Arrays:
    """Return copies of variables, those in pieces put together."""
    return {
        name: np.concatenate([piece.numpy() for piece in pieces])
        if len(pieces) > 1
        else pieces[0].numpy()
        for name, pieces in named.items()
    }
