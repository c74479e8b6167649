"""Decide which phases train on cached activations, and how many augmented copies are cached."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.networks.freezing import parse_freeze
from kindsight.training.activation_cache import ActivationFile, RequestedCopies, bytes_per_copy
from kindsight.training.engine.plan import Phase
from kindsight.training.option_rules import option_faults

__all__ = ["CacheRequest", "admit", "copies_to_cache", "limit_copies", "make_room"]

# Share of the cache's limit, and of the free disk space, that all activations may take.
MAX_SHARE = 0.5
# float16 ends at 65,504, and other images may give larger activations than generated ones.
MAX_ACTIVATION = 10_000.0


@dataclass(frozen=True)
class CacheRequest:
    """Activations that a phase would be trained on: of these copies, in this file."""

    file: ActivationFile
    copies: RequestedCopies

    @property
    def key(self) -> tuple[str, str]:
        """Equal for phases that share activations: the cut, and the key of the last copy."""
        plan, counts = self.copies
        return self.file.base.stage, plan.key(int(counts.max(initial=0)), self.file.seed)


def copies_to_cache(phase: Phase) -> int | None:
    """Return the copies per image, besides the original, whose activations a phase caches.

    None if the phase needs new images in every step.
    """
    if phase.augment.changes_images:
        return phase.cached_copies or None
    return None if phase.augment.mixes else 0


def admit(requests: Sequence[CacheRequest | None]) -> tuple[list[CacheRequest | None], list[str]]:
    """Drop the requests, one per phase, that do not fit into the cache or on the disk.

    Returns the requests, None for each that was dropped, and the distinct reasons, a sentence each.
    None is the request of a phase that is trained on images.
    """
    budget, admitted, notes = _DiskBudget(), list[CacheRequest | None](), dict[str, None]()
    for request in requests:
        reason = "" if request is None else budget.admit(request)
        if reason:
            notes[reason] = None
        admitted.append(None if reason else request)
    return admitted, list(notes)


def make_room(requests: Sequence[CacheRequest | None]) -> None:
    """Delete files that would outgrow the cache, before any of them is in use."""
    for file, copies in _by_file(item for item in requests if item is not None).values():
        file.make_room(file.all_names(copies))


class _DiskBudget:
    """The requests admitted so far, and the free disk space before them."""

    def __init__(self) -> None:
        self._admitted: list[CacheRequest] = []
        self._bytes = 0, 0  # of all admitted copies, and of those not cached yet
        self._free: float | None = None

    def admit(self, request: CacheRequest) -> str:
        """Admit a request and return "", or return the reason against it."""
        base, cache = request.file.base, request.file.cache
        copies = int(request.copies[1].max(initial=0))
        new = " on new augmented copies" if copies > 0 else ""
        start = f"The frozen layers up to {base.stage} run again in each epoch{new}: "
        if not base.peak < MAX_ACTIVATION:
            return f"{start}their activations, up to {base.peak:.2g}, are too large for float16."
        if self._free is None:
            self._free = float(shutil.disk_usage(cache.folder()).free)
        needed_before, missing_before = self._bytes
        needed, missing = _sizes([*self._admitted, request])
        # Cached copies take no more disk space, so a stopped training finds its copies again.
        for more, room, where in (
            (
                needed - needed_before,
                MAX_SHARE * cache.limit - needed_before,
                "in the cache (KINDSIGHT_CACHE_LIMIT)",
            ),
            (missing - missing_before, MAX_SHARE * self._free - missing_before, "on the disk"),
        ):
            if more > max(0.0, room):
                of = ""
                if copies > 0:
                    of = (
                        f" of the images and {copies} {'copy' if copies == 1 else 'copies'} of each"
                    )
                return (
                    f"{start}the activations{of} would take {more / 1e6:,.0f} MB, but only "
                    f"{max(0.0, room) / 1e6:,.0f} MB are available {where}."
                )
        self._admitted.append(request)
        self._bytes = needed, missing
        return ""


def _sizes(requests: Sequence[CacheRequest]) -> tuple[int, int]:
    """Return the bytes of all copies, and of those not cached yet."""
    needed = missing = 0
    for file, copies in _by_file(requests).values():
        names = file.all_names(copies)
        needed += len(names) * bytes_per_copy(file.base)
        missing += file.missing(names) * bytes_per_copy(file.base)
    return needed, missing


def _by_file(
    requests: Iterable[CacheRequest],
) -> dict[str, tuple[ActivationFile, list[RequestedCopies]]]:
    found: dict[str, tuple[ActivationFile, list[RequestedCopies]]] = {}
    for request in requests:
        entry = found.setdefault(request.file.base.stage, (request.file, []))
        entry[1].append(request.copies)
    return found


def limit_copies(
    phases: Sequence[Phase], own: Any, faults: Sequence[str]
) -> tuple[list[Phase], list[str]]:
    """Limit the cached copies of each phase to what it can use; return phases and all faults.

    A number that the training gives for all phases is lowered; a phase's own, in `own` as of
    :func:`.phases.make_phases`, is a fault. If there are faults already, nothing is checked.
    """
    if faults or any(option_faults({"cached_copies": phase.cached_copies}) for phase in phases):
        return list(phases), list(faults)  # Plan.faults reports invalid numbers
    limited: list[Phase] = []
    found: list[str] = []
    for number, phase in enumerate(phases):
        most, rule = _most_copies(phase)
        if phase.cached_copies <= most:
            limited.append(phase)
        elif _is_own(own, number):
            which = f"phase {number + 1}: " if len(phases) > 1 else ""
            found.append(f"{which}cached_copies {rule}; got {phase.cached_copies}.")
            limited.append(phase)
        else:
            limited.append(replace(phase, cached_copies=most))
    wanted = max((phase.cached_copies for phase in phases), default=0)
    if wanted and not found and not any(phase.cached_copies for phase in limited):
        rule = _most_copies(phases[0])[1]
        found.append(f"cached_copies {rule}, in one phase at least; got {wanted}.")
    return limited, found


def _is_own(own: Any, number: int) -> bool:
    """Whether the number of copies is the phase's own; always so if there is only the training."""
    if not own:
        return True
    phase = own[number]
    return isinstance(phase, Phase) or (isinstance(phase, Mapping) and "cached_copies" in phase)


def _most_copies(phase: Phase) -> tuple[int, str]:
    """Return the largest number of cached copies of a phase, and the rule behind it."""
    if not phase.augment.changes_images:
        return 0, "needs augmentation, such as augment light"
    if phase.augment.mixes:
        return 0, "must be 0 with MixUp or CutMix, which make new images in each step"
    try:
        nothing_frozen = parse_freeze(phase.freeze) in ("none", 0)
    except SettingsError:  # reported elsewhere
        return phase.cached_copies, ""
    if nothing_frozen:
        return 0, "needs frozen layers, such as freeze all"
    if option_faults({"epochs": phase.epochs}):  # reported elsewhere
        return phase.cached_copies, ""
    return phase.epochs - 1, (
        f"must be at most {phase.epochs - 1} with {phase.epochs} epochs: one epoch uses the "
        "original images, each other epoch one copy"
    )
