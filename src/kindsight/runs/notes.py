"""What a run says of its data: leakage in numbers, and what all checks found."""

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
from kindsight.runs.split import SplitImages
from kindsight.training.common import Progress
from kindsight.training.protocols import FittedModel

__all__ = ["leakage_notes", "leakage_summary", "run_notes", "without_leaking"]


def run_notes(
    dataset: ImageDataset,
    settings: TrainSettings,
    folder: Path,
    scored: Mapping[str, Scored],
    divided: SplitImages,
    fitted: FittedModel,
    progress: Progress,
    clock: Clock,
) -> tuple[str, ...]:
    """Say what was found in the data, beside what the divided dataset says itself.

    Parameters
    ----------
    dataset : ImageDataset
        As it was opened: all images, also those that cannot be read.
    settings : TrainSettings
        With ``check="full"`` all checks are run, and written into the run folder.
    folder : pathlib.Path
        The run folder.
    scored : mapping of str to Scored
        The validation and the test part.
    divided : SplitImages
        How the images were divided, and what leaked.
    fitted : FittedModel
        The classifier.
    progress : callable
        Called with (stage, done, total).
    clock : Clock
        Where the time of all checks is counted.
    """
    notes = (*dataset.notes, *leakage_notes(scored, divided.leakage, fitted.classes))
    if settings.check != "full":
        return notes
    # The checks need a tenth of a second to import.
    from kindsight.runs.checking.run import check_run

    found = check_run(dataset, settings, folder, progress)
    clock.mark("checks")
    return (*notes, found)


def leakage_notes(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> Iterator[str]:
    """Say how good a classifier is without the images that it has learned."""
    for name, rest in without_leaking(scored, leakage, classes).items():
        if rest is None:
            yield f"All images of the {name} part are in the training part too."
            continue
        known = len(scored[name].rows) - rest.images
        yield (
            f"Without the {known:,} images that the training part has too, "
            f"{percent(rest.accuracy)} of {rest.images:,} {name} images are right "
            f"(95% interval {interval(rest.accuracy_interval)})."
        )


def leakage_summary(
    leakage: Leakage, scored: Mapping[str, Scored], classes: Sequence[str]
) -> dict[str, object]:
    """Return what ``kindsight train --json`` prints of leakage."""
    rests = without_leaking(scored, leakage, classes)
    without = {name: None if rest is None else rest.to_dict() for name, rest in rests.items()}
    return {**leakage.to_dict(), **({"without": without} if without else {})}


def without_leaking(
    scored: Mapping[str, Scored], leakage: Leakage, classes: Sequence[str]
) -> dict[str, Evaluation | None]:
    """Score the parts that have images of the training part again, without these.

    Returns
    -------
    dict of str to (Evaluation or None)
        By part; None where no image is left.
    """
    leaking_rows = set(leakage.leaking_rows)
    found: dict[str, Evaluation | None] = {}
    for name, part in scored.items():
        fresh = np.array([int(row) not in leaking_rows for row in part.rows], np.bool_)
        if not fresh.all():
            said = part.predictions
            found[name] = (
                evaluate(said.probabilities[fresh], said.targets[fresh], classes)
                if fresh.any()
                else None
            )
    return found
