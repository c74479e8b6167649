"""Writing a fitted classifier as a bundle, and proving that its two networks agree."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import KERAS_FILE, TFLITE_FILE, Bundle
from kindsight.digest import file_digest
from kindsight.files import replacing
from kindsight.models.formats.assemble import add_tflite_metadata, write_keras, write_tflite
from kindsight.models.worker.process import KerasProcess
from kindsight.training.fine_tuning.settings import FittedFineTuned
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fitted import FittedNetwork
from kindsight.training.parity import Agreement, check_agreement, check_network
from kindsight.training.trainer import Fitted, Training

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
    fitted: Fitted,
    rows: NDArray[np.int64],
    keras: KerasProcess,
    facts: Mapping[str, Any],
    later: Sequence[NDArray[np.int64]] = (),
    asked: Training | None = None,
) -> Bundle:
    """Write the two networks, compare them, and return the bundle; ``bundle.json`` is not written.

    Parameters
    ----------
    folder : pathlib.Path
        Where; made if it is not there.
    fitted : FittedFrozenHead or FittedNetwork
        What was trained.
    rows : array
        int64: the images to compare the networks on, of which some are taken.
    keras : KerasProcess
        Where Keras runs.
    facts : mapping
        More entries for ``bundle.json``.
    later : sequence of array
        int64: of what later trainings with the same backbone may compare the networks.
    asked : Training, optional
        What was told, where that may be less than what was chosen: a budget chooses backbones,
        sizes and views.

    Raises
    ------
    ParityError
        If the two networks disagree; see :mod:`.agreement`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tflite, keras_file = folder / TFLITE_FILE, folder / KERAS_FILE
    spec = fitted.training.spec()
    metadata = {
        "classes": list(fitted.classes),
        "input": spec.to_dict(),
        "temperature": fitted.temperature,
    }
    if isinstance(fitted, FittedFrozenHead):
        tflite.unlink(missing_ok=True)  # of a run that was not finished
        write_keras(fitted.files.keras, fitted.head.layers, keras_file)

        def write_other() -> Path:
            write_tflite(fitted.files.tflite, fitted.head.layers, tflite, metadata)
            return tflite

        agreement = check_agreement(fitted, rows, write_other, keras_file, keras, later)
        told = {"features": list(fitted.files.layout.names), "head": asdict(fitted.head.chosen)}
    else:
        told, agreement = _write_network(fitted, rows, tflite, keras_file, keras, metadata)
    settings = fitted.training.to_dict()
    if asked is not None and asked.to_dict() != settings:
        facts = {"asked": asked.to_dict(), **facts}
    return Bundle(
        folder,
        fitted.classes,
        spec,
        fitted.temperature,
        fitted.training.model,
        {
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **told,
            "seed": fitted.training.seed,
            "settings": settings,
            "agreement": asdict(agreement),
            "versions": versions(),
            "files": {TFLITE_FILE: file_digest(tflite), KERAS_FILE: file_digest(keras_file)},
            **facts,
        },
    )


def _write_network(
    fitted: FittedNetwork,
    rows: NDArray[np.int64],
    tflite: Path,
    keras_file: Path,
    keras: KerasProcess,
    metadata: Mapping[str, Any],
) -> tuple[dict[str, Any], Agreement]:
    """Put the trained network's files in place; return what the bundle says of it."""
    add_tflite_metadata(fitted.tflite, tflite, metadata)
    with replacing(keras_file) as temporary:
        shutil.copyfile(fitted.keras, temporary)
    agreement = check_network(fitted, rows, tflite, keras_file, keras)
    told = {"epochs": {"trained": len(fitted.history), "best": fitted.history.best_epoch}}
    if isinstance(fitted, FittedFineTuned):
        return {
            **told,
            "fine_tuning": fitted.words(),
            "head": asdict(fitted.frozen.head.chosen),
        }, agreement
    layers = [{k: v for k, v in row._asdict().items() if v != ""} for row in fitted.layers]
    return {"network": layers, **told}, agreement
