"""Batch normalisations folded into the convolutions before them.

One in inference mode is no more than a factor and a shift for each channel: folded, the network
gives the same numbers in half the time, and learns without the normalisation's own weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fold_normalisations"]

_CONVOLUTIONS = ("Conv2D", "DepthwiseConv2D")


def fold_normalisations(model: Any) -> Any:
    """Copy a model, its batch normalisations folded into convolutions.

    Parameters
    ----------
    model : keras.Model
        Functional; it stays as it is.

    Returns
    -------
    keras.Model
        With the same layers by name, answering the same; in place of each normalisation that was
        folded stands a layer that does nothing. What cannot be folded does not learn.
    """
    import keras

    pairs = _pairs(model)
    convolutions = {convolution.name for convolution, _ in pairs}
    norms = {norm.name for _, norm in pairs}

    def copy(layer: Any) -> Any:
        if layer.name in norms:
            return keras.layers.Identity(name=layer.name)
        config = layer.get_config()
        if layer.name in convolutions:
            config["use_bias"] = True
        return type(layer).from_config(config)

    def call(layer: Any, *args: Any, **named: Any) -> Any:
        # A batch normalisation was called with a mask, which what replaces it does not take.
        return layer(*args, **{name: value for name, value in named.items() if name != "mask"})

    copied = keras.models.clone_model(model, clone_function=copy, call_function=call)
    for layer in model.layers:
        if layer.name not in convolutions | norms and layer.weights:
            copied.get_layer(layer.name).set_weights(layer.get_weights())
    for convolution, norm in pairs:
        copied.get_layer(convolution.name).set_weights(_fold(convolution, norm))
    # A batch normalisation that nothing takes in stays as it is, in inference mode.
    for layer in copied.layers:
        layer.trainable = type(layer).__name__ != "BatchNormalization"
    return copied


def _pairs(model: Any) -> list[tuple[Any, Any]]:
    """Return each convolution with the batch normalisation that alone takes what it gives."""
    takers: dict[str, dict[str, Any]] = {}
    for operation in model.operations:
        for node in operation._inbound_nodes:
            for tensor in node.input_tensors:
                source = tensor._keras_history.operation.name
                takers.setdefault(source, {})[operation.name] = operation
    found = []
    for layer in model.layers:
        following = list(takers.get(layer.name, {}).values())
        if (
            type(layer).__name__ in _CONVOLUTIONS
            and layer.activation.__name__ == "linear"
            and len(following) == 1
            and type(following[0]).__name__ == "BatchNormalization"
        ):
            found.append((layer, following[0]))
    return found


def _fold(convolution: Any, norm: Any) -> list[NDArray[np.float32]]:
    """Return the kernel and bias that do what a convolution and its normalisation do."""
    kernel = convolution.kernel.numpy().astype(np.float64)
    mean, variance = (
        value.numpy().astype(np.float64) for value in (norm.moving_mean, norm.moving_variance)
    )
    factor = 1 / np.sqrt(variance + norm.epsilon)
    factor = factor * norm.gamma.numpy() if norm.scale else factor
    shift = norm.beta.numpy().astype(np.float64) if norm.center else np.zeros_like(mean)
    bias = convolution.bias.numpy() if convolution.use_bias else 0.0
    depthwise = type(convolution).__name__ == "DepthwiseConv2D"
    scaled = kernel * (factor.reshape(kernel.shape[2:]) if depthwise else factor)
    return [scaled.astype(np.float32), ((bias - mean) * factor + shift).astype(np.float32)]
