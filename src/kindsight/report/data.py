"""What a report is made of: plain, frozen values that any caller can fill in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.splits.leakage import DuplicateAcrossSplits
from kindsight.errors import UsageError
from kindsight.evaluation import Evaluation
from kindsight.report.epochs import Epoch

__all__ = [
    "MAX_CARDS",
    "HeadChoice",
    "Layer",
    "Part",
    "Predictions",
    "Problem",
    "Reference",
    "ReportData",
    "ThumbnailCard",
    "TrainedOn",
]

MAX_CARDS = 24
"""Images shown of each kind; the page stays under 1.5 MB."""

_SPLITS = ("train", "validation", "test")


class Reference(NamedTuple):
    """Somebody else's accuracy on the same data, to stand beside ours."""

    name: str
    value: float
    source: str


class Problem(NamedTuple):
    """An image that was set aside, and why."""

    path: str
    code: str
    reason: str


class Layer(Protocol):
    """One line of a network's table of layers."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def kind(self) -> str:
        """What it does, in words."""

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of what it gives for one image."""

    @property
    def parameters(self) -> int:
        """How many numbers it learns, or has learned before."""

    @property
    def trains(self) -> str:
        """Where not all layers do: whether it trains, in words."""


@dataclass(frozen=True)
class HeadChoice:
    """One row of the cross-validation that chose the head.

    Attributes
    ----------
    name : str
    accuracy, spread : float
        Mean over the folds, and standard deviation over them (None where there is none).
    log_loss : float
        Mean over the folds, in nats.
    seconds : float or None
    chosen : bool
    """

    name: str
    accuracy: float
    spread: float | None
    log_loss: float
    seconds: float | None = None
    chosen: bool = False


@dataclass(frozen=True, eq=False)
class Predictions:
    """What the classifier said of each image of one split.

    Attributes
    ----------
    paths : tuple of str, n of them
    targets : int array (n,), the label's place in the classes
    probabilities : float array (n, k), rows sum to 1
    """

    paths: tuple[str, ...]
    targets: NDArray[np.integer[Any]]
    probabilities: NDArray[np.floating[Any]]

    def __post_init__(self) -> None:
        shapes = (len(self.paths),), self.targets.shape, self.probabilities.shape[:1]
        if self.probabilities.ndim != 2 or len(set(shapes)) != 1:
            raise UsageError(
                "paths, targets and probabilities must have one row for each image. Received: "
                f"{len(self.paths)} paths, {self.targets.shape}, {self.probabilities.shape}"
            )

    @property
    def predicted(self) -> NDArray[np.intp]:
        """The most probable class of each image, the first of equals."""
        answers: NDArray[np.intp] = self.probabilities.argmax(axis=1)
        return answers


@dataclass(frozen=True)
class ThumbnailCard:
    """One image as it is shown in the report.

    Attributes
    ----------
    path : str
        Where it is.
    image : str or None
        A ``data:image/jpeg;base64,`` or ``data:image/png;base64,`` address; None where the
        image could not be read again.
    label : str or None
        Its class in the data.
    prediction : str
        The classifier's answer.
    confidence : float
        The answer's probability, 0-1.
    caption : str
        A further line, such as the second most probable class.
    """

    path: str
    image: str | None
    label: str | None
    prediction: str
    confidence: float
    caption: str = ""


@dataclass(frozen=True)
class TrainedOn:
    """The facts of a training.

    Attributes
    ----------
    source : str
        The folder (or what else) the images came from, as the user gave it.
    classes : mapping of str to mapping of str to int
        Class to split ("train", "validation", "test") to images.
    made : mapping of str to str
        What the classifier is and how it was trained, a few names with what is to be said.
    input_size : tuple of int
        (height, width) in pixels.
    temperature : float
    temperature_from : str
        What it was fitted on; "" where it was not fitted.
    seed : int
    seconds : mapping of str to float
        Stage to seconds, in order; "total" is the whole run.
    choices : tuple of HeadChoice
        The cross-validation table.
    layers : tuple of Layer
        The network's layers, of a network that was trained.
    skipped, duplicates : int
        Images that could not be read; images identical to another one.
    versions : mapping of str to str
        Package to version.
    machine : str
        One line.
    facts : mapping of str to str
        Anything else worth a row, such as the agreement of the saved forms.
    """

    source: str
    classes: Mapping[str, Mapping[str, int]]
    made: Mapping[str, str]
    input_size: tuple[int, int]
    temperature: float
    temperature_from: str
    seed: int
    seconds: Mapping[str, float] = field(default_factory=dict)
    choices: tuple[HeadChoice, ...] = ()
    layers: Sequence[Layer] = ()
    skipped: int = 0
    duplicates: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    machine: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that hold an image, in the order of their use."""
        return tuple(split for split in _SPLITS if self.images(split))

    def images(self, split: str) -> int:
        """Count the images of a split over all classes."""
        return sum(counts.get(split, 0) for counts in self.classes.values())


class Part(NamedTuple):
    """An evaluation with the name of the split it was made on, and what was said of it."""

    name: str
    evaluation: Evaluation
    predictions: Predictions | None


@dataclass(frozen=True)
class ReportData:
    """Everything that a report says.

    Attributes
    ----------
    title, run, created : str
        The page's title, the run's name, and when it was made, as it is to be shown.
    trained_on : TrainedOn
        The facts of the training.
    evaluation, test : Evaluation or None
        On the validation images and on the test images. Where both are there the test
        stands first.
    predictions, test_predictions : Predictions or None
        What was said of these images: needed for the reliability diagram and for the
        sentences on doubt.
    reference : tuple of Reference
        Others' accuracies on the same data.
    mistakes, doubtful : tuple of ThumbnailCard
        Highest confidence in a wrong answer first; smallest margin first. The first
        `MAX_CARDS` of each are shown.
    cards_from : str
        The split that these images are of.
    problems : tuple of Problem
        Images that were set aside.
    leakage : tuple of DuplicateAcrossSplits
        Images that several parts had, and what became of them.
    notes, warnings : tuple of str
        Sentences worth saying; warnings stand on the first screen.
    run_folder : str
        For the commands that use the run; "" leaves them out.
    history : tuple of Epoch
        The epochs of the training, in order; none for a frozen backbone.
    best_epoch : int or None
        The epoch to mark in the curves.
    """

    title: str
    run: str
    created: str
    trained_on: TrainedOn
    evaluation: Evaluation | None = None
    test: Evaluation | None = None
    predictions: Predictions | None = None
    test_predictions: Predictions | None = None
    reference: tuple[Reference, ...] = ()
    mistakes: tuple[ThumbnailCard, ...] = ()
    doubtful: tuple[ThumbnailCard, ...] = ()
    cards_from: str = "validation"
    problems: tuple[Problem, ...] = ()
    leakage: tuple[DuplicateAcrossSplits, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    run_folder: str = ""
    history: tuple[Epoch, ...] = ()
    best_epoch: int | None = None

    @property
    def parts(self) -> tuple[Part, ...]:
        """The evaluations there are, the one that counts most first."""
        both = (
            ("test", self.test, self.test_predictions),
            ("validation", self.evaluation, self.predictions),
        )
        return tuple(Part(name, evaluation, said) for name, evaluation, said in both if evaluation)
