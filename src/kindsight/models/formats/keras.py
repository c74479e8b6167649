"""Add a head to a ``.keras`` file without Keras.

A ``.keras`` file is a ZIP archive of ``metadata.json``, ``config.json`` (the layers and their
connections) and ``model.weights.h5`` (the weights, under names that Keras derives from the order
of the layers, not from their names). Appending a chain of layers changes no name in it. The
format is that of Keras's ``saving_lib``, versions 3.11 to 3.15; pyproject.toml caps Keras there.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.heads import FEATURES, LOGITS, Head, HeadLayer
from kindsight.models.ood import OOD_SCORE, OODScore, output_layers

__all__ = [
    "CONFIG", "DAMAGE", "MEMBERS", "WEIGHTS", "add_score", "read_keras_template", "read_member",
]  # fmt: skip

METADATA = "metadata.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Most bytes that a member may hold once unpacked.
MEMBERS = {METADATA: 2**20, CONFIG: 2**24, WEIGHTS: 2**30}
MAX_LAYERS = 20_000
_NO_SOURCES: dict[str, Any] = {}
# Keras's names of the kinds of layers that are not their own.
_CLASSES = {"column": "Reshape", "maximum": "GlobalMaxPooling1D"}
# What zipfile, json and h5py raise on damaged files.
DAMAGE = (
    zipfile.BadZipFile, zipfile.LargeZipFile, AttributeError, EOFError, KeyError, MemoryError,
    OSError, OverflowError, RuntimeError, TypeError, ValueError,
)  # fmt: skip


class KerasTemplate:
    """The members of a backbone's file, to which a head can be added.

    ValueError for a config that is not a functional model ending in a concatenation ``"features"``.
    """

    def __init__(self, metadata: bytes, config: bytes, weights: bytes) -> None:
        self._metadata = metadata
        self._weights = weights
        self._config = json.loads(config)
        graph = self._config["config"]
        if self._config["class_name"] != "Functional" or not isinstance(graph["layers"], list):
            raise ValueError("it is not a functional model")
        if graph["output_layers"] not in ([FEATURES, 0, 0], [[FEATURES, 0, 0]]):
            raise ValueError(f"its only output is not the layer {FEATURES!r}")
        self._layers = graph["layers"]
        if len(self._layers) > MAX_LAYERS:
            raise ValueError(f"it has more than {MAX_LAYERS} layers")
        self._names = {layer["name"] for layer in self._layers}
        (features,) = (layer for layer in self._layers if layer["name"] == FEATURES)
        self._width = sum(int(shape[-1]) for shape in features["build_config"]["input_shape"])
        self._dense = sum(layer["class_name"] == "Dense" for layer in self._layers)

    def add(self, head: Head, score: OODScore | None = None) -> None:
        """Add the layers and weights of a head and a score; :data:`DAMAGE` if they do not fit."""
        if self._width != head.features:
            raise ValueError(f"it gives {self._width} features, the head needs {head.features}")
        shapes: dict[str, list[int | None]] = {FEATURES: [None, head.features]}
        layers = output_layers(head, score)
        for layer in layers:
            if layer.name in self._names:
                raise ValueError(f"it has a layer named {layer.name!r} already")
            self._layers.append(_layer_config(layer, shapes))
            shapes[layer.name] = [None, layer.width] + [1] * (layer.kind == "column")
        graph = self._config["config"]
        graph["name"] = str(graph["name"]).removesuffix("_features") + "_classifier"
        ends = [[name, 0, 0] for name in (LOGITS, OOD_SCORE)]
        graph["output_layers"] = ends[0] if score is None else ends
        self._weights = _add_weights(self._weights, layers, self._dense)

    def write(self, path: Path) -> None:
        """Write the archive, uncompressed as Keras does."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(METADATA, self._metadata)
            archive.writestr(CONFIG, json.dumps(self._config))
            archive.writestr(WEIGHTS, self._weights)


