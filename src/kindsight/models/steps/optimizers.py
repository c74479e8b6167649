"""Optimizers, and the variables that they update: weights, their EMA, and the optimizer's state.

Keras composes an update of a dozen operations that each traverse the weights, which is slow for
dense layers with millions of them. TensorFlow has the same formulas as fused operations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.models.steps.forward import Parameter

__all__ = ["Arrays", "Optimizer", "Updates"]

RHO = 0.9
BETAS = (0.9, 0.999)
EPSILON = 1e-7
Arrays = dict[str, NDArray[np.float32]]
# Names of the arrays of a state.
UPDATES, EMA, WEIGHTS = "updates", "ema/", "weights/"
# The EMA decay in early steps is at most (1 + step) / (10 + step), as in TensorFlow's
# ExponentialMovingAverage.
EMA_WARMUP = 10


@dataclass(frozen=True)
class Optimizer:
    """An optimizer, with Keras's default constants.

    Parameters
    ----------
    name : str
        ``"rmsprop"`` (Tieleman & Hinton 2012), ``"adam"`` (Kingma & Ba 2015), ``"adamw"``
        (Loshchilov & Hutter 2019) or ``"sgd"``.
    momentum : float
        0 to below 1; of SGD and RMSprop.
    weight_decay : float
        Of AdamW, for kernels.
    """

    name: str = "rmsprop"
    momentum: float = 0.0
    weight_decay: float = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the state arrays of a variable."""
        if self.name == "rmsprop":
            return ("velocity", "momentum") if self.momentum else ("velocity",)
        if self.name == "sgd":
            return ("momentum",) if self.momentum else ()
        return ("momentum", "velocity")

    @property
    def scratch(self) -> bool:
        """Whether an update needs a scratch array of the variable's shape."""
        return self.name == "rmsprop" and not self.momentum

    def apply(
        self, variable: Any, slots: list[Any], gradient: Any, rate: Any, update: Any, decayed: bool
    ) -> Any:
        """Update a variable, within a traced function; return the operation.

        `slots` are the state arrays of :attr:`slots`, initially zero, then the scratch array, if
        needed, which no other update may use at the same time. `rate` is the learning rate, a
        scalar tensor; `update` the number of the update, from 1.0; `decayed` whether weight decay
        applies.
        """
        import tensorflow as tf

        ops, handles = tf.raw_ops, [slot.handle for slot in slots]
        if self.name == "rmsprop":
            return ops.ResourceApplyRMSProp(
                var=variable.handle, ms=handles[0], mom=handles[1], lr=rate, rho=RHO,
                momentum=self.momentum, epsilon=EPSILON, grad=gradient,
            )  # fmt: skip
        if self.name == "sgd" and self.momentum:
            return ops.ResourceApplyKerasMomentum(
                var=variable.handle, accum=handles[0], lr=rate, grad=gradient,
                momentum=self.momentum,
            )  # fmt: skip
        if self.name == "sgd":
            return ops.ResourceApplyGradientDescent(var=variable.handle, alpha=rate, delta=gradient)
        if self.weight_decay and decayed:
            variable.assign_sub(variable * (rate * self.weight_decay))
        first, second = (tf.constant(beta, tf.float32) for beta in BETAS)
        return ops.ResourceApplyAdam(
            var=variable.handle, m=handles[0], v=handles[1], beta1_power=first**update,
            beta2_power=second**update, lr=rate, beta1=first, beta2=second, epsilon=EPSILON,
            grad=gradient,
        )  # fmt: skip


