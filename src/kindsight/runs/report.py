"""What a run's report says: the facts of a training gathered for :mod:`kindsight.report`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.dataset.splits.leakage import DuplicateAcrossSplits
from kindsight.errors import ImageError
from kindsight.images import InputSpec, resize_image
from kindsight.report.data import (
    HeadCandidateRow,
    Reference,
    ReportData,
    SkippedImage,
    SplitResult,
    TrainingSummary,
)
from kindsight.report.page import render_report
from kindsight.report.thumbnails import confident_mistakes, make_cards, most_uncertain
from kindsight.runs.result import Scored, TrainResult
from kindsight.runs.settings import TrainSettings
from kindsight.threads import count_cores
from kindsight.training.protocols import FittedModel, StoredImage

__all__ = ["make_report"]

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
                SkippedImage(str(error.path), error.code, error.reason) for error in result.problems
            ),
            leakage=leakage,
            notes=result.notes,
            run_folder=str(result.run),
            history=() if result.history is None else result.history.rows(),
            best_epoch=None if result.history is None else result.history.best_epoch,
        )
    )


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
