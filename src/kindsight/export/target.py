"""The interface of export targets, which convert a bundle and run the result; shared functions."""

from __future__ import annotations

import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import MissingExtraError
from kindsight.models.formats.assemble import PIXELS
from kindsight.models.formats.tflite import read_tflite

if TYPE_CHECKING:
    from kindsight.models.worker.process import KerasProcess

__all__ = [
    "BATCH",
    "DESCRIPTION_FILE",
    "FLOAT16",
    "FLOAT32",
    "FORMAT",
    "INT8",
    "OOD_SCORE",
    "PROBABILITIES",
    "SERVE_BYTES",
    "Bounds",
    "Calibration",
    "ExportedModel",
    "Exporter",
    "FileModel",
    "Measured",
    "Outputs",
    "TimedModel",
    "converter_process",
    "describe",
    "is_installed",
    "joined",
    "measure",
    "require",
    "version_of",
]

LATENCY_RUNS = 20
"""Runs of one image; their median is reported."""

WARM_UP = 3
"""Number of preceding runs that are not timed."""

BATCH = 32
"""Number of images in one call of a runtime that takes several."""

PROBABILITIES = "probabilities"
OOD_SCORE = "ood_score"
"""The outputs of every exported network, by name; the second only if the bundle has one."""

SERVE_BYTES = "serve_bytes"
"""The signature of a SavedModel that takes image files."""

Outputs: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32] | None]"
"""Probabilities, float32 (n, classes), and out-of-distribution scores, float32 (n,) or None."""

Calibration: TypeAlias = "Callable[[], NDArray[np.uint8]]"
"""Returns training images, uint8 (n, height, width, 3), resized for the network."""


@dataclass(frozen=True)
class Bounds:
    """Maximum differences between an export and its classifier.

    Parameters
    ----------
    labels : float
        Minimum fraction of images with the same most probable class, 0 to 1.
    probability : float, optional
        Maximum difference of a probability.
    accuracy : float, optional
        Maximum difference of the accuracy, 0 to 1.
    """

    labels: float
    probability: float | None = None
    accuracy: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return the bounds for JSON."""
        return {
            "labels": self.labels, "probability": self.probability, "accuracy": self.accuracy,
        }  # fmt: skip


FLOAT32 = Bounds(labels=1.0, probability=1e-3)
FLOAT16 = Bounds(labels=0.999)
INT8 = Bounds(labels=0.98, accuracy=0.01)


class ExportedModel(Protocol):
    """An export, opened in its own runtime."""

    def predict(self, pixels: NDArray[Any]) -> Outputs:
        """Return the outputs for resized images, uint8 or float32 (n, height, width, 3), 0-255."""

    def close(self) -> None:
        """End processes and release files."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Outputs, seconds for one image (median), and images per second in one call."""

    outputs: Outputs
    latency: float
    throughput: float


@runtime_checkable
class TimedModel(ExportedModel, Protocol):
    """An export that measures itself, since it runs in another process."""

    def measure(self, pixels: NDArray[Any]) -> Measured:
        """Return the outputs of :meth:`predict`, with times measured in its process."""


@runtime_checkable
class FileModel(ExportedModel, Protocol):
    """An export that also decodes and resizes image files by itself."""

    def predict_files(self, files: Sequence[bytes]) -> Outputs:
        """Return the outputs for the contents of image files.

        Rows of a file that it cannot decode are NaN.
        """


class Exporter(Protocol):
    """One target of an export."""

    @property
    def name(self) -> str:
        """The name on the command line, and of the folder: ``"litert-float16"``."""

    @property
    def title(self) -> str:
        """A short description, for lists."""

    @property
    def extra(self) -> str | None:
        """The extra of the package that it needs."""

    @property
    def bounds(self) -> Bounds:
        """Maximum differences from the classifier."""

    @property
    def needs_calibration(self) -> bool:
        """Whether :meth:`convert` needs training images."""

    @property
    def own_process(self) -> bool:
        """Whether :meth:`open` starts a separate process, whose start counts as the cold start."""

    def check(self, bundle: Bundle) -> None:
        """Raise errors that can be detected before the conversion."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write the model's files into an existing folder and return them."""

    def open(self, folder: Path) -> ExportedModel | None:
        """Open the files in their runtime; None if this machine has none ("unproven")."""

    def runtime(self) -> dict[str, str]:
        """Return the versions of the packages that convert and run it, by name."""


def is_installed(*modules: str) -> bool:
    """Return whether all of these modules can be imported, without importing them."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def require(name: str, extra: str | None, *modules: str) -> None:
    """Raise MissingExtraError, with the command that installs the extra, if a module is missing."""
    if extra is not None and not is_installed(*modules):
        raise MissingExtraError(f"The format {name}", extra)


def version_of(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def joined(batches: list[dict[str, NDArray[np.float32]]]) -> Outputs:
    """Return the outputs of several batches as one."""
    probabilities = np.concatenate([batch[PROBABILITIES] for batch in batches])
    if OOD_SCORE not in batches[0]:
        return probabilities, None
    return probabilities, np.concatenate([batch[OOD_SCORE].reshape(-1) for batch in batches])


def measure(predict: Callable[[NDArray[Any]], Outputs], pixels: NDArray[Any]) -> Measured:
    """Return the outputs for images, the median time of one image, and the throughput of all."""
    times = []
    for run in range(WARM_UP + LATENCY_RUNS):
        image = pixels[run % len(pixels)][None]
        started = time.perf_counter()
        predict(image)
        times.append(time.perf_counter() - started)
    started = time.perf_counter()
    outputs = predict(pixels)
    seconds = time.perf_counter() - started
    return Measured(outputs, statistics.median(times[WARM_UP:]), len(pixels) / seconds)


# What targets share

JOB_SECONDS = 3600.0
"""Time limit of one job in seconds: large networks on slow machines take minutes."""


def converter_process(*, with_keras: bool = False) -> KerasProcess:
    """Return a process with the jobs of :mod:`.converters`, or those of :mod:`.keras_jobs`.

    A converter may end its process, print, or change settings of a library, so it never runs in the
    user's process.
    """
    from kindsight.models.worker.process import KerasProcess

    module = "keras_jobs" if with_keras else "converters"
    return KerasProcess(
        JOB_SECONDS, module=f"kindsight.export.{module}", name="converter process",
        with_keras=with_keras,
    )  # fmt: skip


DESCRIPTION_FILE = "model.json"

FORMAT = 1
"""Version of ``model.json`` and ``export.json``."""


def describe(bundle: Bundle) -> dict[str, Any]:
    """Return the content of ``model.json``.

    Probabilities are calibrated: the network itself divides its logits by the temperature, which is
    included for information. A prediction is unknown if its out-of-distribution score is above
    ``thresholds.unknown``, else unsure if its highest probability is below ``thresholds.unsure``. A
    threshold is null if there is no such rule.
    """
    parts = bundle.uncertainty
    scored = read_tflite(bundle.tflite).second_output is not None
    return {
        "format": FORMAT,
        "classes": list(bundle.classes),
        "input": {
            "name": PIXELS,
            "shape": [None, *bundle.spec.size, 3],
            "values": "RGB, 0 to 255; scaling is inside the network",
            "resize": bundle.spec.to_dict(),
        },
        "outputs": [PROBABILITIES, OOD_SCORE] if scored else [PROBABILITIES],
        "temperature": bundle.temperature,
        "thresholds": {
            "unsure": parts.get("unsure", {}).get("threshold"),
            "unknown": parts.get("unknown", {}).get("threshold"),
        },
        "backbone": bundle.backbone,
    }
