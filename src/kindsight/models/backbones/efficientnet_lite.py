"""EfficientNet-Lite 0, 1 and 2 as Keras models that scale pixels of 0-255 themselves.

M. Tan and Q. Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"
(ICML 2019), in the authors' variant for small devices: ReLU6 instead of swish, no
squeeze-and-excitation, stem and head not scaled in width.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.backbones.torch_state import State, copy_layer

__all__ = ["SPECS", "build_efficientnet_lite"]

# Mean and standard deviation of the pixels, 0-255, that the weights were trained with.
PIXEL_MEAN = (127.0, 127.0, 127.0)
PIXEL_STD = (128.0, 128.0, 128.0)

BATCH_NORM_EPSILON = 1e-3
STEM_WIDTH = 32
TOP_WIDTH = 1280

# (repeats, kernel, stride, expansion, output channels) of each of the seven stages of Lite0.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


@dataclass(frozen=True)
class LiteSpec:
    """What differs between the EfficientNet-Lite networks.

    `width` and `depth` multiply channels and repeats of the middle stages; `size` is the height and
    width of the training images in pixels; `dropout` is the rate before the ImageNet classifier.
    """

    width: float
    depth: float
    size: int
    dropout: float


SPECS: Mapping[str, LiteSpec] = {
    "efficientnet-lite0": LiteSpec(1.0, 1.0, 224, 0.2),
    "efficientnet-lite1": LiteSpec(1.0, 1.1, 240, 0.2),
    "efficientnet-lite2": LiteSpec(1.1, 1.2, 260, 0.3),
}


@dataclass(frozen=True)
class Block:
    """One inverted-residual block and its position in the network."""

    stage: int
    index: int
    kernel: int
    stride: int
    expansion: int
    channels_in: int
    channels_out: int

    @property
    def name(self) -> str:
        """The prefix of the names of its layers."""
        return f"stage{self.stage}_block{self.index}"


def round_channels(channels: float, width: float, divisor: int = 8) -> int:
    """Scale a channel count and round it to a multiple of eight, never down by more than 10%."""
    scaled = channels * width
    rounded = max(divisor, int(scaled + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * scaled else rounded


def blocks(spec: LiteSpec) -> Iterator[Block]:
    """Yield the blocks from input to output."""
    channels = STEM_WIDTH
    for number, (repeats, kernel, stride, expansion, width) in enumerate(STAGES, start=1):
        # The Lite variants do not scale the depth of the first and the last stage.
        scaled = repeats if number in (1, len(STAGES)) else math.ceil(repeats * spec.depth)
        channels_out = round_channels(width, spec.width)
        for index in range(1, scaled + 1):
            step = stride if index == 1 else 1
            yield Block(number, index, kernel, step, expansion, channels, channels_out)
            channels = channels_out


def build_efficientnet_lite(
    name: str = "efficientnet-lite0",
    size: tuple[int, int] | None = None,
    weights: State | None = None,
    classes: int | None = 1000,
    input_size: tuple[int, int] | None = None,
) -> Any:
    """Build an EfficientNet-Lite.

    Parameters
    ----------
    name : str
        A key of :data:`SPECS`; SettingsError for another.
    size : tuple of int, optional
        (height, width) in pixels; default: the size that the weights were trained on.
    weights : mapping of str to array, optional
        A PyTorch state dictionary (:func:`.weights.load_state`); default: random weights.
    classes : int or None
        Classes of the ImageNet classifier; None ends in the global average pooling, 1280 features.
    input_size : tuple of int, optional
        (height, width) of the images, which the network resizes to `size`.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3) with values 0-255 to float32 logits (batch, classes).
        The last layer of each stage is named ``stage1_out`` to ``stage7_out``.
    """
    import keras

    if name not in SPECS:
        raise SettingsError(f"The network must be one of {', '.join(SPECS)}; got {name!r}.")
    spec = SPECS[name]
    layers = keras.layers
    height, width = size or (spec.size, spec.size)
    x = pixels = keras.Input((*(input_size or (height, width)), 3), name="pixels")
    if input_size is not None and input_size != (height, width):
        x = layers.Resizing(height, width, name="resize")(x)
    x = layers.Normalization(
        mean=PIXEL_MEAN, variance=[value**2 for value in PIXEL_STD], name="scaling"
    )(x)
    x = layers.Conv2D(STEM_WIDTH, 3, 2, "same", use_bias=False, name="stem_conv")(x)
    x = _normalise(x, "stem_bn", activate=True)
    plan = list(blocks(spec))
    for block, following in zip(plan, [*plan[1:], None], strict=True):
        last = following is None or following.stage != block.stage
        x = _add_block(x, block, f"stage{block.stage}_out" if last else f"{block.name}_out")
    x = layers.Conv2D(TOP_WIDTH, 1, use_bias=False, name="top_conv")(x)
    x = _normalise(x, "top_bn", activate=True)
    x = layers.GlobalAveragePooling2D(name="top_mean")(x)
    if classes is not None:
        x = layers.Dropout(spec.dropout, name="top_dropout")(x)
        x = layers.Dense(classes, name="logits")(x)
    model = keras.Model(pixels, x, name=name.replace("-", "_"))
    if weights is not None:
        load_torch_state(model, spec, weights)
    return model


def _normalise(x: Any, name: str, *, activate: bool) -> Any:
    """Add a batch normalisation and, if `activate`, a ReLU6."""
    import keras

    x = keras.layers.BatchNormalization(epsilon=BATCH_NORM_EPSILON, momentum=0.99, name=name)(x)
    if activate:
        x = keras.layers.ReLU(max_value=6.0, name=name.removesuffix("bn") + "relu")(x)
    return x


def _add_block(x: Any, block: Block, name_out: str) -> Any:
    """Add a block: expansion, depthwise convolution, projection, and the skip connection."""
    import keras

    layers = keras.layers
    shortcut = x
    if block.expansion != 1:
        wide = block.channels_in * block.expansion
        x = layers.Conv2D(wide, 1, use_bias=False, name=f"{block.name}_expand_conv")(x)
        x = _normalise(x, f"{block.name}_expand_bn", activate=True)
    x = layers.DepthwiseConv2D(
        block.kernel, block.stride, "same", use_bias=False, name=f"{block.name}_depthwise_conv"
    )(x)
    x = _normalise(x, f"{block.name}_depthwise_bn", activate=True)
    x = layers.Conv2D(block.channels_out, 1, use_bias=False, name=f"{block.name}_project_conv")(x)
    x = _normalise(x, f"{block.name}_project_bn", activate=False)
    if block.stride == 1 and block.channels_in == block.channels_out:
        return layers.Add(name=name_out)([shortcut, x])
    return layers.Activation("linear", name=name_out)(x)


def torch_prefixes(spec: LiteSpec, top: bool) -> Iterator[str]:
    """Yield PyTorch's names of the layers, from input to output."""
    yield from ("_conv_stem", "_bn0")
    for number, block in enumerate(blocks(spec)):
        layers = ["_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        if block.expansion != 1:
            layers = ["_expand_conv", "_bn0", *layers]
        yield from (f"_blocks.{number}.{layer}" for layer in layers)
    yield from ("_conv_head", "_bn1")
    if top:
        yield "_fc"


def load_torch_state(model: Any, spec: LiteSpec, state: State) -> None:
    """Copy a PyTorch state dictionary into a model of :func:`build_efficientnet_lite`.

    WeightsError for a tensor that is missing, of another shape, or not finite.
    """
    owners = [layer for layer in model.layers if layer.weights and layer.name != "scaling"]
    top = owners[-1].name == "logits"
    for layer, prefix in zip(owners, torch_prefixes(spec, top), strict=True):
        copy_layer(layer, state, prefix)
