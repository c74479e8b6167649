"""Training a backbone by gradient, its layers and its head chosen by the user: what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kindsight.errors import SettingsError
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.backbones.table import get_backbone, split_model_name
from kindsight.models.heads.trainable import TrainableHead
from kindsight.models.networks.freezing import parse_freeze
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.networks.transfer import TransferNetwork
from kindsight.models.steps.compute_dtype import choose_compute_dtype
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.engine.phases import SHARED, make_phases
from kindsight.training.engine.plan import Phase
from kindsight.training.epoch_settings import EpochTrainer, whole_numbers
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.transfer.cache_plan import keep_views

__all__ = ["CHOICES", "TransferTrainer"]

CHOICES = (
    "cut", "freeze", "train_batch_norm", "cached_copies", "pooling",
    "dense", "dropout", "batch_norm", "l2",
    "phases",
)  # fmt: skip
"""The settings any of which, given with a backbone, means this kind of training."""


@dataclass(frozen=True)
class TransferTrainer(EpochTrainer):
    """What a training of a backbone by gradient is told.

    Parameters
    ----------
    model : str
        The backbone's name, or a Keras file of the user's own.
    weights : str
        ``"imagenet"``, ``"none"`` (random, by the seed) or a weights file.
    cut : str, optional
        The layer up to which the backbone is used, such as InceptionV3's ``"mixed7"``; all of it
        if omitted. A beginning that only one layer has is enough.
    freeze : str or int
        ``"all"``: only the head learns. ``"none"``: everything does. A number: the first so many
        layers that have weights stay as they are. A layer's name: it and all before it stay.
    train_batch_norm : bool
        Whether batch normalisation of layers that are not frozen learns, too, and takes the means
        and variances of batches; else it stays as it is in use.
    cached_copies : int
        In phases that augment images: how many augmented views of each are run through the frozen
        layers once, and kept, beside the image as it is; every epoch takes another of them. With
        0 each epoch has views of its own, and runs them through the frozen layers in each step.
    pooling, dense, dropout, batch_norm, l2
        The head: the mean (``"average"``) or maximum (``"max"``) of each map, or all of their
        numbers (``"flatten"``); widths of dense layers with ReLU; the share dropped before the
        last layer; whether dense layers are normalised by batch; a penalty on its kernels.

    Notes
    -----
    All else is that of every training of epochs: see :class:`.by_epochs.EpochTrainer`.
    """

    model: str = "efficientnet-lite0"
    pooling: str = "average"
    weights: str = "imagenet"
    cut: str | None = None
    freeze: str | int = "all"
    train_batch_norm: bool = False
    cached_copies: int = 0

    def _backbone(self) -> FrozenTrainer:
        """Return the same backbone as a training without gradient is told of it."""
        return FrozenTrainer(
            self.model, self.weights, self.size, self.resize, class_weight=self.class_weight,
            seed=self.seed, workers=self.workers, cache=self.cache,
        )  # fmt: skip

    def _own_faults(self) -> list[str]:
        found = self._backbone().faults()
        if isinstance(self.model, str) and not found and len(split_model_name(self.model)) > 1:
            found.append(f"One backbone can learn at a time. Received: {self.model!r}.")
        if self.cut is not None and (not isinstance(self.cut, str) or not self.cut.strip()):
            found.append(f"cut must be a layer's name. Received: {self.cut!r}.")
        if self.train_batch_norm not in (True, False):
            found.append(
                f"train_batch_norm must be true or false. Received: {self.train_batch_norm!r}."
            )
        if self.batch_norm not in (True, False):
            found.append(f"batch_norm must be true or false. Received: {self.batch_norm!r}.")
        for phase in self._phases()[0]:
            try:
                parse_freeze(phase.freeze)
            except SettingsError as error:
                if str(error) not in found:
                    found.append(str(error))
        try:
            found += self.head().faults()
        except TypeError:
            found.append(
                "dense must be whole numbers, dropout and l2 numbers. Received: "
                f"{self.dense!r}, {self.dropout!r}, {self.l2!r}."
            )
        return found

    def _phases(self) -> tuple[list[Phase], list[str]]:
        shared = {name: getattr(self, name) for name in (*SHARED, "mix", "cached_copies")}
        phases, said = make_phases(self.phases, shared, self.freeze, _name)
        return keep_views(phases, self.phases, said)

    def head(self) -> TrainableHead:
        """Return the head."""
        return TrainableHead(
            self.pooling, whole_numbers(self.dense), self.dropout, bool(self.batch_norm), self.l2
        )

    def network(self, files: BackboneFiles) -> TransferNetwork:
        """Return the network that is made of a backbone's files."""
        return TransferNetwork(
            str(files.keras.resolve()),
            self.cut or "",
            tuple(parse_freeze(phase.freeze) for phase in self.plan().phases),
            self.head(),
            bool(self.train_batch_norm),
        )

    def ends(self) -> tuple[str, ...] | None:
        """Return the layers at which parts of the backbone end, where the table says."""
        return get_backbone(self.model).cuts or None

    def resolved_compute_dtype(self) -> str:
        """Return ``"float32"`` or ``"bfloat16"``: what this machine trains in."""
        return choose_compute_dtype(self.compute_dtype, batch_norm=False)

    def download(self) -> str | None:
        """Say what this training would download, from whom and how large; None for nothing."""
        return self._backbone().download()

    def backbone(
        self, progress: Progress | None = None, process: KerasProcess | None = None
    ) -> BackboneFiles:
        """Find the files of the backbone, or build them, once on a machine.

        Its batch normalisations are layers of their own: whoever trains may train them, too.
        """
        return self._backbone().backbone(progress, process, fold_batch_norm=False)

    def describe(self) -> str:
        """Say in a few words which network it is."""
        upto = f", up to {self.cut}" if self.cut else ""
        return f"{self._backbone().describe_backbone()}{upto}"

    def words(self, layers: Sequence[LayerRow], classes: int) -> str:
        """Describe the network in a line: its parts, and how many numbers learn."""
        head = self.head()
        learned = sum(row.parameters for row in layers if row.trains.startswith("trains"))
        every = sum(row.parameters for row in layers)
        parts = [self.model + (f" to {self.cut}" if self.cut else ""), head.pooling]
        parts += [f"dense {units}" for units in head.dense]
        parts += ["batch normalisation"] if head.batch_norm and head.dense else []
        parts += [f"dropout {head.dropout:g}"] if head.dropout else []
        last = "one sigmoid" if classes == 2 else "softmax"
        parts.append(f"{last}; {learned:,} of {every:,} parameters learn")
        return ", ".join(parts)

    def _size(self) -> tuple[int, int]:
        return self._backbone().spec().size


def _name(what: str | int, number: int) -> str:
    """Name a phase after what learns in it."""
    if what == "all":
        return "head"
    if what == "none":
        return "all layers"
    return f"above {what}" if isinstance(what, str) else f"above {what} layers"
