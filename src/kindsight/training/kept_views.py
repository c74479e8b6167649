"""In which phases of a backbone's training views are kept, and how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.freezing import freeze_choice
from kindsight.training.plan import MAX_EPOCHS, MOST_KEPT_VIEWS, Phase
from kindsight.training.rules import whole_fault

__all__ = ["keep_views"]


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
        whole_fault("kept_views", phase.kept_views, 0, MOST_KEPT_VIEWS) for phase in phases
    ):
        return list(phases), list(faults)  # numbers that are none are said of the plan
    found: list[Phase] = []
    said: list[str] = []
    for number, phase in enumerate(phases):
        most, why = _most(phase)
        if phase.kept_views <= most:
            found.append(phase)
        elif _own(given, number):
            which = f"phase {number + 1}: " if len(phases) > 1 else ""
            said.append(f"{which}kept_views {why}. Received: {phase.kept_views}.")
            found.append(phase)
        else:
            found.append(replace(phase, kept_views=most))
    wanted = max((phase.kept_views for phase in phases), default=0)
    if wanted and not said and not any(phase.kept_views for phase in found):
        said.append(f"kept_views {_most(phases[0])[1]}, in one phase at least. Received: {wanted}.")
    return found, said


def _own(given: Any, number: int) -> bool:
    """Whether a phase says its number of views itself; the only one is the training."""
    if not given:
        return True
    phase = given[number]
    return isinstance(phase, Phase) or (isinstance(phase, Mapping) and "kept_views" in phase)


def _most(phase: Phase) -> tuple[int, str]:
    """Return how many views can be kept of a phase, and the rule by which."""
    if not phase.augment.changes_pictures:
        return 0, "must be with augmentation, which makes the views: augment light, for one"
    if phase.augment.mixes:
        return 0, "must be 0 where batches are mixed, which makes other pictures each time"
    try:
        nothing = freeze_choice(phase.freeze) in ("none", 0)
    except SettingsError:  # said elsewhere
        return phase.kept_views, ""
    if nothing:
        return 0, "must be with layers that are frozen: freeze all, for one"
    if whole_fault("epochs", phase.epochs, 1, MAX_EPOCHS):  # said elsewhere
        return phase.kept_views, ""
    return phase.epochs - 1, (
        f"must be {phase.epochs - 1} at most where epochs are {phase.epochs}: each takes one view, "
        "and one of them the picture as it is"
    )
