"""What a run's report says: the facts of a training gathered for :mod:`kindsight.report`."""

from __future__ import annotations

import os
import platform
import re
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
from kindsight.report.format import amount
from kindsight.report.page import render_report
from kindsight.report.thumbnails import confident_mistakes, make_cards, most_uncertain
from kindsight.runs.result import Scored, TrainResult
from kindsight.runs.settings import TrainSettings
from kindsight.threads import count_cores
from kindsight.training.engine.plan import pace_words
from kindsight.training.fine_tuning.settings import FittedFineTuned, describe_seconds
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.network.fitted import FittedNetwork
from kindsight.training.stored_images import KeptImage
from kindsight.training.trainer import Fitted

__all__ = ["make_report"]

THUMBNAIL = 128


def make_report(
    settings: TrainSettings,
    result: TrainResult,
    fitted: Fitted,
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
    settings: TrainSettings, result: TrainResult, fitted: Fitted, bundle: Bundle
) -> TrainingSummary:
    dataset = fitted.dataset
    counts: dict[str, dict[str, int]] = {name: {} for name in fitted.classes}
    for label, split in zip(dataset.label, dataset.split, strict=True):
        row = counts[str(label)]
        row[str(split)] = row.get(str(split), 0) + 1
    agreement = bundle.facts["agreement"]
    if isinstance(fitted, FittedFineTuned):
        how = _tuned(fitted)
    else:
        how = _frozen(fitted) if isinstance(fitted, FittedFrozenHead) else _network(fitted)
    how["details"] = {
        **how["details"],
        "Keras and LiteRT": (
            f"probabilities agree to {agreement['largest_difference']:.1e} on "
            f"{agreement['images']} images"
        ),
        "Data": f"digest {bundle.facts['data']['digest']}",
    }
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
        **how,
    )


def _frozen(fitted: FittedFrozenHead) -> dict[str, Any]:
    """Say how a head on a frozen backbone was made."""
    layout, chosen = fitted.files.layout, fitted.head.chosen
    return {
        "details": {
            "Backbone": f"{fitted.training.describe_backbone()}, frozen",
            "Features": f"{layout.width:,} numbers an image: {_describe(layout.names)}",
            "Head": chosen.describe(),
        },
        "temperature_source": "out-of-fold predictions",
        "candidates": tuple(
            HeadCandidateRow(
                item.describe(), item.accuracy, None, item.log_loss, selected=item == chosen
            )
            for item in fitted.head.candidates
        ),
    }


def _tuned(fitted: FittedFineTuned) -> dict[str, Any]:
    """Say how a backbone was fine-tuned."""
    tuning = fitted.fine_tuning
    assert tuning is not None
    how = _frozen(fitted.frozen)
    made = {
        **how["details"],
        "Backbone": f"{fitted.frozen.training.describe_backbone()}, fine-tuned",
        "Fine-tuning": f"{tuning.description}; weights of epoch "
        f"{fitted.history.best_epoch}, the best",
        "Better than frozen": f"{tuning.accuracy_after:.1%} validation accuracy; the "
        f"frozen head has {tuning.accuracy_before:.1%}",
        "Time": describe_seconds(tuning.seconds),
    }
    source = "validation predictions, each image's own left out of its part"
    return {**how, "details": made, "temperature_source": source if fitted.folds else ""}


def _network(fitted: FittedNetwork) -> dict[str, Any]:
    """Say how a network was trained."""
    plan = fitted.training.plan()
    kept = f"the weights of epoch {fitted.history.best_epoch}, the best, are kept"
    if plan.final_weights == "last":
        kept = "the last weights are kept"
    several = len(plan.phases) > 1
    made = {
        "Network": fitted.training.describe(),
        "Layers": fitted.words(),
        "Training": f"{amount(len(fitted.history), 'epoch')} of at most {plan.epochs}, "
        + (f"in {len(plan.phases)} phases" if several else plan.phases[0].words())
        + f"; {kept}",
    }
    for number, phase in enumerate(plan.phases, 1):
        if several:
            epochs = f"at most {amount(phase.epochs, 'epoch')}"
            words = f"{phase.name}: {epochs}, {phase.words()}; augmentation: {phase.augment}"
            made[f"Phase {number}"] = words
        else:
            made["Augmentation"] = str(phase.augment)
    more = pace_words(fitted.training.layer_decay, fitted.training.ema_decay)
    return {
        "details": {**made, **({"Pace": more} if more else {})},
        "temperature_source": "validation predictions, each image's own left out of its part"
        if fitted.folds
        else "",
        "layers": fitted.layers,
    }


def _describe(names: Sequence[str]) -> str:
    """Say ``stage3_mean, stage3_max, …, top_mean`` in words."""
    stages = list(dict.fromkeys(name.rpartition("_")[0] for name in names if name != "top_mean"))
    if not stages:
        return "the last mean"
    ends = ", ".join(stages)
    if all(re.fullmatch(r"stage\d", stage) for stage in stages):
        ends = f"stages {stages[0][-1]} to {stages[-1][-1]}"
    return f"mean, maximum and spread at the ends of {ends}, and the last mean"


def _loader(fitted: Fitted, rows: NDArray[np.int64]) -> Any:
    """Return a function from a row of the predictions to its image, from the cache."""
    dataset = fitted.dataset

    def load(row: int) -> NDArray[np.uint8]:
        (kept,) = fitted.kept([str(dataset.digest[rows[row]])])
        if kept is None:
            raise ImageError("missing", "The cache no longer holds it.")
        return _in_proportion(kept, fitted.training.resize)

    return load


def _in_proportion(kept: KeptImage, resize: str) -> NDArray[np.uint8]:
    """Undo the stretching to the network's square."""
    if resize != "stretch":
        return kept.pixels
    scale = 2 * THUMBNAIL / max(kept.height, kept.width)
    height, width = (max(1, round(side * scale)) for side in (kept.height, kept.width))
    return resize_image(kept.pixels, InputSpec(height, width))
