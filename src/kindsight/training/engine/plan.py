"""The plan of a training: phases one after another, each with its own way of learning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from kindsight.augment import Augment
from kindsight.errors import SettingsError
from kindsight.models.steps.optimizers import OPTIMIZERS, Optimizer
from kindsight.training.common import choice_fault, number_fault, whole_fault

__all__ = [
    "FINAL_WEIGHTS",
    "SCHEDULES",
    "Phase",
    "Plan",
    "learning_rate",
    "pace_words",
]

# SECTION: The learning rate, step by step.

SCHEDULES = ("constant", "cosine", "one-cycle")
"""``cosine``: falls to 0 on half a cosine (Loshchilov & Hutter 2017). ``one-cycle``: rises from a
25th, then falls to a 10,000th, both on half a cosine (Smith & Topin 2018)."""

RISE = 0.3
START, END = 1 / 25, 1e-4


def learning_rate(schedule: str, highest: float, warmup: float, step: int, steps: int) -> float:
    """Return the learning rate of a step.

    Parameters
    ----------
    schedule : str
        One of :data:`SCHEDULES`.
    highest : float
        The rate that is meant by a phase's learning rate.
    warmup : float
        How many of the steps the rate takes to rise: from nothing in a straight line, or as
        ``one-cycle`` rises, where 0 stands for three tenths of all steps.
    step : int
        From 0.
    steps : int
        How many the phase has.

    Returns
    -------
    float
        Above 0, and at most `highest`.
    """
    if schedule == "one-cycle":
        warmup = warmup or RISE * steps
        if step < warmup:
            return highest * _cosine(START, 1.0, step / warmup)
        return highest * _cosine(1.0, END, (step - warmup) / max(1.0, steps - warmup))
    if step < warmup:
        return highest * (step + 1) / (warmup + 1)
    if schedule == "cosine":
        # The last step is the last that changes anything: 0 is reached after it.
        return highest * _cosine(1.0, 0.0, (step - warmup) / max(1.0, steps - warmup))
    return highest


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, share))) / 2


FINAL_WEIGHTS = ("best", "last")
"""Which epoch's weights a training ends with."""

