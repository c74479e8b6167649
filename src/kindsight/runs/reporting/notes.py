"""The notes of a run on its data, and the results without leakage."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from kindsight.dataset import ImageDataset
from kindsight.dataset.names import n_images
from kindsight.dataset.splits.leakage import Leakage
from kindsight.errors import ImageError
from kindsight.evaluation import Evaluation, evaluate
from kindsight.report.format import interval, percent
from kindsight.runs.result import Clock, Scored
from kindsight.runs.settings import TrainSettings
from kindsight.training.common import Progress

__all__ = ["leakage_summary", "run_notes", "unsupported_notes"]


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

    - `dataset`: as it was opened, with the unreadable images.
    - `settings`: with ``check="full"`` the findings of all checks are written to the run folder.
    - `folder`: the run folder.
    - `scored`: the validation and test splits.
    - `leakage`: duplicates across splits.
    - `progress`: called with (stage, done, total).
    - `clock`: measures the time of the checks.
    """
    notes = (*dataset.notes, *_leakage_notes(scored, leakage, dataset.classes))
    if settings.check != "full":
        return notes
    # The checks need a tenth of a second to import.
    from kindsight.runs.checking.run import check_run

    found = check_run(dataset, settings, folder, progress)
    clock.mark("checks")
    return (*notes, found)


def unsupported_notes(problems: Iterable[ImageError]) -> Iterator[str]:
    """Yield what to do about skipped images of each unsupported format."""
    reasons = Counter(error.reason for error in problems if error.code == "unsupported")
    for reason, count in reasons.most_common():
        yield f"Skipped: {n_images(count)}. {reason}"


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
        known = scored[name].evaluation.images - clean.images
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
        clean &= part.counted
        predictions = part.predictions
        found[name] = (
            evaluate(predictions.probabilities[clean], predictions.targets[clean], classes)
            if clean.any()
            else None
        )
    return found
