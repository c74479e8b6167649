"""Append one LiteRT graph to another, both seeing the same picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.models.assemble import PIXELS
from kindsight.models.heads import FEATURES
from kindsight.models.tflite_file import TfliteGraph, read_tflite, refusing_damage
from kindsight.models.views import AXES, FLIPS, crop_box, crop_of, name_of

__all__ = ["join_tflite"]


def join_tflite(files: Sequence[Path], views: Sequence[Sequence[int]], out: Path) -> None:
    """Write one LiteRT file of several backbones, each run over several views of the picture.

    Parameters
    ----------
    files : sequence of pathlib.Path
        Built backbones for pictures of one size: float32 (1, height, width, 3) to (1, d).
    views : sequence of sequence of int
        Which (:mod:`.views`), for each backbone, the picture as it is first; its features are the
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
        pixels = {view: _look(graph, view) for view in dict.fromkeys(chain.from_iterable(views))}
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


def _look(graph: TfliteGraph, view: int) -> int:
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
            f"pictures of {graph.shape(pixels)} beside those of {other.shape(other.input)}"
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
