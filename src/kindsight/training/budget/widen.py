"""Wider frozen features, where a budget allows: more backbones, larger images, flipped views.

The head on wider features is fitted as any other. Cross-validation, not the validation part, tells
whether it is better than the one on the first features.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from kindsight.errors import DatasetError, KindsightError
from kindsight.models.backbones.table import JOINER, get_backbone, split_model_name
from kindsight.models.backbones.tta import FLIPS
from kindsight.models.backbones.weights import find_imagenet_weights
from kindsight.training.fine_tuning.work import FineTuning
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = [
    "DEFAULT",
    "WIDE_COSTS",
    "WIDE_SIZE",
    "Widening",
    "choose_widening",
    "fit_again",
    "flip_choices",
    "is_default",
    "look_again",
    "on_one_backbone",
    "widen",
]

DEFAULT = "efficientnet-lite0"
# The size at which another backbone sees an image, and what that costs: multiplications of each
# there, as a multiple of the first one's at its own size. That one sees it at its own size, and its
# middle, too: other sizes make other mistakes. The best one is first; a third brings nothing.
WIDE_SIZE = 300
WIDE_COSTS = {"efficientnet-lite2": 2.9, "efficientnet-lite1": 2.4, DEFAULT: 1.8}
# Over how many crops the first backbone looks.
CLOSER = 2
# More images than this would take gigabytes, and have less need of it.
WIDE_IMAGES = 40_000
# The share of the time left that wider features may take; and each step to more views by the same
# backbone.
SHARE, VIEWS_SHARE = 0.5, 0.25
# Seconds for a backbone that must be built first, once a machine.
BUILDING = 8.0
# By this factor must the log loss be lower: several networks take longer to ask than one.
BETTER = 0.98


@dataclass(frozen=True)
class Widening:
    """Wider features that there is time for.

    Parameters
    ----------
    model : str
        Two backbones joined by ``+``, the default one first.
    flips : tuple of int
        Over which flips features are averaged.
    """

    model: str
    flips: tuple[int, ...]

    def applied(self, training: FrozenTrainer) -> FrozenTrainer:
        """Return the training of such features."""
        return replace(
            training, model=self.model, size=WIDE_SIZE, inner=get_backbone(DEFAULT).size,
            flips=self.flips, first_crops=max(CLOSER, training.tta_crops),
        )  # fmt: skip

    def words(self) -> str:
        """Say what it is in a few words."""
        first, other = split_model_name(self.model)
        inner = get_backbone(DEFAULT).size[0]
        flips = f", over {len(self.flips)} flips" if len(self.flips) > 1 else ""
        return (
            f"{first} at {inner} px, which sees the middles, too, beside {other} at "
            f"{WIDE_SIZE} px{flips}"
        )


def is_default(training: FrozenTrainer) -> bool:
    """Say whether no backbone, size or weights were chosen by name."""
    return (training.model, training.size, training.weights) == (DEFAULT, None, "imagenet")


def flip_choices(flips: tuple[int, ...], least: int = 1) -> list[tuple[int, ...]]:
    """Return over which flips features may be averaged, from the fewest on.

    Parameters
    ----------
    flips : tuple of int
        By which an image stays what it is: numbers of :data:`kindsight.models.backbones.tta.FLIPS`.
    least : int
        So many at least.
    """
    # What is turned differs from the image in both directions: it brings more than a mirror.
    pair = (0, 3) if 3 in flips else flips[:2]
    return [some for some in dict.fromkeys([(0,), pair, flips]) if len(some) >= least]


def choose_widening(
    training: FrozenTrainer, flips: tuple[int, ...], images: int, rate: float, seconds: float
) -> Widening | None:
    """Choose the best features that there is time for; None where there is none.

    Parameters
    ----------
    training : FrozenTrainer
        What was told. A model or size that is not the default stays as it is.
    flips : tuple of int
        As :func:`flip_choices` takes them.
    images : int
        How many there are.
    rate : float
        How many of them the backbone takes in a second.
    seconds : float
        How long everything may take from here on.
    """
    if not is_default(training) or images > WIDE_IMAGES:
        return None
    # Two flips bring what all of them do, so more are taken only where more were asked for.
    most = max(2, training.tta_flips)
    choices = [some for some in flip_choices(flips, training.tta_flips) if len(some) <= most][::-1]
    names = [name for name in WIDE_COSTS if name != DEFAULT and _is_there(name)]
    for name, some in itertools.product(names, choices):
        looks = len(some) * (
            max(CLOSER, training.tta_crops) + training.tta_crops * WIDE_COSTS[name]
        )
        if looks * images / rate + 2 * BUILDING <= SHARE * seconds:
            return Widening(JOINER.join([DEFAULT, name]), some)
    return None


def _is_there(name: str) -> bool:
    try:
        find_imagenet_weights(name)
    except KindsightError:
        return False
    return True


def look_again(work: FineTuning, flips: tuple[int, ...], rate: float) -> FineTuning:
    """Fit heads on features of more views by the same backbone, and keep the best one.

    First the images' middles are looked at, too; then all that is looked at is flipped.

    Parameters
    ----------
    work : FineTuning
        With a budget.
    flips, rate
        As :func:`choose_widening` takes them.

    Returns
    -------
    FineTuning
        The same, or with another head in place of ``fitted``.
    """
    told = work.fitted.training
    if told.tta_crops == 1:
        closer = replace(told, tta_crops=CLOSER)
        work = _with_views(work, "closer", [closer], rate, "the middles of images, too")
    told = work.fitted.training
    flipped = [replace(told, flips=some) for some in flip_choices(flips, told.tta_flips + 1)[::-1]]
    return _with_views(work, "flipped", flipped, rate, "flips, too")


def _with_views(
    work: FineTuning, name: str, wanted: Sequence[FrozenTrainer], rate: float, words: str
) -> FineTuning:
    """Try the first of some trainings for which there is time; `name` is the decision's."""
    fitted, left, before = work.fitted, work.left(), work.decided()
    assert left is not None

    def views(training: FrozenTrainer) -> int:
        return sum(map(len, training.seen))

    def timely(training: FrozenTrainer) -> bool:
        if name in before:  # the same as before a stop, whatever the time is now
            return bool(views(training) == before[name])
        more = views(training) - views(fitted.training)
        return more * len(fitted.dataset) / rate <= VIEWS_SHARE * left

    chosen = next(filter(timely, wanted), None)
    work.decide(**{name: 0 if chosen is None else views(chosen)})
    return work if chosen is None else _better(work, chosen, words)


