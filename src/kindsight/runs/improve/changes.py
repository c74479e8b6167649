"""The changes that experiments try: factors with their levels, in the order of the diagnosis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.diagnosis import Diagnosis
from kindsight.errors import KindsightError
from kindsight.models.backbones.table import BACKBONES, get_backbone
from kindsight.models.backbones.weights import is_available
from kindsight.options import OPTIONS
from kindsight.runs.settings import TrainSettings
from kindsight.training.network.settings import EpochTrainer, NetworkTrainer
from kindsight.training.trainer import kind_of
from kindsight.training.transfer.settings import TransferTrainer

__all__ = [
    "Factor",
    "changed",
    "describe",
    "doubled_epochs",
    "factors_of",
    "frozen_head",
    "remedies_of",
    "smaller_sizes",
]

MAX_EPOCHS = 240
SMALLEST_SIZE = 32

# Settings that mean the same for every model; a change of the model keeps these alone.
OF_ANY_MODEL = ("seed", "resize", "class_weight", "value_range", "workers")

Changes = Mapping[str, Any]


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
    wanted = remedies_of(settings, findings)
    found: dict[str, list[Changes]] = {}
    for remedy in wanted:
        for option, value in remedy.items():
            found.setdefault(_factor_of(option), []).append({option: value})
    for factor in _candidates(settings):
        found.setdefault(factor.name, []).extend(factor.levels)
    usable = (Factor(name, tuple(_usable(settings, levels))) for name, levels in found.items())
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
        kept = settings.to_dict()
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
        elif value is False:
            parts.append(f"no {spelled}")
        else:
            shown = value if isinstance(value, (str, float, int)) else ",".join(map(str, value))
            parts.append(f"{spelled} {shown if shown != '' else 'none'}")
    return ", ".join(parts) or "as it was"


def _fits(settings: TrainSettings, changes: Changes, name: str) -> bool:
    """Return whether a frozen backbone that replaces another one takes a setting, too."""
    kinds = {kind_of(settings.to_dict()).name, kind_of(dict(changes)).name}
    return kinds == {"frozen"} and name not in ("model", "size", "weights")


def _is_of_training(remedy: Changes) -> bool:
    """Return whether all options are of a training: the split and the model stay."""
    return all(
        name in OPTIONS and OPTIONS[name].trainers and name not in ("model", "seed")
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


def _candidates(settings: TrainSettings) -> Iterator[Factor]:
    trainer = settings.training()
    if isinstance(trainer, NetworkTrainer):
        yield from _of_network(trainer)
    elif isinstance(trainer, TransferTrainer):
        yield from _of_transfer(trainer)
    else:
        yield from _of_frozen(settings)


def _of_network(trainer: NetworkTrainer) -> Iterator[Factor]:
    yield _augmentation(trainer)
    yield Factor("batch_norm", ({"batch_norm": True},))
    yield Factor("pooling", ({"pooling": "average"},))
    yield Factor("dropout", ({"dropout": 0.5}, {"dropout": 0.25}))
    filters = trainer.network().filters
    deeper, wider = (*filters, 2 * filters[-1]), tuple(2 * count for count in filters)
    narrower = tuple(max(1, count // 2) for count in filters)
    yield Factor("filters", ({"filters": deeper}, {"filters": wider}, {"filters": narrower}))
    yield from _training(trainer)
    yield Factor("size", tuple(smaller_sizes(trainer)))
    yield Factor("dense", ({"dense": (64,)}, {"dense": ()}))
    yield from _regularisation()


def _of_transfer(trainer: TransferTrainer) -> Iterator[Factor]:
    yield _augmentation(trainer)
    yield Factor("dropout", ({"dropout": 0.3}, {"dropout": 0.5}))
    yield Factor("freeze", ({"freeze": "all"},))
    yield from _training(trainer)
    yield from _regularisation()
    yield Factor("dense", ({"dense": ()},))
    yield Factor("cut", tuple({"cut": name} for name in reversed(get_backbone(trainer.model).cuts)))
    yield Factor("batch_norm", ({"batch_norm": True},))


def _of_frozen(settings: TrainSettings) -> Iterator[Factor]:
    yield Factor("tta_flips", ({"tta_flips": 2},))
    yield Factor("head", ({"head": "rbf"}, {"head": "linear"}))
    yield Factor("resize", ({"resize": "stretch"}, {"resize": "pad"}))
    others = (name for name, backbone in BACKBONES.items() if _is_alternative(name, backbone))
    yield Factor("model", tuple({"model": name} for name in others if name != settings.model))
    yield Factor("tta_crops", ({"tta_crops": 2},))
    side = settings.training().spec().height
    yield Factor("size", ({"size": round(side * 1.25)}, {"size": round(side * 0.75)}))
    yield Factor("class_weight", ({"class_weight": "balanced"},))


def _is_alternative(name: str, backbone: Any) -> bool:
    """Whether a backbone can be tried without a download."""
    return backbone.file is None and is_available(backbone)


def _augmentation(trainer: EpochTrainer) -> Factor:
    names = {"none": ("classic", "light"), "light": ("classic",), "classic": ("light", "strong")}
    given = trainer.augment if isinstance(trainer.augment, str) else ""
    levels = names.get(given, ("classic", "none"))
    return Factor("augment", tuple({"augment": level} for level in levels))


def _training(trainer: EpochTrainer) -> Iterator[Factor]:
    yield Factor(
        "schedule",
        ({"optimizer": "adam", "schedule": "one-cycle"}, {"schedule": "cosine"}),
    )
    rate = trainer.plan().phases[0].peak_learning_rate
    yield Factor("learning_rate", ({"learning_rate": rate / 3}, {"learning_rate": 3 * rate}))
    counts = [factor * trainer.epochs for factor in (2, 4)]
    yield Factor("epochs", tuple({"epochs": n} for n in counts if n <= MAX_EPOCHS))


def _regularisation() -> Iterator[Factor]:
    yield Factor("label_smoothing", ({"label_smoothing": 0.1},))
    yield Factor("l2", ({"l2": 1e-4}, {"l2": 1e-3}))
    yield Factor("ema_decay", ({"ema_decay": 0.99},))


def smaller_sizes(trainer: EpochTrainer) -> Iterator[Changes]:
    """Yield a smaller input: half the sides, as one number where the input is a square."""
    half = [side // 2 for side in trainer.spec().size]
    if min(half) >= SMALLEST_SIZE:
        yield {"size": half[0] if half[0] == half[1] else tuple(half)}


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
