"""Training by gradient, epoch after epoch: what every such training is told."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.augment import Augment
from kindsight.augment.policy import RECIPES
from kindsight.errors import SettingsError
from kindsight.images import InputSpec
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.steps.compute_dtype import COMPUTE_DTYPES
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import choice_fault, number_fault
from kindsight.training.engine.phases import SHARED, make_phases, make_policy, plain_phases
from kindsight.training.engine.plan import Phase, Plan

__all__ = ["EpochTrainer", "whole_numbers"]

CHILD = "kindsight.training.engine.worker"


@dataclass(frozen=True)
class EpochTrainer:
    """What a training of epochs is told, whatever the network.

    Parameters
    ----------
    model : str
    size : int or (height, width), optional
        Pixels of the images that the network sees; the model's own if omitted.
    resize : str
        ``"crop"``, ``"stretch"`` or ``"pad"``: how other proportions are met.
    class_weight : str, optional
        ``"balanced"`` makes each class count alike; None or ``"none"`` each image.
    seed : int
        For the first weights, the order of images, augmentation and dropout.
    workers : int, optional
        How many threads read and augment images; the number of cores if omitted. The result
        does not depend on it.
    cache : path, optional
        The cache's folder; this machine's own if omitted.
    dense, dropout, batch_norm, l2, pooling
        Parts of the network.
    epochs, batch_size, optimizer, learning_rate, momentum, weight_decay, schedule, warmup
        How it learns, as in :class:`kindsight.training.engine.plan.Phase`; and so
    label_smoothing, patience.
    augment : str, mapping or Augment
        What is done to images each time they are seen: a recipe's name, the path of a TOML
        file, settings by name, or a policy.
    mix : str
        ``"none"``, ``"mixup"`` or ``"cutmix"``: whether the images of a batch are mixed, at the
        strengths of the authors; ``"none"`` leaves what the policy says of it.
    phases : sequence of (mapping or Phase)
        Phases one after another, each with settings of its own (``freeze``, ``epochs``,
        ``learning_rate``, ``augment`` and the others of a phase); the rest of them as above.
    layer_decay : float
        Above 0 to 1: each layer learns at this share of the pace of the one above it.
    ema_decay : float
        0 to below 1: above 0 a running mean of the weights is judged and kept, which keeps this
        share of itself in each step.
    final_weights : str
        ``"best"`` or ``"last"``: which epoch's weights are kept.
    compute_dtype : str
        One of :data:`kindsight.models.steps.compute_dtype.COMPUTE_DTYPES`: in which numbers the
        convolutions are
        multiplied in training. ``"auto"`` may choose another on another machine.
    """

    model: str = ""
    size: int | tuple[int, int] | None = None
    resize: str = "crop"
    class_weight: str | None = None
    seed: int = 0
    workers: int | None = None
    cache: str | os.PathLike[str] | None = None
    dense: Sequence[int] | int = ()
    dropout: float = 0.0
    batch_norm: bool = False
    l2: float = 0.0
    pooling: str = "flatten"
    epochs: int = 15
    batch_size: int = 20
    augment: str | Mapping[str, Any] | Augment = "none"
    mix: str = "none"
    optimizer: str = "rmsprop"
    learning_rate: float | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str = "constant"
    warmup: float = 0.0
    label_smoothing: float = 0.0
    patience: int | None = None
    phases: Sequence[Mapping[str, Any] | Phase] = ()
    layer_decay: float = 1.0
    ema_decay: float = 0.0
    final_weights: str = "best"
    compute_dtype: str = "auto"

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        phases, said = self._phases()
        decay = number_fault("layer_decay", self.layer_decay, 0, 1 + 1e-12, open_low=True)
        found = [
            *self._own_faults(),
            *filter(
                None,
                [
                    choice_fault("compute_dtype", self.compute_dtype, COMPUTE_DTYPES),
                    f"{decay.replace('below 1', '1')}" if decay else "",
                    number_fault("ema_decay", self.ema_decay, 0, 1),
                ],
            ),
            *said,
        ]
        return found + Plan(tuple(phases), self.final_weights).faults() if phases else found

    def _own_faults(self) -> list[str]:
        """Return the faults of what a kind of network has for itself."""
        raise NotImplementedError

    def _check(self) -> None:
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def spec(self) -> InputSpec:
        """Return how images are resized.

        Raises
        ------
        SettingsError
            Naming every setting that cannot be.
        """
        self._check()
        return InputSpec(*self._size(), fit=self.resize)  # type: ignore[arg-type]

    def _size(self) -> tuple[int, int]:
        raise NotImplementedError

    def policy(self) -> Augment:
        """Return the augmentation policy; SettingsError where there is none of that name."""
        return make_policy(self.augment, self.mix)

    def plan(self) -> Plan:
        """Return the phases; SettingsError as :meth:`spec`."""
        self._check()
        return Plan(tuple(self._phases()[0]), self.final_weights)

    def _phases(self) -> tuple[list[Phase], list[str]]:
        shared = {name: getattr(self, name) for name in (*SHARED, "mix")}
        return make_phases(self.phases, shared, "none", lambda what, number: f"phase {number}")

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``: what this machine trains in."""
        raise NotImplementedError

    def describe(self) -> str:
        """Say in a few words which network it is."""
        raise NotImplementedError

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: its layers, and how many numbers it learned."""
        raise NotImplementedError

    @property
    def by_gradient(self) -> bool:
        """True: there are epochs to report."""
        return True

    def download(self) -> str | None:
        """Return None: nothing is downloaded."""
        return None

    def warm_up(self, keras: KerasProcess, *, verify: str) -> None:
        """Start the worker process, which will train."""
        keras.start()

    def process(self) -> KerasProcess:
        """Return the process in which the network is trained; not started."""
        return KerasProcess(module=CHILD)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that make a result, as TOML can hold them, None left out."""
        policy = self.augment
        if not isinstance(policy, str) or policy not in list(RECIPES):
            policy = make_policy(policy, "none").to_dict()
        values = {
            **vars(self),
            "size": list(self._size()) if isinstance(self.size, tuple) else self.size,
            "dense": list(whole_numbers(self.dense)),
            "augment": policy,
            "phases": plain_phases(self.phases) or None,
        }
        del values["cache"], values["workers"]
        return {name: value for name, value in values.items() if value is not None}


def whole_numbers(values: Sequence[int] | int) -> tuple[int, ...]:
    """Return one number, or several, as a tuple."""
    return (values,) if isinstance(values, int) else tuple(values)
