"""A head of Keras layers that is trained with the network below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.heads import LOGITS

__all__ = ["POOLINGS", "TrainedHead", "add_trained_head"]

POOLINGS = ("average", "max", "flatten")
MAX_PARAMETERS = 500_000_000


@dataclass(frozen=True)
class TrainedHead:
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


def add_trained_head(network: Any, head: TrainedHead, classes: int) -> Any:
    """Put a head on a network.

    Parameters
    ----------
    network : keras.Model
        From pixels to maps, whole or cut (:func:`.cut.cut_network`).
    head : TrainedHead
    classes : int
        2 or more. For two the last layer has one unit, whose sigmoid is the probability of the
        second class; for more, a unit a class, for a softmax.

    Returns
    -------
    keras.Model
        From pixels to logits: the last layer, named ``"logits"``, has no activation. Layers of
        the head are named ``head_...``.

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
    penalty = keras.regularizers.L2(head.l2) if head.l2 else None
    x = {
        "average": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }[head.pooling](name=f"head_{head.pooling}")(network.output)
    for number, width in enumerate(head.dense, 1):
        x = layers.Dense(width, kernel_regularizer=penalty, name=f"head_dense{number}")(x)
        if head.batch_norm:
            x = layers.BatchNormalization(name=f"head_bn{number}")(x)
        x = layers.ReLU(name=f"head_relu{number}")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, name="head_dropout")(x)
    units = 1 if classes == 2 else classes
    x = layers.Dense(units, kernel_regularizer=penalty, name=LOGITS)(x)
    return keras.Model(network.input, x, name=f"{network.name}_classifier")


def _check_parameters(network: Any, head: TrainedHead) -> None:
    height, width, channels = network.output_shape[1:]
    first = head.dense[0] if head.dense else 1
    inputs = channels * (height * width if head.pooling == "flatten" else 1)
    if inputs * first > MAX_PARAMETERS:
        raise SettingsError(
            f"A head's first layer must have at most {MAX_PARAMETERS:,} parameters. Received: "
            f"{inputs:,} inputs for {first:,} units. Pool the maps (average), or cut later."
        )
