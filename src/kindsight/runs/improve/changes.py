"""Changes of a training: the settings to vary, with their values in the order of trial."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.diagnosis import Diagnosis
from kindsight.errors import KindsightError
from kindsight.models.backbones.table import BACKBONES, get_backbone
from kindsight.models.backbones.weights import is_available
from kindsight.options import OPTIONS
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import EpochTrainer, NetworkTrainer, without_preset
from kindsight.training.protocols import Trainer
from kindsight.training.trainer import kind_of
from kindsight.training.transfer.settings import TransferTrainer

__all__ = [
    "MAX_EPOCHS", "Changes", "Factor", "changed", "describe", "doubled_epochs", "factors_of",
    "frozen_head", "plain_changes", "remedies_of", "smaller_sizes",
]  # fmt: skip

MAX_EPOCHS = 240
SMALLEST_SIZE = 32

Changes = Mapping[str, Any]
"""Options of a training by name; None for an option that is to be omitted."""

Levels = Callable[[Any], Iterable[Changes]]
"""Returns the levels for a trainer, the most promising first."""

NETWORK, TRANSFER, FROZEN = (NetworkTrainer,), (TransferTrainer,), (FrozenTrainer,)
EPOCHS = (NetworkTrainer, TransferTrainer)


@dataclass(frozen=True)
class Remedy:
    """A setting that experiments vary.

    Parameters
    ----------
    name : str
        Name of the setting that changes most.
    trainers : tuple of type
        Trainers to which it applies.
    levels : callable
        Takes the trainer, returns its levels; those that change nothing, or are invalid with the
        other settings, are left out later.
    """

    name: str
    trainers: tuple[type, ...]
    levels: Levels


def remedies_for(settings: TrainSettings) -> Iterator[tuple[str, tuple[Changes, ...]]]:
    """Yield the name and the levels of each remedy for a training, the most promising first."""
    trainer: Trainer = settings.training()
    for remedy in REMEDIES:
        if isinstance(trainer, remedy.trainers):
            yield remedy.name, tuple(remedy.levels(trainer))


def smaller_sizes(trainer: Trainer) -> Iterator[Changes]:
    """Yield a smaller input: half the sides, as one number if the input is square."""
    if not isinstance(trainer, EpochTrainer):
        return
    spec = trainer.spec()
    half = [spec.height // 2, spec.width // 2]
    if min(half) >= SMALLEST_SIZE:
        yield {"size": half[0] if half[0] == half[1] else tuple(half)}


def _fixed(option: str, *values: Any) -> Levels:
    """Return levels that are the same for each training."""
    return lambda trainer: ({option: value} for value in values)


def _augmentation(trainer: EpochTrainer) -> Iterator[Changes]:
    names = {"none": ("classic", "light"), "light": ("classic",), "classic": ("light", "strong")}
    given = trainer.augment if isinstance(trainer.augment, str) else ""
    for name in names.get(given, ("classic", "none")):
        yield {"augment": name}


def _filters(trainer: NetworkTrainer) -> Iterator[Changes]:
    """Yield a deeper, a wider and a narrower network."""
    filters = trainer.network().filters
    yield {"filters": (*filters, 2 * filters[-1])}
    yield {"filters": tuple(2 * count for count in filters)}
    yield {"filters": tuple(max(1, count // 2) for count in filters)}


def _schedules(trainer: EpochTrainer) -> Iterator[Changes]:
    yield {"optimizer": "adam", "schedule": "one-cycle"}
    yield {"schedule": "cosine"}


def _learning_rates(trainer: EpochTrainer) -> Iterator[Changes]:
    rate = trainer.plan().phases[0].peak_learning_rate
    yield {"learning_rate": rate / 3}
    yield {"learning_rate": 3 * rate}


def _epochs(trainer: EpochTrainer) -> Iterator[Changes]:
    for count in (2 * trainer.epochs, 4 * trainer.epochs):
        if count <= MAX_EPOCHS:
            yield {"epochs": count}


def _cuts(trainer: TransferTrainer) -> Iterator[Changes]:
    for name in reversed(get_backbone(trainer.model).cuts):
        yield {"cut": name}


def _backbones(trainer: FrozenTrainer) -> Iterator[Changes]:
    """Yield the other backbones that need no download."""
    for name, backbone in BACKBONES.items():
        if name != trainer.model and backbone.file is None and is_available(backbone):
            yield {"model": name}


def _backbone_sizes(trainer: FrozenTrainer) -> Iterator[Changes]:
    side = trainer.spec().height
    yield {"size": round(side * 1.25)}
    yield {"size": round(side * 0.75)}


def _fine_tuning(trainer: FrozenTrainer) -> Iterator[Changes]:
    """Yield other fine-tuning settings if the training is fine-tuned at all."""
    if trainer.by_gradient:
        yield {"fine_tune": "full"}
        yield {"fine_tune": "light"}
        yield {"fine_tune": "off"}


REMEDIES: tuple[Remedy, ...] = (
    Remedy("preset", NETWORK, _fixed("preset", "modern")),
    Remedy("augment", EPOCHS, _augmentation),
    Remedy("batch_norm", NETWORK, _fixed("batch_norm", True)),
    Remedy("pooling", NETWORK, _fixed("pooling", "average")),
    Remedy("dropout", NETWORK, _fixed("dropout", 0.5, 0.25)),
    Remedy("dropout", TRANSFER, _fixed("dropout", 0.3, 0.5)),
    Remedy("freeze", TRANSFER, _fixed("freeze", "all")),
    Remedy("filters", NETWORK, _filters),
    Remedy("schedule", EPOCHS, _schedules),
    Remedy("learning_rate", EPOCHS, _learning_rates),
    Remedy("epochs", EPOCHS, _epochs),
    Remedy("size", NETWORK, smaller_sizes),
    Remedy("dense", NETWORK, _fixed("dense", (64,), ())),
    Remedy("label_smoothing", EPOCHS, _fixed("label_smoothing", 0.1)),
    Remedy("l2", EPOCHS, _fixed("l2", 1e-4, 1e-3)),
    Remedy("ema_decay", EPOCHS, _fixed("ema_decay", 0.99)),
    Remedy("dense", TRANSFER, _fixed("dense", ())),
    Remedy("cut", TRANSFER, _cuts),
    Remedy("batch_norm", TRANSFER, _fixed("batch_norm", True)),
    Remedy("tta_flips", FROZEN, _fixed("tta_flips", 2)),
    Remedy("head", FROZEN, _fixed("head", "rbf", "linear")),
    Remedy("resize", FROZEN, _fixed("resize", "stretch", "pad")),
    Remedy("model", FROZEN, _backbones),
    Remedy("tta_crops", FROZEN, _fixed("tta_crops", 2)),
    Remedy("size", FROZEN, _backbone_sizes),
    Remedy("class_weight", FROZEN, _fixed("class_weight", "balanced")),
    Remedy("fine_tune", FROZEN, _fine_tuning),
)
"""All remedies; those that help most often come first."""


# Settings that mean the same for every model; only these are retained when the model changes.
OF_ANY_MODEL = ("seed", "resize", "class_weight", "value_range", "workers")


@dataclass(frozen=True)
class Factor:
    """A setting that experiments vary.

    Parameters
    ----------
    name : str
        Name of the setting that changes most.
    levels : tuple of mapping
        Options of a training by name, each a change of the original; the most promising first.
    """

    name: str
    levels: tuple[Changes, ...]


def factors_of(settings: TrainSettings, findings: Sequence[Diagnosis]) -> tuple[Factor, ...]:
    """Return the factors for a training, those that the diagnosis recommends first.

    Levels that change nothing, or are invalid with the other settings, are left out.
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
    """Return the settings with some options changed; None if that is invalid or changes nothing."""
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
    """Return the change to a head on a frozen backbone; None if the training already is one."""
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
    """Return whether a frozen backbone that replaces another one can have the same setting."""
    kinds = {kind_of(settings.to_dict()).name, kind_of(dict(changes)).name}
    return kinds == {"frozen"} and name not in ("model", "size", "weights")


def _is_of_training(remedy: Changes) -> bool:
    """Return whether all options are those of a training, so that the split and the model stay."""
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
    """Return changes as JSON values."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in changes.items()
    }
