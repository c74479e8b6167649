"""Combine backbones, and TTA variants of each, into one backbone, without TensorFlow.

All members get the same image. The features of one member are averaged over its TTA variants; the
features of several members are concatenated.
"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.digest import content_digest
from kindsight.errors import WeightsError
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.models.backbones.build import (
    BUILD_FORMAT,
    BackboneFiles,
    build_once,
    find_files,
    store_files,
)
from kindsight.models.backbones.tta import FLIP_AXES, FLIPS, crop_box, crop_index, variant_name
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.keras import CONFIG, DAMAGE, METADATA, WEIGHTS, read_member
from kindsight.models.formats.tflite import TfliteGraph, damage_as_weights_error, read_tflite
from kindsight.models.heads import FEATURES

__all__ = ["build_ensemble", "join_keras", "join_tflite"]

JOIN_FORMAT = 4
"""Increased whenever the same backbones would be joined to other files."""

# Bilinear interpolation, as LiteRT's operator and OpenCV do it.
_RESIZING = {
    "interpolation": "bilinear", "antialias": False, "crop_to_aspect_ratio": False,
    "pad_to_aspect_ratio": False, "fill_mode": "constant", "fill_value": 0.0,
}  # fmt: skip


def build_ensemble(
    backbones: Mapping[str, BackboneFiles],
    cache_folder: Path,
    variants: Sequence[tuple[int, ...]] | None = None,
) -> BackboneFiles:
    """Return the files of an ensemble from the cache, building them first if needed.

    `variants` are the TTA variants (:mod:`.tta`) of each backbone; default: the image itself. All
    backbones take images of one size. A single one without TTA is returned unchanged. CacheError
    when the cache cannot be written; WeightsError for files that do not fit together.
    """
    variants = list(variants or [(0,)] * len(backbones))
    if variants == [(0,)]:
        return next(iter(backbones.values()))
    members = tuple(
        replace(files, variants=chosen)
        for files, chosen in zip(backbones.values(), variants, strict=True)
    )
    layout = members[0].layout
    if len(members) > 1:
        layout = FeatureLayout.concatenated(
            {name: files.layout for name, files in backbones.items()}
        )
    source = json.dumps(
        [[(files.key, files.variants) for files in members], BUILD_FORMAT, JOIN_FORMAT]
    )
    key = f"{'+'.join(backbones)[:60]}-{content_digest(source, 8)}"
    folder = Path(cache_folder) / "backbones"

    def build() -> None:
        with tempfile.TemporaryDirectory(prefix=f".building-{key}-", dir=folder) as temporary:
            built = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
            join_tflite([member.tflite for member in members], variants, built["tflite"])
            join_keras([member.keras for member in members], variants, built["keras"])
            facts = {"members": [member.key for member in members], "variants": variants}
            store_files(folder, key, built, layout, facts)

    found = find_files(folder, key) or build_once(folder, key, build)
    return replace(found, members=members)


def join_tflite(files: Sequence[Path], variants: Sequence[Sequence[int]], out: Path) -> None:
    """Write one LiteRT file of several backbones for images of one size.

    `variants` are the TTA variants to average over for each backbone, 0 first. WeightsError for
    files that are damaged, or do not fit together.
    """
    graph = read_tflite(files[0])
    with damage_as_weights_error(files[0]):
        pixels = {
            variant: _add_variant(graph, variant)
            for variant in dict.fromkeys(chain.from_iterable(variants))
        }
        means = []
        for number, (file, chosen) in enumerate(zip(files, variants, strict=True)):
            # The weights are in the file once, the operators once for each variant.
            buffers = _add_buffers(graph, read_tflite(file)) if number else 0
            outputs = [
                graph.output
                if number == index == 0
                else _append(graph, read_tflite(file), pixels[variant], buffers)
                for index, variant in enumerate(chosen)
            ]
            means.append(_add_mean(graph, outputs, f"mean{number}"))
        width = sum(graph.shape(mean)[-1] for mean in means)
        joined = graph.add_operator(
            "CONCATENATION", means, FEATURES, width, kind="Concatenation", axis=1
        )
        graph.name_ends(PIXELS, {FEATURES: joined})
        out.write_bytes(graph.to_bytes())


def _add_variant(graph: TfliteGraph, variant: int) -> int:
    """Add the operators of a TTA variant of the input; return their output tensor."""
    tensor, name, crop = graph.input, variant_name(variant), crop_index(variant)
    size = graph.shape(tensor)[1:3]
    if crop:
        top, left, height, width = crop_box(crop, (size[0], size[1]))
        slices = {
            "begin": [0, top, left, 0], "end": [0, top + height, left + width, 3],
            "steps": [1, 1, 1, 1],
        }  # fmt: skip
        constants = [graph.add_constant(f"{name}/{k}", np.array(v)) for k, v in slices.items()]
        tensor = graph.add_operator(
            "STRIDED_SLICE", [tensor, *constants], f"{name}/crop", height, width, 3,
            kind="StridedSlice", beginMask=1, endMask=1,  # the whole batch
        )  # fmt: skip
        full_size = graph.add_constant(f"{name}/size", np.array(size))
        tensor = graph.add_operator(
            "RESIZE_BILINEAR", [tensor, full_size], f"{name}/enlarged", *size, 3,
            kind="ResizeBilinear", halfPixelCenters=True,
        )  # fmt: skip
    for axis in FLIP_AXES[variant % len(FLIPS)]:  # older runtimes reverse one axis at a time
        index = graph.add_constant(f"{name}/axis{axis}", np.array([axis]))
        shape = graph.shape(tensor)[1:]
        tensor = graph.add_operator(
            "REVERSE_V2", [tensor, index], f"{name}/{axis}", *shape, kind="ReverseV2"
        )
    return tensor


def _add_mean(graph: TfliteGraph, tensors: list[int], name: str) -> int:
    total, width = tensors[0], graph.shape(tensors[0])[-1]
    for number, tensor in enumerate(tensors[1:], 1):
        total = graph.add_operator("ADD", [total, tensor], f"{name}/sum{number}", width, kind="Add")
    if len(tensors) == 1:
        return total
    factor = graph.add_constant(f"{name}/factor", np.array([1 / len(tensors)], np.float32))
    return graph.add_operator("MUL", [total, factor], name, width, kind="Mul")


def _add_buffers(graph: TfliteGraph, other: TfliteGraph) -> int:
    """Add another file's buffers; return the index of the first."""
    start = len(graph.model.buffers)
    graph.model.buffers.extend(other.model.buffers)
    return start


