"""Write a fitted model as a bundle, with its uncertainty measured on held-out images."""

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
from kindsight.evaluation.conformal import ConformalSets
from kindsight.evaluation.selective import RiskCoverage
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import map_ordered
from kindsight.training.held_out import HeldOutPredictions
from kindsight.training.ood import KNOWN_KEPT
from kindsight.training.protocols import FittedModel, Trainer
from kindsight.uncertainty.stored import StoredSets, Unsure

__all__ = [
    "describe_uncertainty", "measure_sets", "measure_uncertainty", "measure_unsure",
    "uncertainty_notes", "unknown_notes", "write_bundle",
]  # fmt: skip


def measure_uncertainty(
    held_out: HeldOutPredictions | None,
    target_accuracy: float | None = None,
    target_coverage: float | None = None,
) -> dict[str, Any]:
    """Return the parts ``"unsure"`` and ``"sets"`` of a bundle; empty without held-out images.

    Parameters
    ----------
    held_out : HeldOutPredictions or None
        Of the fitted model.
    target_accuracy, target_coverage : float, optional
        Of the labelled images, 0 to 1; without either, no threshold is set.
    """
    if held_out is None or not len(held_out):
        return {}
    unsure = measure_unsure(held_out).with_target(target_accuracy, target_coverage)
    return {"unsure": unsure.to_dict(), "sets": measure_sets(held_out).to_dict()}


def uncertainty_notes(
    uncertainty: Mapping[str, Any], target_accuracy: float | None, target_coverage: float | None
) -> tuple[str, ...]:
    """Return a note where a target has no threshold; `uncertainty` is the bundle's entry."""
    if target_accuracy is None and target_coverage is None:
        return ()
    if "unsure" not in uncertainty:
        return (
            "No threshold of confidence was set: there are no held-out images to measure it on. "
            "Train with validation images.",
        )
    fault = Unsure.from_dict(uncertainty["unsure"]).fault()
    return (f"{fault} Every image gets a label.",) if fault else ()


def unknown_notes(uncertainty: Mapping[str, Any], known_kept: float) -> tuple[str, ...]:
    """Return a note where a wanted out-of-distribution score is missing from a bundle's entry."""
    if not known_kept or "unknown" in uncertainty:
        return ()
    return (
        "No image will be reported as unknown, none of the classes: there are no validation images "
        "to set the threshold of the score on.",
    )


def describe_uncertainty(uncertainty: Mapping[str, Any]) -> dict[str, str]:
    """Return the row of the summary on the threshold of confidence, where there is one."""
    if "unsure" not in uncertainty:
        return {}
    text = Unsure.from_dict(uncertainty["unsure"]).describe()
    return {"unsure": text} if text else {}


def measure_unsure(held_out: HeldOutPredictions) -> Unsure:
    """Return the risk-coverage curve, without a threshold."""
    curve = RiskCoverage.measure(held_out.probabilities, held_out.targets)
    return Unsure(curve, held_out.source)


def measure_sets(held_out: HeldOutPredictions) -> StoredSets:
    """Return the conformal prediction sets at the default level."""
    probabilities = held_out.probabilities
    sets = ConformalSets.measure(probabilities, held_out.targets)
    return StoredSets(sets, source=held_out.source).with_mean_size(probabilities)


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