def _better(work: FineTuning, training: FrozenTrainer, words: str) -> FineTuning:
    """Fit a head as another training would, keep the better one by cross-validation, and say so."""
    began = time.monotonic()
    wider = fit_again(training, work)
    if wider is None:
        return work
    ours, first = wider.head.chosen.log_loss, work.fitted.head.chosen.log_loss
    if ours > BETTER * first:
        work.said.append(f"{words} did not help in cross-validation")
        return work
    network = wider.head.chosen.network
    alone = f", of which {network} is as good alone" if network else ""
    work.said.append(
        f"{words}{alone}: cross-validation's log loss {ours:.3f} in place of {first:.3f}"
    )
    each = (time.monotonic() - began) / len(wider.dataset)
    return replace(work, fitted=wider, wide_seconds=work.wide_seconds + each)


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
    chosen = choose_widening(fitted.training, flips, len(fitted.dataset), rate, left)
    before = work.decided()
    if "wider" in before:  # the same as before a stop, whatever the time is now
        chosen = _read(before["wider"])
    work.decide(wider=None if chosen is None else asdict(chosen))
    if chosen is None:
        return work
    return _better(work, chosen.applied(fitted.training), chosen.words())


def _read(told: Any) -> Widening | None:
    """Read what was decided before; anything else counts as nothing."""
    try:
        names, flips = split_model_name(told["model"]), tuple(told["flips"])
    except (KeyError, TypeError, AttributeError):
        return None
    known = len(names) == 2 and names[0] == DEFAULT and names[1] in set(WIDE_COSTS) - {DEFAULT}
    # The image as it is comes first, and each flip once.
    good = known and flips[:1] == (0,) and all(type(k) is int and k < len(FLIPS) for k in flips)
    good = good and list(flips) == sorted(set(flips))
    return Widening(JOINER.join(names), flips) if good else None


def fit_again(training: FrozenTrainer, work: FineTuning) -> FittedFrozenHead | None:
    """Fit a head as another training would; None where images have gone meanwhile."""

    def say(stage: str, done: int, total: int) -> None:
        if work.progress is not None:
            work.progress("wider" if stage == "images" else stage, done, total)

    files = training.backbone(say, work.keras)
    features = training.features(work.fitted.dataset, files, say)
    if len(features.dataset) != len(work.fitted.dataset):
        return None
    return training.fit(features, files, work.fitted.classes, work.rows)


# SECTION: What is tuned after wider features: one backbone, over one view of an image.

# What an epoch above the usual cut takes, in passes of LiteRT through the whole backbone, and for
# how many epochs, trials of learning rates included, there must be time for it at the large size.
EPOCH_COST, MANY_EPOCHS = 1.2, 40


def on_one_backbone(work: FineTuning, small_rate: float | None = None) -> FineTuning:
    """Let what is tuned begin on one backbone and one view of an image, as its cut needs it.

    Where the head has more, it becomes ``before``, and ``fitted`` a head on one backbone, for
    images of the same size: on the one that cross-validation found to be the best alone (its
    features are in the cache) or, where a budget does not leave time for so many epochs of that, on
    the default one, which brings the images to its own size.

    Parameters
    ----------
    work : FineTuning
    small_rate : float, optional
        Where what is tuned may be the default backbone at its own size: how many images it takes
        in a second.
    """
    wide = work.fitted
    name = _best_alone(wide) if wide.files.members else wide.training.model
    small = small_rate is not None and _tunes_small(work, name, small_rate)
    if not small and not wide.files.members:
        return work
    size = wide.training.spec().size
    alone = replace(
        wide.training, model=DEFAULT if small else name, size=size,
        tta_flips=1, tta_crops=1, inner=None,
        flips=None, first_crops=None,
    )  # fmt: skip
    if small:
        inner = get_backbone(DEFAULT).size
        alone = replace(alone, inner=inner)
        work.said.append(f"what is tuned is {DEFAULT} at {inner[0]} px")
    with work.timed("its features"):
        fitted = fit_again(alone, work)
    if fitted is None:
        raise DatasetError(
            "Images must stay where they are while they are learned from. Received: some that "
            "can no longer be read."
        )
    return replace(work, fitted=fitted, before=wide)


def _best_alone(joined: FittedFrozenHead) -> str:
    """Return the name of the backbone whose features alone have the least log loss."""
    names = split_model_name(joined.training.model)
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
