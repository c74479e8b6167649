"""Vision transformers as Keras models that scale pixels of 0-255 themselves: ViT and DINOv2.

A. Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021); M. Oquab et al., "DINOv2:
Learning Robust Visual Features without Supervision" (TMLR 2024); T. Darcet et al., "Vision
Transformers Need Registers" (ICLR 2024).

Tokens are maps of one row, (batch, 1, tokens, width): the class token, registers, patches. The
output of each block can therefore be cut, cached and pooled like any other feature map. The last
maps, (batch, rows, columns, 2 * width), have at each patch its token and the class token: their
means over space are the mean of the patch tokens and the class token.

The layers are Keras's own, so that a saved network needs nothing of kindsight. What PyTorch has
besides is folded into their weights: layer scale into the layer before it; position embeddings,
class token and registers into the bias of one layer, which has a value for each token.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kindsight.models.backbones.backbone import Backbone, RequiredFile, Stage

__all__ = ["MAPS", "VITS", "VIT_BACKBONES", "ViTSpec", "build_vit", "token_name"]

MAPS = "patch_maps"
"""The layer with the last maps."""

EPSILON = 1e-6
# Mean and standard deviation of pixels 0-1 that the weights were trained with.
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class ViTSpec:
    """The properties in which vision transformers differ.

    `patch` is in pixels; `width` values per token; `registers` tokens besides class and patches;
    `grid` rows and columns of patches that the position embeddings were trained for; `scaling` mean
    and standard deviation of pixels 0-1; `layer_scale` whether blocks scale their outputs.
    """

    patch: int
    width: int
    heads: int
    grid: int
    depth: int = 12
    registers: int = 0
    scaling: tuple[tuple[float, ...], tuple[float, ...]] = _IMAGENET
    layer_scale: bool = False

    @property
    def prefix(self) -> int:
        """Number of tokens before those of patches."""
        return 1 + self.registers


def _dinov2(width: int, heads: int, registers: int = 0) -> ViTSpec:
    return ViTSpec(14, width, heads, grid=37, registers=registers, layer_scale=True)


VITS: Mapping[str, ViTSpec] = {
    "vit-small-patch16": ViTSpec(16, 384, 6, grid=14, scaling=_HALF),
    "vit-base-patch16": ViTSpec(16, 768, 12, grid=14, scaling=_HALF),
    "dinov2-small": _dinov2(384, 6),
    "dinov2-small-registers": _dinov2(384, 6, registers=4),
    "dinov2-base": _dinov2(768, 12),
}

_FILES = {
    "vit-small-patch16": RequiredFile("timm/vit_small_patch16_224.augreg_in21k_ft_in1k", 88),
    "vit-base-patch16": RequiredFile("timm/vit_base_patch16_224.augreg_in21k_ft_in1k", 346),
    "dinov2-small": RequiredFile("facebook/dinov2-small", 88),
    "dinov2-small-registers": RequiredFile("facebook/dinov2-with-registers-small", 88),
    "dinov2-base": RequiredFile("facebook/dinov2-base", 346),
}


def token_name(block: int) -> str:
    """Return the name of the last layer of a block, counted from 1."""
    return f"block{block}_out"


def _backbone(name: str, spec: ViTSpec, parameters: int) -> Backbone:
    mean, deviation = spec.scaling
    return Backbone(
        name=name,
        size=(224, 224),
        parameters=parameters,
        licence="Apache-2.0",
        weights_source=f"a file that you download: {_FILES[name].page}",
        scaling=f"(pixels / 255 - {mean}) / {deviation}",
        stages=tuple(
            Stage(token_name(block), spec.width, only=("mean",))
            for block in (spec.depth // 2, spec.depth * 3 // 4)
        ),
        top_width=2 * spec.width,
        min_size=4 * spec.patch,
        size_step=spec.patch,
        cuts=tuple(token_name(block) for block in range(spec.depth // 4, spec.depth, 3)),
        required_file=_FILES[name],
    )


# Of the Keras model for 224 pixels, whose position embeddings and layer scale are folded.
_PARAMETERS = {
    "vit-small-patch16": 21_665_280,
    "vit-base-patch16": 85_797_888,
    "dinov2-small": 21_619_200,
    "dinov2-small-registers": 21_620_736,
    "dinov2-base": 85_705_728,
}
VIT_BACKBONES: Mapping[str, Backbone] = {
    name: _backbone(name, spec, _PARAMETERS[name]) for name, spec in VITS.items()
}


def build_vit(name: str, spec: ViTSpec, size: tuple[int, int]) -> Any:
    """Build a vision transformer with random weights.

    `size` is the (height, width) in pixels, multiples of the patch. The model maps float32 (batch,
    height, width, 3) with values 0-255 to float32 (batch, rows, columns, 2 * width). The last layer
    of each block is named ``block1_out`` to ``block12_out``.
    """
    import keras

    layers = keras.layers
    keras.utils.clear_session()
    rows, columns = size[0] // spec.patch, size[1] // spec.patch
    tokens = rows * columns + spec.prefix
    mean, deviation = spec.scaling
    x = pixels = keras.Input((*size, 3), name="pixels")
    x = layers.Normalization(
        mean=[255 * value for value in mean],
        variance=[(255 * value) ** 2 for value in deviation],
        name="scaling",
    )(x)
    x = layers.Conv2D(spec.width, spec.patch, spec.patch, use_bias=False, name="patches")(x)
    x = layers.Reshape((1, rows * columns, spec.width), name="patch_tokens")(x)
    x = layers.ZeroPadding2D(((0, 0), (spec.prefix, 0)), name="more_tokens")(x)
    x = layers.EinsumDense(
        "brtw,w->brtw", (1, tokens, spec.width), bias_axes="tw", kernel_initializer="ones",
        name="position",
    )(x)  # fmt: skip
    for block in range(1, spec.depth + 1):
        x = _add_block(x, spec, block, tokens)
    x = _normalise(x, "norm")
    class_token = layers.Cropping2D(((0, 0), (0, tokens - 1)), name="class_token")(x)
    patches = layers.Cropping2D(((0, 0), (spec.prefix, 0)), name="without_class")(x)
    patches = layers.Reshape((rows, columns, spec.width), name="patch_grid")(patches)
    everywhere = layers.UpSampling2D((rows, columns), name="class_everywhere")(class_token)
    maps = layers.Concatenate(name=MAPS)([patches, everywhere])
    return keras.Model(pixels, maps, name=name.replace("-", "_"))


def _normalise(x: Any, name: str) -> Any:
    import keras

    return keras.layers.LayerNormalization(epsilon=EPSILON, name=name)(x)


def _add_block(x: Any, spec: ViTSpec, block: int, tokens: int) -> Any:
    """Add a block: attention and two dense layers, each after a norm and with a skip connection."""
    import keras

    layers, name = keras.layers, f"block{block}"
    y = _normalise(x, f"{name}_norm1")
    y = layers.Reshape((tokens, spec.width), name=f"{name}_tokens")(y)
    y = layers.MultiHeadAttention(
        spec.heads, spec.width // spec.heads, flash_attention=False, name=f"{name}_attention"
    )(y, y)
    y = layers.Reshape((1, tokens, spec.width), name=f"{name}_row")(y)
    x = layers.Add(name=f"{name}_add")([x, y])
    y = _normalise(x, f"{name}_norm2")
    y = layers.Dense(4 * spec.width, activation="gelu", name=f"{name}_dense1")(y)
    y = layers.Dense(spec.width, name=f"{name}_dense2")(y)
    return layers.Add(name=token_name(block))([x, y])
