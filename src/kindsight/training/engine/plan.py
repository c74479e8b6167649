"""The plan of a training: phases with their optimizer, learning-rate schedule and frozen layers.

A phase's own settings take precedence over shared ones.
"""

from __future__ import annotations

import difflib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from kindsight.augment import Augment, parse_augment
from kindsight.augment.policy import RECIPES
from kindsight.errors import SettingsError
from kindsight.models.steps.optimizers import Optimizer
from kindsight.training.option_rules import option_faults

__all__ = [
    "SHARED", "Phase", "Plan", "describe_layer_decay_and_ema", "make_phases", "make_policy",
    "phase_fault", "plain_phases", "read_phase", "scheduled_learning_rate",
]  # fmt: skip

ONE_CYCLE_RISE = 0.3  # share of the steps
ONE_CYCLE_START, ONE_CYCLE_END = 1 / 25, 1e-4  # shares of the peak learning rate
DEFAULT_LEARNING_RATES = {"rmsprop": 1e-3, "adam": 1e-3, "adamw": 1e-3, "sgd": 1e-2}
DEFAULT_MOMENTUM = 0.9  # of SGD
DEFAULT_WEIGHT_DECAY = 4e-3  # of AdamW
MIXUP, CUTMIX = 0.2, 1.0  # the strengths that their authors used
MAX_PHASES = 20
MAX_NAME = 60  # characters
_BACKBONE_SETTINGS = ("freeze", "cached_copies")
_WHOLE = ("epochs", "batch_size", "patience", "cached_copies")
_NUMBERS = ("learning_rate", "momentum", "weight_decay", "warmup", "label_smoothing")


