"""A backbone divided at a cut for fine-tuning: a lower part that stays, an upper part that learns.

What lies below the cut is run by LiteRT, once a view of an image, and what it gives is kept (see
:mod:`kindsight.training.activation_cache`). Above the cut each batch normalisation stays in
inference mode,
and is folded into the convolution before it (:mod:`.folding`). The upper part that learns is a
copy: the backbone with its fitted head stays as it was beside it, and both may answer together.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.tta import FLIP_AXES
from kindsight.models.graph import call_inputs, producer
from kindsight.models.heads.head import FEATURES, Head, LinearHead, RBFHead, add_head
from kindsight.models.networks.freezing import layers_up_to

__all__ = [
    "ENSEMBLE_LAYER",
    "FINE_TUNED_LAYER",
    "FineTunedNetwork",
    "average_logits",
    "average_over_flips",
    "build_fine_tuned",
    "build_frozen_base",
    "cut_width",
    "fold_normalisations",
    "layers_after",
    "load_network",
    "low_width",
    "stages_of",
    "with_head",
]

# SECTION: Batch normalisations folded into the convolutions before them.
#
# One in inference mode is no more than a factor and a shift for each channel: folded, the network
# gives the same numbers in half the time, and learns without the normalisation's own weights.

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
        for tensors in call_inputs(operation):
            for tensor in tensors:
                source = producer(tensor).name
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


# SECTION: Networks whose logits are a mean of others': of two networks', or of one's over flipped
# views.

ENSEMBLE_LAYER, FINE_TUNED_LAYER = "together", "tuned"
"""By these names the layer that adds up two networks' logits is known, and one that was tuned."""


def average_logits(full: Any, frozen: Any, share: float) -> Any:
    """Return a network whose logits are a weighted mean of two networks'.

    Parameters
    ----------
    full, frozen : keras.Model
        Pixels to logits. Where they have the input in common, what they share is run once.
    share : float
        Of the first, 0-1.
    """
    import keras

    other = frozen.output if frozen.input is full.input else frozen(full.input)
    parts = [
        keras.layers.Rescaling(weight)(logits)
        for weight, logits in ((share, full.output), (1 - share, other))
    ]
    return keras.Model(full.input, keras.layers.Add(name=ENSEMBLE_LAYER)(parts), name=full.name)


def average_over_flips(full: Any, views: Sequence[int]) -> Any:
    """Return a network whose logits are the mean of a network's over flipped views of an image.

    Parameters
    ----------
    full : keras.Model
        Pixels to logits; a layer of the result.
    views : sequence of int
        Numbers of :data:`.views.FLIPS`.
    """
    import keras

    pixels = keras.Input(full.input_shape[1:], name=full.input.name)

    def look(view: int) -> Any:
        image = pixels
        for axis in FLIP_AXES[view]:  # one at a time is all that older versions of Keras do
            image = keras.ops.flip(image, axis)
        return full(image)

    logits = keras.layers.Average(name="views")([look(view) for view in views])
    return keras.Model(pixels, logits, name=f"{full.name}_views")


STANDARD = "standardise"
# The layers of a curved head that stay: its projection, in which a small step would move every
# image past its bumps, where these are, and the length of a point.
_FIXED = ("head_project", "head_norm", "head_kernel")

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class FineTunedNetwork:
    """A network for fine-tuning.

    Parameters
    ----------
    full : keras.Model
        Pixels to logits, for use.
    upper : keras.Model
        What is trained: what the lower part gives to logits. It is a layer of `full`, or all of
        it.
    frozen : keras.Model
        Pixels to logits as before: what lies below the cut is that of `full`.
    backbone : keras.Model
        Pixels to features, within `frozen`.
    """

    full: Any
    upper: Any
    frozen: Any
    backbone: Any


def load_network(file: str | os.PathLike[str]) -> Any:
    """Load a backbone's Keras file, as it was built."""
    import keras

    return keras.models.load_model(file, compile=False)


