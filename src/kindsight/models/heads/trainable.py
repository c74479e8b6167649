"""A head of Keras layers that is trained together with its network."""

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

# Prefixes of the names of a head's layers.
HEAD_NAMES = ("head_", UNIT, LOGITS)


@dataclass(frozen=True)
class TrainableHead:
    """The layers between a network's feature maps and the logits.

    Parameters
    ----------
    pooling : str
        One of :data:`POOLINGS`.
    dense : tuple of int
        Units of the dense layers with ReLU.
    dropout : float
        Dropout rate before the last layer, 0 to below 1.
    batch_norm : bool
        Whether each dense layer is followed by a batch normalisation.
    l2 : float
        L2 strength on the kernels of all dense layers.
    """

    pooling: str = "average"
    dense: tuple[int, ...] = ()
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0

    def faults(self) -> list[str]:
        """Return an error message for each invalid setting."""
        found = []
        if self.pooling not in POOLINGS:
            found.append(f"pooling must be one of {', '.join(POOLINGS)}; got {self.pooling!r}.")
        if not all(type(width) is int and 1 <= width <= 65_536 for width in self.dense):
            found.append(f"dense must be numbers of units of 1 to 65,536; got {self.dense!r}.")
        if not 0 <= self.dropout < 1:
            found.append(f"dropout must be from 0 to below 1; got {self.dropout!r}.")
        if not 0 <= self.l2 < 1e6:
            found.append(f"l2 must be 0 or more; got {self.l2!r}.")
        return found


def is_head_layer(name: str) -> bool:
    """Whether a layer of this name is part of a trainable head."""
    return name.startswith(HEAD_NAMES)


def add_trainable_head(network: Any, head: TrainableHead, classes: int, seed: int = 0) -> Any:
    """Add a head to a network from pixels to feature maps, complete or cut.

    `seed` is of the initial weights (Glorot uniform) and of dropout. The model ends in
    ``"logits"``, float32 (batch, classes). For two classes they are 0 and the output of the
    one-unit layer ``"unit"``, so that their softmax is exactly its sigmoid. SettingsError for
    invalid settings, fewer than two classes, or a head too large for memory.
    """
    import keras

    faults = head.faults()
    if classes < 2:
        faults.append(f"A classifier needs two classes or more; got {classes}.")
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
            f"A head's first layer may have at most {MAX_PARAMETERS:,} parameters; it has "
            f"{inputs:,} inputs and {first:,} units. Use average pooling, or a later cut layer."
        )
