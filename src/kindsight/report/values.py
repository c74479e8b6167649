"""Values of single sections of a report: diagnoses, uncertainty, slices, overlays, maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

__all__ = [
    "AccuracyAtSize", "ClassOutlook", "Diagnosis", "FeatureMap", "LearningCurve", "MappedImage",
    "Overlay", "PredictionSets", "RiskCoverage", "RiskPoint", "Slice", "UnknownScore",
]  # fmt: skip


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
        """The numbers behind it, by name."""

    @property
    def evidence(self) -> str:
        """What was compared, in words."""

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
    """Conformal prediction sets: the stated coverage, and what held-out images show."""

    confidence_level: float
    method: str
    images: int  # that the quantile was computed from
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

    column: str  # what was compared: "width", "camera", a column of the table
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
