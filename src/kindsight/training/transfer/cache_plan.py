"""Which phases learn from what their frozen layers gave once, and for which there is no room."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.networks.freezing import parse_freeze
from kindsight.training.activation_cache import ActivationFile, Wanted, bytes_per_copy
from kindsight.training.common import whole_fault
from kindsight.training.engine.plan import MAX_CACHED_COPIES, MAX_EPOCHS, Phase

__all__ = [
    "Wish",
    "admit",
    "keep_views",
    "make_room",
    "views_to_keep",
]

# The share of what the cache may keep, and of what the disk has free, that all of it may take.
ROOM = 0.5
# float16 ends at 65,504; other images may give some times what generated ones do.
HIGHEST = 10_000.0


@dataclass(frozen=True)
class Wish:
    """What a phase would learn from.

    Parameters
    ----------
    file : ActivationFile
        Where it would be.
    wanted : Wanted
        Which views of which images.
    """

    file: ActivationFile
    wanted: Wanted

    @property
    def key(self) -> tuple[str, str]:
        """What phases share that learn from the same: the layer, and what the last view is."""
        plan, counts = self.wanted
        return self.file.lower.stage, plan.address(int(counts.max(initial=0)), self.file.seed)


def views_to_keep(phase: Phase) -> int | None:
    """Return how many views of an image, beside it as it is, are kept of a phase.

    None where nothing is: each step has images that were not there before.
    """
    if phase.augment.changes_images:
        return phase.cached_copies or None
    return None if phase.augment.mixes else 0


def admit(wishes: Sequence[Wish | None]) -> tuple[list[Wish | None], list[str]]:
    """Leave out what there is no room for.

    Parameters
    ----------
    wishes : sequence of Wish or None
        Of each phase in turn; None for one that learns from images.

    Returns
    -------
    wishes : list
        The same, with None in place of what is left out.
    notes : list of str
        Why, a sentence for each, once.
    """
    room, kept, notes = _Room(), list[Wish | None](), dict[str, None]()
    for wish in wishes:
        why = "" if wish is None else room.why_not(wish)
        if why:
            notes[why] = None
        kept.append(None if why else wish)
    return kept, list(notes)


def make_room(wishes: Sequence[Wish | None]) -> None:
    """Begin files anew that would outgrow the cache, before any of them is in use."""
    for file, wanted in _by_file(wish for wish in wishes if wish is not None).values():
        file.make_room(file.every(wanted))


class _Room:
    """What was admitted, and the disk as it was before."""

    def __init__(self) -> None:
        self._admitted: list[Wish] = []
        self._taken = 0, 0  # bytes of it in all, and of it missing
        self._free: float | None = None

    def why_not(self, wish: Wish) -> str:
        """Admit it, and return nothing; or say why not."""
        lower, cache = wish.file.lower, wish.file.cache
        views = int(wish.wanted[1].max(initial=0))
        afresh = ", of views drawn afresh" if views > 0 else ""
        start = f"What is frozen up to {lower.stage} is run again in each epoch{afresh}: "
        if not lower.peak < HIGHEST:
            return f"{start}it gives numbers to {lower.peak:.2g}, too large to be kept as float16."
        if self._free is None:
            self._free = float(shutil.disk_usage(cache.folder()).free)
        held, missing_before = self._taken
        needed, missing = taken = _sizes([*self._admitted, wish])
        # What is there already takes no more of the disk: what was kept before a stop is kept
        # after it.
        for more, room, where in (
            (needed - held, ROOM * cache.limit - held, "in the cache (KINDSIGHT_CACHE_LIMIT)"),
            (missing - missing_before, ROOM * self._free - missing_before, "on the disk"),
        ):
            if more > max(0.0, room):
                of = f" for the images and {views} {_plural('view', views)} of each"
                return (
                    f"{start}to keep what it gives{of if views > 0 else ''} would take "
                    f"{more / 1e6:,.0f} MB more, where there is room for "
                    f"{max(0.0, room) / 1e6:,.0f} {where}."
                )
        self._admitted.append(wish)
        self._taken = taken
        return ""


def _plural(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _sizes(wishes: Sequence[Wish]) -> tuple[int, int]:
    """Return the bytes that all of it takes, and those of it that are not there yet."""
    needed = missing = 0
    for file, wanted in _by_file(wishes).values():
        names = file.every(wanted)
        needed += len(names) * bytes_per_copy(file.lower)
        missing += file.missing(names) * bytes_per_copy(file.lower)
    return needed, missing


def _by_file(wishes: Iterable[Wish]) -> dict[str, tuple[ActivationFile, list[Wanted]]]:
    found: dict[str, tuple[ActivationFile, list[Wanted]]] = {}
    for wish in wishes:
        found.setdefault(wish.file.lower.stage, (wish.file, []))[1].append(wish.wanted)
    return found


# SECTION: In which phases of a backbone's training views are kept, and how many.


def keep_views(
    phases: Sequence[Phase], given: Any, faults: Sequence[str]
) -> tuple[list[Phase], list[str]]:
    """Hold phases to what can be kept of them.

    A number that the training says for all phases is lowered where a phase has no use for so many;
    what a phase says itself is refused there.

    Parameters
    ----------
    phases : sequence of Phase
        As :func:`.phases.make_phases` made them.
    given : sequence of (mapping or Phase)
        What the user said of each; empty where there is only the training.
    faults : sequence of str
        What was wrong with that; where there is anything, nothing else is looked at.

    Returns
    -------
    phases : list of Phase
        With as many kept views as each has a use for.
    faults : list of str
        A sentence for each number that cannot be.
    """
    if faults or any(
        whole_fault("cached_copies", phase.cached_copies, 0, MAX_CACHED_COPIES) for phase in phases
    ):
        return list(phases), list(faults)  # numbers that are none are said of the plan
    found: list[Phase] = []
    said: list[str] = []
    for number, phase in enumerate(phases):
        most, why = _most(phase)
        if phase.cached_copies <= most:
            found.append(phase)
        elif _own(given, number):
            which = f"phase {number + 1}: " if len(phases) > 1 else ""
            said.append(f"{which}cached_copies {why}. Received: {phase.cached_copies}.")
            found.append(phase)
        else:
            found.append(replace(phase, cached_copies=most))
    wanted = max((phase.cached_copies for phase in phases), default=0)
    if wanted and not said and not any(phase.cached_copies for phase in found):
        said.append(
            f"cached_copies {_most(phases[0])[1]}, in one phase at least. Received: {wanted}."
        )
    return found, said


def _own(given: Any, number: int) -> bool:
    """Whether a phase says its number of views itself; the only one is the training."""
    if not given:
        return True
    phase = given[number]
    return isinstance(phase, Phase) or (isinstance(phase, Mapping) and "cached_copies" in phase)


def _most(phase: Phase) -> tuple[int, str]:
    """Return how many views can be kept of a phase, and the rule by which."""
    if not phase.augment.changes_images:
        return 0, "must be with augmentation, which makes the views: augment light, for one"
    if phase.augment.mixes:
        return 0, "must be 0 where batches are mixed, which makes other images each time"
    try:
        nothing = parse_freeze(phase.freeze) in ("none", 0)
    except SettingsError:  # said elsewhere
        return phase.cached_copies, ""
    if nothing:
        return 0, "must be with layers that are frozen: freeze all, for one"
    if whole_fault("epochs", phase.epochs, 1, MAX_EPOCHS):  # said elsewhere
        return phase.cached_copies, ""
    return phase.epochs - 1, (
        f"must be {phase.epochs - 1} at most where epochs are {phase.epochs}: each takes one view, "
        "and one of them the image as it is"
    )
