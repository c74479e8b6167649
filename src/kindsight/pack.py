"""Writing a fitted classifier as a bundle, and proving that its two networks agree."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.agreement import check_agreement
from kindsight.bundle import KERAS_FILE, TFLITE_FILE, Bundle, file_digest
from kindsight.models.assemble import write_keras, write_tflite
from kindsight.models.keras_process import KerasProcess
from kindsight.training.frozen import FittedFrozen, FrozenTraining

__all__ = ["pack", "versions"]

PACKAGES = (
    "kindsight",
    "numpy",
    "keras",
    "tensorflow",
    "tensorflow-cpu",
    "ai-edge-litert",
    "opencv-python-headless",
    "pillow",
)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def pack(
    folder: Path,
    fitted: FittedFrozen,
    rows: NDArray[np.int64],
    keras: KerasProcess,
    facts: Mapping[str, Any],
) -> Bundle:
    """Write the two networks, compare them, and return the bundle; ``bundle.json`` is not written.

    Parameters
    ----------
    folder : pathlib.Path
        Where; made if it is not there.
    fitted : FittedFrozen
        What was trained.
    rows : array
        int64: the pictures to compare the networks on, of which some are taken.
    keras : KerasProcess
        Where Keras runs.
    facts : mapping
        More entries for ``bundle.json``.

    Raises
    ------
    AgreementError
        If the two networks disagree; see :mod:`.agreement`.
    """
    spec, head = fitted.training.spec(), fitted.head
    folder.mkdir(parents=True, exist_ok=True)
    tflite, keras_file = folder / TFLITE_FILE, folder / KERAS_FILE
    write_tflite(
        fitted.files.tflite,
        head.layers,
        tflite,
        {"classes": list(fitted.classes), "input": spec.to_dict(), "temperature": head.temperature},
    )
    write_keras(fitted.files.keras, head.layers, keras_file)
    agreement = check_agreement(fitted, rows, tflite, keras_file, keras)
    return Bundle(
        folder,
        fitted.classes,
        spec,
        head.temperature,
        fitted.training.model,
        {
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "features": list(fitted.files.layout.names),
            "head": asdict(head.chosen),
            "seed": fitted.training.seed,
            "settings": _settings(fitted.training),
            "agreement": asdict(agreement),
            "versions": versions(),
            "files": {TFLITE_FILE: file_digest(tflite), KERAS_FILE: file_digest(keras_file)},
            **facts,
        },
    )


def _settings(training: FrozenTraining) -> dict[str, Any]:
    """Return the settings that make a result, without those of the machine."""
    settings = asdict(training)
    return {name: settings[name] for name in settings if name not in ("cache", "workers")}