def _append(graph: TfliteGraph, other: TfliteGraph, pixels: int, buffers: int) -> int:
    """Append another graph, with its weights from buffer `buffers` on; return its output tensor."""
    if graph.shape(pixels) != other.shape(other.input):
        raise ValueError(
            f"inputs of different shapes, {graph.shape(pixels)} and {other.shape(other.input)}"
        )
    into, added = graph.model, other.model
    target, source = into.subgraphs[0], added.subgraphs[0]
    codes = len(into.operatorCodes)
    into.operatorCodes.extend(added.operatorCodes)
    index = np.empty(len(source.tensors) + 1, np.int64)
    index[-1] = -1  # an optional input that an operator does not have
    for number, tensor in enumerate(source.tensors):
        if number == other.input:
            index[number] = pixels
            continue
        index[number] = len(target.tensors)
        # Buffer 0 is the empty one of all tensors that are computed.
        tensor.buffer = tensor.buffer + buffers if tensor.buffer else 0
        tensor.name = b"joined%d/" % codes + _bytes(tensor.name)
        target.tensors.append(tensor)
    for operator in source.operators:
        operator.opcodeIndex += codes
        operator.inputs = index[np.asarray(operator.inputs, np.int64)].astype(np.int32)
        operator.outputs = index[np.asarray(operator.outputs, np.int64)].astype(np.int32)
        target.operators.append(operator)
    return int(index[other.output])


def _bytes(name: Any) -> bytes:
    return name if isinstance(name, bytes) else str(name or "").encode()


def join_keras(files: Sequence[Path], variants: Sequence[Sequence[int]], out: Path) -> None:
    """Write one Keras file of several backbones, each a layer, as :func:`join_tflite`."""
    import h5py

    try:
        members = [_members(file) for file in files]
        configs = [json.loads(member[CONFIG]) for member in members]
        config = _joined_config(configs, variants)
        buffer = io.BytesIO()
        with h5py.File(buffer, "w") as target:
            # Keras numbers layers from the deepest on: an average comes after its backbone.
            deepest = sorted(range(len(files)), key=lambda i: len(variants[i]) == 1)
            for number, i in enumerate(deepest):
                with h5py.File(io.BytesIO(members[i][WEIGHTS]), "r") as source:
                    name = "functional" + f"_{number}" * bool(number)
                    group = target.create_group(f"layers/{name}")
                    for child in source:
                        source.copy(child, group)
    except DAMAGE as error:
        raise WeightsError(
            f"Cannot join the backbones {' and '.join(map(str, files))}: {error}."
        ) from None
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(METADATA, members[0][METADATA])
        archive.writestr(CONFIG, json.dumps(config))
        archive.writestr(WEIGHTS, buffer.getvalue())


