"""SavedModel, ONNX and Core ML, converted from the Keras file in a separate process."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, Bundle, check_model_file
from kindsight.export.target import (
    BATCH,
    DESCRIPTION_FILE,
    FLOAT32,
    Bounds,
    Calibration,
    ExportedModel,
    Measured,
    Outputs,
    converter_process,
    describe,
    joined,
    require,
    version_of,
)
from kindsight.files import read_json
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.worker.process import pixels_file

__all__ = ["COREML_TARGET", "ONNX_TARGET", "SAVEDMODEL_TARGET"]

ONNX_FILE = "model.onnx"
SAVED_MODEL_FOLDER = "saved_model"
CORE_ML_FOLDER = "model.mlpackage"

MAX_DESCRIPTION_BYTES = 64 * 2**20


def convert_keras(job: str, bundle: Bundle, out: Path, **arguments: Any) -> dict[str, Any]:
    """Run a job of :mod:`.keras_jobs` on a bundle's Keras file."""
    with converter_process(with_keras=True) as process:
        return process.run_job(
            job=job, model=str(bundle.keras.resolve()), out=str(out.resolve()),
            temperature=bundle.temperature, **arguments,
        )  # fmt: skip


def properties(bundle: Bundle) -> dict[str, str]:
    """Return the properties stored in the exported file: class names, and ``model.json``."""
    return {
        "classes": json.dumps(list(bundle.classes)),
        "kindsight": json.dumps(describe(bundle)),
    }


def files_below(folder: Path) -> tuple[Path, ...]:
    """Return all files below a folder."""
    return tuple(sorted(path for path in folder.rglob("*") if path.is_file()))


@dataclass(frozen=True)
class KerasFormat:
    """A format that is converted from the Keras file; see :class:`.target.Exporter`."""

    name: str
    title: str
    extra: str | None
    packages: tuple[str, ...]
    converters: tuple[str, ...]
    own_process: bool = False
    bounds: Bounds = FLOAT32
    needs_calibration: bool = False

    def check(self, bundle: Bundle) -> None:
        """Raise MissingExtraError if packages are missing, BundleError if the Keras file is."""
        require(self.name, self.extra, *self.packages)
        check_model_file(
            bundle, bundle.keras,
            f"{KERAS_FILE} is missing from {bundle.folder}, or too large. Restore it, or train "
            "again.",
        )  # fmt: skip

    def runtime(self) -> dict[str, str]:
        """Return the versions of the packages that convert and run it."""
        return version_of(*self.converters)


@dataclass(frozen=True)
class Onnx(KerasFormat):
    """An ONNX file for batches of any size, run by onnxruntime."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.onnx``."""
        target = folder / ONNX_FILE
        convert_keras("onnx", bundle, target, properties=properties(bundle))
        return (target,)

    def open(self, folder: Path) -> ExportedModel | None:
        """Open ``model.onnx``."""
        return _OnnxModel(folder / ONNX_FILE)


class _OnnxModel:
    def __init__(self, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        found: list[dict[str, NDArray[np.float32]]] = []
        for start in range(0, len(pixels), BATCH):
            batch = np.asarray(pixels[start : start + BATCH], np.float32)
            values = self._session.run(self._outputs, {PIXELS: batch})
            found.append(dict(zip(self._outputs, values, strict=True)))
        return joined(found)

    def close(self) -> None:
        del self._session


@dataclass(frozen=True)
class SavedModel(KerasFormat):
    """A TensorFlow SavedModel with signatures for pixels and for image files."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write the folder ``saved_model``."""
        target = folder / SAVED_MODEL_FOLDER
        convert_keras("savedmodel", bundle, target, input=bundle.spec.to_dict())
        return files_below(target)

    def open(self, folder: Path) -> ExportedModel | None:
        """Open ``saved_model`` in a process with TensorFlow."""
        facts = read_json(folder / DESCRIPTION_FILE, MAX_DESCRIPTION_BYTES)
        return _SavedModelModel(folder / SAVED_MODEL_FOLDER, len(facts["classes"]))


class _SavedModelModel:
    """A SavedModel in a separate process: importing TensorFlow takes seconds and memory."""

    def __init__(self, folder: Path, classes: int) -> None:
        self._process = converter_process()
        self._model, self._classes = str(folder.resolve()), classes

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        return self._run(pixels, "predict").outputs

    def measure(self, pixels: NDArray[Any]) -> Measured:
        return self._run(pixels, "measure")

    def predict_files(self, files: list[bytes]) -> Outputs:
        lengths = np.array([len(file) for file in files], np.int64)
        data = np.frombuffer(b"".join(files), np.uint8)
        return self._run(data, "predict_files", lengths=lengths.tolist()).outputs

    def _run(self, array: NDArray[Any], call: str, **arguments: Any) -> Measured:
        with pixels_file(array) as file:
            out = file.with_name("out.npz")
            found = self._process.run_job(
                job="saved_model", call=call, pixels=str(file), out=str(out), model=self._model,
                classes=self._classes, **arguments,
            )  # fmt: skip
            with np.load(out, allow_pickle=False) as arrays:
                outputs = {name: arrays[name] for name in arrays.files}
        return Measured(joined([outputs]), found.get("latency", 0.0), found.get("throughput", 0.0))

    def close(self) -> None:
        self._process.close()


@dataclass(frozen=True)
class CoreML(KerasFormat):
    """An ML package for iOS and macOS. It can be run on macOS only."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write ``model.mlpackage``."""
        target = folder / CORE_ML_FOLDER
        shutil.rmtree(target, ignore_errors=True)
        convert_keras("coreml", bundle, target, properties=properties(bundle))
        return files_below(target)

    def open(self, folder: Path) -> ExportedModel | None:
        """Open ``model.mlpackage`` on macOS; None elsewhere."""
        return _CoreMLModel(folder / CORE_ML_FOLDER) if sys.platform == "darwin" else None


class _CoreMLModel:
    def __init__(self, folder: Path) -> None:
        import coremltools

        self._model = coremltools.models.MLModel(str(folder))

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        from PIL import Image

        images = (Image.fromarray(np.asarray(image, np.uint8)) for image in pixels)
        found = [self._model.predict({PIXELS: image}) for image in images]
        return joined([{name: np.asarray(value) for name, value in row.items()} for row in found])

    def close(self) -> None:
        del self._model


ONNX_TARGET = Onnx(
    "onnx", "ONNX, float32", "onnx", ("onnx", "onnxruntime", "tf2onnx", "tensorflow"),
    ("tensorflow", "tensorflow-cpu", "tf2onnx", "onnx", "onnxruntime"),
)  # fmt: skip
SAVEDMODEL_TARGET = SavedModel(
    "savedmodel", "TensorFlow SavedModel, float32, for pixels and image files", "train",
    ("tensorflow",), ("tensorflow", "tensorflow-cpu", "keras"), own_process=True,
)  # fmt: skip
COREML_TARGET = CoreML(
    "coreml", "Core ML, float32 (run on macOS only)", "coreml", ("coremltools", "tensorflow"),
    ("coremltools", "tensorflow", "tensorflow-cpu"),
)  # fmt: skip
