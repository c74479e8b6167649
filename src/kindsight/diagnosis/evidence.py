"""What a diagnosis is made from: plain values of one finished training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError

__all__ = [
    "BatchNormEvidence", "EpochCurves", "FrozenEstimate", "InputEvidence", "LabelEvidence",
    "RunEvidence", "SourceEvidence", "SplitPredictions",
]  # fmt: skip

Numbers = NDArray[np.float64]

HELD_OUT = ("validation", "test")
"""Splits that the model was not fitted on; the first one is present more often."""

MAX_PATHS = 20
"""Number of images that a finding names."""


@dataclass(frozen=True, eq=False)
class EpochCurves:
    """The epochs of a training.

    Parameters
    ----------
    loss, accuracy, learning_rate : float64 array (epochs,)
        In training mode, during the epoch: with dropout and augmentation, in nats and 0-1.
    val_loss, val_accuracy : float64 array (epochs,)
        At the end of the epoch, in inference mode; NaN without a validation split.
    phase : tuple of str
        Name of each epoch's phase.
    best : int
        The best epoch, from 1.
    """

    loss: Numbers
    accuracy: Numbers
    val_loss: Numbers
    val_accuracy: Numbers
    learning_rate: Numbers
    phase: tuple[str, ...]
    best: int

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def validated(self) -> bool:
        """Whether there was a validation split."""
        return len(self) > 0 and not np.isnan(self.val_accuracy).any()


@dataclass(frozen=True, eq=False)
class SplitPredictions:
    """Probabilities of the final model, in inference mode, for distinct images of one split."""

    paths: tuple[str, ...]  # n
    targets: NDArray[np.int64]  # (n,), class indices
    probabilities: NDArray[np.float64]  # (n, k)

    def __post_init__(self) -> None:
        shape = self.probabilities.shape
        if len(shape) != 2 or not len(self.paths) == len(self.targets) == shape[0]:
            raise UsageError(
                "paths, targets and probabilities must have one row for each image; got "
                f"{len(self.paths)}, {len(self.targets)} and the shape {shape}."
            )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """The most probable class of each image."""
        classes: NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return classes

    @property
    def correct(self) -> int:
        """Number of images whose most probable class is the label."""
        return int((self.predicted == self.targets).sum())


@dataclass(frozen=True)
class LabelEvidence:
    """Mistakes of a classifier on images that it was not fitted on, by confidence."""

    images: int
    mistakes: int
    confident: int  # mistakes in the half of the images with the highest confidence
    majority: float  # share of the largest class, 0-1
    label: int  # class index of the commonest label of these, and of its prediction
    predicted: int
    paths: tuple[str, ...] = ()  # these images, the highest confidence first; some or all

    @classmethod
    def of(cls, predictions: SplitPredictions) -> LabelEvidence:
        """Return the evidence of predictions for at least one image."""
        targets, predicted = predictions.targets, predictions.predicted
        wrong = predicted != targets
        order = np.argsort(-predictions.probabilities.max(axis=1), kind="stable")
        rows = order[: len(order) // 2]
        rows = rows[wrong[rows]]
        label = other = 0
        if len(rows):
            pairs, counts = np.unique(
                np.stack([targets[rows], predicted[rows]]), axis=1, return_counts=True
            )
            label, other = pairs[:, counts.argmax()].tolist()
        return cls(
            len(targets),
            int(wrong.sum()),
            len(rows),
            float(np.bincount(targets).max()) / len(targets),
            label,
            other,
            tuple(predictions.paths[row] for row in rows[:MAX_PATHS]),
        )


@dataclass(frozen=True)
class SourceEvidence:
    """How well the class can be predicted from file properties alone, or whether it is one."""

    accuracy: float  # balanced, cross-validated, 0-1
    low: float  # its 95% interval
    high: float
    random: float  # of random guessing
    difference: str  # such as "image side (median 96 pixels for 'cat', 64 pixels for 'dog')"
    source: str = ""  # the class that is distinguished from all others; empty if all are


@dataclass(frozen=True)
class InputEvidence:
    """The values that the network's first layer with weights receives."""

    image_std: float  # of the pixels of a sample of training images, 0-255
    image_max: float
    scale: float  # what the network's own scaling layers multiply pixels by
    network_std: float  # image_std times scale
    user_file: bool = False  # whether the scaling is a user's own .keras file's


@dataclass(frozen=True)
class BatchNormEvidence:
    """Batch normalisation whose moving statistics were updated in training."""

    batch_size: int
    steps: int  # updates of the moving statistics until the saved epoch


@dataclass(frozen=True)
class FrozenEstimate:
    """Accuracy of a linear head on features of a frozen backbone, on the same held-out images."""

    correct: int
    images: int


@dataclass(frozen=True, eq=False)
class RunEvidence:
    """Everything that the rules may use; unknown values are None or empty.

    Parameters
    ----------
    classes : tuple of str
        In the order of the probabilities.
    settings : mapping
        The options of the training by name; empty for a bundle without its run.
    kind : str
        ``"frozen"`` (a head on frozen features), ``"fine-tuned"``, ``"network"`` (from random
        weights), ``"transfer"`` (a backbone trained by epochs), or empty.
    counts : mapping of str to int64 array (k,)
        Images of each class by split.
    predictions : mapping of str to SplitPredictions
        By split: ``"train"`` (a sample), ``"validation"``, ``"test"``.
    history : EpochCurves, optional
    temperature : float
        Divides the logits; 1 if none was fitted.
    leaking : mapping of str to int
        Images of each held-out split with a duplicate in the training split that were kept there.
    labels : LabelEvidence, optional
        Of out-of-fold predictions; of the held-out splits if it is None.
    source : SourceEvidence, optional
    inputs : InputEvidence, optional
    batch_norm : BatchNormEvidence, optional
    frozen : FrozenEstimate, optional
    run : str
        The run folder, for commands; empty if there is none.
    """

    classes: tuple[str, ...]
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = ""
    counts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)
    predictions: Mapping[str, SplitPredictions] = field(default_factory=dict)
    history: EpochCurves | None = None
    temperature: float = 1.0
    leaking: Mapping[str, int] = field(default_factory=dict)
    labels: LabelEvidence | None = None
    source: SourceEvidence | None = None
    inputs: InputEvidence | None = None
    batch_norm: BatchNormEvidence | None = None
    frozen: FrozenEstimate | None = None
    run: str = ""

    @property
    def all_held_out(self) -> SplitPredictions | None:
        """The validation and test images together; None without either."""
        parts = [self.predictions[name] for name in HELD_OUT if len(self.predictions.get(name, ()))]
        if len(parts) < 2:
            return parts[0] if parts else None
        return SplitPredictions(
            tuple(path for part in parts for path in part.paths),
            np.concatenate([part.targets for part in parts]),
            np.concatenate([part.probabilities for part in parts]),
        )

    @property
    def held_out(self) -> SplitPredictions | None:
        """Predictions for the validation split, or else the test split; None without either."""
        found = (self.predictions.get(name) for name in HELD_OUT)
        return next((part for part in found if part is not None and len(part)), None)

    @property
    def held_out_name(self) -> str:
        """The split of :attr:`held_out`; empty without one."""
        names = (name for name in HELD_OUT if len(self.predictions.get(name, ())))
        return next(names, "")
