"""Copy the weights of a ConvNeXt from PyTorch into the network of ``keras.applications``.

The layouts of timm and of torchvision are known. The numbers agree, since Keras's own weights were
converted from PyTorch; only names and order of axes differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.backbones.torch_state import State, copy_layer, tensor_of

__all__ = ["CONVNEXT_TINY", "load_convnext_state"]

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
