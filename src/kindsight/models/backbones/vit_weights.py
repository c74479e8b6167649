"""Copy the weights of a vision transformer from PyTorch into a model of :mod:`.vit`.

Three layouts are known: that of timm, which Meta's files share but for the registers' name, and two
of Hugging Face, for ViT and for DINOv2. Names are converted to timm's.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import WeightsError
from kindsight.models.backbones.torch_state import State, copy_layer, tensor_of
from kindsight.models.backbones.vit import ViTSpec

__all__ = ["load_vit_state", "resample_positions"]

# Names of Hugging Face, older and newer ones, and of Meta; the first pattern that matches counts.
_RENAMED = tuple(
    (re.compile(pattern), name)
    for pattern, name in (
        (r"^embeddings\.cls_token$", "cls_token"),
        (r"^embeddings\.position_embeddings$", "pos_embed"),
        (r"^(embeddings\.)?register_tokens$", "reg_token"),
        (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
        (r"^layernorm\.", "norm."),
        (r"^(?:encoder\.)?layers?\.(\d+)\.", r"blocks.\1."),
    )
)
_IN_BLOCK = (
    (re.compile(r"\.attention\.(?:attention\.)?(query|key|value)\."), r".attn.\1."),
    (re.compile(r"\.attention\.q_proj\."), ".attn.query."),
    (re.compile(r"\.attention\.k_proj\."), ".attn.key."),
    (re.compile(r"\.attention\.v_proj\."), ".attn.value."),
    (re.compile(r"\.attention\.(output\.dense|o_proj)\."), ".attn.proj."),
    (re.compile(r"\.(?:layernorm_before)\."), ".norm1."),
    (re.compile(r"\.(?:layernorm_after)\."), ".norm2."),
    (re.compile(r"\.intermediate\.dense\."), ".mlp.fc1."),
    (re.compile(r"\.output\.dense\."), ".mlp.fc2."),
    (re.compile(r"\.layer_scale([12])\.lambda1$"), r".ls\1.gamma"),
)
_PARTS = ("query", "key", "value")


def load_vit_state(model: Any, spec: ViTSpec, state: State) -> None:
    """Copy a state dictionary into a model of :func:`.vit.build_vit`.

    Position embeddings are resampled to the model's rows and columns, as the library does whose
    layout the file has. WeightsError for a tensor that is missing, of another shape, or not finite,
    and for a network with more blocks or registers.
    """
    antialias = _is_antialiased(state)
    state = _in_timm_layout(state)
    if f"blocks.{spec.depth}.norm1.weight" in state:
        raise WeightsError(f"The network of the file has more than {spec.depth} blocks.")
    if ("reg_token" in state) != (spec.registers > 0):
        found = "register tokens" if "reg_token" in state else "no register tokens"
        raise WeightsError(f"The network of the file has {found}.")
    kernel = model.get_layer("patches").kernel.shape
    patches = tensor_of(state, "patch_embed.proj.weight", [kernel[axis] for axis in (3, 2, 0, 1)])
    model.get_layer("patches").set_weights([np.transpose(patches, (2, 3, 1, 0))])
    rows, columns = (int(side) for side in model.output_shape[1:3])
    position = model.get_layer("position")
    position.set_weights(
        [np.ones(spec.width, np.float32), _positions(state, spec, (rows, columns), antialias)]
    )
    for block in range(1, spec.depth + 1):
        _copy_block(model, spec, state, block)
    copy_layer(model.get_layer("norm"), state, "norm")


def _is_antialiased(state: State) -> bool:
    """Whether the library of this layout resamples position embeddings with a filter.

    timm always does; Hugging Face and Meta do for networks with registers.
    """
    own = any(name in state for name in ("embeddings.position_embeddings", "mask_token"))
    registers = any(name.endswith("register_tokens") for name in state)
    return registers or not own


def _in_timm_layout(state: State) -> dict[str, NDArray[Any]]:
    """Return a state dictionary under timm's names."""
    renamed = {}
    for name, array in state.items():
        for pattern, other in _RENAMED:
            name = pattern.sub(other, name)  # noqa: PLW2901 - converted step by step
        if name.startswith("blocks."):
            for pattern, other in _IN_BLOCK:
                name = pattern.sub(other, name)  # noqa: PLW2901
        renamed[name] = array
    return renamed


