"""The input size of a frozen backbone, chosen by cross-validation where images are small.

Small images are enlarged to the size on which a backbone was trained, up to thirty times the
pixels. A smaller input is often as good. Heads fitted on a sample of the images decide: the
smallest size is chosen that is not worse than the backbone's default size beyond noise.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.properties import typical_sides
from kindsight.dataset.splits.groups import content_key
from kindsight.errors import DatasetError, SettingsError
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.fitted import fit_frozen
from kindsight.training.frozen.settings import FrozenTrainer, SizeChoice

__all__ = ["choose_input_size"]

# Candidate sizes in pixels, if they are below a backbone's default size. A pass at 160 px takes
# half the time of one at 224, a pass at 128 px a third. With 96 px the log loss on cifar10 is 9%
# above that at 224.
SIZES = (128, 160)
# Side in pixels from which images are not small; the default size of most backbones is 224.
LARGE = 200
# Number of images of the sample; with fewer, a percentage point of accuracy is noise.
SAMPLE = 1500
# Number of images per class in the sample, if the class has that many.
PER_CLASS = 5
# With fewer images, the comparison would take as long as it saves.
MIN_IMAGES = 4000
# A smaller size may have a log loss higher by this many standard errors of the paired difference.
# Of 3,000 images of cifar10, 128 px classifies 0.6 +- 0.7 percentage points fewer than 224 px.
STANDARD_ERRORS = 1.0
# Lower limit of probabilities, which bounds the log loss of an image.
SMALLEST_PROBABILITY = 1e-12

Losses = NDArray[np.float64]


def choose_input_size(
    trainer: FrozenTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> FrozenTrainer:
    """Return the settings with a chosen input size if images are many and small.

    They are returned unchanged if the user gave a size, or if images have 200 pixels or more.
    The choice depends on the images, labels, backbone and resizing alone, not on the seed; images
    in a validation or test split of the dataset are not used.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings.
    dataset : ImageDataset
        The images.
    progress : callable, optional
        Called with (``"input size"``, done, total).
    keras : KerasProcess, optional
        Worker process for backbones that have to be built.
    """
    sizes = _candidates(trainer, dataset)
    sample = _sample(dataset) if sizes else dataset[:0]
    if len(sample.present_classes()) < 2:
        return trainer
    *smaller, own = sizes
    losses: dict[int, Losses] = {}
    accuracies: dict[int, float] = {}
    for size in (own, *smaller):

        def report(stage: str, done: int, total: int) -> None:
            if progress is not None:
                progress("input size", len(losses) * total + done, len(sizes) * total)

        try:
            found = _cross_validate(trainer, size, sample, report, keras)
        except DatasetError:  # too few are readable: the training reports it
            return trainer
        losses[size], accuracies[size] = found
        if size != own and not _is_worse(losses[size], losses[own]):
            break
    else:
        size = own
    tried = tuple(sorted(losses))
    choice = SizeChoice(
        size, tried, tuple(accuracies[each] for each in tried),
        tuple(float(losses[each].mean()) for each in tried), len(losses[own]),
    )  # fmt: skip
    # The backbone's default size stays unset, so that a budget still tries wider features.
    return replace(trainer, size=None if size == own else size, size_choice=choice)


def _candidates(trainer: FrozenTrainer, dataset: ImageDataset) -> tuple[int, ...]:
    """Return the candidate sizes, the backbone's default last; empty if there is no choice."""
    if trainer.size is not None or trainer.first_size is not None or len(dataset) < MIN_IMAGES:
        return ()
    sides = typical_sides(dataset)
    # A crop keeps the shorter side; stretching and padding keep the longer one.
    side = None if sides is None else sides[trainer.resize != "crop"]
    own = trainer.spec().size
    if side is None or side >= LARGE or own[0] != own[1]:
        return ()
    backbones = trainer.backbones()
    # Transformers need multiples of their patch size.
    step = math.lcm(*(backbone.size_step for backbone in backbones))
    smaller = [
        size for size in (size - size % step for size in SIZES)
        if side <= size < own[0] and all(_takes(backbone, size) for backbone in backbones)
    ]  # fmt: skip
    return (*smaller, own[0]) if smaller else ()


def _takes(backbone: Backbone, size: int) -> bool:
    try:
        backbone.check_size((size, size))
    except SettingsError:
        return False
    return True


def _sample(dataset: ImageDataset) -> ImageDataset:
    """Return labelled images outside the validation and test splits, some of each class.

    Neither the sample nor its order depends on the order of the dataset.
    """
    by_class: dict[str, list[tuple[bytes, int]]] = {}
    for row, (label, split) in enumerate(zip(dataset.label, dataset.split, strict=True)):
        if label is not None and split in (None, "train"):
            key = content_key(0, "input size", dataset.path[row])
            by_class.setdefault(label, []).append((key, row))
    # Rarer classes would not be in every fold.
    usable = [sorted(found) for found in by_class.values() if len(found) >= PER_CLASS]
    first = sorted(item for found in usable for item in found[:PER_CLASS])
    others = sorted(item for found in usable for item in found[PER_CLASS:])
    chosen = [*first, *others][: max(SAMPLE, len(first))]
    return dataset[[row for _, row in chosen]]


def _cross_validate(
    trainer: FrozenTrainer,
    size: int,
    sample: ImageDataset,
    progress: Progress,
    keras: KerasProcess | None,
) -> tuple[Losses, float]:
    """Return the out-of-fold log loss of each image, float64 (n,), and the accuracy."""
    plain = replace(
        trainer, size=size, head="linear", seed=0, tta_flips=1, tta_crops=1, flip_ids=None,
        first_tta_crops=None,
    )  # fmt: skip
    files = plain.backbone(progress, keras)
    features = compute_all_features(plain, sample, files, progress, keras=keras)
    classes = features.dataset.present_classes()
    held_out = fit_frozen(plain, features, files, classes).held_out()
    probabilities = held_out.probabilities
    picked = probabilities[np.arange(len(held_out)), held_out.targets].astype(np.float64)
    accuracy = float((probabilities.argmax(1) == held_out.targets).mean())
    return -np.log(np.maximum(picked, SMALLEST_PROBABILITY)), accuracy


def _is_worse(losses: Losses, others: Losses) -> bool:
    """Return whether losses are higher than others of the same images, beyond noise."""
    loss = losses - others
    return bool(loss.mean() > STANDARD_ERRORS * loss.std() / np.sqrt(len(loss)))