def add_score(network: Path, classes: int, score: OODScore | None) -> bytes:
    """Return a classifier's file with the score in place of its second output, the features.

    One of :data:`DAMAGE` if it is damaged or has no second output for a score.
    """
    with zipfile.ZipFile(network) as archive:
        members = {name: read_member(archive, name) for name in MEMBERS}
    config = json.loads(members[CONFIG])
    graph = config["config"]
    ends = graph["output_layers"]
    if isinstance(ends[0], list) and len(ends) == 2:
        layers: tuple[HeadLayer, ...] = ()
        if score is not None:
            layers = score.layers(classes)
            sources = {LOGITS: _as_input(graph, ends[0]), FEATURES: _as_input(graph, ends[1])}
            shapes: dict[str, list[int | None]] = {
                LOGITS: [None, classes], FEATURES: [None, score.features]
            }  # fmt: skip
            dense = sum(layer["class_name"] == "Dense" for layer in graph["layers"])
            for layer in layers:
                graph["layers"].append(_layer_config(layer, shapes, sources))
                shapes[layer.name] = [None, layer.width] + [1] * (layer.kind == "column")
            members[WEIGHTS] = _add_weights(members[WEIGHTS], layers, dense)
        graph["output_layers"] = [ends[0], [OOD_SCORE, 0, 0]] if layers else ends[0]
    elif score is not None:
        raise ValueError("it has no second output")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in {**members, CONFIG: json.dumps(config).encode()}.items():
            archive.writestr(name, data)
    return content.getvalue()


def _as_input(graph: Mapping[str, Any], end: list[Any]) -> list[Any]:
    """Return an output (layer, call, output) as the input of a layer refers to it.

    As an output, a network inside the network counts the call that built it, too.
    """
    name, call, output = end
    kinds = {layer["name"]: layer["class_name"] for layer in graph["layers"]}
    return [name, call - (kinds[name] == "Functional"), output]


def read_keras_template(path: str | os.PathLike[str]) -> KerasTemplate:
    """Read a ``.keras`` file of a model from pixels to features.

    WeightsError for a file that is missing, damaged, too large, or of another form.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            if infos.keys() != MEMBERS.keys() or len(archive.infolist()) != len(MEMBERS):
                raise ValueError(f"its members are {sorted(infos)[:10]}")
            for name, limit in MEMBERS.items():
                if infos[name].file_size > limit:
                    raise ValueError(f"{name} has {infos[name].file_size} bytes")
            return KerasTemplate(*(read_member(archive, name) for name in MEMBERS))
    except OSError as error:
        raise WeightsError(
            f"The model file {path} cannot be read: {error.strerror or error}."
        ) from None
    except DAMAGE as error:
        raise WeightsError(
            f"{path} is damaged or is not the .keras file of a backbone: {error}."
        ) from None


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member up to its limit, whatever size the archive states for it."""
    import zlib

    try:
        with archive.open(name) as file:
            data = file.read(MEMBERS[name] + 1)
    except zlib.error as error:
        raise ValueError(f"{name} cannot be unpacked: {error}") from None
    if len(data) > MEMBERS[name]:
        raise ValueError(f"{name} has more than {MEMBERS[name]} bytes")
    return data


def _layer_config(
    layer: HeadLayer, known: dict[str, list[int | None]], sources: Mapping[str, Any] = _NO_SOURCES
) -> dict[str, Any]:
    """Return a layer's entry in config.json, without what Keras fills in by default.

    `sources` are the layer, call and output of inputs that are not a layer's only output.
    """
    shapes = [known[name] for name in layer.inputs]
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {
                "shape": shape,
                "dtype": "float32",
                "keras_history": sources.get(name, [name, 0, 0]),
            },
        }
        for name, shape in zip(layer.inputs, shapes, strict=True)
    ]
    single = layer.kind not in ("multiply", "concatenate")
    settings: dict[str, Any] = {"name": layer.name, "trainable": True, "dtype": "float32"}
    if layer.kind == "dense":
        settings |= {"units": layer.width, "activation": layer.activation, "use_bias": True}
    elif layer.kind == "concatenate":
        settings["axis"] = -1
    elif layer.kind == "column":
        settings["target_shape"] = [layer.width, 1]
    return {
        "module": "keras.layers",
        "class_name": _CLASSES.get(layer.kind, layer.kind.capitalize()),
        "config": settings,
        "registered_name": None,
        "build_config": {"input_shape": shapes[0] if single else shapes},
        "name": layer.name,
        "inbound_nodes": [{"args": [tensors[0] if single else tensors], "kwargs": {}}],
    }


def _add_weights(content: bytes, layers: Sequence[HeadLayer], number: int) -> bytes:
    """Add the kernels and biases to the HDF5 file, which has `number` dense layers already."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        # A link could lead out of the file; Keras writes plain groups only.
        if not isinstance(file.get("layers", getlink=True), h5py.HardLink):
            raise ValueError(f"{WEIGHTS} has no group of layers")
        for layer in layers:
            if layer.kind != "dense":
                continue
            group = file["layers"].create_group("dense" + f"_{number}" * bool(number))
            variables = group.create_group("vars")
            variables.attrs["name"] = layer.name
            variables.create_dataset("0", data=layer.kernel)
            variables.create_dataset("1", data=layer.bias)
            number += 1
    return buffer.getvalue()
