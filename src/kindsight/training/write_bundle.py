"""Write a fitted model as a bundle."""

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

from kindsight.bundle import KERAS_FILE, TFLITE_FILE, Bundle
from kindsight.digest import file_digest
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import map_ordered
from kindsight.training.ood import KNOWN_KEPT
from kindsight.training.protocols import FittedModel, Trainer
from kindsight.training.uncertainty import measure_uncertainty

__all__ = ["write_bundle"]

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


def write_bundle(
    folder: Path,
    fitted: FittedModel,
    rows: NDArray[np.int64],
    keras: KerasProcess,
    facts: Mapping[str, Any],
    *,
    requested: Trainer | None = None,
    verify: str = "auto",
    known_kept: float | None = KNOWN_KEPT,
) -> Bundle:
    """Write the network files and return the bundle; ``bundle.json`` is not written yet.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the bundle; created if it does not exist.
    fitted : FittedModel
        The trained classifier.
    rows : array
        int64: images of its dataset on which the network files are compared.
    keras : KerasProcess
        Worker process, started only if it is needed.
    facts : mapping
        Further entries for ``bundle.json``. Where ``"uncertainty"`` is not among them, it is
        measured on held-out images.
    requested : Trainer, optional
        The settings as the user gave them, where the program chose some of the trained ones.
    verify : str
        ``"auto"`` or ``"full"``; see :mod:`.parity`.
    known_kept : float, optional
        Fraction of images like the training images that are not unknown; None for no
        out-of-distribution score.

    Raises
    ------
    ParityError
        If the two networks disagree.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in (TFLITE_FILE, KERAS_FILE):
        (folder / name).unlink(missing_ok=True)  # left by an interrupted run
    spec = fitted.training.spec()
    metadata = {
        "classes": list(fitted.classes),
        "input": spec.to_dict(),
        "temperature": fitted.temperature,
    }
    files = fitted.write(folder, metadata, rows, keras, verify=verify, known_kept=known_kept)
    written = (files.tflite, files.keras)
    digests = map_ordered(file_digest, written, len(written))
    settings = fitted.training.to_dict()
    if requested is not None and requested.to_dict() != settings:
        facts = {"requested_settings": requested.to_dict(), **facts}
    facts = dict(facts)
    uncertainty = facts.pop("uncertainty", None)
    if uncertainty is None:
        uncertainty = measure_uncertainty(fitted.held_out())
    return Bundle(
        folder,
        fitted.classes,
        spec,
        fitted.temperature,
        fitted.training.model,
        {
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            **files.facts,
            "seed": fitted.training.seed,
            "settings": settings,
            "parity": asdict(files.parity),
            "versions": versions(),
            "files": {path.name: digest for path, digest in zip(written, digests, strict=True)},
            "uncertainty": {**uncertainty, **files.uncertainty},
            **facts,
        },
    )
