"""A head of Keras layers that is trained with the network below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.heads.head import LOGITS

__all__ = ["POOLINGS", "UNIT", "TrainableHead", "add_trainable_head", "is_head_layer"]

POOLINGS = ("flatten", "average", "max")
"""Pooling of the final feature map: none (all of its values), or each channel's mean or maximum."""

UNIT = "unit"
"""Name of the one-unit layer before the logits of two classes."""

MAX_PARAMETERS = 500_000_000

# How the names of a head's layers begin.
HEAD_NAMES = ("head_", UNIT, LOGITS)


@dataclass(frozen=True)
class TrainableHead:
    """Layers between a network's maps and the classes.

    Parameters
    ----------
    pooling : str
        One of :data:`POOLINGS`: the mean or the maximum of each map, or all of their numbers.
    dense : tuple of int
        Widths of dense layers with ReLU, in their order.
    dropout : float
        Share of the numbers before the last layer that are dropped in training, 0 to below 1.
    batch_norm : bool
        Whether each dense layer's numbers are normalised by batch.
    l2 : float
        Strength of the L2 penalty on the kernels of the dense layers, the last one's too.
    """

    pooling: str = "average"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = []
        if self.pooling not in POOLINGS:
            found.append(
                f"pooling must be one of {', '.join(POOLINGS)}. Received: {self.pooling!r}."
            )
        if not all(type(width) is int and 1 <= width <= 65_536 for width in self.dense):
            found.append(f"dense must be widths of 1 to 65,536. Received: {self.dense!r}.")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout must be from 0 to below 1. Received: {self.dropout!r}.")
        if not 0 <= self.l2 < 1e6:
            found.append(f"l2 must be 0 or more. Received: {self.l2!r}.")
        return found


def is_head_layer(name: str) -> bool:
    """Whether a layer of this name belongs to a head that :func:`add_trainable_head` put on."""
    return name.startswith(HEAD_NAMES)


def add_trainable_head(network: Any, head: TrainableHead, classes: int, seed: int = 0) -> Any:
    """Put a head on a network.

    Parameters
    ----------
    network : keras.Model
        From pixels to maps, whole or cut (:func:`.cut.cut_network`).
    head : TrainableHead
    classes : int
        2 or more. For two the last layer that learns has one unit, whose sigmoid is the
        probability of the second class; for more, a unit a class, for a softmax.
    seed : int
        For its first weights: Glorot's uniform ones, as Keras draws them unasked.

    Returns
    -------
    keras.Model
        From pixels to ``"logits"``, float32 (batch, classes), without an activation. For two
        classes these are 0 and what the layer ``"unit"`` gives, so that their softmax is exactly
        its sigmoid. Other layers of the head are named ``head_...``.

    Raises
    ------
    SettingsError
        For settings that cannot be, or a head too large for memory.
    """
    import keras

    faults = head.faults()
    if classes < 2:
        faults.append(f"A classifier needs two classes or more. Received: {classes}.")
    if faults:
        raise SettingsError("\n".join(faults))
    layers = keras.layers
    _check_parameters(network, head)
    numbers = iter(range(1000 * seed, 1000 * seed + 1000))

    def dense(width: int, name: str) -> Any:
        return layers.Dense(
            width,
            kernel_initializer=keras.initializers.GlorotUniform(seed=next(numbers)),
            kernel_regularizer=keras.regularizers.L2(head.l2) if head.l2 else None,
            name=name,
        )

    x = {
        "average": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }[head.pooling](name=f"head_{head.pooling}")(network.output)
    for number, width in enumerate(head.dense, 1):
        x = dense(width, f"head_dense{number}")(x)
        if head.batch_norm:
            x = layers.BatchNormalization(name=f"head_bn{number}")(x)
        x = layers.ReLU(name=f"head_relu{number}")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, seed=next(numbers), name="head_dropout")(x)
    name = f"{network.name}_classifier"
    if classes > 2:
        return keras.Model(network.input, dense(classes, LOGITS)(x), name=name)
    pair = layers.Dense(2, use_bias=False, trainable=False, name=LOGITS)
    model = keras.Model(network.input, pair(dense(1, UNIT)(x)), name=name)
    pair.kernel.assign([[0.0, 1.0]])
    return model


def _check_parameters(network: Any, head: TrainableHead) -> None:
    height, width, channels = network.output_shape[1:]
    first = head.dense[0] if head.dense else 1
    inputs = channels * (height * width if head.pooling == "flatten" else 1)
    if inputs * first > MAX_PARAMETERS:
        raise SettingsError(
            f"A head's first layer must have at most {MAX_PARAMETERS:,} parameters. Received: "
            f"{inputs:,} inputs for {first:,} units. Pool the maps (average), or cut later."
        )