MAX_EPOCHS = 100_000
LEARNING_RATES = {"rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
MAX_CACHED_COPIES = 64
MOMENTUM = 0.9
WEIGHT_DECAY = 4e-3


@dataclass(frozen=True)
class Phase:
    """Some epochs that are trained in one way.

    Parameters
    ----------
    name : str
        As the history calls it.
    epochs : int
        1 or more.
    batch_size : int
        Images in a step.
    optimizer : str
        One of :data:`kindsight.models.steps.optimizers.OPTIMIZERS`.
    learning_rate : float, optional
        0.001 if omitted, for SGD 0.01.
    momentum : float, optional
        0 to below 1, of SGD (0.9 if omitted) and RMSprop (0 if omitted).
    weight_decay : float, optional
        Of AdamW: 0.004 if omitted.
    schedule : str
        One of :data:`.schedules.SCHEDULES`.
    warmup : float
        How many epochs the learning rate rises at first.
    augment : Augment
        What is done to images each time they are seen, or once for each view that is kept.
    label_smoothing : float
        0 to below 1: the share of each target that is spread evenly over all classes
        (Szegedy et al. 2016, CVPR).
    patience : int, optional
        Stop once so many epochs, one after another, were not the best one yet.
    freeze : str or int
        Of a backbone: which layers do not learn, as
        :func:`kindsight.models.networks.freezing.freeze` takes
        it, or a stage's name; ``"none"`` of them if omitted.
    cached_copies : int
        Of a backbone, 0 to 64: how many views of each image are drawn once, beside the image
        as it is, run through the frozen layers once and kept, of which every epoch takes another;
        at most one fewer than there are epochs.
        0 draws a view afresh each time an image is seen.
    """

    name: str = "training"
    epochs: int = 15
    batch_size: int = 20
    optimizer: str = "rmsprop"
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: float = 0.0
    augment: Augment = field(default_factory=Augment)
    label_smoothing: float = 0.0
    patience: int | None = None
    freeze: str | int = "none"
    cached_copies: int = 0

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = [
            whole_fault("epochs", self.epochs, 1, MAX_EPOCHS),
            whole_fault("batch_size", self.batch_size, 1, 65_536),
            choice_fault("optimizer", self.optimizer, OPTIMIZERS),
            choice_fault("schedule", self.schedule, SCHEDULES),
            number_fault("label_smoothing", self.label_smoothing, 0, 1),
            number_fault("warmup", self.warmup, 0, MAX_EPOCHS),
            whole_fault("cached_copies", self.cached_copies, 0, MAX_CACHED_COPIES),
        ]
        if self.learning_rate is not None:
            found.append(number_fault("learning_rate", self.learning_rate, 0, 1e4, open_low=True))
        if self.patience is not None:
            found.append(whole_fault("patience", self.patience, 1, MAX_EPOCHS))
        found += self._misplaced()
        if not any(found) and self.warmup > self.epochs:
            found.append(
                f"warmup must be no longer than the training's {self.epochs} epochs. "
                f"Received: {self.warmup!r}."
            )
        return [fault for fault in found if fault]

    def _misplaced(self) -> list[str]:
        """Say which constants are no part of the chosen optimiser."""
        found = []
        for name, value, takers in (
            ("momentum", self.momentum, ("sgd", "rmsprop")),
            ("weight_decay", self.weight_decay, ("adamw",)),
        ):
            if value is None:
                continue
            found.append(number_fault(name, value, 0, 1))
            if self.optimizer in OPTIMIZERS and self.optimizer not in takers:
                found.append(
                    f"{name} is a setting of the optimizer {' and '.join(takers)}. Received: "
                    f"{value!r}, with the optimizer {self.optimizer}."
                )
        return found

    def rule(self) -> Optimizer:
        """Return the optimiser with its constants."""
        momentum = MOMENTUM if self.optimizer == "sgd" else 0.0
        decay = WEIGHT_DECAY if self.optimizer == "adamw" else 0.0
        return Optimizer(
            self.optimizer,
            momentum if self.momentum is None else self.momentum,
            decay if self.weight_decay is None else self.weight_decay,
        )

    def rate(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step of the phase, counted from 0."""
        steps = self.epochs * steps_per_epoch
        warmup = self.warmup * steps_per_epoch
        return learning_rate(self.schedule, self.highest_rate, warmup, step, steps)

    @property
    def highest_rate(self) -> float:
        """The learning rate that the schedule goes out from."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate

    def words(self) -> str:
        """Describe how it learns: ``rmsprop, learning rate 0.001, batches of 20``."""
        rule = self.rule()
        parts = [rule.name, f"learning rate {self.highest_rate:g}"]
        parts += [self.schedule] if self.schedule != "constant" else []
        parts += [f"{self.warmup:g} epochs of warm-up"] if self.warmup else []
        parts += [f"momentum {rule.momentum:g}"] if rule.momentum else []
        parts += [f"weight decay {rule.weight_decay:g}"] if rule.weight_decay else []
        parts.append(f"batches of {self.batch_size}")
        parts += [f"label smoothing {self.label_smoothing:g}"] if self.label_smoothing else []
        parts += [f"patience {self.patience}"] if self.patience else []
        parts += [f"frozen: {self.freeze}"] if self.freeze != "none" else []
        views = "view" if self.cached_copies == 1 else "views"
        parts += [f"{self.cached_copies} {views} kept"] if self.cached_copies else []
        return ", ".join(parts)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them."""
        return {**asdict(self), "augment": self.augment.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Phase:
        """Make a phase of what :meth:`to_dict` gave."""
        return cls(**{**values, "augment": Augment.from_dict(values["augment"])})


@dataclass(frozen=True)
class Plan:
    """All phases of a training.

    Parameters
    ----------
    phases : sequence of Phase
        One or more, of different names; the epochs are counted through all of them.
    final_weights : str
        One of :data:`FINAL_WEIGHTS`: weights of the best or of the last epoch.
    monitor : str
        As :class:`.history.History` takes it.
    """

    phases: Sequence[Phase]
    final_weights: str = "best"
    monitor: str = "accuracy"

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        several = len(self.phases) > 1
        found = [
            f"phase {number}: {fault}" if several else fault
            for number, phase in enumerate(self.phases, 1)
            for fault in phase.faults()
        ]
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            found.append(f"Phases must have different names. Received: {', '.join(names)}.")
        return [
            fault
            for fault in (*found, choice_fault("final_weights", self.final_weights, FINAL_WEIGHTS))
            if fault
        ]

    @property
    def epochs(self) -> int:
        """How many epochs there are at most."""
        return sum(phase.epochs for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        told = {
            "phases": [phase.to_dict() for phase in self.phases],
            "final_weights": self.final_weights,
        }
        return told if self.monitor == "accuracy" else {**told, "monitor": self.monitor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Make a plan of what :meth:`to_dict` gave.

        Raises
        ------
        SettingsError
            Naming every setting that cannot be.
        """
        names = {entry.name for entry in fields(Phase)}
        for phase in values["phases"]:
            if unknown := phase.keys() - names:
                raise SettingsError(f"A phase has no setting {', '.join(sorted(unknown))}.")
        phases = tuple(Phase.from_dict(phase) for phase in values["phases"])
        plan = cls(phases, values["final_weights"], values.get("monitor", "accuracy"))
        if faults := plan.faults():
            raise SettingsError("\n".join(faults))
        return plan


def pace_words(layer_decay: float, ema_decay: float) -> str:
    """Say how layers differ in pace, and of what weights the mean is; "" where that is nothing."""
    words = []
    if layer_decay != 1:
        words.append(f"each layer at {layer_decay:g} of the pace of the one above it")
    if ema_decay:
        words.append(f"a running mean of the weights, which keeps {ema_decay:g} of itself a step")
    return "; ".join(words)
