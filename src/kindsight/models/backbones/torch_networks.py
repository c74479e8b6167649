"""Networks whose weights come from files of timm, torchvision, Hugging Face or Meta.

Vision transformers are in :mod:`.vit`.

ResNet (K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016) is built as PyTorch
has it, "v1.5": a block that halves the maps does so in its 3x3 convolution, while
``keras.applications`` does it in the 1x1 convolution before. Convolutions have no bias, and pixels
are scaled differently. Layers have the names of Keras's ResNet.

ConvNeXt is the network of ``keras.applications``, whose own weights were converted from PyTorch:
only names and order of axes differ. The layouts of timm and of torchvision are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.backbones.applications import build_application
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.torch_state import State, copy_layer, tensor_of
from kindsight.models.backbones.vit import VITS, build_vit
from kindsight.models.backbones.vit_weights import load_vit_state

__all__ = [
    "TORCH_NETWORKS",
    "build_torch_network",
    "build_torch_resnet",
    "load_convnext_state",
    "load_resnet_state",
]

RESNET50 = (3, 4, 6, 3)
"""Blocks in each of the four stages."""

EPSILON = 1e-5
# Mean and standard deviation of ImageNet's pixels, 0-1.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STEM_WIDTH, EXPANSION = 64, 4


def build_torch_resnet(
    size: tuple[int, int], depths: Sequence[int] = RESNET50, width: int = STEM_WIDTH
) -> Any:
    """Build a ResNet of bottleneck blocks with random weights.

    `width` is the number of channels of the stem, doubled from stage to stage. The model maps
    float32 (batch, height, width, 3) with values 0-255 to its last feature maps. The last layer of
    each block is named ``conv2_block1_out``, ...
    """
    import keras

    layers = keras.layers
    keras.utils.clear_session()
    x = pixels = keras.Input((*size, 3), name="pixels")
    x = layers.Normalization(
        mean=[255 * value for value in _MEAN],
        variance=[(255 * value) ** 2 for value in _STD],
        name="scaling",
    )(x)
    x = layers.ZeroPadding2D(3, name="conv1_pad")(x)
    x = layers.Conv2D(width, 7, 2, use_bias=False, name="conv1_conv")(x)
    x = _normalise(x, "conv1_bn", activate=True)
    # After a ReLU, padding with zeros is the same as PyTorch's with the smallest number.
    x = layers.ZeroPadding2D(1, name="pool1_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="pool1_pool")(x)
    for stage, depth in enumerate(depths):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _add_block(x, f"conv{stage + 2}_block{block + 1}", width * 2**stage, stride)
    return keras.Model(pixels, x, name=f"resnet{2 + 3 * sum(depths)}")


def _normalise(x: Any, name: str, *, activate: bool) -> Any:
    import keras

    x = keras.layers.BatchNormalization(epsilon=EPSILON, name=name)(x)
    return keras.layers.ReLU(name=name.replace("_bn", "_relu"))(x) if activate else x


def _add_block(x: Any, name: str, width: int, stride: int) -> Any:
    """Add a block: 1x1, 3x3 and 1x1 convolutions and the skip connection."""
    import keras

    layers, shortcut = keras.layers, x
    if stride > 1 or x.shape[-1] != EXPANSION * width:
        shortcut = layers.Conv2D(
            EXPANSION * width, 1, stride, use_bias=False, name=f"{name}_0_conv"
        )(shortcut)
        shortcut = _normalise(shortcut, f"{name}_0_bn", activate=False)
    x = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_1_conv")(x)
    x = _normalise(x, f"{name}_1_bn", activate=True)
    x = layers.ZeroPadding2D(1, name=f"{name}_2_pad")(x)  # PyTorch pads on both sides
    x = layers.Conv2D(width, 3, stride, use_bias=False, name=f"{name}_2_conv")(x)
    x = _normalise(x, f"{name}_2_bn", activate=True)
    x = layers.Conv2D(EXPANSION * width, 1, use_bias=False, name=f"{name}_3_conv")(x)
    x = _normalise(x, f"{name}_3_bn", activate=False)
    x = layers.Add(name=f"{name}_add")([shortcut, x])
    return layers.ReLU(name=f"{name}_out")(x)


def load_resnet_state(model: Any, state: State, depths: Sequence[int] = RESNET50) -> None:
    """Copy a state dictionary of torchvision or timm into a model of :func:`build_torch_resnet`.

    WeightsError for a tensor that is missing, of another shape, or not finite, and for a network
    with more blocks.
    """
    for stage, depth in enumerate(depths):
        if f"layer{stage + 1}.{depth}.conv1.weight" in state:
            raise WeightsError(
                f"The network of the file has more than {depth} blocks in stage {stage + 1}."
            )
    for name, prefix in _names(model, depths):
        copy_layer(model.get_layer(name), state, prefix)


def _names(model: Any, depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield the name of each layer with weights, in Keras and in PyTorch."""
    yield from (("conv1_conv", "conv1"), ("conv1_bn", "bn1"))
    known = {layer.name for layer in model.layers}
    for stage, depth in enumerate(depths):
        for block in range(depth):
            ours, theirs = f"conv{stage + 2}_block{block + 1}", f"layer{stage + 1}.{block}"
            if f"{ours}_0_conv" in known:
                yield f"{ours}_0_conv", f"{theirs}.downsample.0"
                yield f"{ours}_0_bn", f"{theirs}.downsample.1"
            for number in (1, 2, 3):
                yield f"{ours}_{number}_conv", f"{theirs}.conv{number}"
                yield f"{ours}_{number}_bn", f"{theirs}.bn{number}"


