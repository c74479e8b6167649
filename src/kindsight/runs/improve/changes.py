"""Changes of a training: which ones are tried, in which order, and how they are written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.diagnosis import Diagnosis
from kindsight.errors import KindsightError
from kindsight.options import OPTIONS
from kindsight.runs.improve.remedies import MAX_EPOCHS, Changes, remedies_for
from kindsight.runs.settings import TrainSettings
from kindsight.training.network.presets import without_preset
from kindsight.training.trainer import kind_of

__all__ = [
    "Factor",
    "changed",
    "describe",
    "doubled_epochs",
    "factors_of",
    "frozen_head",
    "plain_changes",
    "remedies_of",
]

# Settings that mean the same for every model; a change of the model keeps these alone.
OF_ANY_MODEL = ("seed", "resize", "class_weight", "value_range", "workers")


@dataclass(frozen=True)
class Factor:
    """A setting that experiments vary.

    Parameters
    ----------
    name : str
        Of the setting that changes most.
    levels : tuple of mapping
        Options of a training by name, each a change of the original; the most promising first.
    """

    name: str
    levels: tuple[Changes, ...]


def factors_of(settings: TrainSettings, findings: Sequence[Diagnosis]) -> tuple[Factor, ...]:
    """Return the factors for a training, those that the diagnosis recommends first.

    Levels that change nothing, or are not valid with the other settings, are left out.
    """
    found: dict[str, list[Changes]] = {}
    for remedy in remedies_of(settings, findings):
        for option, value in remedy.items():
            found.setdefault(_factor_of(option), []).append({option: value})
    for name, levels in remedies_for(settings):
        found.setdefault(name, []).extend(levels)
    usable = (Factor(name, tuple(_usable(settings, each))) for name, each in found.items())
    return tuple(factor for factor in usable if factor.levels)


def remedies_of(settings: TrainSettings, findings: Sequence[Diagnosis]) -> list[Changes]:
    """Return the changes that findings recommend, in order, except of model or split."""
    return [
        remedy
        for finding in findings
        for remedy in finding.remedies
        if remedy and _is_of_training(remedy) and changed(settings, remedy) is not None
    ]


def changed(settings: TrainSettings, changes: Changes) -> TrainSettings | None:
    """Return the settings with some options changed; None where that is invalid or no change."""
    if "model" in changes:
        kept = {
            name: value
            for name, value in settings.to_dict().items()
            if not OPTIONS[name].trainers or name in OF_ANY_MODEL or _fits(settings, changes, name)
        }
    else:
        kept = without_preset(settings.to_dict(), changes)
    try:
        result = TrainSettings(**{**kept, **changes})
    except KindsightError:
        return None
    return None if result == settings else result


def frozen_head(settings: TrainSettings) -> Changes | None:
    """Return the change to a head on a frozen backbone; None where the training is one."""
    change = {"model": str(OPTIONS["model"].default)}
    frozen = kind_of(settings.to_dict()).name == "frozen"
    return None if frozen or changed(settings, change) is None else change


def describe(changes: Changes) -> str:
    """Return changes as options: ``augment classic, dropout 0.5``; "as it was" for none."""
    parts = []
    for name, value in changes.items():
        spelled = OPTIONS[name].spelling.removeprefix("--") if name in OPTIONS else name
        if value is True:
            parts.append(spelled)
        elif value is False or value is None:
            parts.append(f"no {spelled}")
        elif isinstance(value, float):
            parts.append(f"{spelled} {value:.3g}")
        else:
            shown = value if isinstance(value, (str, int)) else ",".join(map(str, value))
            parts.append(f"{spelled} {shown if shown != '' else 'none'}")
    return ", ".join(parts) or "as it was"


def doubled_epochs(settings: TrainSettings, changes: Changes) -> Changes | None:
    """Return changes with twice the epochs; None beyond the maximum, or with phases."""
    trainer = changed(settings, changes)
    epochs = getattr((trainer or settings).training(), "epochs", None)
    if epochs is None or 2 * epochs > MAX_EPOCHS:
        return None
    longer = {**changes, "epochs": 2 * epochs}
    found = changed(settings, longer)
    if found is None or found.phases:
        return None
    return longer


def _fits(settings: TrainSettings, changes: Changes, name: str) -> bool:
    """Return whether a frozen backbone that replaces another one takes a setting, too."""
    kinds = {kind_of(settings.to_dict()).name, kind_of(dict(changes)).name}
    return kinds == {"frozen"} and name not in ("model", "size", "weights")


def _is_of_training(remedy: Changes) -> bool:
    """Return whether all options are of a training: the split and the model stay."""
    return all(
        name in OPTIONS and OPTIONS[name].trainers and name not in ("model", "seed", "budget")
        for name in remedy
    )


def _factor_of(option: str) -> str:
    return "schedule" if option == "optimizer" else option


def _usable(settings: TrainSettings, levels: Sequence[Changes]) -> Iterator[Changes]:
    seen: list[Changes] = []
    for level in levels:
        if level not in seen and changed(settings, level) is not None:
            seen.append(level)
            yield level


def plain_changes(changes: Changes) -> dict[str, Any]:
    """Return changes as JSON has them."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()
    }
