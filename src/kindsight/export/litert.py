"""LiteRT: the bundle's own network, in float32 or float16, from pixels to probabilities.

Nothing is needed but kindsight itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.export.description import describe
from kindsight.export.litert_file import compact, to_float16
from kindsight.export.target import (
    FLOAT16,
    FLOAT32,
    OOD_SCORE,
    PROBABILITIES,
    Bounds,
    Calibration,
    Outputs,
    version_of,
)
from kindsight.models.formats.assemble import METADATA_NAME, PIXELS
from kindsight.models.formats.tflite import read_tflite
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import count_cores, map_ordered

__all__ = [
    "FLOAT16_TARGET",
    "FLOAT32_TARGET",
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
