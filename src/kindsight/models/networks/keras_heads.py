"""Heads as Keras layers: fitted before, or trained together with their network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.heads import FEATURES, LOGITS, Head, HeadLayer

__all__ = [
    "UNIT",
    "TrainableHead",
    "add_head",
    "add_layers",
    "add_trainable_head",
    "classifier_model",
    "is_head_layer",
    "pooling_layer",
]

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
        Of the final feature map: ``"flatten"``, all of its values; ``"average"`` or ``"max"`` of
        each channel.
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


def add_head(features: Any, head: Head) -> Any:
    """Add a head to a Keras tensor of features, (batch, d); return the logits, (batch, k).

    The layers are trainable and have the head's arrays as weights; the last is ``"logits"``.
    """
    return add_layers(features, head.layers())[LOGITS]


def add_layers(features: Any, layers: Sequence[HeadLayer]) -> dict[str, Any]:
    """Add layers to a Keras tensor of features, (batch, d); return their outputs by name."""
    import keras

    tensors = {FEATURES: features}
    for step in layers:
        inputs = [tensors[name] for name in step.inputs]
        if step.kind == "dense":
            layer = keras.layers.Dense(step.width, activation=step.activation, name=step.name)
            tensors[step.name] = layer(inputs[0])
            layer.set_weights([step.kernel, step.bias])
        elif step.kind == "column":
            tensors[step.name] = keras.layers.Reshape((step.width, 1), name=step.name)(inputs[0])
        elif step.kind == "maximum":
            tensors[step.name] = keras.layers.GlobalMaxPooling1D(name=step.name)(inputs[0])
        elif step.kind == "multiply":
            tensors[step.name] = keras.layers.Multiply(name=step.name)(inputs)
        else:
            tensors[step.name] = keras.layers.Concatenate(name=step.name)(inputs)
    return tensors


def is_head_layer(name: str) -> bool:
    """Whether a layer of this name is part of a trainable head."""
    return name.startswith(HEAD_NAMES)


def add_trainable_head(network: Any, head: TrainableHead, classes: int, seed: int = 0) -> Any:
    """Add a head to a network from pixels to feature maps, complete or cut.

    `seed` is of the initial weights (Glorot uniform) and of dropout. The model ends in
    ``"logits"``, float32 (batch, classes). For two classes they are 0 and the output of the
    one-unit layer ``"unit"``, so that their softmax is exactly its sigmoid. SettingsError for a
    head too large for memory.
    """
    import keras

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

    x = pooling_layer(head.pooling, f"head_{head.pooling}")(network.output)
    for number, width in enumerate(head.dense, 1):
        x = dense(width, f"head_dense{number}")(x)
        if head.batch_norm:
            x = layers.BatchNormalization(name=f"head_bn{number}")(x)
        x = layers.ReLU(name=f"head_relu{number}")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, seed=next(numbers), name="head_dropout")(x)
    return classifier_model(network.input, x, classes, dense, f"{network.name}_classifier")


def pooling_layer(pooling: str, name: str) -> Any:
    """Return the Keras layer of a pooling, one of those of :class:`TrainableHead`."""
    import keras

    kinds = {
        "flatten": keras.layers.Flatten,
        "average": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    return kinds[pooling](name=name)


def classifier_model(
    pixels: Any, values: Any, classes: int, dense: Callable[[int, str], Any], name: str
) -> Any:
    """Return the model from `pixels` to the logits of `values`, as :func:`add_trainable_head`.

    `dense` returns a new dense layer of a width and a name.
    """
    import keras

    if classes > 2:
        return keras.Model(pixels, dense(classes, LOGITS)(values), name=name)
    pair = keras.layers.Dense(2, use_bias=False, trainable=False, name=LOGITS)
    model = keras.Model(pixels, pair(dense(1, UNIT)(values)), name=name)
    pair.kernel.assign([[0.0, 1.0]])
    return model


def _check_parameters(network: Any, head: TrainableHead) -> None:
    height, width, channels = network.output_shape[1:]
    first = head.dense[0] if head.dense else 1
    inputs = channels * (height * width if head.pooling == "flatten" else 1)
    if inputs * first > MAX_PARAMETERS:
        flat = head.pooling == "flatten" and height * width > 1
        cures = ['`pooling="average"`'] if flat else []
        cures += ["fewer units (`dense`)"] if head.dense else []
        raise SettingsError(
            f"A head's first layer may have at most {MAX_PARAMETERS:,} parameters; it has "
            f"{inputs:,} inputs and {first:,} units. Use {', or '.join(cures) or 'a later `cut`'}."
        )
