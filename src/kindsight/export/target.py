"""What a target of an export is: it converts a bundle, and runs the result."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.errors import MissingExtraError

__all__ = [
    "FLOAT16",
    "FLOAT32",
    "INT8",
    "OOD_SCORE",
    "PROBABILITIES",
    "Bounds",
    "Calibration",
    "ExportedModel",
    "Exporter",
    "FileModel",
    "Outputs",
    "is_installed",
    "require",
    "version_of",
]

PROBABILITIES = "probabilities"
OOD_SCORE = "ood_score"
"""The outputs of every exported network, by name; the second only where the bundle has one."""

Outputs: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.float32] | None]"
"""Probabilities, float32 (n, classes), and out-of-distribution scores, float32 (n,) or None."""

Calibration: TypeAlias = "Callable[[], NDArray[np.uint8]]"
"""Returns training images, uint8 (n, height, width, 3), resized for the network."""


@dataclass(frozen=True)
class Bounds:
    """How far an export may differ from its classifier.

    Parameters
    ----------
    labels : float
        Least fraction of images with the same most probable class, 0 to 1.
    probability : float, optional
        Largest difference of a probability.
    accuracy : float, optional
        Largest difference of the accuracy, 0 to 1.
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
        """One line for the help and the table."""

    @property
    def extra(self) -> str | None:
        """The extra of the package that it needs."""

    @property
    def bounds(self) -> Bounds:
        """How far it may differ from the classifier."""

    @property
    def needs_calibration(self) -> bool:
        """Whether :meth:`convert` needs training images."""

    def check(self, bundle: Bundle) -> None:
        """Raise the error of everything that can be known to fail, before the long work."""

    def convert(
        self, bundle: Bundle, folder: Path, calibration: Calibration | None
    ) -> tuple[Path, ...]:
        """Write the model's files into an existing folder and return them."""

    def open(self, folder: Path) -> ExportedModel | None:
        """Open the files in their runtime; None where this machine has none ("unproven")."""

    def runtime(self) -> dict[str, str]:
        """Return the versions of the packages that convert and run it, by name."""


def is_installed(*modules: str) -> bool:
    """Return whether all of these modules can be imported, without importing them."""
    return all(importlib.util.find_spec(module) is not None for module in modules)


def require(title: str, extra: str | None, *modules: str) -> None:
    """Raise MissingExtraError, with the command that installs the extra, if a module is missing."""
    if extra is not None and not is_installed(*modules):
        raise MissingExtraError(f"An export to {title}", extra)


def version_of(*packages: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
