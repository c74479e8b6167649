"""The content of a training report, as plain frozen values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.names import IgnoredFile
from kindsight.dataset.splits.leakage import DuplicateAcrossSplits
from kindsight.errors import UsageError
from kindsight.evaluation import Evaluation

__all__ = [
    "CROSS_VALIDATION",
    "MAX_CARDS",
    "AccuracyAtSize",
    "ClassOutlook",
    "Epoch",
    "FeatureMap",
    "HeadCandidateRow",
    "Layer",
    "LearningCurve",
    "MappedImage",
    "Overlay",
    "PredictionSets",
    "Predictions",
    "Reference",
    "ReportData",
    "RiskCoverage",
    "RiskPoint",
    "SkippedImage",
    "Slice",
    "SplitResult",
    "TrainingSummary",
    "UnknownScore",
]


class Diagnosis(Protocol):
    """A finding on a training; :class:`kindsight.diagnosis.Diagnosis` is one."""

    @property
    def code(self) -> str:
        """Code, such as KD101."""

    @property
    def title(self) -> str:
        """Title of the finding."""

    @property
    def severity(self) -> str:
        """``"error"``, ``"warning"`` or ``"note"``."""

    @property
    def message(self) -> str:
        """One or two sentences."""

    @property
    def figure(self) -> Mapping[str, float]:
        """The numbers on which the finding is based, by name."""

    @property
    def evidence(self) -> str:
        """The comparison on which the finding is based, in words."""

    @property
    def commands(self) -> tuple[str, ...]:
        """Commands to try, most useful first."""


class RiskPoint(NamedTuple):
    """The images whose confidence is at least `confidence`: their fraction and their accuracy."""

    confidence: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class RiskCoverage:
    """Accuracy of the labelled images by coverage, and the threshold of "unsure"."""

    points: tuple[RiskPoint, ...]
    threshold: float | None  # predictions below this confidence are unsure; None for no threshold
    target_accuracy: float | None
    target_coverage: float | None
    images: int
    source: str  # the predictions it was measured on


@dataclass(frozen=True)
class PredictionSets:
    """Conformal prediction sets: the stated coverage, and that measured on held-out images."""

    confidence_level: float
    method: str
    images: int  # images from which the quantile was computed
    source: str
    mean_size: float | None = None  # mean number of classes in a set
    measured_coverage: float | None = None


@dataclass(frozen=True)
class UnknownScore:
    """The out-of-distribution score of known images, and the threshold of "unknown"."""

    method: str
    threshold: float
    known_kept: float  # fraction of known images at or below the threshold
    images: int
    source: str


class Slice(NamedTuple):
    """Images with something in common on which the accuracy is lower than on the others."""

    column: str  # the compared property: "width", "camera", or a column of the table
    value: str  # "below 200 px", "Canon"
    images: int
    accuracy: float
    low: float  # 95% confidence interval of the accuracy
    high: float
    others: float  # accuracy of all other images
    p_value: float  # corrected for the number of slices compared


@dataclass(frozen=True, eq=False)
class Overlay:
    """An image with the regions that a prediction relies on, as JPEG or PNG files."""

    path: str
    image: bytes
    overlay: bytes
    label: str | None
    prediction: str
    confidence: float
    method: str  # "Grad-CAM", "occlusion"


class MappedImage(NamedTuple):
    """An image's position in a map, 0-1."""

    path: str
    x: float
    y: float


@dataclass(frozen=True)
class FeatureMap:
    """Images placed so that similar features are close."""

    split: str
    method: str  # "PCA", "t-SNE"
    images: tuple[MappedImage, ...]
    explained: float | None = None  # fraction of the variance that the map shows


class AccuracyAtSize(NamedTuple):
    """Accuracy of a model at a number of training images, with its 90% interval."""

    images: int
    accuracy: float
    low: float
    high: float


class ClassOutlook(NamedTuple):
    """The gain of more images of a class, in a sentence."""

    name: str
    sentence: str


@dataclass(frozen=True)
class LearningCurve:
    """Accuracy by number of training images: measured, and the fitted curve."""

    points: tuple[AccuracyAtSize, ...]
    fit: tuple[AccuracyAtSize, ...] = ()
    sentence: str = ""
    classes: tuple[ClassOutlook, ...] = ()


MAX_CARDS = 24
"""Maximum number of images in each gallery; it keeps the page below 1.5 MB."""

