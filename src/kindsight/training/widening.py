"""Wider frozen features, where a budget allows: more backbones, larger pictures, flipped views.

The head on wider features is fitted as any other. Cross-validation, not the validation part, tells
whether it is better than the one on the first features.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kindsight.errors import KindsightError
from kindsight.models.backbones import JOINER, split_names
from kindsight.models.weights import find_imagenet_weights
from kindsight.training.fitted_frozen import FittedFrozen
from kindsight.training.frozen import FrozenTraining
from kindsight.training.tune_work import FineTuning

__all__ = [
    "DEFAULT",
    "WIDE_COSTS",
    "WIDE_SIZE",
    "Widening",
    "choose_widening",
    "fit_again",
    "is_default",
    "look_closer",
    "widen",
]

DEFAULT = "efficientnet-lite0"
# The size at which all see a picture, and what that costs: multiplications of each there, as a
# multiple of the first one's at its own size.
WIDE_SIZE = 300
WIDE_COSTS = {DEFAULT: 1.8, "efficientnet-lite1": 2.4, "efficientnet-lite2": 2.9}
# More pictures than this would take gigabytes, and have less need of it.
WIDE_PICTURES = 40_000
# The share of the time left that wider features may take at most; and at least, where they would
# not leave so many passes of the first backbone over all pictures for what is tuned: about a dozen
# views at a cut and twenty epochs above it. Of networks and views each further one brings less.
SHARE, LEAST_SHARE, TUNING_PASSES = 0.55, 0.4, 30.0
# Over how many crops features are tried before, and which share of the time left that may take.
CLOSER, CLOSER_SHARE = 2, 0.15
# Seconds for a backbone that must be built first, once a machine.
BUILDING = 15.0
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
        parts += [f"over {self.views} flips"] if self.views > 1 else []
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
        By which a picture stays what it is: numbers of :data:`kindsight.models.views.FLIPS`.
    pictures : int
        How many there are.
    rate : float
        How many of them the backbone takes in a second.
    seconds : float
        How long everything may take from here on.
    """
    # Views are taken in their order.
    most = max(training.views, next((k for k, flip in enumerate(flips) if flip != k), len(flips)))
    passes = pictures * training.crops
    leaving = seconds - TUNING_PASSES * pictures / rate
    allowed = min(SHARE * seconds, max(LEAST_SHARE * seconds, leaving))
    if is_default(training) and pictures <= WIDE_PICTURES:
        # The more is computed, the better, whether of networks or of views.
        fitting = [
            (cost, views, names)
            for names, views in itertools.product(_sets(), range(1, most + 1))
            if (cost := passes * views * sum(WIDE_COSTS[name] for name in names) / rate)
            + len(names) * BUILDING
            <= allowed
        ]
        if fitting:
            _, views, names = max(fitting)
            return Widening(JOINER.join(names), WIDE_SIZE, views)
    for views in range(most, training.views, -1):
        if passes * (views - training.views) / rate <= allowed:
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


def look_closer(work: FineTuning, rate: float) -> FineTuning:
    """Fit a head on features of the pictures' middles, too, and keep the better one.

    Parameters
    ----------
    work : FineTuning
        With a budget.
    rate : float
        How many pictures the backbone takes in a second.

    Returns
    -------
    FineTuning
        The same, or with the other head in place of ``fitted``.
    """
    fitted, left, before = work.fitted, work.left(), work.decided()
    assert left is not None
    passes = len(fitted.files.parts or (fitted.files,)) * fitted.training.views
    timely = passes * len(fitted.catalog) / rate <= CLOSER_SHARE * left
    if "closer" in before:  # the same as before a stop, whatever the time is now
        timely = before["closer"] is True
    timely = timely and fitted.training.crops == 1
    work.decide(closer=timely)
    wider = fit_again(replace(fitted.training, crops=CLOSER), work) if timely else None
    if wider is None:
        return work
    return _better(work, wider, "the middles of pictures, too")


def _better(work: FineTuning, wider: FittedFrozen, words: str) -> FineTuning:
    """Keep the head that cross-validation says is the better one, and say so."""
    ours, first = wider.head.chosen.log_loss, work.fitted.head.chosen.log_loss
    if ours > BETTER * first:
        work.said.append(f"{words} did not help in cross-validation")
        return work
    work.said.append(f"{words}: cross-validation's log loss {ours:.3f} in place of {first:.3f}")
    return replace(work, fitted=wider)


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
    wider = fit_again(training, work)
    return work if wider is None else _better(work, wider, chosen.words())


def _read(told: Any) -> Widening | None:
    """Read what was decided before; anything else counts as nothing."""
    try:
        found = Widening(**told)
        size = tuple(found.size) if isinstance(found.size, list) else found.size
        return replace(found, size=size)
    except TypeError:
        return None


def fit_again(training: FrozenTraining, work: FineTuning) -> FittedFrozen | None:
    """Fit a head as another training would; None where pictures have gone meanwhile."""

    def say(stage: str, done: int, total: int) -> None:
        if work.progress is not None:
            work.progress("wider" if stage == "pictures" else stage, done, total)

    files = training.backbone(say, work.keras)
    features = training.features(work.fitted.catalog, files, say)
    if len(features.catalog) != len(work.fitted.catalog):
        return None
    return training.fit(features, files, work.fitted.classes, work.rows)
