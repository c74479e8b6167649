"""What runs, reports and classifiers know of a training: three protocols.

A :class:`Trainer` holds the settings of one way of training. It prepares a dataset once
(:class:`Prepared`: features, decoded images), and from that fits a :class:`FittedModel`. The table
of trainers is in :mod:`kindsight.training.trainer`; nothing outside this package knows more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.errors import ImageError
from kindsight.images import InputSpec
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.engine.history import History
from kindsight.training.held_out import HeldOutPredictions

__all__ = [
    "BundleFiles", "FineTuningResult", "FittedModel", "FoldChoices", "HeadCandidate",
    "HeldOutPredictions", "Parity", "Prepared", "ReportSections", "StoredImage", "Trainer",
    "describe_seconds", "rejection_notes",
]  # fmt: skip

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class FineTuningResult:
    """What fine-tuning did, and whether its network was accepted.

    Parameters
    ----------
    accepted : bool
        Whether the fine-tuned network replaced the frozen head.
    description : str
        The choices made (cut, copies, epochs, learning rate), or why it was not accepted.
    seconds : dict of str to float
        Seconds by stage.
    accuracy_before, accuracy_after : float
        Validation accuracy of the frozen head and of the network, 0-1; NaN where nothing was
        fine-tuned.
    history : History
        The epochs.
    """

    accepted: bool
    description: str
    seconds: dict[str, float]
    accuracy_before: float
    accuracy_after: float
    history: History = field(default_factory=History)

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the history, ready for JSON (NaN becomes None)."""
        before, after = self.accuracy_before, self.accuracy_after
        return {
            "accepted": self.accepted,
            "description": self.description,
            "seconds": self.seconds,
            "accuracy_before": None if math.isnan(before) else before,
            "accuracy_after": None if math.isnan(after) else after,
        }


def describe_seconds(seconds: dict[str, float]) -> str:
    """Return the seconds of each stage in a line: ``"flips 2 s, training 60 s"``."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


def rejection_notes(result: FineTuningResult | None) -> tuple[str, ...]:
    """Return a run's note about fine-tuning that was not accepted; empty where it was."""
    if result is None or result.accepted:
        return ()
    return (result.description[0].upper() + result.description[1:],)


@dataclass(frozen=True)
class FoldChoices:
    """The choices of a cross-validation for the model that is trained on all of its images.

    Parameters
    ----------
    epochs : tuple of int
        Epochs of each phase.
    temperature : float
        Divides the logits.
    """

    epochs: tuple[int, ...]
    temperature: float


