"""Put several Keras files into one, each as a layer that sees the same picture."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.assemble import PIXELS
from kindsight.models.heads import FEATURES
from kindsight.models.keras_file import CONFIG, DAMAGE, METADATA, WEIGHTS, read_member
from kindsight.models.views import AXES, VIEWS

__all__ = ["join_keras"]


def join_keras(files: Sequence[Path], views: int, out: Path) -> None:
    """Write one Keras file of several backbones, each run over several views of the picture.

    Parameters
    ----------
    files : sequence of pathlib.Path
        Built backbones for pictures of one size, from pixels to a layer ``"features"``.
    views : int
        How many of :data:`.views.VIEWS`; each backbone's features are the mean over them.
    out : pathlib.Path
        The file to write: a model in which each backbone is a layer, and ``"features"`` is last.

    Raises
    ------
    WeightsError
        For files that are damaged, or do not fit together.
    """
    import h5py

    try:
        members = [_members(file) for file in files]
        configs = [json.loads(parts[CONFIG]) for parts in members]
        config = _outer_config(configs, views)
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as target:
            for number, parts in enumerate(members):
                with h5py.File(io.BytesIO(parts[WEIGHTS]), "r") as source:
                    name = "functional" + f"_{number}" * bool(number)
                    inner = target.create_group(f"layers/{name}")
                    for child in source:
                        source.copy(child, inner)
    except DAMAGE as error:
        raise WeightsError(
            f"{' and '.join(map(str, files))}: Two backbones must fit together. Received: {error}."
        ) from None
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(METADATA, members[0][METADATA])
        archive.writestr(CONFIG, json.dumps(config))
        archive.writestr(WEIGHTS, buffer.getvalue())


def _members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: read_member(archive, name) for name in (METADATA, CONFIG, WEIGHTS)}


def _outer_config(configs: list[dict[str, Any]], views: int) -> dict[str, Any]:
    """Describe a model whose layers are the networks, each called once for each view."""
    names = [str(config["config"]["name"]) for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"the same network twice: {names[0]}")
    pixels = next(
        layer for layer in configs[0]["config"]["layers"] if layer["class_name"] == "InputLayer"
    )
    shape = pixels["config"]["batch_shape"]
    layers = [{**pixels, "name": PIXELS, "config": {**pixels["config"], "name": PIXELS}}]
    seen = []
    for axes, view in zip(AXES[:views], VIEWS, strict=False):
        name = PIXELS
        for axis in axes:  # one at a time is all that older versions of Keras do
            word = view.replace("-", "_") + f"_{axis}" * (len(axes) > 1)
            layers.append(_flip_keras(word, axis, _tensor(name, shape)))
            name = word
        seen.append(_tensor(name, shape))
    given = []
    for config, name in zip(configs, names, strict=True):
        calls = [{"args": [tensor], "kwargs": {"mask": None}} for tensor in seen]
        layers.append({**config, "name": name, "inbound_nodes": calls})
        ends = [_tensor(name, [None, _width(config)], call) for call in range(views)]
        if views > 1:
            layers.append(_merge_keras("Average", f"{name}_mean", ends))
            ends = [_tensor(f"{name}_mean", [None, _width(config)])]
        given += ends
    layers.append(_merge_keras("Concatenate", FEATURES, given))
    short = "_and_".join(name.removesuffix("_features") for name in names)
    return {
        **configs[0],
        "config": {
            "name": f"{short}_features",
            "trainable": True,
            "layers": layers,
            "input_layers": [PIXELS, 0, 0],
            "output_layers": [FEATURES, 0, 0],
        },
    }


def _flip_keras(name: str, axis: int, given: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.src.ops.numpy",
        "class_name": "Flip",
        "config": {"name": name, "axis": axis},
        "registered_name": "Flip",
        "name": name,
        "inbound_nodes": [{"args": [given], "kwargs": {}}],
    }


def _merge_keras(kind: str, name: str, given: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {
            "name": name,
            "trainable": True,
            "dtype": "float32",
            **({"axis": -1} if kind == "Concatenate" else {}),
        },
        "registered_name": None,
        "build_config": {"input_shape": [tensor["config"]["shape"] for tensor in given]},
        "name": name,
        "inbound_nodes": [{"args": [given], "kwargs": {}}],
    }


def _width(config: Mapping[str, Any]) -> int:
    (features,) = (layer for layer in config["config"]["layers"] if layer["name"] == FEATURES)
    return sum(int(shape[-1]) for shape in features["build_config"]["input_shape"])


def _tensor(name: str, shape: list[Any], call: int = 0) -> dict[str, Any]:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": shape, "dtype": "float32", "keras_history": [name, call, 0]},
    }