CONVNEXT_TINY = (3, 3, 9, 3)
"""Blocks in each of the four stages."""

# Layers of a block: Keras's name, timm's and torchvision's.
_BLOCK = (
    ("depthwise_conv", "conv_dw", "block.0"),
    ("layernorm", "norm", "block.2"),
    ("pointwise_conv_1", "mlp.fc1", "block.3"),
    ("pointwise_conv_2", "mlp.fc2", "block.5"),
)


def load_convnext_state(model: Any, state: State, depths: Sequence[int] = CONVNEXT_TINY) -> None:
    """Copy a state dictionary of timm or torchvision into a ConvNeXt without its classifier.

    WeightsError for a tensor that is missing, of another shape, or not finite, and for a network
    with more blocks.
    """
    torchvision = "features.0.0.weight" in state
    layers = {layer.name: layer for layer in _flat(model)}
    names = _torchvision_names(depths) if torchvision else _timm_names(depths)
    (root,) = {name.split("_stage_")[0] for name in layers if "_stage_0_block_0_gelu" in name}
    for ours, theirs in names:
        copy_layer(layers[f"{root}_{ours}"], state, theirs)
    for stage, block, prefix in _blocks(depths, torchvision=torchvision):
        scale = layers[f"{root}_stage_{stage}_block_{block}_layer_scale"]
        (gamma,) = scale.weights
        width = int(gamma.shape[0])
        name, shape = (
            (f"{prefix}.layer_scale", (width, 1, 1)) if torchvision
            else (f"{prefix}.gamma", (width,))
        )  # fmt: skip
        scale.set_weights([tensor_of(state, name, shape).reshape(-1)])
    (last,) = (layer for layer in model.layers if layer.name == "layer_normalization")
    copy_layer(last, state, "classifier.0" if torchvision else "head.norm")
    for stage, depth in enumerate(depths):
        more = _prefix(stage, depth, torchvision=torchvision)
        if any(name.startswith(f"{more}.") for name in state):
            raise WeightsError(
                f"The network of the file has more than {depth} blocks in stage {stage + 1}."
            )


def _flat(model: Any) -> Iterator[Any]:
    """Yield a model's layers, and those of nested models in their place."""
    for layer in model.layers:
        yield from layer.layers if getattr(layer, "layers", None) else (layer,)


def _prefix(stage: int, block: int, *, torchvision: bool) -> str:
    if torchvision:
        return f"features.{2 * stage + 1}.{block}"
    return f"stages.{stage}.blocks.{block}"


def _blocks(depths: Sequence[int], *, torchvision: bool) -> Iterator[tuple[int, int, str]]:
    """Yield stage, block and PyTorch's prefix of each block."""
    for stage, depth in enumerate(depths):
        for block in range(depth):
            yield stage, block, _prefix(stage, block, torchvision=torchvision)


def _timm_names(depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield Keras's and timm's names of the layers with weight and bias, but the last."""
    yield from (("stem_conv", "stem.0"), ("stem_layernorm", "stem.1"))
    for number in range(len(depths) - 1):
        yield f"downsampling_layernorm_{number}", f"stages.{number + 1}.downsample.0"
        yield f"downsampling_conv_{number}", f"stages.{number + 1}.downsample.1"
    for stage, block, prefix in _blocks(depths, torchvision=False):
        for ours, theirs, _ in _BLOCK:
            yield f"stage_{stage}_block_{block}_{ours}", f"{prefix}.{theirs}"


def _torchvision_names(depths: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Yield Keras's and torchvision's names of the layers with weight and bias, but the last."""
    yield from (("stem_conv", "features.0.0"), ("stem_layernorm", "features.0.1"))
    for number in range(len(depths) - 1):
        yield f"downsampling_layernorm_{number}", f"features.{2 * number + 2}.0"
        yield f"downsampling_conv_{number}", f"features.{2 * number + 2}.1"
    for stage, block, prefix in _blocks(depths, torchvision=True):
        for ours, _, theirs in _BLOCK:
            yield f"stage_{stage}_block_{block}_{ours}", f"{prefix}.{theirs}"


_RESNET, _CONVNEXT = "resnet50", "convnext-tiny"
TORCH_NETWORKS = frozenset((*VITS, _RESNET, _CONVNEXT))
"""Names of the backbones that such a file fits, besides EfficientNet-Lite."""


def build_torch_network(backbone: Backbone, size: tuple[int, int], state: State | None) -> Any:
    """Build one of :data:`TORCH_NETWORKS`, from pixels to its last feature maps, with weights.

    Without `state`, a vision transformer gets random weights. WeightsError for weights of another
    network.
    """
    if backbone.name in VITS:
        spec = VITS[backbone.name]
        network = build_vit(backbone.name, spec, size)
        if state is not None:
            load_vit_state(network, spec, state)
        return network
    assert state is not None
    if backbone.name == _RESNET:
        network = build_torch_resnet(size)
        load_resnet_state(network, state)
    else:
        network = build_application(backbone, size)
        load_convnext_state(network, state)
    return network
