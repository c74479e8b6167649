"""Settings of all trainings by epochs; those of the small CNN from random weights, and its presets.

A setting that is given takes precedence over the preset's.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from kindsight.augment import Augment
from kindsight.augment.policy import RECIPES
from kindsight.dataset import ImageDataset
from kindsight.dataset.properties import typical_sides
from kindsight.errors import SettingsError
from kindsight.images import InputSpec
from kindsight.models.networks.small_cnn import (
    MAX_SIDE,
    NETWORKS,
    LayerRow,
    ModernCNN,
    SmallCNN,
    default_filters,
)
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import common_faults
from kindsight.training.engine.plan import (
    SHARED,
    Phase,
    Plan,
    make_phases,
    make_policy,
    plain_phases,
)
from kindsight.training.option_rules import option_faults

__all__ = [
    "MODERN",
    "OF_PRESETS",
    "PRESETS",
    "EpochTrainer",
    "NetworkTrainer",
    "input_size",
    "preset_settings",
    "whole_numbers",
    "without_preset",
]

COURSE, MODERN = "course", "modern"

# Usual values. Learning rates of 0.002, 0.004 and 0.008 were compared: after four epochs on
# 1,600 images of cifar10's training split the validation log losses were 1.761, 1.745 and 1.698.
# The preset's is a little below the best, since longer trainings need a lower one.
_MODERN: dict[str, Any] = {
    "filters": None,  # by the input size
    "dense": (),
    "dropout": 0.2,
    "batch_norm": True,
    "pooling": "max",
    "epochs": 30,
    "batch_size": 64,
    "optimizer": "adamw",
    "learning_rate": 6e-3,
    "weight_decay": 0.02,
    "schedule": "one-cycle",
    "label_smoothing": 0.1,
    # No flips: a mirrored 2 is not a 2. A budget adds those that keep an image's class.
    "augment": {"shift": 0.1, "scale": 0.1, "rotation": 8.0, "brightness": 0.2, "contrast": 0.2},
}

PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType({COURSE: {}, MODERN: _MODERN})
"""The settings of each preset by name; those of ``"course"`` are the trainer's own defaults."""

OF_PRESETS = frozenset(_MODERN)
"""The settings for which a preset may have defaults."""

# Learning rate and weight decay belong to the optimizer of the preset.
_OF_OPTIMIZER = ("learning_rate", "weight_decay")

# Sides in pixels that images are trained at: their own within LOWEST and OWN; larger images at
# MIDDLE below LARGE pixels, at HIGHEST from there on.
LOWEST, OWN, MIDDLE, LARGE, HIGHEST = 16, 64, 64, 128, 96


def preset_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given settings with those of their preset where they have none."""
    preset = PRESETS.get(str(given.get("preset", COURSE)), {})
    if given.get("optimizer", preset.get("optimizer")) != preset.get("optimizer"):
        preset = {name: value for name, value in preset.items() if name not in _OF_OPTIMIZER}
    return {**preset, **given}


def without_preset(values: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings without those of their preset where another preset is given.

    Where another optimizer is given, those that the preset chose for its own are left out.
    """
    stored = values.get("preset", COURSE)
    if given.get("preset") in (None, stored):
        own = PRESETS.get(str(stored), {})
        if given.get("optimizer") in (None, own.get("optimizer")):
            return dict(values)
        chosen = {name: own[name] for name in _OF_OPTIMIZER if name in own}
        return {
            name: value
            for name, value in values.items()
            if name not in chosen or value != chosen[name]
        }
    decided = {*_MODERN, "preset", "size"}
    return {name: value for name, value in values.items() if name not in decided}


def input_size(dataset: ImageDataset) -> int:
    """Return the side in pixels at which the modern preset trains the images of a dataset."""
    sides = typical_sides(dataset)
    shorter = HIGHEST if sides is None else sides[0]
    if shorter <= OWN:
        return max(LOWEST, round(shorter))
    return MIDDLE if shorter < LARGE else HIGHEST


WORKER_MODULE = "kindsight.training.engine.worker"

SIZE = 150
SIZE_RANGE = (4, MAX_SIDE)
# Of the modern preset: the size without images, and the filters of its first convolution.
MODERN_SIZE, MODERN_FILTERS = 64, 16


