"""The content of a training report, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.leakage import DuplicateAcrossSplits
from kindsight.errors import UsageError
from kindsight.evaluation import Evaluation

__all__ = [
    "MAX_CARDS",
    "Epoch",
    "HeadCandidateRow",
    "Layer",
    "Predictions",
    "Reference",
    "ReportData",
    "SkippedImage",
    "SplitResult",
    "ThumbnailCard",
    "TrainingSummary",
]

MAX_CARDS = 24
"""Maximum number of images in each gallery; it keeps the page below 1.5 MB."""

_SPLITS = ("train", "validation", "test")


class Reference(NamedTuple):
    """A published accuracy on the same data, for comparison."""

    name: str
    value: float
    source: str


class SkippedImage(NamedTuple):
    """An image that could not be used, with the reason."""

    path: str
    code: str
    reason: str


class Layer(Protocol):
    """One row of a network's layer table."""

    @property
    def name(self) -> str:
        """Layer name."""

    @property
    def kind(self) -> str:
        """Short description of the operation."""

    @property
    def output(self) -> tuple[int, ...]:
        """Output shape for one image, without the batch axis."""

    @property
    def parameters(self) -> int:
        """Number of weights."""

    @property
    def trainable(self) -> str:
        """Whether the layer is trainable, in words; "" where all layers are."""


class Epoch(Protocol):
    """One epoch of a training; :class:`kindsight.training.engine.history.EpochRow` is one."""

    @property
    def epoch(self) -> int:
        """Number, from 1, counted over all phases."""

    @property
    def phase(self) -> str:
        """Name of the training phase."""

    @property
    def seconds(self) -> float:
        """Duration in seconds."""

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last step."""

    @property
    def loss(self) -> float:
        """Mean training loss in nats."""

    @property
    def accuracy(self) -> float:
        """Training accuracy, 0-1."""

    @property
    def val_loss(self) -> float | None:
        """Validation loss in nats."""

    @property
    def val_accuracy(self) -> float | None:
        """Validation accuracy, 0-1."""


@dataclass(frozen=True)
class HeadCandidateRow:
    """Cross-validation result of one candidate head.

    Attributes
    ----------
    name : str
    accuracy : float
        Mean over the folds, 0-1.
    spread : float or None
        Standard deviation of the accuracy over the folds.
    log_loss : float
        Mean over the folds, in nats.
    seconds : float or None
    selected : bool
    """

    name: str
    accuracy: float
    spread: float | None
    log_loss: float
    seconds: float | None = None
    selected: bool = False


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted probabilities of the images of one split.

    Attributes
    ----------
    paths : tuple of str, length n
    targets : int array (n,)
        Index of each image's label in the classes.
    probabilities : float array (n, k)
        Rows sum to 1.
    """

    paths: tuple[str, ...]
    targets: NDArray[np.integer[Any]]
    probabilities: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        shapes = (len(self.paths),), self.targets.shape, self.probabilities.shape[:1]
        if self.probabilities.ndim != 2 or len(set(shapes)) != 1:
            raise UsageError(
                "paths, targets and probabilities must have one row for each image; got "
                f"{len(self.paths)} paths and shapes {self.targets.shape} and "
                f"{self.probabilities.shape}."
            )

    @property
    def predicted(self) -> NDArray[np.intp]:
        """Index of the most probable class of each image; the first one of a tie."""
        classes: NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return classes


class SplitResult(NamedTuple):
    """The evaluation of one split, with the predictions it was computed from."""

    name: str
    evaluation: Evaluation
    predictions: Predictions | None


@dataclass(frozen=True)
class ThumbnailCard:
    """One image of a gallery.

    Attributes
    ----------
    path : str
    image : str or None
        A ``data:image/jpeg;base64,`` or ``data:image/png;base64,`` URI; None if the image could
        not be read again.
    label : str or None
        Class in the data.
    prediction : str
    confidence : float
        Probability of the prediction, 0-1.
    caption : str
        An additional line, such as the second most probable class.
    """

    path: str
    image: str | None
    label: str | None
    prediction: str
    confidence: float
    caption: str = ""


@dataclass(frozen=True)
class TrainingSummary:
    """Settings and facts of a training run.

    Attributes
    ----------
    source : str
        Where the images came from, as the user gave it.
    classes : mapping of str to mapping of str to int
        Class to split ("train", "validation", "test") to number of images.
    input_size : tuple of int
        (height, width) in pixels.
    temperature : float
    temperature_source : str
        The predictions that it was fitted on; "" if it was not fitted.
    seed : int
    details : mapping of str to str
        Rows of the "Training" section: a short name and its text, such as "Backbone" or
        "Fine-tuning".
    seconds : mapping of str to float
        Stage to seconds, in order; "total" is the whole run.
    candidates : tuple of HeadCandidateRow
        The heads compared by cross-validation.
    layers : sequence of Layer
        The layers of a trained network.
    duplicates : int
        Images that are identical to another one.
    versions : mapping of str to str
        Package to version.
    machine : str
        One line.
    """

    source: str
    classes: Mapping[str, Mapping[str, int]]
    input_size: tuple[int, int]
    temperature: float
    temperature_source: str
    seed: int
    details: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    candidates: tuple[HeadCandidateRow, ...] = ()
    layers: Sequence[Layer] = ()
    duplicates: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that contain images, in the order train, validation, test."""
        return tuple(split for split in _SPLITS if self.images(split))

    def images(self, split: str) -> int:
        """Return the number of images in a split."""
        return sum(counts.get(split, 0) for counts in self.classes.values())


@dataclass(frozen=True)
class ReportData:
    """Everything in a training report.

    Attributes
    ----------
    title, run, created : str
        Page title, name of the run, and date and time as shown.
    training : TrainingSummary
    results : tuple of SplitResult
        The evaluated splits. The first one gives the headline: test if there is one, else
        validation.
    reference : tuple of Reference
        Published accuracies on the same data.
    mistakes, uncertain : tuple of ThumbnailCard
        Misclassified images, most confident first; images with the smallest margin between their
        two most probable classes. The first `MAX_CARDS` of each are shown.
    gallery_split : str
        The split that these images belong to.
    skipped : tuple of SkippedImage
    leakage : tuple of DuplicateAcrossSplits
        Duplicates across splits.
    notes, warnings : tuple of str
        Sentences; warnings are shown at the top of the page.
    run_folder : str
        For the example commands; "" omits them.
    history : tuple of Epoch
        The epochs in order; empty for a frozen backbone.
    best_epoch : int or None
        The epoch to mark in the curves.
    """

    title: str
    run: str
    created: str
    training: TrainingSummary
    results: tuple[SplitResult, ...] = ()
    reference: tuple[Reference, ...] = ()
    mistakes: tuple[ThumbnailCard, ...] = ()
    uncertain: tuple[ThumbnailCard, ...] = ()
    gallery_split: str = "validation"
    skipped: tuple[SkippedImage, ...] = ()
    leakage: tuple[DuplicateAcrossSplits, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    run_folder: str = ""
    history: tuple[Epoch, ...] = ()
    best_epoch: int | None = None
