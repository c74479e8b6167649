"""The jobs of the process that runs converters and runtimes without Keras."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.export.openvino import import_openvino
from kindsight.export.target import (
    BATCH,
    OOD_SCORE,
    PROBABILITIES,
    SERVE_BYTES,
    Outputs,
    joined,
    measure,
)
from kindsight.export.targets import TARGETS
from kindsight.models.formats.tflite import read_whole
from kindsight.models.runtime import schema
from kindsight.models.worker.serve import Connection, Job, serve

__all__ = ["main"]

_HEAD = re.compile(r"^(logits|head\d*_|ood_)")
"""Names of the layers after the features. They stay in floating point because their sums nearly
cancel."""


def main() -> None:
    """Run the jobs of converters until the parent ends."""
    jobs: dict[str, Job] = {
        "quantize": _quantize, "openvino": _openvino, "saved_model": _saved_model, "first": _first,
    }  # fmt: skip
    serve(jobs, keras=False)


def _quantize(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Quantise a LiteRT file with ai-edge-quantizer."""
    from ai_edge_quantizer import quantizer

    source = Path(job["model"])
    work = quantizer.Quantizer(str(source))
    for name, pattern in _integer_layers(source.read_bytes(), static=job["pixels"] is not None):
        if job["pixels"] is None or name == "FULLY_CONNECTED":
            work.add_dynamic_config(pattern, name, num_bits=8)
        else:
            work.add_static_config(pattern, name, activation_num_bits=8, weight_num_bits=8)
    ranges = None
    if job["pixels"] is not None:
        pixels = np.load(job["pixels"], mmap_mode="r", allow_pickle=False)
        images = [{job["input"]: np.asarray(image, np.float32)[None]} for image in pixels]
        ranges = work.calibrate({job["signature"]: images}, num_threads=1)
    work.quantize(ranges).export_model(job["out"])
    return {}


def _integer_layers(content: bytes, *, static: bool) -> Iterator[tuple[str, str]]:
    """Yield an operator and a pattern of layer names for each kind of int8 layer.

    These are all convolutions, the layers between convolutions, and dense layers before the head.
    """
    types, model = schema(), read_whole(content)
    names = {value: name for name, value in vars(types.BuiltinOperator).items()}
    (graph,) = model.subgraphs
    for operator in graph.operators:
        code = model.operatorCodes[operator.opcodeIndex]
        name = str(names[max(code.builtinCode, code.deprecatedBuiltinCode)])
        output = graph.tensors[operator.outputs[0]]
        text = output.name.decode("utf-8", "replace")
        fed = [model.buffers[graph.tensors[number].buffer] for number in operator.inputs]
        joins = len(output.shape) == 4 and not any(map(_has_data, fed))
        if (
            name in ("CONV_2D", "DEPTHWISE_CONV_2D")
            or (name == "FULLY_CONNECTED" and not _HEAD.match(text))
            or (static and name in ("MAX_POOL_2D", "AVERAGE_POOL_2D", "PAD"))
            or (static and name in ("ADD", "CONCATENATION") and joins)
        ):
            yield name, f"^{re.escape(text)};?$"


def _has_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0


def _openvino(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Convert a LiteRT file to OpenVINO's format, for batches of any size if possible."""
    openvino = import_openvino()
    core = openvino.Core()
    model = core.read_model(job["model"])
    try:
        model.reshape([-1, *job["size"], 3])
        images = np.zeros((2, *job["size"], 3), np.float32)
        core.compile_model(model, "CPU")(images)
    except RuntimeError:  # a layer has a batch size of one in its settings
        model = core.read_model(job["model"])
    for name, value in job["properties"].items():
        model.set_rt_info(value, ["kindsight", name])
    openvino.save_model(model, job["out"], compress_to_fp16=job["compress"])
    return {}


def _saved_model(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Run images or image files through a SavedModel, which stays loaded."""
    model = _load_saved_model(job["model"])
    data = np.load(job["pixels"], allow_pickle=False)

    def predict(pixels: Any) -> Outputs:
        batches = np.array_split(pixels, -(-len(pixels) // BATCH))
        return joined(
            [_run_signature(model, "serving_default", np.float32(batch)) for batch in batches]
        )

    facts: dict[str, Any] = {}
    if job["call"] == "measure":
        measured = measure(predict, data)
        outputs = measured.outputs
        facts = {"latency": measured.latency, "throughput": measured.throughput}
    elif job["call"] == "predict":
        outputs = predict(data)
    else:
        ends = np.cumsum(job["lengths"]).tolist()
        pairs = zip([0, *ends], ends, strict=False)
        files = [data[start:end].tobytes() for start, end in pairs]
        outputs = _run_files(model, files, job["classes"]), None
    arrays: dict[str, Any] = {PROBABILITIES: outputs[0], OOD_SCORE: outputs[1]}
    np.savez(job["out"], **{name: array for name, array in arrays.items() if array is not None})
    return facts


@functools.cache
def _load_saved_model(folder: str) -> Any:
    import tensorflow as tf

    return tf.saved_model.load(folder)


def _run_signature(model: Any, name: str, batch: Any) -> dict[str, NDArray[np.float32]]:
    import tensorflow as tf

    found = model.signatures[name](tf.constant(batch))
    return {output: value.numpy() for output, value in found.items()}


def _run_files(model: Any, files: list[bytes], classes: int) -> NDArray[np.float32]:
    """Return the probabilities of image files; NaN for those that TensorFlow cannot decode."""
    import tensorflow as tf

    found = np.full((len(files), classes), np.nan, np.float32)
    for row, file in enumerate(files):
        with suppress(tf.errors.OpError):
            found[row] = _run_signature(model, SERVE_BYTES, [file])[PROBABILITIES][0]
    return found


def _first(job: dict[str, Any], connection: Connection) -> dict[str, Any]:
    """Run one image through an export, as the first work of a process."""
    model = TARGETS[job["target"]].open(Path(job["folder"]))
    if model is not None:
        model.predict(np.zeros((1, *job["size"], 3), np.uint8))
    return {}
