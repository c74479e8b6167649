"""Put a head on a ``.keras`` file without Keras.

A ``.keras`` file is a ZIP archive of ``metadata.json``, ``config.json`` (the layers and how they
are joined) and ``model.weights.h5`` (the weights, under names that Keras counts out from the
layers' order, not from their names). Adding a chain of layers behind the last one changes no
name that is there. The format is that of Keras's ``saving_lib``, versions 3.10 to 3.15.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from kindsight.errors import WeightsError
from kindsight.models.heads.head import FEATURES, LOGITS, Head, HeadLayer

__all__ = [
    "CONFIG",
    "DAMAGE",
    "MEMBERS",
    "WEIGHTS",
    "KerasTemplate",
    "read_keras_template",
    "read_member",
]

METADATA = "metadata.json"
CONFIG = "config.json"
WEIGHTS = "model.weights.h5"
# Most bytes that a member may hold once unpacked.
MEMBERS = {METADATA: 2**20, CONFIG: 2**24, WEIGHTS: 2**30}
MAX_LAYERS = 20_000
# What zipfile, json and h5py have been seen to raise on damaged files.
DAMAGE = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    AttributeError,
    EOFError,
    KeyError,
    MemoryError,
    OSError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


class KerasTemplate:
    """A model from pixels to features, open for a head.

    Parameters
    ----------
    metadata, config, weights : bytes
        The members of the archive.

    Raises
    ------
    ValueError
        For a config that is not a functional model ending in a concatenation ``"features"``.
    """

    def __init__(self, metadata: bytes, config: bytes, weights: bytes) -> None:
        self._metadata = metadata
        self._weights = weights
        self._config = json.loads(config)
        graph = self._config["config"]
        if self._config["class_name"] != "Functional" or not isinstance(graph["layers"], list):
            raise ValueError("a model that is not functional")
        if graph["output_layers"] not in ([FEATURES, 0, 0], [[FEATURES, 0, 0]]):
            raise ValueError(f"a model whose only output is not the layer {FEATURES!r}")
        self._layers = graph["layers"]
        if len(self._layers) > MAX_LAYERS:
            raise ValueError("more layers than one network has")
        self._names = {layer["name"] for layer in self._layers}
        (features,) = (layer for layer in self._layers if layer["name"] == FEATURES)
        self._width = sum(int(shape[-1]) for shape in features["build_config"]["input_shape"])
        self._dense = sum(layer["class_name"] == "Dense" for layer in self._layers)

    def add(self, head: Head) -> None:
        """Add the layers and weights of a head.

        Raises
        ------
        ValueError
            For names that are taken, or another number of features.
        One of DAMAGE
            For weights that are no whole HDF5 file.
        """
        if self._width != head.features:
            raise ValueError(f"{self._width} features for a head of {head.features}")
        widths = {FEATURES: head.features}
        for step in head.steps():
            if step.name in self._names:
                raise ValueError(f"a layer that is named {step.name!r} already")
            self._layers.append(_layer(step, widths))
            widths[step.name] = step.width
        graph = self._config["config"]
        graph["name"] = str(graph["name"]).removesuffix("_features") + "_classifier"
        graph["output_layers"] = [LOGITS if part == FEATURES else part for part in self._output()]
        self._weights = _add_weights(self._weights, head, self._dense)

    def _output(self) -> list[Any]:
        output = self._config["config"]["output_layers"]
        return list(output[0] if isinstance(output[0], list) else output)

    def write(self, path: Path) -> None:
        """Write the archive, uncompressed as Keras does."""
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(METADATA, self._metadata)
            archive.writestr(CONFIG, json.dumps(self._config))
            archive.writestr(WEIGHTS, self._weights)


def read_keras_template(path: str | os.PathLike[str]) -> KerasTemplate:
    """Read a ``.keras`` file of a model from pixels to features.

    Raises
    ------
    WeightsError
        For a file that is absent, damaged, too large, or of another form.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            if infos.keys() != MEMBERS.keys() or len(archive.infolist()) != len(MEMBERS):
                raise ValueError(f"members {sorted(infos)[:10]}")
            for name, limit in MEMBERS.items():
                if infos[name].file_size > limit:
                    raise ValueError(f"{name} of {infos[name].file_size} bytes")
            return KerasTemplate(*(read_member(archive, name) for name in MEMBERS))
    except OSError as error:
        raise WeightsError(
            f"{path}: A model file must be there and readable. Received: {error}."
        ) from None
    except DAMAGE as error:
        raise WeightsError(
            f"{path}: A model file must be a whole .keras file of a model from pixels to "
            f"features. Received: {error}."
        ) from None


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member up to its limit, whatever size the archive claims for it."""
    import zlib

    try:
        with archive.open(name) as file:
            data = file.read(MEMBERS[name] + 1)
    except zlib.error as error:
        raise ValueError(f"{name} that cannot be unpacked: {error}") from None
    if len(data) > MEMBERS[name]:
        raise ValueError(f"{name} of more than {MEMBERS[name]} bytes")
    return data


def _layer(step: HeadLayer, widths: dict[str, int]) -> dict[str, Any]:
    """Describe a layer as config.json does, leaving to Keras what it fills in by itself."""
    shapes = [[None, widths[name]] for name in step.inputs]
    tensors = [
        {
            "class_name": "__keras_tensor__",
            "config": {"shape": shape, "dtype": "float32", "keras_history": [name, 0, 0]},
        }
        for name, shape in zip(step.inputs, shapes, strict=True)
    ]
    settings: dict[str, dict[str, Any]] = {
        "dense": {"units": step.width, "activation": step.activation, "use_bias": True},
        "multiply": {},
        "concatenate": {"axis": -1},
    }
    single = step.kind == "dense"
    return {
        "module": "keras.layers",
        "class_name": step.kind.capitalize(),
        "config": {
            "name": step.name,
            "trainable": True,
            "dtype": "float32",
            **settings[step.kind],
        },
        "registered_name": None,
        "build_config": {"input_shape": shapes[0] if single else shapes},
        "name": step.name,
        "inbound_nodes": [{"args": [tensors[0] if single else tensors], "kwargs": {}}],
    }


def _add_weights(content: bytes, head: Head, number: int) -> bytes:
    """Add the kernels and biases to the HDF5 file, after `number` dense layers that it has."""
    import h5py

    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        # A link could lead out of the file; Keras writes plain groups only.
        if not isinstance(file.get("layers", getlink=True), h5py.HardLink):
            raise ValueError(f"{WEIGHTS} without a group of layers")
        for step in head.steps():
            if step.kind != "dense":
                continue
            group = file["layers"].create_group("dense" + f"_{number}" * bool(number))
            variables = group.create_group("vars")
            variables.attrs["name"] = step.name
            variables.create_dataset("0", data=step.kernel)
            variables.create_dataset("1", data=step.bias)
            number += 1
    return buffer.getvalue()
