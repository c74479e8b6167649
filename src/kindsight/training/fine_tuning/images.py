"""The images of a fine-tuning: they themselves, or views of them at a cut chosen by the way."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment
from kindsight.cache.folder import Cache
from kindsight.dataset.reading.image_cache import CachedImages
from kindsight.models.networks.fine_tuned import stages_of
from kindsight.models.networks.frozen_base import CutCandidate, ensure_frozen_base
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.training.activation_cache import (
    ActivationFile,
    CachedActivations,
    CopyPlan,
    bytes_per_copy,
    cache_activations,
)
from kindsight.training.fine_tuning.cut import CutChoice, choose_cut
from kindsight.training.fine_tuning.plan import full_phases, light_phases
from kindsight.training.fine_tuning.tta import flips_in_words
from kindsight.training.fine_tuning.work import FineTuning

__all__ = ["TuneImages", "pixels_to_tune", "views_to_tune"]

# Most views of an image, with a budget.
MOST_VIEWS = 11
# What is done to a view besides flipping: what changes no class.
MOVED = Augment(
    shift=0.05, scale=(0.93, 1.07), brightness=(0.9, 1.1), contrast=(0.9, 1.1), fill="reflect"
)
# The share of what the cache may keep, and the disk has, that views may take.
VIEWS_DISK = 0.5

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class TuneImages:
    """Where the images, or their views, are, and how they are learned from.

    Parameters
    ----------
    places, val_places : array
        int64 (images,) or (images, views): of what is learned from, and judged by.
    val_views : array
        int64 (images, flips): those of the latter, flipped in each of the job's ``"flips"``.
    job : dict
        What the process with Keras is told of them.
    said : str
        In words.
    views : CachedActivations, optional
        Where they are views: to be closed when they are no longer needed.
    """

    places: Rows
    val_places: Rows
    val_views: Rows
    job: dict[str, Any]
    said: str
    views: CachedActivations | None = None


def pixels_to_tune(work: FineTuning, stored: CachedImages, flips: tuple[int, ...]) -> TuneImages:
    """Take the images themselves."""
    stages, asked = stages_of(work.fitted.files.layout), _asked(work, flips)
    policy = replace(MOVED, horizontal_flip=1 in flips, vertical_flip=2 in flips)
    job = {
        "phases": [phase.to_dict() for phase in full_phases(stages, policy)],
        "stage": None, "records": str(stored.file.resolve()), "base_features": 0, "shape": [],
        "size": list(work.fitted.training.spec().size), "view_count": 0,
        "flips": list(asked),
    }  # fmt: skip
    places, said = stored.offsets, f"all layers, {flips_in_words(flips)}"
    judged = places[work.validation]
    views = np.repeat(judged[:, None], len(asked), 1)
    return TuneImages(places[work.rows], judged, views, job, said)


def _asked(work: FineTuning, flips: tuple[int, ...]) -> tuple[int, ...]:
    """Return the flipped views over which the network may answer: who asks it, waits for each."""
    return flips[: work.looks]


def views_to_tune(
    work: FineTuning, stored: CachedImages, flips: tuple[int, ...]
) -> TuneImages | None:
    """Choose a cut, and make the views at it; None where there is no time for that."""
    fitted, plan, began = work.fitted, CopyPlan(flips, MOVED), time.monotonic()
    before, left = _decided(work), work.left()
    choice = before or _choose(work, plan)
    if choice is None:
        return None
    lower = ensure_frozen_base(fitted.files, choice.place.stage, work.keras)
    counts = np.full(len(stored), -1, np.int64)
    asked = _asked(work, flips)[: choice.views + 1]
    counts[work.rows], counts[work.validation] = choice.views, len(asked) - 1
    spare = None if left is None or before is not None else began + left / 2
    told = fitted.training
    file = ActivationFile(stored, lower, told.spec(), told.seed, Cache(told.cache))
    views = cache_activations(
        file, plan, counts, workers=told.workers, progress=work.step("views"), deadline=spare
    )
    made, place = views.rows.shape[1] - 1, choice.place
    asked = asked[: made + 1]
    work.decide(views=made, place=place.to_dict(), why=choice.why)
    job = {
        "phases": [phase.to_dict() for phase in light_phases()],
        "stage": place.stage, "records": str(views.file.resolve()), "base_features": lower.features,
        "shape": list(lower.shape), "size": list(fitted.training.spec().size), "view_count": made,
        "flips": list(asked),
    }  # fmt: skip
    size = bytes_per_copy(lower) * len(work.rows) * (made + 1) / 1e6
    said = (
        f"cut after {place.stage}, {made} {'view' if made == 1 else 'views'} an image beside "
        f"itself{f' ({choice.why})' if choice.why else ''}, {flips_in_words(flips)}, {size:,.0f} MB"
    )
    judged = views.rows[work.validation, : len(asked)]
    return TuneImages(views.rows[work.rows], judged[:, 0], judged, job, said, views)


def _choose(work: FineTuning, plan: CopyPlan) -> CutChoice | None:
    """Choose the cut and the number of views by disk and time."""
    files, cache = work.fitted.files, Cache(work.fitted.training.cache)
    told = work.keras.run_job(
        lambda news: None, job="survey", keras=str(files.keras.resolve()),
        layout=files.layout.to_dict(),
    )  # fmt: skip
    free = shutil.disk_usage(cache.folder()).free
    return choose_cut(
        [CutCandidate.from_dict(place) for place in told["cuts"]],
        (len(work.rows), len(work.validation)),
        looks=work.looks,
        most_views=plan.most(MOST_VIEWS),
        room=VIEWS_DISK * min(free, cache.limit),
        seconds=work.left(),
        rate=1 / work.look_seconds if work.look_seconds else 0.0,
        compute_dtype=choose_compute_dtype("auto", batch_norm=False),
    )


def _decided(work: FineTuning) -> CutChoice | None:
    """Return what a training that was stopped had chosen; None where there was none."""
    told = work.decided()
    try:
        place, views = CutCandidate.from_dict(told["place"]), told["views"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    stages = stages_of(work.fitted.files.layout)
    if type(views) is not int or not 0 <= views <= MOST_VIEWS or place.stage not in stages:
        return None
    return CutChoice(place, views, str(told.get("why", "")))