CROSS_VALIDATION = "cross-validation"
"""Name of the out-of-fold predictions of ``--folds``, which take the place of a validation
split."""

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
    label: str = ""


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
        """Whether the layer is trainable, in words; "" if all layers are."""


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
    """Cross-validation result of one candidate head."""

    name: str
    accuracy: float  # mean over the folds, 0-1
    spread: float | None  # standard deviation of the accuracy over the folds
    log_loss: float  # mean over the folds, in nats
    seconds: float | None = None
    selected: bool = False


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted probabilities of the images of one split."""

    paths: tuple[str, ...]  # n
    targets: NDArray[np.integer[Any]]  # (n,), class indices
    probabilities: NDArray[np.floating[Any]]  # (n, k), rows sum to 1
    # (n,), higher for images that are less like the training images; None if the model has no score
    ood_scores: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        shapes = [(len(self.paths),), self.targets.shape, self.probabilities.shape[:1]]
        shapes += [] if self.ood_scores is None else [self.ood_scores.shape]
        if self.probabilities.ndim != 2 or len(set(shapes)) != 1:
            raise UsageError(
                "paths, targets and probabilities must have one row for each image; got "
                f"{len(self.paths)} paths and shapes {self.targets.shape} and "
                f"{self.probabilities.shape}."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: NDArray[Any]) -> Predictions:
        """Return the predictions of some rows: an int or bool array."""
        chosen = np.arange(len(self))[rows]
        scores = None if self.ood_scores is None else self.ood_scores[chosen]
        paths = tuple(self.paths[row] for row in chosen.tolist())
        return Predictions(paths, self.targets[chosen], self.probabilities[chosen], scores)

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
class TrainingSummary:
    """Settings and facts of a training run."""

    source: str  # where the images came from, as the user gave it
    # Class to split ("train", "validation", "test") to number of images
    classes: Mapping[str, Mapping[str, int]]
    input_size: tuple[int, int]  # (height, width) in pixels
    temperature: float
    temperature_source: str  # predictions on which it was fitted; "" if it was not fitted
    seed: int
    # Rows of the "Training" section: a short name and its text, such as "Backbone" or "Fine-tuning"
    details: Mapping[str, str] = field(default_factory=dict)
    # Stage to seconds, in order; "total" is the whole run
    seconds: Mapping[str, float] = field(default_factory=dict)
    candidates: tuple[HeadCandidateRow, ...] = ()  # the heads compared by cross-validation
    layers: Sequence[Layer] = ()
    duplicates: int = 0  # images that are identical to another one
    versions: Mapping[str, str] = field(default_factory=dict)  # package to version
    machine: str = ""  # one line

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that contain images, in the order train, validation, test."""
        return tuple(split for split in _SPLITS if self.images(split))

    def images(self, split: str) -> int:
        """Return the number of images in a split."""
        return sum(counts.get(split, 0) for counts in self.classes.values())


@dataclass(frozen=True)
class ReportData:
    """Everything in a training report."""

    # Page title, name of the run, and date and time as shown
    title: str
    run: str
    created: str
    training: TrainingSummary
    # The evaluated splits. The first one gives the headline: test if there is one, else validation.
    results: tuple[SplitResult, ...] = ()
    reference: tuple[Reference, ...] = ()  # published accuracies on the same data
    # The thumbnails of images of the first result, by path, as ``data:`` URIs: large ones of the
    # galleries, small ones of the cells of the confusion matrix
    large_images: Mapping[str, str] = field(default_factory=dict)
    small_images: Mapping[str, str] = field(default_factory=dict)
    map_images: Mapping[str, str] = field(default_factory=dict)  # of the feature map, by path
    skipped: tuple[SkippedImage, ...] = ()
    ignored: tuple[IgnoredFile, ...] = ()  # files that are not in the dataset
    leakage: tuple[DuplicateAcrossSplits, ...] = ()
    # Sentences; warnings are shown at the top of the page
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    run_folder: str = ""  # for the example commands; "" omits them
    settings: Mapping[str, str] = field(default_factory=dict)  # all settings of the training
    history: tuple[Epoch, ...] = ()  # the epochs in order; empty for a frozen backbone
    best_epoch: int | None = None  # the epoch to mark in the curves
    # Findings on the training, most important first
    diagnoses: tuple[Diagnosis, ...] = ()
    risk_coverage: RiskCoverage | None = None
    prediction_sets: PredictionSets | None = None
    unknown: UnknownScore | None = None
    slices: tuple[Slice, ...] = ()  # most important first
    overlays: tuple[Overlay, ...] = ()  # of the worst mistakes
    feature_map: FeatureMap | None = None
    learning_curve: LearningCurve | None = None
