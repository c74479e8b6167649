"""A user's own Keras file as a backbone: what it says of itself, read without Keras.

The file is the ``.keras`` archive of ``model.save``. It must take pixels of 0-255 as RGB, like
every network here: scaling belongs inside (a layer ``Rescaling`` or ``Normalization``). Only
Keras's own layers are accepted, since others would be code of the file's.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.backbone import Backbone
from kindsight.models.keras_file import CONFIG, DAMAGE, read_member

__all__ = ["DEFAULT_SIZE", "read_own_model"]

DEFAULT_SIZE = 224
"""Pixels, where a file takes pictures of any size."""

_ANY_CODE = {"Lambda", "__lambda__", "TorchModuleWrapper", "FlaxLayer", "JaxLayer", "TFSMLayer"}
MAX_DEPTH = 64


def read_own_model(path: Path) -> Backbone:
    """Read which pictures a Keras file takes, and refuse one that is not made of Keras's layers.

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
        anything but one picture of three channels.
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
            f"{path}: A model must take one picture: float32 (batch, height, width, 3), pixels "
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
        fixed=fixed,
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
    """Return the shape of the one picture that a model takes, the batch first."""
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
