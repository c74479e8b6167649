"""Append one LiteRT graph to another, both seeing the same image."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.errors import WeightsError
from kindsight.models.backbones.tta import AXES, FLIPS, crop_box, crop_of, name_of
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.keras import CONFIG, DAMAGE, METADATA, WEIGHTS, read_member
from kindsight.models.formats.tflite import TfliteGraph, read_tflite, refusing_damage
from kindsight.models.heads.head import FEATURES

__all__ = [
    "join_keras",
    "join_tflite",
]


def join_tflite(files: Sequence[Path], views: Sequence[Sequence[int]], out: Path) -> None:
    """Write one LiteRT file of several backbones, each run over several views of the image.

    Parameters
    ----------
    files : sequence of pathlib.Path
        Built backbones for images of one size: float32 (1, height, width, 3) to (1, d).
    views : sequence of sequence of int
        Which (:mod:`.views`), for each backbone, the image as it is first; its features are the
        mean over them.
    out : pathlib.Path
        The file to write: the means of all backbones side by side.

    Raises
    ------
    WeightsError
        For files that are damaged, or do not fit together.
    """
    graph = read_tflite(files[0])
    with refusing_damage(files[0]):
        pixels = {
            view: _select_tflite(graph, view) for view in dict.fromkeys(chain.from_iterable(views))
        }
        means = []
        for number, (file, looks) in enumerate(zip(files, views, strict=True)):
            # The weights are in the file once, the operators once for each view.
            buffers = _add_buffers(graph, read_tflite(file)) if number else 0
            ends = [
                graph.output
                if number == place == 0
                else _append(graph, read_tflite(file), pixels[view], buffers)
                for place, view in enumerate(looks)
            ]
            means.append(_mean_tflite(graph, ends, f"mean{number}"))
        width = sum(graph.shape(mean)[-1] for mean in means)
        joined = graph.add_operator(
            "CONCATENATION", means, FEATURES, width, kind="Concatenation", axis=1
        )
        graph.name_ends(PIXELS, joined, FEATURES)
        out.write_bytes(graph.to_bytes())


def _select_tflite(graph: TfliteGraph, view: int) -> int:
    """Add a view of the input; return its tensor."""
    seen, name, crop = graph.input, name_of(view), crop_of(view)
    size = graph.shape(seen)[1:3]
    if crop:
        top, left, height, width = crop_box(crop, (size[0], size[1]))
        ends = {
            "begin": [0, top, left, 0], "end": [0, top + height, left + width, 3],
            "steps": [1, 1, 1, 1],
        }  # fmt: skip
        places = [graph.add_constant(f"{name}/{k}", np.array(v)) for k, v in ends.items()]
        seen = graph.add_operator(
            "STRIDED_SLICE", [seen, *places], f"{name}/crop", height, width, 3,
            kind="StridedSlice", beginMask=1, endMask=1,  # of the batch all
        )  # fmt: skip
        whole = graph.add_constant(f"{name}/whole", np.array(size))
        seen = graph.add_operator(
            "RESIZE_BILINEAR", [seen, whole], f"{name}/enlarged", *size, 3, kind="ResizeBilinear",
            halfPixelCenters=True,
        )  # fmt: skip
    for axis in AXES[view % len(FLIPS)]:  # one axis at a time is all that older runtimes do
        which = graph.add_constant(f"{name}/axis{axis}", np.array([axis]))
        shape = graph.shape(seen)[1:]
        seen = graph.add_operator(
            "REVERSE_V2", [seen, which], f"{name}/{axis}", *shape, kind="ReverseV2"
        )
    return seen


def _mean_tflite(graph: TfliteGraph, ends: list[int], name: str) -> int:
    total, width = ends[0], graph.shape(ends[0])[-1]
    for number, end in enumerate(ends[1:], 1):
        total = graph.add_operator("ADD", [total, end], f"{name}/sum{number}", width, kind="Add")
    if len(ends) == 1:
        return total
    share = graph.add_constant(f"{name}/share", np.array([1 / len(ends)], np.float32))
    return graph.add_operator("MUL", [total, share], name, width, kind="Mul")


def _add_buffers(graph: TfliteGraph, other: TfliteGraph) -> int:
    """Add another file's buffers; return where they start."""
    start = len(graph.model.buffers)
    graph.model.buffers.extend(other.model.buffers)
    return start


