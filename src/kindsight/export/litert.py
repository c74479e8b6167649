"""LiteRT: the bundle's own network from pixels to probabilities, without TensorFlow.

In float32 and float16 it needs nothing but kindsight itself; ai-edge-quantizer writes int8.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import KindsightError
from kindsight.export.description import describe
from kindsight.export.litert_file import (
    compact,
    count_convolutions,
    count_int8_weights,
    name_tensors_apart,
    to_float16,
)
from kindsight.export.process import converter_process
from kindsight.export.target import (
    FLOAT16,
    FLOAT32,
    INT8,
    OOD_SCORE,
    PROBABILITIES,
    Bounds,
    Calibration,
    Outputs,
    require,
    version_of,
)
from kindsight.models.formats.assemble import METADATA_NAME, PIXELS
from kindsight.models.formats.tflite import SIGNATURE, read_tflite
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import count_cores, map_ordered

__all__ = [
    "DYNAMIC_TARGET",
    "FLOAT16_TARGET",
    "FLOAT32_TARGET",
    "INT8_TARGET",
    "MODEL_FILE",
    "LiteRT",
    "LiteRTModel",
    "float16_tflite",
    "probabilities_tflite",
]

MODEL_FILE = "model.tflite"

CHUNK = 8
"""Images that a thread runs through the network, one after the other."""


def probabilities_tflite(bundle: Bundle, metadata: Mapping[str, Any]) -> bytes:
    """Return a bundle's LiteRT file with probabilities in place of logits.

    It maps ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to ``"probabilities"``,
    float32 (1, classes), and, where the bundle has it, to ``"ood_score"``, float32 (1, 1).
    `metadata` is stored as JSON under the name ``"kindsight"``.
    """
    graph = read_tflite(bundle.tflite)
    ends = {
        PROBABILITIES: graph.add_operator(
            "SOFTMAX", [graph.output], PROBABILITIES, len(bundle.classes),
            kind="Softmax", beta=1 / bundle.temperature,
        )
    }  # fmt: skip
    if graph.second_output is not None:
        ends[OOD_SCORE] = graph.second_output
    graph.name_ends(PIXELS, ends)
    graph.set_metadata(METADATA_NAME, json.dumps(metadata).encode())
    return compact(bytes(graph.to_bytes()))


def float16_tflite(bundle: Bundle, metadata: Mapping[str, Any]) -> bytes:
    """Return :func:`probabilities_tflite` with weights in float16: half the size."""
    return to_float16(probabilities_tflite(bundle, metadata))


@dataclass(frozen=True)
class LiteRT:
    """A LiteRT file that needs no further package; `make` returns its content."""

    name: str
    title: str
    bounds: Bounds
    make: Callable[[Bundle, Mapping[str, Any]], bytes]
    extra: str | None = None
    needs_calibration: bool = False
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Nothing is needed beyond kindsight itself."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.tflite``."""
        target = folder / MODEL_FILE
        target.write_bytes(self.make(bundle, describe(bundle)))
        return (target,)

    def open(self, folder: Path) -> LiteRTModel | None:
        """Open ``model.tflite``."""
        return LiteRTModel(folder / MODEL_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the version of LiteRT."""
        return version_of("ai-edge-litert")


FLOAT32_TARGET = LiteRT("litert", "LiteRT, float32", FLOAT32, probabilities_tflite)
FLOAT16_TARGET = LiteRT(
    "litert-float16", "LiteRT, float16 weights, half the size", FLOAT16, float16_tflite
)


@dataclass(frozen=True)
class QuantizedLiteRT:
    """A LiteRT file with int8 convolutions.

    The head, the "none of these" score and the statistics of the feature maps stay in floating
    point, with float16 weights: they are a hundredth of the work, and their sums nearly cancel.

    Parameters
    ----------
    name, title, extra, bounds
        See :class:`.target.Exporter`.
    needs_calibration : bool
        Whether activations are int8 in the file, with ranges measured on training images. Without,
        only weights are, and the runtime measures each image's ranges itself (dynamic range).
    """

    name: str
    title: str
    needs_calibration: bool
    extra: str | None = "quantize"
    bounds: Bounds = INT8
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raise MissingExtraError without ai-edge-quantizer."""
        require(self.title, self.extra, "ai_edge_quantizer")

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.tflite``; KindsightError if a convolution is not int8 in it."""
        target = folder / MODEL_FILE
        with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
            source, out = Path(temporary, "float.tflite"), Path(temporary, "int8.tflite")
            content = probabilities_tflite(bundle, describe(bundle))
            source.write_bytes(name_tensors_apart(content))
            pixels = None
            if calibration is not None:
                pixels = Path(temporary, "pixels.npy")
                np.save(pixels, calibration(), allow_pickle=False)
            with converter_process() as process:
                process.run_job(
                    job="quantize", model=str(source), out=str(out), input=PIXELS,
                    signature=SIGNATURE, pixels=None if pixels is None else str(pixels),
                )  # fmt: skip
            content = to_float16(out.read_bytes())
        count = count_convolutions if self.needs_calibration else count_int8_weights
        integer, total = count(content)
        if integer < total:
            raise KindsightError(
                f"{total - integer} of {total} convolutions are not int8 after quantisation. "
                "Export to litert-float16 instead, and report this with the network's name."
            )
        target.write_bytes(content)
        return (target,)

    def open(self, folder: Path) -> LiteRTModel | None:
        """Open ``model.tflite``."""
        return LiteRTModel(folder / MODEL_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the versions of LiteRT and of the quantizer."""
        return version_of("ai-edge-litert", "ai-edge-quantizer")


DYNAMIC_TARGET = QuantizedLiteRT("litert-dynamic", "LiteRT, dynamic range (int8 weights)", False)
INT8_TARGET = QuantizedLiteRT("litert-int8", "LiteRT, int8 convolutions, calibrated", True)


class LiteRTModel:
    """A LiteRT file from pixels to probabilities, on all cores."""

    def __init__(self, path: Path) -> None:
        self._pool = InterpreterPool(path, count_cores())

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        """Return the outputs for resized images; see :class:`.target.ExportedModel`."""
        chunks = [list(pixels[start : start + CHUNK]) for start in range(0, len(pixels), CHUNK)]
        rows = [
            row
            for chunk in map_ordered(self._pool.run_both, chunks, self._pool.workers, 2)
            for row in chunk
        ]
        probabilities = np.array([row[0] for row in rows], np.float32)
        probabilities = probabilities.reshape(len(rows), self._pool.width)
        if not self._pool.second_width:
            return probabilities, None
        return probabilities, np.array([row[1] for row in rows], np.float32).reshape(len(rows))

    def close(self) -> None:
        """Do nothing: the interpreters end with this object."""
