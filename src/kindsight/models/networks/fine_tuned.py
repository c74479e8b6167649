"""Freeze layers; build the networks of fine-tuning: a frozen base below a cut, a trainable top.

LiteRT runs the frozen base once for each augmented copy of an image, and its activations are cached
(:mod:`kindsight.training.activation_cache`). The top is a copy with batch normalisation folded, so
the backbone with its fitted head is unchanged, and the logits of both may be averaged.
"""

from __future__ import annotations

import itertools
import math
import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.models.backbones.tta import FLIP_AXES
from kindsight.models.graph import (
    CutPoint,
    as_functional,
    call_inputs,
    complete_layer,
    cut_points,
    fold_batch_norm,
    producer,
)
from kindsight.models.heads import FEATURES, Head, LinearHead, RBFHead
from kindsight.models.networks.keras_heads import add_head

__all__ = [
    "ENSEMBLE_LAYER", "FINE_TUNED_LAYER", "FREEZES", "FineTunedNetwork", "activation_shape",
    "average_logits", "average_over_flips", "base_feature_count", "build_fine_tuned",
    "build_frozen_base", "count_frozen", "freeze", "freeze_batch_norm", "last_frozen_layer",
    "layers_after", "layers_up_to", "load_network", "parse_freeze", "stages_of", "summarise",
    "with_head",
]  # fmt: skip

FREEZES = ("all", "none")


def freeze(model: Any, frozen: str | int, *, train_batch_norm: bool = False) -> None:
    """Set ``trainable`` of the layers of a backbone without head.

    `frozen` is ``"all"``, ``"none"``, the first N layers with weights, or a layer's name: it and
    all layers before it. With `train_batch_norm`, batch normalisation of trainable layers is
    trained; see :func:`freeze_batch_norm`. SettingsError for more layers than the model has, or an
    unknown layer.
    """
    owners, count = count_frozen(model, frozen)
    for number, layer in enumerate(owners):
        layer.trainable = number >= count
    if not train_batch_norm:
        freeze_batch_norm(model)


def count_frozen(model: Any, frozen: str | int) -> tuple[list[Any], int]:
    """Return the layers with weights, frozen ones first, and how many :func:`freeze` freezes."""
    owners = [layer for layer in model.layers if layer.weights]
    choice = parse_freeze(frozen)
    if choice == "none":
        return owners, 0
    if choice == "all":
        return owners, len(owners)
    if isinstance(choice, int):
        if choice > len(owners):
            raise SettingsError(
                f"`freeze` must be at most {len(owners)}, the layers of {model.name} with weights; "
                f"got {choice}."
            )
        return owners, choice
    below = layers_up_to(model, complete_layer(model, choice))
    owners.sort(key=lambda layer: layer.name not in below)
    return owners, sum(layer.name in below for layer in owners)


def parse_freeze(frozen: str | int) -> str | int:
    """Return ``"all"``, ``"none"``, a number or a layer's name; SettingsError for other values."""
    if isinstance(frozen, int) and not isinstance(frozen, bool) and frozen >= 0:
        return frozen
    if isinstance(frozen, str) and frozen.strip():
        text = frozen.strip()
        return int(text) if re.fullmatch(r"\d{1,6}", text) else text
    raise SettingsError(
        f"`freeze` must be {', '.join(FREEZES)}, a number of layers, or a layer's name; "
        f"got {frozen!r}."
    )


def layers_up_to(model: Any, name: str) -> set[str]:
    """Return the names of a layer and of all layers that it depends on."""
    operations = {operation.name: operation for operation in as_functional(model).operations}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop()
        if current in found or current not in operations:
            continue
        found.add(current)
        for tensors in call_inputs(operations[current]):
            waiting += [producer(tensor).name for tensor in tensors]
    return found


def freeze_batch_norm(model: Any) -> None:
    """Freeze batch normalisation in all layers, which keeps it in inference mode in Keras.

    Statistics of small batches would replace better ones of the pretraining images.
    """
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
        elif getattr(layer, "layers", None):
            freeze_batch_norm(layer)


def last_frozen_layer(model: Any, trainable: Collection[str]) -> CutPoint | None:
    """Return the last cut point with feature maps below which no layer is trainable.

    Its output for an image is the same in every epoch. None if no layer with weights is below.
    """
    found = None
    owners = {layer.name for layer in model.layers if layer.weights}
    for point in cut_points(model):
        below = layers_up_to(model, point.name)
        if not below.isdisjoint(trainable):
            break
        if len(point.shape) == 3 and not below.isdisjoint(owners):
            found = point
    return found


