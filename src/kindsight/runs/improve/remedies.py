"""The remedies: one declaration for each setting that experiments vary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kindsight.models.backbones.table import BACKBONES, get_backbone
from kindsight.models.backbones.weights import is_available
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import EpochTrainer, NetworkTrainer
from kindsight.training.protocols import Trainer
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["MAX_EPOCHS", "REMEDIES", "Changes", "Remedy", "remedies_for", "smaller_sizes"]

MAX_EPOCHS = 240
SMALLEST_SIZE = 32

Changes = Mapping[str, Any]
"""Options of a training by name; None for an option that is left out."""

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
        Of the setting that changes most.
    trainers : tuple of type
        Trainers that it is for.
    levels : callable
        From the trainer to its levels; those that change nothing, or are not valid with the other
        settings, are left out later.
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
    """Yield a smaller input: half the sides, as one number where the input is a square."""
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
"""All remedies, those that help most often first."""