def assign_arrays(
    named: Mapping[str, Sequence[Any]], arrays: Mapping[str, NDArray[np.float32]]
) -> None:
    """Assign float32 arrays, not trusted, to variables by name, all or none.

    An array may be the concatenation of several variables. ValueError for other names or shapes;
    nothing is assigned then.
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
        for variable, piece in zip(variables, np.split(arrays[name], ends), strict=True):
            variable.assign(piece)


def layer_depths(names: Sequence[str]) -> list[int]:
    """Return the depth of each variable's layer, counted from the output in trainable layers.

    `names` are ``layer/kernel`` and the like, in the order of the layers.
    """
    layers = [name.rpartition("/")[0] for name in names]
    numbers = {layer: number for number, layer in enumerate(dict.fromkeys(layers))}
    return [len(numbers) - 1 - numbers[layer] for layer in layers]


class Updates:
    """The variables of a network, and their updates in a step, of which `shards` run in parallel.

    `items` are in the order of the layers; `others` are variables that a step changes, by name. The
    decays are those of :class:`.trainable.TrainableNetwork`.
    """

    def __init__(
        self,
        items: Sequence[Parameter],
        others: Sequence[tuple[str, Any]],
        shards: int,
        *,
        layer_decay: float,
        ema_decay: float,
        ema_warmup: bool,
    ) -> None:
        import tensorflow as tf

        self._items, self._others, self._shards = items, others, shards
        pairs = zip(items, layer_depths([item.name for item in items]), strict=True)
        self._rates = [item.rate * layer_decay**depth for item, depth in pairs]
        self._ema_decay, self._ema_warmup = ema_decay, ema_warmup
        self._averages = [
            [tf.Variable(piece) for piece in item.pieces] if ema_decay else list(item.pieces)
            for item in items
        ]
        self._trainable = [True] * len(items)
        self._optimizer = Optimizer()
        self._slots: list[list[list[Any]]] = []
        self._scratch: dict[tuple[Any, int], Any] = {}
        self.done = 0
        """Number of updates in this phase."""

    def begin(self, optimizer: Optimizer, trainable: Sequence[bool]) -> None:
        """Start a phase with a new optimizer state; `trainable` marks the trained parameters."""
        import tensorflow as tf

        self._optimizer, self._trainable, self.done = optimizer, list(trainable), 0
        self._slots = [
            [[tf.Variable(tf.zeros_like(piece)) for _ in optimizer.slots] for piece in item.pieces]
            if trained
            else []
            for item, trained in zip(self._items, trainable, strict=True)
        ]
        self._scratch = {}
        if optimizer.scratch:
            # Pieces of the same shape share one per core, which stays in the core's cache.
            items = itertools.compress(self._items, trainable)
            for number, piece in enumerate(piece for item in items for piece in item.pieces):
                key = (tuple(piece.shape), number % self._shards)
                if key not in self._scratch:
                    self._scratch[key] = tf.Variable(tf.zeros_like(piece))

    def apply(self, gradients: list[Any], rate: Any, update: Any) -> None:
        """Update the trained parameters, within a traced function.

        `gradients` are of each piece of each parameter, those of frozen ones ignored; `rate` is the
        learning rate, a scalar tensor; `update` the number of the update, from 1.0.
        """
        import tensorflow as tf

        decay = self._ema_decay
        if self._ema_warmup:
            decay = tf.minimum(decay, (1 + update) / (EMA_WARMUP + update))
        users: dict[Any, list[Any]] = {}
        for turn, (number, piece_number, gradient) in enumerate(self._trained(gradients)):
            item, factor = self._items[number], self._rates[number]
            piece, slots = item.pieces[piece_number], list(self._slots[number][piece_number])
            key = (tuple(piece.shape), turn % self._shards)
            if item.l2:
                gradient += 2 * item.l2 * piece  # noqa: PLW2901
            if key in self._scratch:
                slots.append(self._scratch[key])
            own = rate if factor == 1 else rate * factor
            with tf.control_dependencies(users.get(key, [])):
                done = self._optimizer.apply(piece, slots, gradient, own, update, item.decayed)
            if key in self._scratch:
                users[key] = [done]
            if self._ema_decay:
                average = self._averages[number][piece_number]
                with tf.control_dependencies([done]):
                    average.assign_add((piece.read_value() - average) * (1 - decay))

    def _trained(self, gradients: list[Any]) -> Iterator[tuple[int, int, Any]]:
        """Yield parameter, piece and gradient of the trained parameters."""
        found = iter(gradients)
        for number, (item, trained) in enumerate(zip(self._items, self._trainable, strict=True)):
            for piece_number in range(len(item.pieces)):
                gradient = next(found)
                if trained:
                    yield number, piece_number, gradient

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Use the EMA of the weights while the block runs."""
        if not self._ema_decay:
            yield
            return
        pairs = [
            (piece, average)
            for item, averages in zip(self._items, self._averages, strict=True)
            for piece, average in zip(item.pieces, averages, strict=True)
        ]
        values = [piece.read_value() for piece, _ in pairs]
        for piece, average in pairs:
            piece.assign(average)
        try:
            yield
        finally:
            for (piece, _), value in zip(pairs, values, strict=True):
                piece.assign(value)

    def weights(self) -> Arrays:
        """Return copies of the weights by name, of their EMA if there is one."""
        return _whole(self._named(self._averages))

    def set_weights(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Set the weights and their EMA; ValueError as for :func:`assign_arrays`."""
        assign_arrays(self._named(self._averages), arrays)
        if self._ema_decay:
            assign_arrays(self._named([item.pieces for item in self._items]), arrays)

    def state(self) -> Arrays:
        """Return copies of the weights, their EMA and the optimizer's state."""
        return {**_whole(self._named_state()), UPDATES: np.array([self.done], np.float32)}

    def set_state(self, arrays: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore :meth:`state` in the same phase; ValueError as for :func:`assign_arrays`."""
        rest = dict(arrays)
        updates = rest.pop(UPDATES, np.zeros(0))
        if updates.shape != (1,):
            raise ValueError("the number of updates is missing")
        assign_arrays(self._named_state(), rest)
        self.done = int(updates[0])

    def _named(self, values: Sequence[Sequence[Any]]) -> dict[str, Sequence[Any]]:
        pairs = zip(self._items, values, strict=True)
        named: dict[str, Sequence[Any]] = {item.name: pieces for item, pieces in pairs}
        return {**named, **{name: (value,) for name, value in self._others}}

    def _named_state(self) -> dict[str, Sequence[Any]]:
        now = self._named([item.pieces for item in self._items])
        named = {WEIGHTS + name: pieces for name, pieces in now.items()}
        if self._ema_decay:
            pairs = zip(self._items, self._averages, strict=True)
            named |= {EMA + item.name: averages for item, averages in pairs}
        for item, slots in zip(self._items, self._slots, strict=True):
            for number, name in enumerate(self._optimizer.slots if slots else ()):
                named[f"{name}/{item.name}"] = tuple(piece[number] for piece in slots)
        return named


def _whole(named: Mapping[str, Sequence[Any]]) -> Arrays:
    """Return copies of variables, with pieces concatenated."""
    return {
        name: np.concatenate([piece.numpy() for piece in pieces])
        if len(pieces) > 1
        else pieces[0].numpy()
        for name, pieces in named.items()
    }