@dataclass(frozen=True)
class LayerBlock:
    """Consecutive layers that end at a cut point.

    `name` is the last layer's, `output` the shape of its output for one image; `layers` and `names`
    are of layers with weights; `parameters` and `trainable` are numbers of parameters.
    """

    name: str
    output: tuple[int | None, ...]
    layers: int
    parameters: int
    trainable: int
    names: tuple[str, ...] = ()


def summarise(model: Any, ends: tuple[str, ...] | None = None) -> list[LayerBlock]:
    """Return the blocks of a network from input to output, with sizes and parameters.

    `ends` are last layers of blocks, unknown ones ignored; default: where the size of the maps
    changes.
    """
    points = cut_points(model)
    names = [point.name for point in points]
    wanted = set(ends) if ends is not None else set(_size_ends(points))
    wanted.add(names[-1])
    shapes = {point.name: point.shape for point in points}
    done: set[str] = set()
    found = []
    for name in names:
        if name not in wanted:
            continue
        here = layers_up_to(model, name) - done
        done |= here
        owners = [layer for layer in model.layers if layer.name in here and layer.weights]
        parameters = sum(layer.count_params() for layer in owners)
        trainable = sum(_count(layer.trainable_weights) for layer in owners)
        own = tuple(layer.name for layer in owners)
        found.append(LayerBlock(name, shapes[name], len(owners), parameters, trainable, own))
    return found


def _size_ends(points: list[Any]) -> list[str]:
    return [
        point.name
        for point, following in itertools.pairwise(points)
        if point.shape[:-1] != following.shape[:-1]
    ]


def _count(variables: list[Any]) -> int:
    return sum(math.prod(int(side) for side in variable.shape) for variable in variables)


ENSEMBLE_LAYER, FINE_TUNED_LAYER = "ensemble", "fine_tuned"
"""Names of the layer that adds up the logits of two networks, and of a fine-tuned one."""

STANDARDISE = "standardise"
# Layers of an RBF head that are not trained: the projection, in which a small step would move
# every image away from the RBF centres, and the norm of a point.
_FIXED = ("head_project", "head_norm", "head_kernel")


@dataclass(frozen=True)
class FineTunedNetwork:
    """A backbone and its head, prepared for fine-tuning.

    `full` maps pixels to logits; `top`, a layer of it or without a cut `full` itself, maps the
    activations at the cut to logits. `frozen` is the network before fine-tuning, which shares the
    layers below the cut; its part `backbone` maps pixels to features.
    """

    full: Any
    top: Any
    frozen: Any
    backbone: Any


def load_network(file: str | os.PathLike[str]) -> Any:
    """Load a Keras file without compiling it."""
    import keras

    return keras.models.load_model(file, compile=False)


def stages_of(layout: FeatureLayout) -> tuple[str, ...]:
    """Return the stages whose statistics are features, from the input on, without the top."""
    names = [name.rpartition("_")[0] for name in layout.names[:-1]]
    return tuple(dict.fromkeys(names))


def base_feature_count(layout: FeatureLayout, stage: str) -> int:
    """Return the number of features that the frozen base computes if cut after `stage`."""
    return max(block.stop for block in layout.blocks if block.name.rpartition("_")[0] == stage)


def activation_shape(model: Any, stage: str) -> tuple[int, ...]:
    """Return the (height, width, channels) of the activations after a stage."""
    return tuple(int(side) for side in _stage_layer(model, stage).output.shape[1:])


def layers_after(model: Any, stage: str) -> set[str]:
    """Return the names of a network's layers above the end of a stage."""
    every = {operation.name for operation in model.operations}
    return every - layers_up_to(model, _stage_layer(model, stage).name)


def _stage_layer(model: Any, stage: str) -> Any:
    names = {layer.name for layer in model.layers}
    return model.get_layer(f"{stage}_out" if f"{stage}_out" in names else stage)


def _base_features(model: Any, layout: FeatureLayout, stage: str) -> list[Any]:
    """Return the tensors of the features below the cut, one per block of the layout."""
    blocks = call_inputs(model.get_layer(FEATURES))[0]
    count = base_feature_count(layout, stage)
    return blocks[: sum(block.stop <= count for block in layout.blocks)]


def build_frozen_base(model: Any, layout: FeatureLayout | None, stage: str) -> Any:
    """Build the frozen base of a backbone, cut after one of :func:`stages_of`, or after any layer.

    It maps float32 (batch, height, width, 3), values 0-255, to float32 (batch, features +
    activations): the features of the stages up to the cut, unless `layout` is None, then the
    flattened activations.
    """
    import keras

    outputs = keras.layers.Flatten()(_stage_layer(model, stage).output)
    if layout is not None:
        outputs = keras.layers.Concatenate()([*_base_features(model, layout, stage), outputs])
    return keras.Model(model.input, outputs, name=f"{model.name}_base")