def stages_of(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the stages whose statistics are features, the earliest first; the top is none."""
    names = [name.rpartition("_")[0] for name in layout.names[:-1]]
    return tuple(dict.fromkeys(names))


def low_width(layout: FeatureLayout, stage: str) -> int:
    """Return how many features come from the lower part, if the cut is after `stage`."""
    return max(block.stop for block in layout.blocks if block.name.rpartition("_")[0] == stage)


def cut_width(model: Any, stage: str) -> tuple[int, ...]:
    """Return the shape of what passes the cut after a stage: (height, width, channels)."""
    return tuple(int(side) for side in _layer(model, stage).output.shape[1:])


def _layer(model: Any, stage: str) -> Any:
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{stage}_out" if f"{stage}_out" in names else stage)


def _parts(model: Any) -> list[Any]:
    """Return the tensors that are joined to the features, one for each block of the layout."""
    return call_inputs(model.get_layer(FEATURES))[0]


def _low_parts(model: Any, layout: FeatureLayout, stage: str) -> list[Any]:
    low = low_width(layout, stage)
    return _parts(model)[: sum(block.stop <= low for block in layout.blocks)]


def build_frozen_base(model: Any, layout: FeatureLayout | None, stage: str) -> Any:
    """Build the lower part of a backbone.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout or None
        Of the features; None where only the map is wanted.
    stage : str
        After which the cut is: one of :func:`stages_of`, or any layer.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3), values 0-255, to float32 (batch, low + map): the
        features of the stages up to the cut, then what passes the cut, row by row.
    """
    import keras

    joined = keras.layers.Flatten()(_layer(model, stage).output)
    if layout is not None:
        joined = keras.layers.Concatenate()([*_low_parts(model, layout, stage), joined])
    return keras.Model(model.input, joined, name=f"{model.name}_lower")


def build_fine_tuned(
    model: Any,
    layout: FeatureLayout,
    stage: str | None,
    head: Head,
    temperature: float,
    mean: NDArray[np.float32],
    spread: NDArray[np.float32],
) -> FineTunedNetwork:
    """Put a fitted head on a backbone, and take both apart at the cut.

    The network answers as the head on the frozen backbone does: its logits are the head's,
    divided by the temperature.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout
        Of the features.
    stage : str or None
        After which the cut is; None for none: everything is trained, from pixels on.
    head : Head
        As the convex fit gave it.
    temperature : float
        Divides the logits.
    mean, spread : float32 array (features,)
        Of the training images' features: the head's first layer learns on standardised ones,
        which all change at the same pace.

    Raises
    ------
    SettingsError
        Where something passes by the cut.
    """
    import keras

    ends = model.input
    if stage is not None:
        ends = [_layer(model, stage).output, *_low_parts(model, layout, stage)]
    try:
        above = keras.Model(ends, model.output, name=f"{model.name}_above")
    except ValueError as error:
        raise SettingsError(
            f"All that a network knows of an image must pass its cut. Received: {stage}, which "
            f"something of {model.name} passes by ({error})."
        ) from None
    upper = fold_normalisations(above)
    standard = keras.layers.Normalization(mean=mean, variance=np.square(spread), name=STANDARD)(
        upper.output
    )
    logits = add_head(standard, _standardised(head, temperature, mean, spread))
    upper = keras.Model(upper.inputs, logits, name=FINE_TUNED_LAYER)
    for name in _FIXED:
        if any(layer.name == name for layer in upper.layers):
            upper.get_layer(name).trainable = False
    full = keras.Model(model.input, upper(ends), name=f"{model.name}_tuned") if stage else upper
    frozen = with_head(model, head, temperature)
    frozen.trainable = False
    return FineTunedNetwork(full, upper, frozen, model)


def with_head(model: Any, head: Head, temperature: float) -> Any:
    """Return a backbone with its fitted head, whose logits are divided by the temperature.

    Parameters
    ----------
    model : keras.Model
        Pixels to features; its layers are the result's.
    head : Head
    temperature : float
    """
    import keras

    features = keras.Input(model.output.shape[1:], name=FEATURES)
    logits = keras.layers.Rescaling(1 / temperature)(add_head(features, head))
    frozen_head = keras.Model(features, logits, name="frozen_head")
    return keras.Model(model.input, frozen_head(model.output), name=f"{model.name}_frozen")


def layers_after(model: Any, stage: str) -> set[str]:
    """Return the names of a network's layers above the end of a stage."""
    every = {operation.name for operation in model.operations}
    return every - layers_up_to(model, _layer(model, stage).name)


def _standardised(
    head: Head, temperature: float, mean: NDArray[np.float32], spread: NDArray[np.float32]
) -> Head:
    """Return the head of standardised features, its logits divided by the temperature."""
    middle, width = mean.astype(np.float64), spread.astype(np.float64)
    head = head.scaled(1 / temperature)
    if isinstance(head, LinearHead):
        return LinearHead(
            _narrow(head.kernel * width[:, None]), _narrow(head.bias + middle @ head.kernel)
        )
    assert isinstance(head, RBFHead)
    return replace(
        head,
        project_kernel=_narrow(head.project_kernel * width[:, None]),
        project_bias=_narrow(head.project_bias + middle @ head.project_kernel),
    )


def _narrow(values: Any) -> NDArray[np.float32]:
    result: NDArray[np.float32] = np.asarray(values, np.float32)
    return result
