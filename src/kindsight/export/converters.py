"""The process that runs converters and runtimes without Keras, and its jobs.

A converter may end its process, print, or change settings of a library: never in the user's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.export.litert_file import read_whole
from kindsight.models.runtime import schema
from kindsight.models.worker.process import KerasProcess
from kindsight.models.worker.serve import Connection, Job, serve

__all__ = ["ConverterProcess", "main"]

TIMEOUT = 3600.0
"""Most seconds of one job: large networks on slow machines take minutes."""

_HEAD = re.compile(r"^(logits|head\d*_|ood_)")
"""Names of the layers behind the features, which stay in floating point: their sums cancel."""


class ConverterProcess(KerasProcess):
    """A worker process for converters without Keras."""

    def __init__(self) -> None:
        super().__init__(
            TIMEOUT, module="kindsight.export.converters", name="converter process",
            with_keras=False,
        )  # fmt: skip


def main() -> None:
    """Run the jobs of converters until the parent ends."""
    jobs: dict[str, Job] = {"quantize": _quantize}
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
    """Yield an operator and a pattern of the layers' names for what is computed in int8.

    That is every convolution, what lies between convolutions, and dense layers below the head.
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
            yield name, f"^{re.escape(text)}"


def _has_data(buffer: Any) -> bool:
    return buffer.data is not None and len(buffer.data) > 0
