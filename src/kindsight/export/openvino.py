"""OpenVINO's format, converted from the LiteRT file, without TensorFlow."""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.export.keras_formats import properties
from kindsight.export.litert import probabilities_tflite
from kindsight.export.target import (
    BATCH,
    FLOAT16,
    FLOAT32,
    Bounds,
    Calibration,
    ExportedModel,
    Outputs,
    converter_process,
    describe,
    joined,
    require,
    version_of,
)
from kindsight.models.formats.assemble import PIXELS

__all__ = ["OPENVINO_FLOAT16_TARGET", "OPENVINO_TARGET", "import_openvino"]

XML_FILE = "model.xml"


@dataclass(frozen=True)
class OpenVINO:
    """An OpenVINO model, ``model.xml`` with ``model.bin``, run in float32."""

    name: str
    title: str
    bounds: Bounds
    compress: bool
    extra: str | None = "openvino"
    needs_calibration: bool = False
    own_process: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raise MissingExtraError if OpenVINO is missing."""
        require(self.name, self.extra, "openvino")

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.xml`` and ``model.bin``."""
        target = folder / XML_FILE
        with tempfile.TemporaryDirectory(prefix="kindsight-") as temporary:
            source = Path(temporary, "model.tflite")
            source.write_bytes(probabilities_tflite(bundle, describe(bundle)))
            with converter_process() as process:
                process.run_job(
                    job="openvino", model=str(source), out=str(target.resolve()),
                    size=list(bundle.spec.size), compress=self.compress,
                    properties=properties(bundle),
                )  # fmt: skip
        return target, target.with_suffix(".bin")

    def open(self, folder: Path) -> ExportedModel | None:
        """Open ``model.xml`` on the CPU."""
        return _OpenVINOModel(folder / XML_FILE)

    def runtime(self) -> dict[str, str]:
        """Return the version of OpenVINO."""
        return version_of("openvino")


def import_openvino() -> Any:
    """Return the package openvino, imported without its telemetry.

    On import, it would send telemetry, from a process that can hang without a network.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


class _OpenVINOModel:
    def __init__(self, path: Path) -> None:
        openvino = import_openvino()
        core = openvino.Core()
        # Some processors would compute in bfloat16 by default.
        self._model = core.compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        size = self._model.input(PIXELS).get_partial_shape()[0]
        self._batch = BATCH if size.is_dynamic else size.get_length()

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        found = []
        for start in range(0, len(pixels), self._batch):
            batch = np.asarray(pixels[start : start + self._batch], np.float32)
            values = self._model({PIXELS: batch})
            found.append({key.get_any_name(): np.array(value) for key, value in values.items()})
        return joined(found)

    def close(self) -> None:
        del self._model


OPENVINO_TARGET = OpenVINO("openvino", "OpenVINO, float32", FLOAT32, False)
OPENVINO_FLOAT16_TARGET = OpenVINO(
    "openvino-float16", "OpenVINO, float16 weights, half the size", FLOAT16, True
)