class Trainer(Protocol):
    """The settings of one way of training."""

    @property
    def model(self) -> str:
        """Name of the backbone or network."""

    @property
    def seed(self) -> int:
        """Random seed."""

    @property
    def resize(self) -> str:
        """How images of other proportions are fitted: crop, stretch or pad."""

    @property
    def cache(self) -> Any:
        """The cache folder; None for this machine's own."""

    @property
    def value_range(self) -> tuple[float, float] | None:
        """Values that become 0 and 255 in images of more than 8 bits."""

    @property
    def by_gradient(self) -> bool:
        """Whether there are epochs to report to callbacks and loggers."""

    @property
    def needs_validation(self) -> bool:
        """Whether the training needs validation images to decide on its model."""

    def faults(self) -> list[str]:
        """Return one sentence for each invalid setting."""

    def spec(self) -> InputSpec:
        """Return the size and fit of the network's input."""

    def download(self) -> str | None:
        """Return what would be downloaded, from where and how large; None for nothing."""

    def process(self) -> KerasProcess:
        """Return a Keras worker process for this training, not started."""

    def warm_up(self, keras: KerasProcess, *, verify: str) -> None:
        """Start in the worker process what will be needed, while images are decoded."""

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that determine the result, for JSON."""


class Prepared(Protocol):
    """A dataset prepared for one trainer; to be closed."""

    @property
    def dataset(self) -> ImageDataset:
        """The readable images."""

    @property
    def problems(self) -> tuple[ImageError, ...]:
        """The skipped images, with the reason."""

    @property
    def problem_labels(self) -> tuple[str | None, ...]:
        """The labels of the skipped images."""

    @property
    def computed(self) -> int:
        """Number of distinct images computed now."""

    @property
    def reused(self) -> int:
        """Number of distinct images found in the cache."""

    def with_dataset(self, dataset: ImageDataset) -> Any:
        """Return a copy with other labels, splits or groups for the same images."""

    def for_fold(self, folds: int) -> Any:
        """Return a copy for the next of several trainings, which share a time budget."""

    def small_grey(self, rows: Rows) -> NDArray[np.uint8]:
        """Return small grey images for the near-duplicate search: uint8 (n, 64, 64)."""

    def measure_similarity(self, rows: Rows) -> NDArray[np.void]:
        """Return the measurements compared first: ``near_duplicates.SIMILARITY`` (n,)."""

    def warm_up(self, keras: KerasProcess, rows: Rows, *, verify: str) -> None:
        """Start in the worker process what :meth:`FittedModel.write` will need for `rows`."""

    def close(self) -> None:
        """Release the cache."""

    def fit(
        self,
        classes: Sequence[str],
        rows: Rows,
        validation: Rows,
        *,
        keras: KerasProcess,
        folder: Path | None = None,
        progress: Progress | None = None,
        callback: TrainingCallback | None = None,
        chosen: FoldChoices | None = None,
    ) -> FittedModel:
        """Train on `rows`; choose epochs and temperature on `validation`, unless they are `chosen`.

        A frozen head chooses by a separate cross-validation.
        """


class FittedModel(Protocol):
    """A fitted classifier, before and after it is written as a bundle."""

    @property
    def training(self) -> Trainer:
        """The settings that it was trained with, as far as they were chosen by the program."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the logits."""

    @property
    def dataset(self) -> ImageDataset:
        """The readable images."""

    @property
    def temperature(self) -> float:
        """Divides the logits before the softmax."""

    @property
    def history(self) -> History | None:
        """The epochs; None where there were none."""

    @property
    def fine_tuning(self) -> FineTuningResult | None:
        """The result of fine-tuning; None where it was not tried."""

    @property
    def rows(self) -> Rows:
        """Rows of the training images."""

    @property
    def head(self) -> Any:
        """The fitted head and its candidates; None where the head was trained by gradient."""

    @property
    def can_be_fine_tuned(self) -> bool:
        """Whether ``--budget`` or ``--fine-tune`` could still improve the model."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know of the training."""

    def probabilities(self, rows: Rows) -> NDArray[np.float32]:
        """Return class probabilities of images of the dataset, float32 (n, classes)."""

    def held_out(self) -> HeldOutPredictions | None:
        """Return predictions of images that the model was not fitted on; None without any.

        Of a frozen head they are out-of-fold predictions of the training images (of those that
        selected the head, where there are many), so that validation images stay unused; of a
        network, the predictions of the validation images.
        """

    def logits_of(self, dataset: ImageDataset) -> NDArray[np.float32]:
        """Return the logits of another dataset's images; ImageError for an unreadable one."""

    def stored_images(self, digests: Sequence[str]) -> list[StoredImage | None]:
        """Return images from the cache, by content digest; None for those it no longer has."""

    def cropped_fraction(self) -> float:
        """Return the mean fraction of an image's area outside the network's input, 0 to 1."""

    def write(
        self,
        folder: Path,
        metadata: Mapping[str, Any],
        rows: Rows,
        keras: KerasProcess,
        *,
        verify: str,
        known_kept: float | None,
    ) -> BundleFiles:
        """Write ``model.tflite`` and ``model.keras``, and prove on `rows` that they agree.

        `known_kept` is the fraction of images like the training images below the threshold of the
        out-of-distribution score, the second output of both; None for no such output.
        """

    def ood_scores(self, rows: Rows) -> NDArray[np.float32] | None:
        """Return the out-of-distribution scores of images of the dataset, float32 (n,).

        Images that the score was fitted on have those of a score fitted without them. None where
        the network has none.
        """

    def refit(self, rows: Rows) -> FittedModel:
        """Return the model fitted again on `rows`, or itself where that would be a new training."""

    def describe(self) -> dict[str, str]:
        """Return rows of the terminal's summary: name and description."""

    def report_sections(self) -> ReportSections:
        """Return what the report says about how the model was made."""

    def clear_away(self) -> None:
        """Delete what only an interrupted training needs."""


@dataclass(frozen=True)
class StoredImage:
    """A resized image.

    Parameters
    ----------
    pixels : array
        uint8 (h, w, 3) of the network's size.
    height, width : int
        Size before resizing, to display it in proportion.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int


@dataclass(frozen=True)
class Parity:
    """How closely the two written networks agree.

    Parameters
    ----------
    images : int
        How many images were compared.
    largest_difference : float
        Largest absolute difference of a probability.
    tolerance : float
        Largest difference allowed.
    keras : str
        How the Keras file was verified.
    note : str
        A sentence for the user where the difference is larger than usual.
    """

    images: int
    largest_difference: float
    tolerance: float
    keras: str
    note: str = ""


@dataclass(frozen=True)
class BundleFiles:
    """The network files of a bundle.

    Parameters
    ----------
    tflite, keras : pathlib.Path
        From pixels 0-255, float32 (1, height, width, 3), to logits.
    parity : Parity
        The comparison of the two.
    facts : dict
        Entries for ``bundle.json``.
    uncertainty : dict
        Parts of its entry ``"uncertainty"`` that belong to the network files.
    """

    tflite: Path
    keras: Path
    parity: Parity
    facts: dict[str, Any] = field(default_factory=dict)
    uncertainty: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class HeadCandidate:
    """One candidate of a head selection: description, accuracy (0-1) and log loss (nats)."""

    description: str
    accuracy: float
    log_loss: float
    selected: bool


@dataclass(frozen=True)
class ReportSections:
    """How a model was made, for the report.

    Parameters
    ----------
    details : dict of str to str
        Rows of a table: name and description.
    temperature_source : str
        The predictions on which the temperature was fitted.
    candidates : tuple of HeadCandidate
        The candidates of a selection by cross-validation.
    layers : tuple of LayerRow
        The table of layers.
    features_file : str
        Name of the feature cache that holds the images; empty if they are not in one.
    """

    details: dict[str, str]
    temperature_source: str = ""
    candidates: tuple[HeadCandidate, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    features_file: str = ""