def _append(graph: TfliteGraph, other: TfliteGraph, pixels: int, buffers: int) -> int:
    """Append another graph, seeing `pixels`, with its weights from `buffers` on.

    Returns the tensor of its output.
    """
    if graph.shape(pixels) != other.shape(other.input):
        raise ValueError(
            f"images of {graph.shape(pixels)} beside those of {other.shape(other.input)}"
        )
    into, added = graph.model, other.model
    target, source = into.subgraphs[0], added.subgraphs[0]
    codes = len(into.operatorCodes)
    into.operatorCodes.extend(added.operatorCodes)
    places = np.empty(len(source.tensors) + 1, np.int64)
    places[-1] = -1  # an operator's optional input that is left out
    for number, tensor in enumerate(source.tensors):
        if number == other.input:
            places[number] = pixels
            continue
        places[number] = len(target.tensors)
        # The first buffer is the empty one of all tensors that are computed.
        tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
        tensor.name = b"beside%d/" % codes + _bytes(tensor.name)
        target.tensors.append(tensor)
    for operator in source.operators:
        operator.opcodeIndex += codes
        operator.inputs = places[np.asarray(operator.inputs, np.int64)].astype(np.int32)
        operator.outputs = places[np.asarray(operator.outputs, np.int64)].astype(np.int32)
        target.operators.append(operator)
    return int(places[other.output])


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name or "").encode()


# SECTION: Put several Keras files into one, each as a layer that sees the same image.

# Each pixel from the four around it.
ENLARGING = {
    "interpolation": "bilinear", "antialias": False, "crop_to_aspect_ratio": False,
    "pad_to_aspect_ratio": False, "fill_mode": "constant", "fill_value": 0.0,
}  # fmt: skip


def join_keras(files: Sequence[Path], views: Sequence[Sequence[int]], out: Path) -> None:
    """Write one Keras file of several backbones, each run over several views of the image.

    Parameters
    ----------
    files : sequence of pathlib.Path
        Built backbones for images of one size, from pixels to a layer ``"features"``.
    views : sequence of sequence of int
        Which (:mod:`.views`), for each backbone: its features are the mean over them.
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
            # Keras counts layers from the deepest on; those with several views have a mean besides.
            deepest = sorted(range(len(files)), key=lambda place: len(views[place]) == 1)
            for number, place in enumerate(deepest):
                with h5py.File(io.BytesIO(members[place][WEIGHTS]), "r") as source:
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


def _outer_config(configs: list[dict[str, Any]], views: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Describe a model whose layers are the networks, each called once for each of its views."""
    names = [str(config["config"]["name"]) for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"the same network twice: {names[0]}")
    pixels = next(
        layer for layer in configs[0]["config"]["layers"] if layer["class_name"] == "InputLayer"
    )
    shape = pixels["config"]["batch_shape"]
    layers = [{**pixels, "name": PIXELS, "config": {**pixels["config"], "name": PIXELS}}]
    seen = {}
    for view in dict.fromkeys(chain.from_iterable(views)):
        looking = _select_keras(view, shape)
        layers += looking
        seen[view] = _tensor(looking[-1]["name"] if looking else PIXELS, shape)
    given = []
    for config, name, looks in zip(configs, names, views, strict=True):
        calls = [{"args": [seen[view]], "kwargs": {"mask": None}} for view in looks]
        layers.append({**config, "name": name, "inbound_nodes": calls})
        ends = [_tensor(name, [None, _width(config)], call) for call in range(len(looks))]
        if len(looks) > 1:
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


def _select_keras(view: int, shape: list[Any]) -> list[dict[str, Any]]:
    """Describe the layers that make a view of the pixels."""
    layers: list[dict[str, Any]] = []
    name, word, crop = PIXELS, name_of(view).replace("-", "_"), crop_of(view)
    if crop:
        top, left, height, width = crop_box(crop, (shape[1], shape[2]))
        edges = [[top, shape[1] - height - top], [left, shape[2] - width - left]]
        part = [None, height, width, 3]
        layers.append(_layer("Cropping2D", f"{word}_crop", _tensor(name, shape), cropping=edges))
        given = _tensor(f"{word}_crop", part)
        name = f"{word}_enlarged"
        layers.append(_layer("Resizing", name, given, height=shape[1], width=shape[2], **ENLARGING))
    axes = AXES[view % len(FLIPS)]
    for axis in axes:  # one at a time is all that older versions of Keras do
        turned = word + f"_{axis}" * (len(axes) > 1)
        layers.append(_flip_keras(turned, axis, _tensor(name, shape)))
        name = turned
    return layers


def _layer(kind: str, name: str, given: dict[str, Any], **config: Any) -> dict[str, Any]:
    told = {"name": name, "trainable": True, "dtype": "float32", **config}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {**told, "data_format": "channels_last"},
        "registered_name": None,
        "build_config": {"input_shape": given["config"]["shape"]},
        "name": name,
        "inbound_nodes": [{"args": [given], "kwargs": {}}],
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
