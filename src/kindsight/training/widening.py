"""Wider frozen features, where a budget allows: more backbones, larger pictures, flipped views.

The head on wider features is fitted as any other. Cross-validation, not the validation part, tells
whether it is better than the one on the first features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kindsight.errors import CatalogError, KindsightError
from kindsight.models.backbones import JOINER, get_backbone, split_names
from kindsight.models.weights import find_imagenet_weights
from kindsight.training.fitted_frozen import FittedFrozen
from kindsight.training.frozen import FrozenTraining
from kindsight.training.tune_work import FineTuning

__all__ = ["Widening", "choose_widening", "is_default", "on_one_backbone", "widen"]

DEFAULT = "efficientnet-lite0"
# The size at which all see a picture, and what that costs: multiplications of each there, as a
# multiple of the first one's at its own size.
WIDE_SIZE = 300
WIDE_COSTS = {DEFAULT: 1.8, "efficientnet-lite1": 2.4, "efficientnet-lite2": 2.9}
# More pictures than this would take gigabytes, and have less need of it.
WIDE_PICTURES = 40_000
# The share of the time left that wider features may take.
SHARE = 0.55
# Seconds for a backbone that must be built first, once a machine.
BUILDING = 15.0
# What an epoch above the usual cut takes, in passes of LiteRT through the whole backbone, and for
# how many epochs, trials of learning rates included, there must be time for it at the large size.
EPOCH_COST, MANY_EPOCHS = 1.2, 40
# By this factor must the log loss be lower: several networks take longer to ask than one.
BETTER = 0.98


@dataclass(frozen=True)
class Widening:
    """Wider features that there is time for.

    Parameters
    ----------
    model : str
        One backbone, or several joined by ``+``.
    size : int or (height, width), optional
        Of the pictures; the backbone's own if omitted.
    views : int
        Over how many flipped views features are averaged.
    """

    model: str
    size: int | tuple[int, int] | None
    views: int

    def words(self) -> str:
        """Say what it is in a few words."""
        *others, last = split_names(self.model)
        parts = [f"{', '.join(others)} and {last}" if others else last]
        parts += [f"at {self.size} px"] if isinstance(self.size, int) else []
        parts += [f"over {self.views} views"] if self.views > 1 else []
        return " ".join(parts)


def is_default(training: FrozenTraining) -> bool:
    """Say whether no backbone, size or weights were chosen by name."""
    return (training.model, training.size, training.weights) == (DEFAULT, None, "imagenet")


def choose_widening(
    training: FrozenTraining, flips: tuple[int, ...], pictures: int, rate: float, seconds: float
) -> Widening | None:
    """Choose the widest features that there is time for; None where there is none.

    Parameters
    ----------
    training : FrozenTraining
        What was told. A model, size or number of views that is not the default stays as it is.
    flips : tuple of int
        By which a picture stays what it is: numbers of :data:`kindsight.models.views.VIEWS`.
    pictures : int
        How many there are.
    rate : float
        How many of them the backbone takes in a second.
    seconds : float
        How long everything may take from here on.
    """
    # Views are taken in their order.
    most = max(training.views, next((k for k, flip in enumerate(flips) if flip != k), len(flips)))
    allowed = SHARE * seconds
    if is_default(training) and pictures <= WIDE_PICTURES:
        # The more is computed, the better, whether of networks or of views.
        fitting = [
            (cost, views, names)
            for names, views in itertools.product(_sets(), range(1, most + 1))
            if (cost := pictures * views * sum(WIDE_COSTS[name] for name in names) / rate)
            + len(names) * BUILDING
            <= allowed
        ]
        if fitting:
            _, views, names = max(fitting)
            return Widening(JOINER.join(names), WIDE_SIZE, views)
    for views in range(most, training.views, -1):
        if pictures * (views - 1) / rate <= allowed:
            return Widening(training.model, training.size, views)
    return None


def _sets() -> Sequence[tuple[str, ...]]:
    """Return which backbones there are together: those whose weights are installed."""
    there = [name for name in WIDE_COSTS if _is_there(name)]
    # The first is known already: what is added are others.
    return [
        (there[0], *others)
        for count in range(1, len(there))
        for others in itertools.combinations(there[1:], count)
    ]


def _is_there(name: str) -> bool:
    try:
        find_imagenet_weights(name)
    except KindsightError:
        return False
    return True


def widen(work: FineTuning, flips: tuple[int, ...], rate: float) -> FineTuning:
    """Fit a head on wider features, and keep the better one by cross-validation.

    Parameters
    ----------
    work : FineTuning
        With a budget.
    flips, rate
        As :func:`choose_widening` takes them.

    Returns
    -------
    FineTuning
        The same, or with the wider head in place of ``fitted``.
    """
    fitted, left = work.fitted, work.left()
    assert left is not None
    chosen = choose_widening(fitted.training, flips, len(fitted.catalog), rate, left)
    before = work.decided()
    if "wider" in before:  # the same as before a stop, whatever the time is now
        chosen = _read(before["wider"])
    work.decide(wider=None if chosen is None else asdict(chosen))
    if chosen is None:
        return work
    training = replace(fitted.training, model=chosen.model, size=chosen.size, views=chosen.views)
    wider = _fit(training, work)
    losses = tuple(item.head.chosen.log_loss for item in (wider, fitted)) if wider else (1.0, 0.0)
    if wider is None or losses[0] > BETTER * losses[1]:
        work.said.append(f"{chosen.words()} did not help in cross-validation")
        return work
    work.said.append(
        f"{chosen.words()}: cross-validation's log loss {losses[0]:.3f} in place of {losses[1]:.3f}"
    )
    return replace(work, fitted=wider)


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
    alone = replace(wide.training, model=DEFAULT if small else name, size=size, views=1)
    if small:
        inner = get_backbone(DEFAULT).size
        alone = replace(alone, inner=inner)
        work.said.append(f"what is tuned is {DEFAULT} at {inner[0]} px")
    with work.timed("its features"):
        fitted = _fit(alone, work)
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
    small = wide and left is not None and left < MANY_EPOCHS * epoch
    work.decide(small=small)
    return small


def _read(told: Any) -> Widening | None:
    """Read what was decided before; anything else counts as nothing."""
    try:
        found = Widening(**told)
        size = tuple(found.size) if isinstance(found.size, list) else found.size
        return replace(found, size=size)
    except TypeError:
        return None


def _fit(training: FrozenTraining, work: FineTuning) -> FittedFrozen | None:
    """Fit a head as another training would; None where pictures have gone meanwhile."""

    def say(stage: str, done: int, total: int) -> None:
        if work.progress is not None:
            work.progress("wider" if stage == "pictures" else stage, done, total)

    files = training.backbone(say, work.keras)
    features = training.features(work.fitted.catalog, files, say)
    if len(features.catalog) != len(work.fitted.catalog):
        return None
    return training.fit(features, files, work.fitted.classes, work.rows)
