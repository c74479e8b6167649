"""The plan of a training: phases one after another, each with its own way of learning."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from kindsight.augment import Augment
from kindsight.errors import SettingsError
from kindsight.models.optimizers import OPTIMIZERS, Optimizer
from kindsight.training.schedules import SCHEDULES, learning_rate

__all__ = ["KEEPS", "Phase", "Plan", "choice_fault", "number_fault", "whole_fault"]

KEEPS = ("best", "last")
"""Which epoch's weights a training ends with."""

MAX_EPOCHS = 100_000
LEARNING_RATES = {"rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
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
        Pictures in a step.
    optimizer : str
        One of :data:`kindsight.models.optimizers.OPTIMIZERS`.
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
        What is done to pictures each time they are seen.
    label_smoothing : float
        0 to below 1: the share of each target that is spread evenly over all classes
        (Szegedy et al. 2016, CVPR).
    patience : int, optional
        Stop once so many epochs, one after another, were not the best one yet.
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

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = [
            whole_fault("epochs", self.epochs, 1, MAX_EPOCHS),
            whole_fault("batch_size", self.batch_size, 1, 65_536),
            choice_fault("optimizer", self.optimizer, OPTIMIZERS),
            choice_fault("schedule", self.schedule, SCHEDULES),
            number_fault("label_smoothing", self.label_smoothing, 0, 1),
            number_fault("warmup", self.warmup, 0, MAX_EPOCHS),
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
    keep : str
        One of :data:`KEEPS`: whether the weights of the best epoch are kept, or the last ones.
    """

    phases: Sequence[Phase]
    keep: str = "best"

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = [fault for phase in self.phases for fault in phase.faults()]
        return [fault for fault in (*found, choice_fault("keep", self.keep, KEEPS)) if fault]

    @property
    def epochs(self) -> int:
        """How many epochs there are at most."""
        return sum(phase.epochs for phase in self.phases)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        return {"phases": [phase.to_dict() for phase in self.phases], "keep": self.keep}

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
        plan = cls(tuple(Phase.from_dict(phase) for phase in values["phases"]), values["keep"])
        if faults := plan.faults():
            raise SettingsError("\n".join(faults))
        return plan


def choice_fault(name: str, value: object, choices: Sequence[str]) -> str:
    """Say that a value is none of the choices, with the nearest; "" where it is one."""
    if isinstance(value, str) and value in choices:
        return ""
    near = difflib.get_close_matches(str(value), choices, 1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"{name} must be one of {', '.join(choices)}. Received: {value!r}.{hint}"


def whole_fault(name: str, value: object, least: int, most: int) -> str:
    """Say that a value is no whole number within bounds; "" where it is one."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if whole and least <= int(value) <= most:  # type: ignore[call-overload]
        return ""
    return f"{name} must be a whole number from {least} to {most:,}. Received: {value!r}."


def number_fault(
    name: str, value: object, least: float, below: float, *, open_low: bool = False
) -> str:
    """Say that a value is no number from `least` to below `below`; "" where it is one."""
    real = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    if real and (least < value if open_low else least <= value) and value < below:  # type: ignore[operator]
        return ""
    start = f"above {least:g}" if open_low else f"from {least:g}"
    return f"{name} must be a number {start} to below {below:g}. Received: {value!r}."
