"""Settings of a transfer training: a backbone with chosen cut, frozen layers and head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from kindsight.errors import SettingsError
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.backbones.table import get_backbone, split_model_name
from kindsight.models.networks.fine_tuned import parse_freeze
from kindsight.models.networks.keras_heads import TrainableHead
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.networks.transfer import TransferNetwork
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.engine.plan import SHARED, Phase, make_phases, phase_fault
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.network.settings import EpochTrainer, whole_numbers
from kindsight.training.option_rules import option_faults

__all__ = ["TransferTrainer"]


@dataclass(frozen=True)
class TransferTrainer(EpochTrainer):
    """Train a backbone by gradient descent, with frozen layers and a trainable head.

    For the other settings see :class:`kindsight.training.network.settings.EpochTrainer`.

    Parameters
    ----------
    model : str
        Name of a backbone, or path of a Keras file.
    weights : str
        ``"imagenet"``, ``"none"`` (random, by the seed) or a weights file.
    cut : str, optional
        Layer up to which the backbone is used, such as InceptionV3's ``"mixed7"``, or an
        unambiguous beginning of its name; the whole backbone if omitted.
    freeze : str or int
        Frozen layers: ``"all"``, ``"none"``, the first N layers with weights, or those up to a
        layer by name.
    train_batch_norm : bool
        Whether batch normalisation of trainable layers is trained, on batch statistics; otherwise
        it stays in inference mode.
    cached_copies : int
        In phases with augmentation: augmented copies per image whose frozen activations are
        computed once and cached, besides the original; each epoch uses another one. 0 augments
        anew in each epoch.
    pooling, dense, dropout, batch_norm, l2
        The head: ``"average"``, ``"max"`` or ``"flatten"``; widths of dense layers with ReLU;
        dropout before the last layer; batch normalisation of the dense layers; L2 penalty on
        their kernels.
    """

    model: str = "efficientnet-lite0"
    pooling: str = "average"
    weights: str = "imagenet"
    cut: str | None = None
    freeze: str | int = "all"
    train_batch_norm: bool = False
    cached_copies: int = 0

    def _backbone(self) -> FrozenTrainer:
        """Return the settings of a frozen training with the same backbone."""
        return FrozenTrainer(
            self.model, self.weights, self.size, self.resize, class_weight=self.class_weight,
            seed=self.seed, workers=self.workers, cache=self.cache, value_range=self.value_range,
            device=self.device,
        )  # fmt: skip

    def _own_faults(self) -> list[str]:
        found = self._backbone().faults()
        if isinstance(self.model, str) and not found and len(split_model_name(self.model)) > 1:
            found.append(
                f"`model` must be a single backbone to train its layers; got {self.model!r}."
            )
        found += option_faults(
            vars(self),
            ("cut", "train_batch_norm", "batch_norm", "pooling", "dense", "dropout", "l2"),
        ).values()
        for phase in self._phases()[0]:
            try:
                parse_freeze(phase.freeze)
            except SettingsError as error:
                if str(error) not in found:
                    found.append(str(error))
        return found

    def _phases(self) -> tuple[list[Phase], list[str]]:
        shared = {name: getattr(self, name) for name in (*SHARED, "mix", "cached_copies")}
        phases, faults = make_phases(self.phases, shared, self.freeze, _phase_name)
        return limit_copies(phases, self.phases, faults)

    def head(self) -> TrainableHead:
        """Return the settings of the head."""
        return TrainableHead(
            self.pooling, whole_numbers(self.dense), self.dropout, bool(self.batch_norm), self.l2
        )

    def network(self, files: BackboneFiles) -> TransferNetwork:
        """Return the network made of a backbone."""
        return TransferNetwork(
            str(files.keras.resolve()),
            self.cut or "",
            self._freezes(),
            self.head(),
            bool(self.train_batch_norm),
        )

    def ends(self) -> tuple[str, ...] | None:
        """Return the backbone's recommended cut layers, if the table lists any."""
        return get_backbone(self.model).cuts or None

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``, which this machine trains in."""
        return choose_compute_dtype(self.compute_dtype, batch_norm=False, device=self.device)

    def download(self) -> str | None:
        """Return a sentence on the download that the training needs; None without one."""
        return self._backbone().download()

    def backbone(
        self, progress: Progress | None = None, process: KerasProcess | None = None
    ) -> BackboneFiles:
        """Find or build the files of the backbone, without folding its batch normalisation.

        SettingsError, before it is built, if it lacks the cut layer or a layer to freeze.
        """
        return self._backbone().backbone(
            progress, process, fold_batch_norm=False, layers=(self.cut or "", self._freezes())
        )

    def _freezes(self) -> tuple[str | int, ...]:
        return tuple(parse_freeze(phase.freeze) for phase in self.plan().phases)

    def describe(self) -> str:
        """Describe the network in a few words."""
        upto = f", up to {self.cut}" if self.cut else ""
        return f"{self._backbone().describe_backbone()}{upto}"

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: cut, head and parameters."""
        head = self.head()
        trainable = sum(row.parameters for row in layers if row.trainable.startswith("trainable"))
        total = sum(row.parameters for row in layers)
        words = [self.model + (f" to {self.cut}" if self.cut else ""), head.pooling]
        words += [f"dense {units}" for units in head.dense]
        words += ["batch normalisation"] if head.batch_norm and head.dense else []
        words += [f"dropout {head.dropout:g}"] if head.dropout else []
        last = "one sigmoid" if classes == 2 else "softmax"
        words.append(f"{last}; {trainable:,} of {total:,} parameters trainable")
        return ", ".join(words)

    def _size(self) -> tuple[int, int]:
        return self._backbone().spec().size