@dataclass(frozen=True)
class Phase:
    """Epochs that are trained with the same settings.

    Parameters
    ----------
    name : str
        As in the history.
    epochs : int
        1 or more.
    optimizer : str
        As for :class:`kindsight.models.steps.optimizers.Optimizer`.
    learning_rate : float, optional
        Peak learning rate; 0.001 if omitted, 0.01 for SGD.
    momentum : float, optional
        0 to below 1, of SGD (0.9 if omitted) and RMSprop (0 if omitted).
    weight_decay : float, optional
        Of AdamW; 0.004 if omitted.
    schedule : str
        As for :func:`scheduled_learning_rate`.
    warmup : float
        Epochs of warm-up.
    augment : Augment
        Applied each time an image is used, or once for each cached copy.
    label_smoothing : float
        0 to below 1 (Szegedy et al. 2016, CVPR).
    patience : int, optional
        Early stopping: the phase ends after this many epochs without a new best one.
    freeze : str or int
        Frozen layers of a backbone, as in :func:`kindsight.models.networks.fine_tuned.freeze`.
    cached_copies : int
        0 to 64, at most epochs - 1: augmented copies per image whose frozen activations are
        cached, besides the original; each epoch uses another one. 0 augments anew in each epoch.
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
        """Return a sentence for each invalid setting."""
        found = list(option_faults(vars(self)).values())
        found += self._optimizer_faults()
        if not found and self.warmup > self.epochs:
            found.append(
                f"`warmup` must be at most the number of epochs, {self.epochs}; "
                f"got {self.warmup!r}."
            )
        return found

    def _optimizer_faults(self) -> list[str]:
        found = []
        for name, value, optimizers in (
            ("momentum", self.momentum, ("sgd", "rmsprop")),
            ("weight_decay", self.weight_decay, ("adamw",)),
        ):
            if (
                value is None
                or self.optimizer not in DEFAULT_LEARNING_RATES
                or self.optimizer in optimizers
            ):
                continue
            found.append(
                f"`{name}` is a setting of the optimizer {' and '.join(optimizers)}; got {value!r} "
                f"with {self.optimizer}. Leave it out, or choose another optimizer."
            )
        return found

    def update_rule(self) -> Optimizer:
        """Return the optimizer with its constants."""
        momentum = DEFAULT_MOMENTUM if self.optimizer == "sgd" else 0.0
        decay = DEFAULT_WEIGHT_DECAY if self.optimizer == "adamw" else 0.0
        return Optimizer(
            self.optimizer,
            momentum if self.momentum is None else self.momentum,
            decay if self.weight_decay is None else self.weight_decay,
        )

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """Return the learning rate of a step of the phase, counted from 0."""
        steps = self.epochs * steps_per_epoch
        warmup = self.warmup * steps_per_epoch
        return scheduled_learning_rate(self.schedule, self.peak_learning_rate, warmup, step, steps)

    @property
    def peak_learning_rate(self) -> float:
        """The highest learning rate of the schedule."""
        if self.learning_rate is None:
            return DEFAULT_LEARNING_RATES[self.optimizer]
        return self.learning_rate

    def describe(self) -> str:
        """Describe the settings: ``rmsprop, learning rate 0.001, batch size 20``."""
        rule = self.update_rule()
        words = [rule.name, f"learning rate {self.peak_learning_rate:g}"]
        words += [self.schedule] if self.schedule != "constant" else []
        words += [f"{self.warmup:g} epochs of warm-up"] if self.warmup else []
        words += [f"momentum {rule.momentum:g}"] if rule.momentum else []
        words += [f"weight decay {rule.weight_decay:g}"] if rule.weight_decay else []
        words.append(f"batch size {self.batch_size}")
        words += [f"label smoothing {self.label_smoothing:g}"] if self.label_smoothing else []
        words += [f"patience {self.patience}"] if self.patience else []
        words += [f"frozen: {self.freeze}"] if self.freeze != "none" else []
        copies = "copy" if self.cached_copies == 1 else "copies"
        words += [f"{self.cached_copies} cached {copies}"] if self.cached_copies else []
        return ", ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {**asdict(self), "augment": self.augment.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Phase:
        """Restore a phase from :meth:`to_dict`."""
        return cls(**{**values, "augment": Augment.from_dict(values["augment"])})


@dataclass(frozen=True)
class Plan:
    """All phases of a training, with different names; epochs are counted through all of them.

    `final_weights` are of the ``"best"`` or ``"last"`` epoch; `monitor` is as in
    :class:`.history.History`. `ends` has the epoch after which each phase ends, with the
    learning rates of the whole phase and without early stopping.
    """

    phases: Sequence[Phase]
    final_weights: str = "best"
    monitor: str = "accuracy"
    ends: Sequence[int] | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each invalid setting."""
        several = len(self.phases) > 1
        found = [
            phase_fault(number, fault) if several else fault
            for number, phase in enumerate(self.phases, 1)
            for fault in phase.faults()
        ]
        names = [phase.name for phase in self.phases]
        if len(set(names)) < len(names):
            found.append(f"Phases must have different names; got {', '.join(names)}.")
        return [*found, *option_faults({"final_weights": self.final_weights}).values()]

    @property
    def epochs(self) -> int:
        """Maximum number of epochs."""
        return sum(self.end(number) for number in range(len(self.phases)))

    def end(self, phase: int) -> int:
        """Return the number of epochs of a phase, counted from 0, without early stopping."""
        epochs = self.phases[phase].epochs
        return epochs if self.ends is None else min(epochs, self.ends[phase])

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values."""
        values: dict[str, Any] = {
            "phases": [phase.to_dict() for phase in self.phases],
            "final_weights": self.final_weights,
        }
        if self.ends is not None:
            values["ends"] = list(self.ends)
        return values if self.monitor == "accuracy" else {**values, "monitor": self.monitor}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Plan:
        """Restore a plan from :meth:`to_dict`; SettingsError names every invalid setting."""
        names = {entry.name for entry in fields(Phase)}
        for phase in values["phases"]:
            if unknown := phase.keys() - names:
                raise SettingsError(f"A phase has no setting {', '.join(sorted(unknown))}.")
        phases = tuple(Phase.from_dict(phase) for phase in values["phases"])
        monitor, ends = values.get("monitor", "accuracy"), values.get("ends")
        plan = cls(phases, values["final_weights"], monitor, ends)
        if faults := plan.faults():
            raise SettingsError("\n".join(faults))
        return plan


def phase_fault(number: int, fault: str) -> str:
    """Return the fault of a phase; its settings are not options of the command line."""
    quoted = fault.replace("`", "'")
    return f"phase {number}: {quoted}"


def scheduled_learning_rate(
    schedule: str, peak: float, warmup: float, step: int, steps: int
) -> float:
    """Return the learning rate of a step, counted from 0.

    `schedule` is ``"constant"``, ``"cosine"``, which decays to 0 (Loshchilov & Hutter 2017), or
    ``"one-cycle"``, which rises from a 25th of the peak, then decays to a 10,000th of it, each on
    half a cosine (Smith & Topin 2018). `warmup` is the number of steps in which the learning rate
    rises: linearly from 0, or as ``"one-cycle"`` does, where 0 means three tenths of all steps.
    """
    if schedule == "one-cycle":
        warmup = warmup or ONE_CYCLE_RISE * steps
        if step < warmup:
            return peak * _half_cosine(ONE_CYCLE_START, 1.0, step / warmup)
        return peak * _half_cosine(1.0, ONE_CYCLE_END, (step - warmup) / max(1.0, steps - warmup))
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if schedule == "cosine":
        # 0 would be the learning rate of the step after the last.
        return peak * _half_cosine(1.0, 0.0, (step - warmup) / max(1.0, steps - warmup))
    return peak


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


def describe_layer_decay_and_ema(layer_decay: float, ema_decay: float) -> str:
    """Describe layer-wise learning-rate decay and EMA; "" without either."""
    words = []
    if layer_decay != 1:
        words.append(f"layer-wise learning-rate decay {layer_decay:g}")
    if ema_decay:
        words.append(f"EMA of the weights, decay {ema_decay:g}")
    return "; ".join(words)


SHARED = tuple(f.name for f in fields(Phase) if f.name not in ("name", *_BACKBONE_SETTINGS))
"""Settings that a training gives once for all phases without their own."""

_KNOWN = ("name", "mix", *_BACKBONE_SETTINGS, *SHARED)


def read_phase(text: str) -> dict[str, Any]:
    """Read a phase from a line such as ``freeze=all epochs=3 learning-rate=1e-3``.

    SettingsError for anything but ``name=value``, and for values that are not numbers where they
    must be.
    """
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise SettingsError(
            f"The quotes of a phase must be closed; got {text!r} ({error})."
        ) from None
    found: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        name = key.replace("-", "_")
        if not equals or not value or name in found:
            raise SettingsError(
                "A phase must be settings name=value, each once, separated by spaces, such as "
                f"freeze=all epochs=3 learning-rate=1e-3; got {word!r} in {text!r}."
            )
        found[name] = _value(name, value)
    return found


def _value(name: str, text: str) -> Any:
    kind = int if name in _WHOLE else float if name in _NUMBERS else str
    try:
        return kind(text)
    except ValueError:
        word = "a whole number" if kind is int else "a number"
        raise SettingsError(f"A phase's {name} must be {word}; got {text!r}.") from None


def make_policy(augment: Any, mix: str) -> Augment:
    """Return the augmentation policy of a recipe, a TOML file, settings by name, or a policy.

    `mix` is ``"mixup"``, ``"cutmix"``, or ``"none"``, which leaves the policy's own mixing.
    SettingsError for an unknown recipe or invalid settings.
    """
    if isinstance(augment, Augment):
        policy = augment
    elif isinstance(augment, Mapping):
        policy = Augment.from_dict(augment)
    else:
        policy = parse_augment(str(augment))
    if mix == "mixup":
        return replace(policy, mixup=MIXUP)
    return replace(policy, cutmix=CUTMIX) if mix == "cutmix" else policy


def make_phases(
    phases: Any, shared: Mapping[str, Any], freeze: str | int, default_name: Any
) -> tuple[list[Phase], list[str]]:
    """Return the phases of a training, and a sentence for each invalid setting.

    Parameters
    ----------
    phases : sequence of (mapping or Phase)
        Own settings of each phase; empty for a single phase of shared settings. A
        :class:`Phase` takes no shared settings.
    shared : mapping
        Values of :data:`SHARED`, and ``"mix"``; of a backbone also ``"cached_copies"``.
    freeze : str or int
        Frozen layers of phases without their own.
    default_name : callable
        Called with a phase's frozen layers and its number from 1.
    """
    if not isinstance(phases, Sequence) or isinstance(phases, str) or len(phases) > MAX_PHASES:
        return [], [f"`phases` must be a list of at most {MAX_PHASES}; got {phases!r}."]
    if not phases:
        phase, faults = _make_phase({}, shared, freeze, lambda frozen: "training")
        return [phase], faults
    found: list[Phase] = []
    all_faults: list[str] = []
    for number, given in enumerate(phases, 1):

        def unique_name(frozen: Any, number: int = number) -> str:
            name = str(default_name(frozen, number))
            taken = {phase.name for phase in found}
            return name if name not in taken else f"{name}, phase {number}"

        if isinstance(given, Phase):
            found.append(given)
        elif isinstance(given, Mapping):
            phase, faults = _make_phase(given, shared, freeze, unique_name)
            found.append(phase)
            all_faults += [phase_fault(number, fault) for fault in faults]
        else:
            all_faults.append(f"phase {number} must be settings by name; got {given!r}.")
    return found, all_faults


def _make_phase(
    given: Mapping[str, Any], shared: Mapping[str, Any], freeze: str | int, default_name: Any
) -> tuple[Phase, list[str]]:
    faults = []
    for name in given:
        if name not in _KNOWN:
            near = difflib.get_close_matches(str(name), _KNOWN, 1)
            hint = (
                f" Did you mean {near[0]!r}?"
                if near
                else f" Settings of a phase: {', '.join(_KNOWN)}."
            )
            faults.append(f"there is no setting {name!r}.{hint}")
    values = {**shared, **{k: v for k, v in given.items() if k in _KNOWN and v is not None}}
    # A phase with its own augmentation policy takes the mixing from that.
    mix = values.pop("mix")
    if "augment" in given and "mix" not in given:
        mix = "none"
    policy = Augment()
    try:
        policy = make_policy(values["augment"], mix)
    except SettingsError as error:
        faults.append(f"augment: {error}")
    faults += option_faults({"mix": mix}).values()
    frozen = values.pop("freeze", freeze)
    name = values.pop("name", None)
    if name is None:
        name = default_name(frozen)
    elif not isinstance(name, str) or not 0 < len(name.strip()) <= MAX_NAME:
        faults.append(f"`name` must be 1 to {MAX_NAME} characters; got {name!r}.")
        name = "phase"
    return Phase(**{**values, "name": name, "augment": policy, "freeze": frozen}), faults


def plain_phases(phases: Sequence[Any]) -> list[dict[str, Any]]:
    """Return phases as TOML values, None left out."""
    found = []
    for given in phases:
        values = given.to_dict() if isinstance(given, Phase) else dict(given)
        if "augment" in values and values["augment"] not in list(RECIPES):
            values["augment"] = make_policy(values["augment"], "none").to_dict()
        found.append({name: value for name, value in values.items() if value is not None})
    return found