def _members(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: read_member(archive, name) for name in (METADATA, CONFIG, WEIGHTS)}


def _joined_config(
    configs: list[dict[str, Any]], variants: Sequence[Sequence[int]]
) -> dict[str, Any]:
    """Return the config of a model whose layers are the backbones, called once per variant."""
    names = [str(config["config"]["name"]) for config in configs]
    if len(set(names)) < len(names):
        raise ValueError(f"the same network twice: {names[0]}")
    pixels = next(
        layer for layer in configs[0]["config"]["layers"] if layer["class_name"] == "InputLayer"
    )
    shape = pixels["config"]["batch_shape"]
    layers = [{**pixels, "name": PIXELS, "config": {**pixels["config"], "name": PIXELS}}]
    inputs = {}
    for variant in dict.fromkeys(chain.from_iterable(variants)):
        added = _variant_layers(variant, shape)
        layers += added
        inputs[variant] = _tensor(added[-1]["name"] if added else PIXELS, shape)
    features = []
    for config, name, chosen in zip(configs, names, variants, strict=True):
        calls = [{"args": [inputs[variant]], "kwargs": {"mask": None}} for variant in chosen]
        layers.append({**config, "name": name, "inbound_nodes": calls})
        shape_out = [None, _width(config)]
        outputs = [_tensor(name, shape_out, call) for call in range(len(chosen))]
        if len(chosen) > 1:
            layers.append(_merge_layer("Average", f"{name}_mean", outputs))
            outputs = [_tensor(f"{name}_mean", shape_out)]
        features += outputs
    layers.append(_merge_layer("Concatenate", FEATURES, features))
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


def _variant_layers(variant: int, shape: list[Any]) -> list[dict[str, Any]]:
    """Return the configs of the layers of a TTA variant of the pixels."""
    layers: list[dict[str, Any]] = []
    name, prefix, crop = PIXELS, variant_name(variant).replace("-", "_"), crop_index(variant)
    if crop:
        top, left, height, width = crop_box(crop, (shape[1], shape[2]))
        edges = [[top, shape[1] - height - top], [left, shape[2] - width - left]]
        image = {"data_format": "channels_last"}
        layers.append(
            _layer("Cropping2D", f"{prefix}_crop", _tensor(name, shape), cropping=edges, **image)
        )
        cropped = _tensor(f"{prefix}_crop", [None, height, width, 3])
        name = f"{prefix}_enlarged"
        layers.append(
            _layer("Resizing", name, cropped, height=shape[1], width=shape[2], **_RESIZING, **image)
        )
    axes = FLIP_AXES[variant % len(FLIPS)]
    for axis in axes:  # older versions of Keras flip one axis at a time
        flipped = prefix + f"_{axis}" * (len(axes) > 1)
        layers.append(_flip_layer(flipped, axis, _tensor(name, shape)))
        name = flipped
    return layers


def _layer(
    kind: str, name: str, inputs: dict[str, Any] | list[dict[str, Any]], **config: Any
) -> dict[str, Any]:
    shapes = (
        [tensor["config"]["shape"] for tensor in inputs]
        if isinstance(inputs, list)
        else inputs["config"]["shape"]
    )
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "registered_name": None,
        "build_config": {"input_shape": shapes},
        "name": name,
        "inbound_nodes": [{"args": [inputs], "kwargs": {}}],
    }


def _merge_layer(kind: str, name: str, inputs: list[dict[str, Any]]) -> dict[str, Any]:
    return _layer(kind, name, inputs, **({"axis": -1} if kind == "Concatenate" else {}))


def _flip_layer(name: str, axis: int, pixels: dict[str, Any]) -> dict[str, Any]:
    return {
        "module": "keras.src.ops.numpy",
        "class_name": "Flip",
        "config": {"name": name, "axis": axis},
        "registered_name": "Flip",
        "name": name,
        "inbound_nodes": [{"args": [pixels], "kwargs": {}}],
    }


def _width(config: Mapping[str, Any]) -> int:
    (features,) = (layer for layer in config["config"]["layers"] if layer["name"] == FEATURES)
    return sum(int(shape[-1]) for shape in features["build_config"]["input_shape"])


def _tensor(name: str, shape: list[Any], call: int = 0) -> dict[str, Any]:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": shape, "dtype": "float32", "keras_history": [name, call, 0]},
    }
