"""Where to cut a backbone, and how many views to keep: from the disk and the time there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kindsight.models.networks.frozen_base import CutCandidate
from kindsight.training.activation_cache import activation_dtype

__all__ = ["MOST_EPOCHS", "CutChoice", "choose_cut"]

# Without a budget.
VIEWS, EPOCHS = 3, 10
MOST_EPOCHS = 30
# The cut is so many stages before the end where there is no budget, and one earlier at most.
USUAL, EARLIEST = 2, 3
# The share of the time that making views may take, and of the room on disk.
VIEWS_TIME = 0.25
# The share of the time that the images as they are, without views, may take at the last cut.
IMAGES_TIME = 0.5
# What a step costs, in passes of LiteRT over the same layers: forward and backward in TensorFlow.
STEP_COSTS = {"float32": 4.0, "bfloat16": 2.5}
# Epochs for which there must be time before more of the network is trained, six of them to try
# learning rates: these bring more than the layers below.
ENOUGH_EPOCHS = 12


@dataclass(frozen=True)
class CutChoice:
    """What was chosen, and why.

    Parameters
    ----------
    place : CutCandidate
        The cut.
    views : int
        Of each training image, beside the image as it is.
    why : str
        In words.
    """

    place: CutCandidate
    views: int
    why: str


def choose_cut(
    places: Sequence[CutCandidate],
    images: tuple[int, int],
    *,
    most_views: int,
    room: float,
    seconds: float | None = None,
    rate: float = 0.0,
    compute_dtype: str = "float32",
    looks: int = 1,
) -> CutChoice | None:
    """Choose a cut, and how many views of each image; None where there is no time for any.

    Parameters
    ----------
    places : sequence of CutCandidate
        All there are, the earliest first; at least one.
    images : (int, int)
        How many there are to learn from, and how many to judge by.
    most_views : int
        How many views there can be that differ.
    room : float
        Bytes that all views may take.
    seconds : float, optional
        For views and training; as long as it takes if omitted.
    rate : float
        With `seconds`: how many images a second LiteRT runs through the whole backbone.
    compute_dtype : str
        With `seconds`: in which numbers a step multiplies
        (:mod:`kindsight.models.steps.compute_dtype`).
    looks : int
        How often what is judged by is looked at, as far as there are so many views.
    """
    learned, judged = images

    def made(views: int) -> int:
        return learned * (views + 1) + judged * min(looks, views + 1)

    usual = places[max(0, len(places) - USUAL)]
    if seconds is None:
        views = _fitting(usual, made, min(VIEWS, most_views), room)
        return CutChoice(usual, views, _why(views, min(VIEWS, most_views), "disk"))
    for place in places[max(0, len(places) - EARLIEST) :]:
        views, why = _affordable(place, made, most_views, room, seconds, rate)
        making = made(views) * (1 - place.work_above) / rate
        epoch = learned * STEP_COSTS[compute_dtype] * place.work_above / rate
        enough = (seconds - making) / epoch >= ENOUGH_EPOCHS
        if enough and views >= min(VIEWS, most_views):
            return CutChoice(place, views, why)
        if place.stage == places[-1].stage:
            alone = (learned + judged) * (1 - place.work_above) / rate
            return CutChoice(place, views, why) if alone <= IMAGES_TIME * seconds else None
    raise AssertionError("the last place is always taken")


def _affordable(
    place: CutCandidate,
    made: Callable[[int], int],
    most: int,
    room: float,
    seconds: float,
    rate: float,
) -> tuple[int, str]:
    """Return for how many views there are time and room, and what they are bounded by."""
    by_room = _fitting(place, made, most, room)
    by_time = _most(made, most, VIEWS_TIME * seconds * rate / max(1e-9, 1 - place.work_above))
    return min(by_room, by_time), _why(
        min(by_room, by_time), most, "disk" if by_room < by_time else "time"
    )


def _fitting(place: CutCandidate, made: Callable[[int], int], most: int, room: float) -> int:
    """Return how many views of each image there is room for."""
    return _most(made, most, room / activation_dtype(place.features, place.shape).itemsize)


def _most(made: Callable[[int], int], most: int, allowed: float) -> int:
    """Return how many views of each image can be made, where so many in all can be."""
    return next((views for views in range(most, 0, -1) if made(views) <= allowed), 0)


def _why(views: int, most: int, bound: str) -> str:
    return "" if views == most else f"as many as the {bound} allows"
