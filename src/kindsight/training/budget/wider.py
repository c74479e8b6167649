"""Wider frozen features within a budget: a second backbone at a larger size, or more TTA variants.

A head is fitted on them as on any others. Cross-validation on the training images decides whether
it is better, so that the validation split remains unseen.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from kindsight.errors import DatasetError
from kindsight.models.backbones.table import JOINER, get_backbone, split_model_name
from kindsight.models.backbones.tta import FLIPS
from kindsight.training.budget.plan import (
    DEFAULT,
    MIDDLE_CROPS,
    WIDE,
    WIDE_SIZE,
    choose_wide_flips,
    fine_tunes_small,
    fits_extra_copies,
    flip_sets,
    seconds_left,
)
from kindsight.training.fine_tuning.state import FineTuningState
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.fitted import FittedFrozenHead, fit_frozen
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.held_out import is_clearly_better

__all__ = ["start_from_one_backbone", "try_wider"]

Flips = tuple[int, ...]


def try_wider(state: FineTuningState, flips: Flips, rate: float) -> FineTuningState:
    """Fit heads on wider features and return the state with the best head.

    The second backbone is tried first. Where there is no time for it, or it is not better, more
    TTA variants by the same backbone are tried: middle crops, then flips.

    Parameters
    ----------
    state : FineTuningState
        With a budget.
    flips : tuple of int
        Flips that preserve the class.
    rate : float
        Passes per second of the backbone.
    """
    trainer = state.fitted.training
    chosen = _decide_wide_flips(state, flips, rate)
    if chosen is not None:
        wider = _try_head(state, _wide_trainer(trainer, chosen), _describe_wide(chosen))
        if wider is not state:
            return wider
    if trainer.tta_crops == 1:
        crops = replace(trainer, tta_crops=MIDDLE_CROPS)
        state = _try_copies(state, "crops", [crops], rate, "middle crops")
    trainer = state.fitted.training
    sets = [replace(trainer, flip_ids=some) for some in flip_sets(flips, trainer.tta_flips + 1)]
    return _try_copies(state, "flips", sets[::-1], rate, "flips")


def _decide_wide_flips(state: FineTuningState, flips: Flips, rate: float) -> Flips | None:
    decisions = state.decisions()
    if "wide_flips" in decisions:  # a resumed run decides as before, whatever time is left
        chosen = _valid_flips(decisions["wide_flips"])
    else:
        left = seconds_left(state)
        assert left is not None
        fitted = state.fitted
        chosen = choose_wide_flips(fitted.training, flips, len(fitted.dataset), rate, left)
    state.decide(wide_flips=chosen)
    return chosen


def _valid_flips(stored: Any) -> Flips | None:
    """Return flips of a file, or None if they are not increasing indices from 0."""
    if not isinstance(stored, list) or not all(type(flip) is int for flip in stored):
        return None
    valid = stored[:1] == [0] and stored == sorted(set(stored)) and stored[-1] < len(FLIPS)
    return tuple(stored) if valid else None


def _wide_trainer(trainer: FrozenTrainer, flips: Flips) -> FrozenTrainer:
    return replace(
        trainer, model=JOINER.join([DEFAULT, WIDE]), size=WIDE_SIZE,
        first_size=get_backbone(DEFAULT).size, flip_ids=flips,
        first_tta_crops=max(MIDDLE_CROPS, trainer.tta_crops),
    )  # fmt: skip


def _describe_wide(flips: Flips) -> str:
    size = get_backbone(DEFAULT).size[0]
    over = f", over {len(flips)} flips" if len(flips) > 1 else ""
    return f"{DEFAULT} at {size} px with middle crops and {WIDE} at {WIDE_SIZE} px{over}"


def _try_copies(
    state: FineTuningState, decision: str, wanted: Sequence[FrozenTrainer], rate: float, name: str
) -> FineTuningState:
    """Try the first of some trainers whose additional TTA variants fit into the time left."""
    fitted, left, decisions = state.fitted, seconds_left(state), state.decisions()
    assert left is not None

    def copies(trainer: FrozenTrainer) -> int:
        return sum(map(len, trainer.variants_by_backbone))

    def fits(trainer: FrozenTrainer) -> bool:
        if decision in decisions:
            return bool(copies(trainer) == decisions[decision])
        extra = copies(trainer) - copies(fitted.training)
        return fits_extra_copies(extra, len(fitted.dataset), rate, left)

    chosen = next(filter(fits, wanted), None)
    state.decide(**{decision: 0 if chosen is None else copies(chosen)})
    return state if chosen is None else _try_head(state, chosen, name)


def _try_head(state: FineTuningState, trainer: FrozenTrainer, name: str) -> FineTuningState:
    """Fit a head with other settings; return the state with it where it is clearly better."""
    start = time.monotonic()
    wider = fit_again(trainer, state)
    if wider is None:
        return state
    loss, before = wider.head.chosen.log_loss, state.fitted.head.chosen.log_loss
    if not is_clearly_better(loss, before):
        state.notes.append(f"{name} did not help in cross-validation")
        return state
    backbone = wider.head.chosen.network
    alone = f" ({backbone} alone is as good)" if backbone else ""
    state.notes.append(
        f"{name}{alone}: cross-validated log loss {loss:.3f} instead of {before:.3f}"
    )
    per_image = (time.monotonic() - start) / len(wider.dataset)
    seconds = state.wide_seconds_per_image + per_image
    return replace(state, fitted=wider, wide_seconds_per_image=seconds)


def fit_again(trainer: FrozenTrainer, state: FineTuningState) -> FittedFrozenHead | None:
    """Fit a head with other settings; None where images have disappeared since."""

    def report(stage: str, done: int, total: int) -> None:
        if state.progress is not None:
            state.progress("wider" if stage == "features" else stage, done, total)

    files = trainer.backbone(report, state.keras)
    features = compute_all_features(trainer, state.fitted.dataset, files, report, keras=state.keras)
    if len(features.dataset) != len(state.fitted.dataset):
        return None
    return fit_frozen(trainer, features, files, state.fitted.classes, state.rows)


def start_from_one_backbone(
    state: FineTuningState, small_rate: float | None = None
) -> FineTuningState:
    """Return the state with a head on one backbone without TTA, as the cut needs it.

    A wider head becomes ``wide``. The new head is on the backbone that cross-validation found to
    be the best alone or, where the budget is too short for that, on the default one, which
    resizes the images to its own size.

    Parameters
    ----------
    state : FineTuningState
    small_rate : float, optional
        Passes per second of the default backbone, where it may be fine-tuned at its own size.
    """
    wide = state.fitted
    name = _best_alone(wide) if wide.files.members else wide.training.model
    small = small_rate is not None and _decide_small(state, name, small_rate)
    if not small and not wide.files.members:
        return state
    one = replace(
        wide.training, model=DEFAULT if small else name, size=wide.training.spec().size,
        tta_flips=1, tta_crops=1, first_size=None, flip_ids=None, first_tta_crops=None,
    )  # fmt: skip
    if small:
        size = get_backbone(DEFAULT).size
        one = replace(one, first_size=size)
        state.notes.append(f"fine-tuned: {DEFAULT} at {size[0]} px")
    with state.timed("its features"):
        fitted = fit_again(one, state)
    if fitted is None:
        raise DatasetError(
            "Some images disappeared during training. Restore them, or run the command again."
        )
    return replace(state, fitted=fitted, wide=wide)


def _best_alone(joined: FittedFrozenHead) -> str:
    """Return the name of the backbone whose features alone have the lowest log loss."""
    names = split_model_name(joined.training.model)
    losses = dict.fromkeys(joined.files.layout.networks(), float("inf"))
    for item in joined.head.candidates:
        if item.network in losses:
            losses[item.network] = min(losses[item.network], item.log_loss)
    return names[min(range(len(losses)), key=list(losses.values()).__getitem__, default=0)]


def _decide_small(state: FineTuningState, name: str, rate: float) -> bool:
    decisions = state.decisions()
    if "small" in decisions:
        return decisions["small"] is True
    large = state.fitted.training.spec().size == (WIDE_SIZE, WIDE_SIZE)
    small = large and fine_tunes_small(name, len(state.rows), rate, seconds_left(state))
    state.decide(small=small)
    return small
