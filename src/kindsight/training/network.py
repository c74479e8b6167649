"""Training a network from its first weights: what it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.augment import Augment, parse_augment
from kindsight.errors import SettingsError
from kindsight.models.keras_process import KerasProcess
from kindsight.models.precision import PRECISIONS, choose_precision
from kindsight.models.small_cnn import SmallCNN
from kindsight.pictures import InputSpec
from kindsight.training.common import common_faults
from kindsight.training.plan import Phase, Plan
from kindsight.training.rules import choice_fault

__all__ = ["NETWORKS", "NetworkTraining"]

NETWORKS = ("small-cnn",)
"""The networks that are trained from their first weights."""

SIZE = 150
SIZE_RANGE = (4, 1024)
CHILD = "kindsight.training.child"


@dataclass(frozen=True)
class NetworkTraining:
    """What a training of a network is told.

    Parameters
    ----------
    model : str
        One of :data:`NETWORKS`: ``"small-cnn"`` is the course's own.
    size : int or (height, width), optional
        Pixels of the pictures that the network sees; 150 if omitted.
    resize : str
        ``"crop"``, ``"stretch"`` or ``"pad"``: how other proportions are met.
    class_weight : str, optional
        ``"balanced"`` makes each class count alike; None or ``"none"`` each picture.
    seed : int
        For the first weights, the order of pictures, augmentation and dropout.
    workers : int, optional
        How many threads read and augment pictures; the number of cores if omitted. The result
        does not depend on it.
    cache : path, optional
        The cache's folder; this machine's own if omitted.
    filters, dense, dropout, batch_norm, l2, pooling
        The parts of the network, as in :class:`kindsight.models.small_cnn.SmallCNN`.
    epochs, batch_size, optimizer, learning_rate, momentum, weight_decay, schedule, warmup
        How it learns, as in :class:`kindsight.training.plan.Phase`; and so
    label_smoothing, patience.
    augment : str, mapping or Augment
        What is done to pictures each time they are seen: a recipe's name, the path of a TOML
        file, settings by name, or a policy.
    keep : str
        ``"best"`` or ``"last"``: which epoch's weights are kept.
    precision : str
        One of :data:`kindsight.models.precision.PRECISIONS`: in which numbers the convolutions are
        multiplied in training. ``"auto"`` may choose another on another machine.
    """

    model: str = "small-cnn"
    size: int | tuple[int, int] | None = None
    resize: str = "crop"
    class_weight: str | None = None
    seed: int = 0
    workers: int | None = None
    cache: str | os.PathLike[str] | None = None
    filters: Sequence[int] = (16, 32, 64)
    dense: Sequence[int] | int = (512,)
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0
    pooling: str = "flatten"
    epochs: int = 15
    batch_size: int = 20
    augment: str | Mapping[str, Any] | Augment = "none"
    optimizer: str = "rmsprop"
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    patience: int | None = None
    keep: str = "best"
    precision: str = "auto"

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = common_faults(self, SIZE_RANGE)
        model = choice_fault("model", self.model, NETWORKS)
        policy = Augment()
        try:
            policy = self.policy()
        except SettingsError as error:
            found.append(f"augment: {error}")
        network = [] if any(fault.startswith("size") for fault in found) else self._network_faults()
        return [
            *filter(None, [model, self._precision_fault()]),
            *found,
            *network,
            *self._plan(policy).faults(),
        ]

    def _precision_fault(self) -> str | None:
        if self.precision == "bfloat16" and self.batch_norm is True:
            return (
                "precision must be float32, or auto, for a network with batch normalisation. "
                "Received: 'bfloat16'."
            )
        return choice_fault("precision", self.precision, PRECISIONS)

    def _network_faults(self) -> list[str]:
        try:
            return self.network().faults()
        except TypeError:
            return [
                "filters and dense must be whole numbers. Received: "
                f"{self.filters!r} and {self.dense!r}."
            ]

    def _check(self) -> None:
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def spec(self) -> InputSpec:
        """Return how pictures are resized.

        Raises
        ------
        SettingsError
            Naming every setting that cannot be.
        """
        self._check()
        return InputSpec(*self._size(), fit=self.resize)  # type: ignore[arg-type]

    def network(self) -> SmallCNN:
        """Return the network."""
        return SmallCNN(
            self._size(),
            _numbers(self.filters),
            _numbers(self.dense),
            self.dropout,
            bool(self.batch_norm) if self.batch_norm in (True, False) else self.batch_norm,
            self.l2,
            self.pooling,
        )

    def policy(self) -> Augment:
        """Return the augmentation policy; SettingsError where there is none of that name."""
        if isinstance(self.augment, Augment):
            return self.augment
        if isinstance(self.augment, Mapping):
            return Augment.from_dict(self.augment)
        return parse_augment(str(self.augment))

    def plan(self) -> Plan:
        """Return the phases; SettingsError as :meth:`spec`."""
        self._check()
        return self._plan(self.policy())

    def _plan(self, policy: Augment) -> Plan:
        phase = Phase(
            name="training",
            epochs=self.epochs,
            batch_size=self.batch_size,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            warmup=self.warmup,
            augment=policy,
            label_smoothing=self.label_smoothing,
            patience=self.patience,
        )
        return Plan((phase,), self.keep)

    def chosen_precision(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``: what this machine trains in."""
        return choose_precision(self.precision, batch_norm=bool(self.batch_norm))

    def process(self) -> KerasProcess:
        """Return the process in which the network is trained; not started."""
        return KerasProcess(module=CHILD)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that make a result, as TOML can hold them, None left out."""
        policy = self.augment if isinstance(self.augment, str) else self.policy()
        if isinstance(policy, str) and policy not in _recipes():
            policy = self.policy()
        values = {
            **vars(self),
            "size": list(self._size()) if isinstance(self.size, tuple) else self.size,
            "filters": list(_numbers(self.filters)),
            "dense": list(_numbers(self.dense)),
            "augment": policy if isinstance(policy, str) else policy.to_dict(),
        }
        del values["cache"], values["workers"]
        return {name: value for name, value in values.items() if value is not None}

    def _size(self) -> tuple[int, int]:
        size = SIZE if self.size is None else self.size
        return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[return-value]


def _numbers(values: Sequence[int] | int) -> tuple[int, ...]:
    return (values,) if isinstance(values, int) else tuple(values)


def _recipes() -> Sequence[str]:
    from kindsight.augment.recipes import RECIPES

    return list(RECIPES)
