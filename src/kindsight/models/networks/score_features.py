"""Give a classifier the input of its last dense layer as a second output.

From it the out-of-distribution score is computed (:mod:`kindsight.models.ood`).
"""

from __future__ import annotations

from typing import Any

from kindsight.models.graph import producer
from kindsight.models.networks.keras_heads import UNIT

__all__ = ["with_score_features"]


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
