"""What is tuned after wider features: one backbone, over one view of a picture."""

from __future__ import annotations

from dataclasses import replace

from kindsight.errors import CatalogError
from kindsight.models.backbones import get_backbone, split_names
from kindsight.training.fitted_frozen import FittedFrozen
from kindsight.training.tune_work import FineTuning
from kindsight.training.widening import DEFAULT, WIDE_COSTS, WIDE_SIZE, fit_again

__all__ = ["on_one_backbone"]

# What an epoch above the usual cut takes, in passes of LiteRT through the whole backbone, and for
# how many epochs, trials of learning rates included, there must be time for it at the large size.
EPOCH_COST, MANY_EPOCHS = 1.2, 40


def on_one_backbone(work: FineTuning, small_rate: float | None = None) -> FineTuning:
    """Let what is tuned begin on one backbone and one view of a picture, as its cut needs it.

    Where the head has more, it becomes ``before``, and ``fitted`` a head on one backbone, for
    pictures of the same size: on the one that cross-validation found to be the best alone (its
    features are in the cache) or, where a budget does not leave time for so many epochs of that, on
    the default one, which brings the pictures to its own size.

    Parameters
    ----------
    work : FineTuning
    small_rate : float, optional
        Where what is tuned may be the default backbone at its own size: how many pictures it takes
        in a second.
    """
    wide = work.fitted
    name = _best_alone(wide) if wide.files.parts else wide.training.model
    small = small_rate is not None and _tunes_small(work, name, small_rate)
    if not small and not wide.files.parts:
        return work
    size = wide.training.spec().size
    alone = replace(
        wide.training, model=DEFAULT if small else name, size=size, views=1, crops=1, inner=None,
        flips=None, first_crops=None,
    )  # fmt: skip
    if small:
        inner = get_backbone(DEFAULT).size
        alone = replace(alone, inner=inner)
        work.said.append(f"what is tuned is {DEFAULT} at {inner[0]} px")
    with work.timed("its features"):
        fitted = fit_again(alone, work)
    if fitted is None:
        raise CatalogError(
            "Pictures must stay where they are while they are learned from. Received: some that "
            "can no longer be read."
        )
    return replace(work, fitted=fitted, before=wide)


def _best_alone(joined: FittedFrozen) -> str:
    """Return the name of the backbone whose features alone have the least log loss."""
    names = split_names(joined.training.model)
    losses = dict.fromkeys(joined.files.layout.networks(), float("inf"))
    for item in joined.head.candidates:
        if item.network in losses:
            losses[item.network] = min(losses[item.network], item.log_loss)
    return names[min(range(len(losses)), key=list(losses.values()).__getitem__, default=0)]


def _tunes_small(work: FineTuning, name: str, rate: float) -> bool:
    """Say whether what is tuned is the default backbone at its own size, to have time enough."""
    if "small" in (before := work.decided()):  # the same as before a stop
        return before["small"] is True
    left = work.left()
    epoch = EPOCH_COST * WIDE_COSTS[name] * len(work.rows) / rate
    # Of another size than all have seen: with views of the first features alone, nothing is wide.
    wide = work.fitted.training.spec().size == (WIDE_SIZE, WIDE_SIZE)
    # What the default one looked at was small already.
    small = wide and left is not None and (name == DEFAULT or left < MANY_EPOCHS * epoch)
    work.decide(small=small)
    return small
