"""The notes of a run on its data: duplicates across splits in figures, and the checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.leakage import Leakage
from kindsight.evaluation import Evaluation, evaluate
from kindsight.report.format import interval, percent
from kindsight.runs.result import Clock, Scored
from kindsight.runs.settings import TrainSettings
from kindsight.training.common import Progress

__all__ = ["leakage_summary", "run_notes"]


def run_notes(
    dataset: ImageDataset,
    settings: TrainSettings,
    folder: Path,
    scored: Mapping[str, Scored],
    leakage: Leakage,
    progress: Progress,
    clock: Clock,
) -> tuple[str, ...]:
    """Return the notes on the data of a run; run all checks if the settings say so.

    Parameters
    ----------
    dataset : ImageDataset
        As it was opened, with the unreadable images.
    settings : TrainSettings
        With ``check="full"`` the findings of all checks are written to the run folder.
    folder : pathlib.Path
        The run folder.
    scored : mapping of str to Scored
        The validation and test splits.
    leakage : Leakage
        Duplicates across splits.
    progress : callable
        Called with (stage, done, total).
    clock : Clock
        Measures the time of the checks.
    """
    notes = (*dataset.notes, *_leakage_notes(scored, leakage, dataset.classes))
    if settings.check != "full":
        return notes
    # The checks need a tenth of a second to import.
    from kindsight.runs.checking.run import check_run

    found = check_run(dataset, settings, folder, progress)
    clock.mark("checks")
    return (*notes, found)


def leakage_summary(
    leakage: Leakage, scored: Mapping[str, Scored], classes: Sequence[str]
) -> dict[str, object]:
    """Return what ``kindsight train --json`` prints of leakage."""
    clean = _without_leakage(scored, leakage, classes)
    without = {name: None if each is None else each.to_dict() for name, each in clean.items()}
    return {**leakage.to_dict(), **({"without": without} if without else {})}


def _leakage_notes(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> Iterator[str]:
    for name, clean in _without_leakage(scored, leakage, classes).items():
        if clean is None:
            yield f"Every image of the {name} split has a duplicate in the train split."
            continue
        known = len(scored[name].rows) - clean.images
        yield (
            f"Without {known:,} images that have a duplicate in the train split, {name} accuracy "
            f"is {percent(clean.accuracy)} on {clean.images:,} images "
            f"(95% CI {interval(clean.accuracy_interval)})."
        )


def _without_leakage(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> dict[str, Evaluation | None]:
    """Evaluate each split that has leakage without it; None where no image is left."""
    leaking = set(leakage.leaking_rows)
    found: dict[str, Evaluation | None] = {}
    for name, part in scored.items():
        clean = np.array([int(row) not in leaking for row in part.rows], np.bool_)
        if clean.all():
            continue
        predictions = part.predictions
        found[name] = (
            evaluate(predictions.probabilities[clean], predictions.targets[clean], classes)
            if clean.any()
            else None
        )
    return found
