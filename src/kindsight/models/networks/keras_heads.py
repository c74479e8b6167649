"""Heads as Keras layers: fitted or to train; a network with the input of its head as an output.

From that input the out-of-distribution score is computed (:mod:`kindsight.models.ood`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.graph import producer
from kindsight.models.heads import FEATURES, LOGITS, Head, HeadLayer

__all__ = [
    "UNIT", "TrainableHead", "add_head", "add_layers", "add_trainable_head", "classifier_model",
    "is_head_layer", "pooling_layer", "with_score_features",
]  # fmt: skip

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


def with_score_features(model: Any) -> Any:
    """Return a network from pixels to its logits and the inputs of its last dense layers.

    In a mean of networks or of flips, the inputs are averaged or concatenated as the logits are
    summed. The model itself is returned where the logits are not those of dense layers.
    """
    import keras

    traced = _trace(model.outputs[0], {})
    if traced is None:
        return model
    inputs = model.inputs[0] if len(model.inputs) == 1 else model.inputs
    return keras.Model(inputs, list(traced), name=model.name)


def _trace(logits: Any, nested: dict[int, Any]) -> tuple[Any, Any] | None:
    """Return logits and features as tensors of one graph; `nested` are networks seen before."""
    import keras

    layer, inputs = producer(logits), _inputs(logits)
    if isinstance(layer, keras.layers.Dense):
        (features,) = inputs
        if producer(features).name == UNIT:
            (features,) = _inputs(features)
        return (logits, features) if len(features.shape) == 2 else None
    if isinstance(layer, keras.Model):
        if id(layer) not in nested:
            nested[id(layer)] = with_score_features(layer)
        ends = nested[id(layer)](inputs if len(inputs) > 1 else inputs[0])
        return (ends[0], ends[1]) if isinstance(ends, list) and len(ends) == 2 else None
    if not isinstance(layer, (keras.layers.Rescaling, keras.layers.Average, keras.layers.Add)):
        return None
    parts = [part for part in (_trace(tensor, nested) for tensor in inputs) if part is not None]
    if len(parts) < len(inputs):
        return None
    every = [features for _, features in parts]
    if len(every) == 1:
        return layer(parts[0][0]), every[0]
    mean = isinstance(layer, keras.layers.Average)
    merge = keras.layers.Average if mean else keras.layers.Concatenate
    return layer([one for one, _ in parts]), merge()(every)


def _inputs(tensor: Any) -> list[Any]:
    """Return the input tensors of the call that gave a tensor; Keras has no public access."""
    history = tensor._keras_history
    return list(history.operation._inbound_nodes[history.node_index].input_tensors)