def build_fine_tuned(
    model: Any,
    layout: FeatureLayout,
    stage: str | None,
    head: Head,
    temperature: float,
    mean: NDArray[np.float32],
    spread: NDArray[np.float32],
) -> FineTunedNetwork:
    """Put a fitted head on a backbone (pixels to features) and split both after a stage, if any.

    The initial logits are those of the fitted head divided by the temperature. The head is trained
    on features standardised by `mean` and `spread`, float32 (features,), the standard deviation, of
    the training images, so that one learning rate suits all. SettingsError if a skip connection
    bypasses the cut.
    """
    import keras

    cut = model.input
    if stage is not None:
        cut = [_stage_layer(model, stage).output, *_base_features(model, layout, stage)]
    try:
        above = keras.Model(cut, model.output, name=f"{model.name}_above")
    except ValueError as error:
        raise SettingsError(
            f"Cannot cut {model.name} at {stage!r}: a skip connection bypasses it ({error})."
        ) from None
    above = fold_batch_norm(above)
    standardise = keras.layers.Normalization(
        mean=mean, variance=np.square(spread), name=STANDARDISE
    )
    logits = add_head(standardise(above.output), _standardised(head, temperature, mean, spread))
    top = keras.Model(above.inputs, logits, name=FINE_TUNED_LAYER)
    for name in _FIXED:
        if any(layer.name == name for layer in top.layers):
            top.get_layer(name).trainable = False
    full = keras.Model(model.input, top(cut), name=f"{model.name}_fine_tuned") if stage else top
    frozen = with_head(model, head, temperature)
    frozen.trainable = False
    return FineTunedNetwork(full, top, frozen, model)


def with_head(model: Any, head: Head, temperature: float) -> Any:
    """Return a backbone (pixels to features) with a fitted head, logits divided by temperature."""
    import keras

    features = keras.Input(model.output.shape[1:], name=FEATURES)
    logits = keras.layers.Rescaling(1 / temperature)(add_head(features, head))
    frozen_head = keras.Model(features, logits, name="frozen_head")
    return keras.Model(model.input, frozen_head(model.output), name=f"{model.name}_frozen")


def average_logits(full: Any, frozen: Any, weight: float) -> Any:
    """Return a network whose logits are a mean of two networks', the first with `weight`, 0-1.

    Shared layers run once if both have the same input.
    """
    import keras

    pixels = full.inputs[0]  # `input` may be a list
    other = frozen.output if frozen.inputs[0] is pixels else frozen(pixels)
    scaled = [
        keras.layers.Rescaling(factor)(logits)
        for factor, logits in ((weight, full.output), (1 - weight, other))
    ]
    return keras.Model(pixels, keras.layers.Add(name=ENSEMBLE_LAYER)(scaled), name=full.name)


def average_over_flips(full: Any, flips: Sequence[int]) -> Any:
    """Return a network, with `full` as a layer, whose logits are its mean over flips of an image.

    `flips` are indices of :data:`kindsight.models.backbones.tta.FLIPS`.
    """
    import keras

    pixels = keras.Input(full.inputs[0].shape[1:], name=full.inputs[0].name)

    def logits_of(flip: int) -> Any:
        image = pixels
        for axis in FLIP_AXES[flip]:  # older versions of Keras flip one axis at a time
            image = keras.ops.flip(image, axis)
        return full(image)

    logits = keras.layers.Average(name="tta")([logits_of(flip) for flip in flips])
    return keras.Model(pixels, logits, name=f"{full.name}_tta")


def _standardised(
    head: Head, temperature: float, mean: NDArray[np.float32], spread: NDArray[np.float32]
) -> Head:
    """Return the head for standardised features, its logits divided by the temperature."""
    middle, width = mean.astype(np.float64), spread.astype(np.float64)
    head = head.scaled(1 / temperature)
    if isinstance(head, LinearHead):
        return LinearHead(
            np.asarray(head.kernel * width[:, None], np.float32),
            np.asarray(head.bias + middle @ head.kernel, np.float32),
        )
    assert isinstance(head, RBFHead)
    return replace(
        head,
        project_kernel=np.asarray(head.project_kernel * width[:, None], np.float32),
        project_bias=np.asarray(head.project_bias + middle @ head.project_kernel, np.float32),
    )