def _positions(
    state: State, spec: ViTSpec, grid: tuple[int, int], antialias: bool
) -> NDArray[np.float32]:
    """Return what is added to each token: class token, registers, positions, the patches' bias."""
    stored = state.get("pos_embed")
    with_class = stored is None or stored.shape[1:2] != (spec.grid**2,)  # timm: without, if newer
    table = np.asarray(tensor_of(state, "pos_embed", (1, spec.grid**2 + with_class, spec.width))[0])
    found = np.zeros((spec.prefix + grid[0] * grid[1], spec.width), np.float32)
    found[0] = tensor_of(state, "cls_token", (1, 1, spec.width))[0, 0]
    if with_class:
        found[0] += table[0]
    if spec.registers:
        found[1 : spec.prefix] = tensor_of(
            state, "reg_token", (1, spec.registers, spec.width)
        )[0]  # fmt: skip
    table = table[int(with_class) :].reshape(spec.grid, spec.grid, spec.width)
    resampled = resample_positions(table, grid, antialias=antialias).reshape(-1, spec.width)
    found[spec.prefix :] = resampled + tensor_of(state, "patch_embed.proj.bias", (spec.width,))
    return found


def resample_positions(
    table: NDArray[np.float32], grid: tuple[int, int], *, antialias: bool
) -> NDArray[np.float32]:
    """Resample position embeddings, float32 (rows, columns, width), to other rows and columns.

    Bicubic, as PyTorch's ``interpolate(mode="bicubic", align_corners=False)``.
    """
    if table.shape[:2] == tuple(grid):
        return table
    down, across = (
        _cubic_weights(old, new, antialias) for old, new in zip(table.shape[:2], grid, strict=True)
    )
    found = np.einsum("ry,yxw,cx->rcw", down, table.astype(np.float64), across, optimize=True)
    return np.asarray(found, np.float32)


def _cubic_weights(old: int, new: int, antialias: bool) -> NDArray[np.float64]:
    """Return the weight of each of `old` values in each of `new` ones, float64 (new, old)."""
    scale = old / new
    # With the filter, PyTorch has another kernel, of Pillow, stretched where the image shrinks.
    steepness, stretch = (-0.5, max(scale, 1.0)) if antialias else (-0.75, 1.0)
    centres = (np.arange(new) + 0.5) * scale - 0.5
    # Beyond the edge the outermost values are repeated, or with the filter left out.
    margin = 0 if antialias else 2
    positions = range(-margin, old + margin)
    distance = np.abs(np.array(positions)[None] - centres[:, None]) / stretch
    a, d = steepness, distance
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (((d - 5) * d + 8) * d - 4)
    weights = np.where(d <= 1, near, np.where(d < 2, far, 0.0))
    weights /= weights.sum(axis=1, keepdims=True)
    found = np.zeros((new, old))
    for column, position in enumerate(positions):
        found[:, min(max(position, 0), old - 1)] += weights[:, column]
    return found


def _copy_block(model: Any, spec: ViTSpec, state: State, block: int) -> None:
    name, prefix = f"block{block}", f"blocks.{block - 1}"
    width, heads = spec.width, (spec.heads, spec.width // spec.heads)
    copy_layer(model.get_layer(f"{name}_norm1"), state, f"{prefix}.norm1")
    copy_layer(model.get_layer(f"{name}_norm2"), state, f"{prefix}.norm2")
    arrays = []
    for kernel, bias in _queries_keys_values(state, prefix, width):
        arrays += [kernel.T.reshape(width, *heads), bias.reshape(heads)]
    kernel, bias = _scaled(state, f"{prefix}.attn.proj", (width, width), f"{prefix}.ls1", spec)
    arrays += [kernel.T.reshape(*heads, width), bias]
    model.get_layer(f"{name}_attention").set_weights(arrays)
    copy_layer(model.get_layer(f"{name}_dense1"), state, f"{prefix}.mlp.fc1")
    kernel, bias = _scaled(state, f"{prefix}.mlp.fc2", (width, 4 * width), f"{prefix}.ls2", spec)
    model.get_layer(f"{name}_dense2").set_weights([kernel.T, bias])


def _queries_keys_values(
    state: State, prefix: str, width: int
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return weight and bias of the queries, keys and values, which timm has in one tensor."""
    if f"{prefix}.attn.query.weight" in state:
        return [
            (
                tensor_of(state, f"{prefix}.attn.{part}.weight", (width, width)),
                tensor_of(state, f"{prefix}.attn.{part}.bias", (width,)),
            )
            for part in _PARTS
        ]
    kernels = tensor_of(state, f"{prefix}.attn.qkv.weight", (3 * width, width))
    biases = tensor_of(state, f"{prefix}.attn.qkv.bias", (3 * width,))
    return list(zip(np.split(kernels, 3), np.split(biases, 3), strict=True))


def _scaled(
    state: State, name: str, shape: tuple[int, int], scale: str, spec: ViTSpec
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return weight and bias of a dense layer with the layer scale after it, if there is one."""
    kernel = tensor_of(state, f"{name}.weight", shape)
    bias = tensor_of(state, f"{name}.bias", shape[:1])
    if not spec.layer_scale:
        return kernel, bias
    factor = tensor_of(state, f"{scale}.gamma", shape[:1])
    return kernel * factor[:, None], bias * factor
