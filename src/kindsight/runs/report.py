"""The report of a run: its page, its figures, and the notes on its data."""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset import ImageDataset
from kindsight.dataset.names import n_images
from kindsight.dataset.splits.leakage import DuplicateAcrossSplits, Leakage
from kindsight.errors import ImageError
from kindsight.evaluation import Evaluation, evaluate
from kindsight.files import replacing, write_text
from kindsight.images import InputSpec, resize_image
from kindsight.report.curves import curve_table, draw_curve, draw_rate, rate_table, svg_file
from kindsight.report.data import (
    HeadCandidateRow,
    Reference,
    ReportData,
    SkippedImage,
    SplitResult,
    TrainingSummary,
)
from kindsight.report.format import interval, percent
from kindsight.report.page import render_report
from kindsight.report.thumbnails import confident_mistakes, make_cards, most_uncertain
from kindsight.runs.result import Clock, Scored, TrainResult
from kindsight.runs.settings import TrainSettings
from kindsight.threads import count_cores
from kindsight.training.common import Progress
from kindsight.training.engine.history import History
from kindsight.training.protocols import FittedModel, StoredImage

__all__ = [
    "leakage_summary",
    "make_report",
    "run_notes",
    "unsupported_notes",
    "write_history_figures",
    "write_learning_rate_figures",
]

THUMBNAIL = 128


def make_report(
    settings: TrainSettings,
    result: TrainResult,
    fitted: FittedModel,
    bundle: Bundle,
    scored: Mapping[str, Scored],
    reference: Sequence[Reference] = (),
    leakage: tuple[DuplicateAcrossSplits, ...] = (),
) -> str:
    """Return the report of a run as one self-contained HTML page."""
    scored = {name: part.distinct() for name, part in scored.items()}
    results = [
        SplitResult(name, evaluation, scored[name].predictions if name in scored else None)
        for name, evaluation in (("test", result.test), ("validation", result.validation))
        if evaluation is not None
    ]
    main = "test" if "test" in scored else "validation"
    mistakes: tuple[Any, ...] = ()
    uncertain: tuple[Any, ...] = ()
    if main in scored:
        predictions, load = scored[main].predictions, _loader(fitted, scored[main].rows)
        rows = confident_mistakes(predictions)
        mistakes = make_cards(rows, predictions, fitted.classes, load, THUMBNAIL)
        others = most_uncertain(predictions, exclude=rows)
        uncertain = make_cards(others, predictions, fitted.classes, load, THUMBNAIL)
    return render_report(
        ReportData(
            title=os.path.basename(os.path.abspath(settings.data)),  # noqa: PTH119, PTH100
            run=result.run.name,
            created=str(bundle.facts["created"]).replace("T", " ").replace("+00:00", " UTC"),
            training=_summary(settings, result, fitted, bundle),
            results=tuple(results),
            reference=tuple(reference),
            mistakes=mistakes,
            uncertain=uncertain,
            gallery_split=main,
            skipped=tuple(
                SkippedImage(str(error.path), error.code, error.reason, label or "")
                for error, label in zip(result.problems, result.problem_labels, strict=True)
            ),
            ignored=result.ignored_files,
            leakage=leakage,
            notes=result.notes,
            run_folder=str(result.run),
            history=() if result.history is None else result.history.rows(),
            best_epoch=None if result.history is None else result.history.best_epoch,
        )
    )


def write_history_figures(history: History, folder: Path) -> tuple[Path, Path]:
    """Write accuracy and loss by epoch as ``history.svg`` and ``history.png``.

    Parameters
    ----------
    history : History
        At least one epoch.
    folder : pathlib.Path
        Files of these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        For a history without epochs.
    """
    png = history.plot().png()
    drawings = [
        draw_curve(curve_table(history.rows(), history.best_epoch, quantity), quantity)
        for quantity in ("accuracy", "loss")
    ]
    return _write(folder, "history", svg_file(drawings, "Accuracy and loss by epoch"), png)


def write_learning_rate_figures(
    rates: Sequence[float], losses: Sequence[float], suggestion: float | None, folder: Path
) -> tuple[Path, Path]:
    """Write loss by learning rate as ``learning_rate.svg`` and ``learning_rate.png``.

    Parameters
    ----------
    rates : sequence of float
        Above 0, rising.
    losses : sequence of float
        As many, in nats; values that are not finite are left out.
    suggestion : float or None
        The rate to mark.
    folder : pathlib.Path
        Files of these names in it are replaced.

    Returns
    -------
    svg, png : pathlib.Path

    Raises
    ------
    UsageError
        Where there is no step with a finite loss, or rates and losses differ in number.
    """
    from kindsight.training.engine.plots import learning_rate_figure

    png = learning_rate_figure(rates, losses, suggestion).png()
    drawing = draw_rate(rate_table(rates, losses, suggestion))
    return _write(folder, "learning_rate", svg_file([drawing], "Loss by learning rate"), png)


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


def _summary(
    settings: TrainSettings, result: TrainResult, fitted: FittedModel, bundle: Bundle
) -> TrainingSummary:
    dataset = fitted.dataset
    counts: dict[str, dict[str, int]] = {name: {} for name in fitted.classes}
    for label, split in zip(dataset.label, dataset.split, strict=True):
        row = counts[str(label)]
        row[str(split)] = row.get(str(split), 0) + 1
    parity = bundle.facts["parity"]
    sections = fitted.report_sections()
    return TrainingSummary(
        source=settings.data,
        classes=counts,
        input_size=bundle.spec.size,
        temperature=fitted.temperature,
        seed=settings.seed,
        seconds=result.seconds,
        duplicates=len(dataset) - len(set(dataset.digest)),
        versions=bundle.facts["versions"],
        machine=f"{platform.system()} {platform.machine()}, {count_cores()} cores",
        details={
            **sections.details,
            "Keras and LiteRT": (
                f"probabilities agree to {parity['largest_difference']:.1e} on "
                f"{parity['images']} images"
            ),
            "Data": f"digest {bundle.facts['data']['digest']}",
        },
        temperature_source=sections.temperature_source,
        candidates=tuple(
            HeadCandidateRow(
                item.description, item.accuracy, None, item.log_loss, selected=item.selected
            )
            for item in sections.candidates
        ),
        layers=sections.layers,
    )


def _loader(fitted: FittedModel, rows: NDArray[np.int64]) -> Any:
    """Return a function from a row of the predictions to its image, from the cache."""
    dataset = fitted.dataset

    def load(row: int) -> NDArray[np.uint8]:
        (stored,) = fitted.stored_images([str(dataset.digest[rows[row]])])
        if stored is None:
            raise ImageError("missing", "The cache no longer holds it.")
        return _in_proportion(stored, fitted.training.resize)

    return load


def _in_proportion(stored: StoredImage, resize: str) -> NDArray[np.uint8]:
    """Undo the stretching to the network's square."""
    if resize != "stretch":
        return stored.pixels
    scale = 2 * THUMBNAIL / max(stored.height, stored.width)
    height, width = (max(1, round(side * scale)) for side in (stored.height, stored.width))
    return resize_image(stored.pixels, InputSpec(height, width))


def _write(folder: Path, name: str, svg: str, png: bytes) -> tuple[Path, Path]:
    targets = folder / f"{name}.svg", folder / f"{name}.png"
    write_text(targets[0], svg)
    with replacing(targets[1]) as temporary:
        temporary.write_bytes(png)
    return targets


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