def _phase_name(frozen: str | int, number: int) -> str:
    """Name a phase after its trainable layers."""
    if frozen == "all":
        return "head"
    if frozen == "none":
        return "all layers"
    return f"above {frozen}" if isinstance(frozen, str) else f"above {frozen} layers"


def limit_copies(
    phases: Sequence[Phase], own: Any, faults: Sequence[str]
) -> tuple[list[Phase], list[str]]:
    """Limit the cached copies of each phase to what it can use; return phases and all faults.

    A number that the training gives for all phases is lowered; a phase's own, in `own` as of
    :func:`.plan.make_phases`, is a fault. If there are faults already, nothing is checked.
    """
    if faults or any(option_faults({"cached_copies": phase.cached_copies}) for phase in phases):
        return list(phases), list(faults)  # Plan.faults reports invalid numbers
    limited: list[Phase] = []
    found: list[str] = []
    for number, phase in enumerate(phases):
        most, rule = _most_copies(phase)
        if phase.cached_copies <= most:
            limited.append(phase)
        elif _is_own(own, number):
            fault = f"`cached_copies` {rule}; got {phase.cached_copies}."
            found.append(phase_fault(number + 1, fault) if len(phases) > 1 else fault)
            limited.append(phase)
        else:
            limited.append(replace(phase, cached_copies=most))
    wanted = max((phase.cached_copies for phase in phases), default=0)
    if wanted and not found and not any(phase.cached_copies for phase in limited):
        rule = _most_copies(phases[0])[1]
        found.append(f"`cached_copies` {rule}, in one phase at least; got {wanted}.")
    return limited, found


def _is_own(own: Any, number: int) -> bool:
    """Whether the number of copies is the phase's own; always so if there is only the training."""
    if not own:
        return True
    phase = own[number]
    return isinstance(phase, Phase) or (isinstance(phase, Mapping) and "cached_copies" in phase)


def _most_copies(phase: Phase) -> tuple[int, str]:
    """Return the largest number of cached copies of a phase, and the rule behind it."""
    if not phase.augment.changes_images:
        return 0, 'needs augmentation, such as `augment="light"`'
    if phase.augment.mixes:
        return 0, "must be 0 with MixUp or CutMix, which make new images in each step"
    try:
        nothing_frozen = parse_freeze(phase.freeze) in ("none", 0)
    except SettingsError:  # reported elsewhere
        return phase.cached_copies, ""
    if nothing_frozen:
        return 0, 'needs frozen layers, such as `freeze="all"`'
    if option_faults({"epochs": phase.epochs}):  # reported elsewhere
        return phase.cached_copies, ""
    return phase.epochs - 1, (
        f"must be at most {phase.epochs - 1} with {phase.epochs} epochs: one epoch uses the "
        "original images, each other epoch one copy"
    )