@dataclass(frozen=True)
class EpochTrainer:
    """Train a network by epochs of gradient descent.

    Parameters
    ----------
    model : str
    size : int or (height, width), optional
        Input size in pixels; the model's default if omitted.
    resize : str
        ``"crop"``, ``"stretch"`` or ``"pad"``, for images of another aspect ratio.
    class_weight : str, optional
        ``"balanced"`` weights classes equally; None or ``"none"`` images.
    seed : int
        For initial weights, order of images, augmentation and dropout.
    workers : int, optional
        Threads that read and augment images; the number of cores if omitted. Does not change the
        result.
    cache : path, optional
        Cache folder; this machine's default if omitted.
    dense, dropout, batch_norm, l2, pooling
        Of the network or the head.
    epochs, batch_size, optimizer, learning_rate, momentum, weight_decay, schedule, warmup, \
    label_smoothing, patience
        As in :class:`kindsight.training.engine.plan.Phase`.
    augment : str, mapping or Augment
        Name of a recipe, path of a TOML file, settings by name, or a policy.
    mix : str
        ``"none"``, ``"mixup"`` or ``"cutmix"``, with the authors' strengths; ``"none"`` leaves the
        policy's own mixing.
    phases : sequence of (mapping or Phase)
        Phases in order, with their own settings (``freeze``, ``epochs``, ``learning_rate``,
        ``augment`` and the others of a phase); the rest as above.
    layer_decay : float
        Layer-wise learning-rate decay, above 0 to 1: factor per layer, from the top down.
    ema_decay : float
        0 to below 1. Above 0, the EMA of the weights with this decay is evaluated and saved.
    final_weights : str
        ``"best"`` or ``"last"`` epoch.
    compute_dtype : str
        ``"float32"`` or ``"bfloat16"``, of convolutions in training; ``"auto"`` depends on the
        machine.
    value_range : (low, high), optional
        Values that become 0 and 255 in images of more than 8 bits.
    device : str
        ``"cpu"``, ``"gpu"``, or ``"auto"``, a GPU if TensorFlow can use one, which rounds
        differently.
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
    value_range: tuple[float, float] | None = None
    device: str = "auto"

    def faults(self) -> list[str]:
        """Return a sentence for each invalid setting."""
        phases, phase_faults = self._phases()
        own = option_faults(vars(self), ("layer_decay", "ema_decay", "compute_dtype"))
        found = [*self._own_faults(), *own.values(), *phase_faults]
        return found + Plan(tuple(phases), self.final_weights).faults() if phases else found

    def _own_faults(self) -> list[str]:
        """Return the faults of the subclass's own settings."""
        raise NotImplementedError

    def _check(self) -> None:
        if faults := self.faults():
            raise SettingsError("\n".join(faults))

    def spec(self) -> InputSpec:
        """Return how images are resized; SettingsError names every invalid setting."""
        self._check()
        return InputSpec(*self._size(), fit=self.resize, value_range=self.value_range)  # type: ignore[arg-type]

    def _size(self) -> tuple[int, int]:
        raise NotImplementedError

    def policy(self) -> Augment:
        """Return the augmentation policy; SettingsError if it is invalid."""
        return make_policy(self.augment, self.mix)

    def plan(self) -> Plan:
        """Return the phases; SettingsError names every invalid setting."""
        self._check()
        return Plan(tuple(self._phases()[0]), self.final_weights)

    def _phases(self) -> tuple[list[Phase], list[str]]:
        shared = {name: getattr(self, name) for name in (*SHARED, "mix")}
        return make_phases(self.phases, shared, "none", lambda frozen, number: f"phase {number}")

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``, which this machine trains in."""
        raise NotImplementedError

    def describe(self) -> str:
        """Describe the network in a few words."""
        raise NotImplementedError

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: layers and parameters."""
        raise NotImplementedError

    @property
    def by_gradient(self) -> bool:
        """True: there are epochs to report."""
        return True

    @property
    def needs_validation(self) -> bool:
        """False: without validation images, the last epoch is used."""
        return False

    def download(self) -> str | None:
        """Return None: nothing is downloaded."""
        return None

    def warm_up(self, keras: KerasProcess, *, verify: str) -> None:
        """Start the worker process, which will train."""
        keras.start()

    def process(self) -> KerasProcess:
        """Return the worker process that trains the network; not started."""
        return KerasProcess(module=WORKER_MODULE, device=self.device)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that determine the result, as TOML values, None left out."""
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
        del values["cache"], values["workers"], values["device"]
        return {name: value for name, value in values.items() if value is not None}


def whole_numbers(values: Sequence[int] | int) -> tuple[int, ...]:
    """Return a number, or several, as a tuple."""
    return (values,) if isinstance(values, int) else tuple(values)


@dataclass(frozen=True)
class NetworkTrainer(EpochTrainer):
    """Train a network, one of :data:`NETWORKS`, from random weights.

    `filters`, `dense`, `dropout`, `batch_norm`, `l2` and `pooling` are as in
    :class:`kindsight.models.networks.small_cnn.SmallCNN`, or with the `preset` ``"modern"`` in
    :class:`kindsight.models.networks.small_cnn.ModernCNN`, the other settings as in
    :class:`EpochTrainer`. `size` is 150 if omitted, and that of the images with ``"modern"``, as
    are the `filters`, where they are None. The preset's other defaults are those of
    :func:`.presets.preset_settings`.
    """

    model: str = "small-cnn"
    preset: str = COURSE
    dense: Sequence[int] | int = (512,)
    filters: Sequence[int] | None = (16, 32, 64)

    def _own_faults(self) -> list[str]:
        found = common_faults(self, SIZE_RANGE)
        model = (
            ""
            if self.model in NETWORKS
            else f"`model` must be one of {', '.join(NETWORKS)}; got {self.model!r}. "
            f"Did you mean {NETWORKS[0]!r}?"
        )
        layers = ("preset", "filters", "dense", "dropout", "batch_norm", "l2", "pooling")
        own = option_faults(vars(self), layers).values()
        valid = not own and not any(fault.startswith("`size`") for fault in found)
        network = self.network().faults() if valid else []
        return [*filter(None, [model, *self._unsupported_faults()]), *found, *own, *network]

    @property
    def _modern(self) -> bool:
        return self.preset == MODERN

    def _unsupported_faults(self) -> list[str]:
        found = []
        if self._modern and self.batch_norm is False:
            found.append(
                "`batch_norm` must be true with the preset modern, whose convolutions need it; got "
                'false. Leave it out, or choose `preset="course"`.'
            )
        if self.compute_dtype == "bfloat16" and self.batch_norm is True and not self._modern:
            found.append(
                "`compute_dtype` must be float32 or auto for a network with batch normalisation; "
                "got 'bfloat16'."
            )
        frozen = [phase for phase in self._phases()[0] if phase.freeze != "none"]
        if frozen:
            found.append(
                f"`freeze` is a setting of backbones, whose layers are pretrained; {self.model} is "
                f"not one (got {frozen[0].freeze!r}). Leave it out, or choose a backbone."
            )
        if any(phase.cached_copies for phase in self._phases()[0]):
            found.append(
                "`cached_copies` is a setting of backbones, for their frozen layers; "
                f"{self.model} has none. Leave it out, or choose a backbone."
            )
        return found

    def network(self) -> SmallCNN | ModernCNN:
        """Return the settings of the network."""
        size, dense, filters = self._size(), whole_numbers(self.dense), self.filters
        if self._modern:
            filters = default_filters(size, MODERN_FILTERS) if filters is None else tuple(filters)
            return ModernCNN(size, filters, dense, self.dropout, self.l2, self.pooling)
        return SmallCNN(
            size, whole_numbers(filters or ()), dense, self.dropout, bool(self.batch_norm), self.l2,
            self.pooling,
        )  # fmt: skip

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``, which this machine trains in."""
        without_bfloat16 = bool(self.batch_norm) and not self._modern
        return choose_compute_dtype(
            self.compute_dtype, batch_norm=without_bfloat16, device=self.device
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that determine the result, as TOML values, None left out."""
        filters = {} if self.filters is None else {"filters": list(whole_numbers(self.filters))}
        return {**super().to_dict(), **filters}

    def describe(self) -> str:
        """Describe the network in a few words."""
        modern = " (preset modern)" if self._modern else ""
        return f"{self.model}{modern}, trained from random weights"

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: layers and parameters."""
        network = self.network()
        parameters = sum(row.parameters for row in layers)
        words = ["-".join(map(str, network.filters)) + " filters", network.pooling]
        words += [f"dense {units}" for units in network.dense]
        words += [f"dropout {network.dropout:g}"] if network.dropout else []
        words += ["batch normalisation"] if self.batch_norm else []
        words.append(f"{'one sigmoid' if classes == 2 else 'softmax'}; {parameters:,} parameters")
        bfloat16 = self.resolved_compute_dtype() == "bfloat16"
        words += ["convolutions in bfloat16"] if bfloat16 else []
        return ", ".join(words)

    def _size(self) -> tuple[int, int]:
        size = (MODERN_SIZE if self._modern else SIZE) if self.size is None else self.size
        return (size, size) if isinstance(size, int) else tuple(size)  # type: ignore[return-value]
