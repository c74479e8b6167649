"""The images on which an export is compared, and those with which it is calibrated."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.bundle import Bundle
from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.dataset.loaders.renames import rename_labels
from kindsight.digest import content_digest
from kindsight.errors import ImageError, KindsightError, UsageError
from kindsight.images import resize_image
from kindsight.images.resize import read_loaded
from kindsight.network_outputs import Needs, NetworkOutputs
from kindsight.predictor import Predictor
from kindsight.runs.record import read_records
from kindsight.runs.split import open_data
from kindsight.training.common import Progress
from kindsight.uncertainty.prediction import Prediction

__all__ = ["IMAGES", "ExportImages", "Reference", "choose_images", "images_of_run", "reference_of"]

IMAGES = 500
"""Default of the maximum number of images on which an export is compared."""

CALIBRATION_IMAGES = 100
"""Number of training images on which the ranges of activations are measured."""

SPLITS = ("validation", "test", "train")
"""Splits for the comparison; the first one with images is used."""


@dataclass(frozen=True)
class ExportImages:
    """The images of an export.

    Parameters
    ----------
    compared : ImageDataset
        The images on which the export is compared.
    split : str
        Their split; empty if the data have none.
    total : int
        Number of images of the split, of which these are a sample.
    calibration : ImageDataset
        The images on which the ranges of activations are measured: training images; without splits,
        images that are not compared, if there are any.
    """

    compared: ImageDataset
    split: str
    total: int
    calibration: ImageDataset

    @property
    def description(self) -> str:
        """Description of the compared images: ``"500 of 2,000 validation images"``."""
        named = "training" if self.split == "train" else self.split
        kind = f"{named} images" if named else "images"
        count = len(self.compared)
        if count < self.total:
            return f"{count:,} of {self.total:,} {kind}"
        return f"{count:,} {kind}" if count != 1 else f"1 {kind[:-1]}"


def images_of_run(bundle: Bundle, count: int = IMAGES) -> ExportImages:
    """Return the images of a run, in its splits.

    Raises
    ------
    KindsightError
        If the bundle does not record them, or they have been moved or deleted.
    """
    record = read_records(bundle)
    cure = "Give labelled images with `data`."
    if record.settings is None or not record.images:
        raise UsageError(f"{bundle.folder} does not record its training images. {cure}")
    try:
        dataset = open_data(record.settings)
    except KindsightError as error:
        raise UsageError(
            f"The dataset that {bundle.folder} was trained on cannot be opened: {error} {cure}"
        ) from error
    splits = {image.path: image.split for image in record.images}
    found = [splits.get(path) for path in dataset.path]
    if not any(name in SPLITS for name in found):
        raise UsageError(
            f"{record.settings.data} no longer has any image that {bundle.folder} was trained or "
            f"evaluated on. {cure}"
        )
    return choose_images(dataset, found, count, bundle.classes)


def images_of_data(
    bundle: Bundle, data: str | os.PathLike[str], options: DataOptions, count: int = IMAGES
) -> ExportImages:
    """Return images of other data: those of a split, if the data have splits."""
    dataset = open_dataset(data, options, min_classes=1, classes=bundle.classes)
    return choose_images(dataset, dataset.split, count, bundle.classes)


def choose_images(
    dataset: ImageDataset, splits: Sequence[str | None], count: int, classes: tuple[str, ...]
) -> ExportImages:
    """Return the images for the comparison and those for the calibration.

    A sample has the images whose paths have the lowest digests; it is the same in every call.

    Parameters
    ----------
    dataset : ImageDataset
    splits : sequence of str or None
        The split of each image; None everywhere if there are no splits.
    count : int
        Maximum number of images to compare.
    classes : tuple of str
        Classes of the classifier, which labels must match.
    """
    if count < 1:
        raise UsageError(f"`images` must be at least 1; got {count}.")
    named = [name for name in SPLITS if name in splits]
    split = named[0] if named else ""
    rows = np.array([row for row, name in enumerate(splits) if not split or name == split], int)
    if not len(rows):
        raise UsageError("There is no image to compare an export on.")
    order = np.array(sorted(rows.tolist(), key=lambda row: _order(dataset, row)), int)
    compared = np.sort(order[:count])
    train = [row for row, name in enumerate(splits) if name == "train"]
    rest = train or sorted(set(range(len(dataset))) - set(compared.tolist())) or compared.tolist()
    rest = sorted(rest, key=lambda row: _order(dataset, row))[:CALIBRATION_IMAGES]
    renamed = rename_labels(dataset, {}, classes)
    return ExportImages(
        renamed[compared], split, len(rows), renamed[np.array(sorted(rest), np.int64)]
    )


def _order(dataset: ImageDataset, row: int) -> str:
    return content_digest(dataset.path[row].encode("utf-8", "surrogateescape"))


def read_pixels(dataset: ImageDataset, bundle: Bundle) -> NDArray[np.uint8]:
    """Return the readable images of a dataset, resized: uint8 (n, height, width, 3)."""
    found = []
    for row in range(len(dataset)):
        try:
            image = read_loaded(dataset.load(row), bundle.spec)
            found.append(resize_image(image, bundle.spec))
        except ImageError:
            continue
    return np.array(found, np.uint8).reshape(len(found), *bundle.spec.size, 3)


@dataclass(frozen=True, eq=False)
class Reference:
    """The classifier's predictions for the compared images.

    Parameters
    ----------
    images : ExportImages
    rows : tuple of int
        The readable images, by their row in ``images.compared``.
    pixels : array
        uint8 (n, height, width, 3), resized.
    predictions : tuple of Prediction
    skipped : int
        Unreadable images.
    """

    images: ExportImages
    rows: tuple[int, ...]
    pixels: NDArray[np.uint8]
    predictions: tuple[Prediction, ...]
    skipped: int

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 (n, classes)."""
        return np.array([each.probabilities for each in self.predictions], np.float32)

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """Out-of-distribution scores, float32 (n,); None if the classifier has none."""
        scores = [each.ood_score for each in self.predictions]
        return None if None in scores else np.array(scores, np.float32)

    @property
    def labels(self) -> tuple[str | None, ...]:
        """The labels of the images."""
        return tuple(self.images.compared.label[row] for row in self.rows)

    def files(self) -> list[bytes]:
        """Return the contents of the image files; images in memory become PNG files."""
        return [_as_file(self.images.compared.load(row)) for row in self.rows]


def _as_file(image: bytes | NDArray[np.uint8]) -> bytes:
    if isinstance(image, bytes):
        return image
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


class _Pixels:
    def __init__(self) -> None:
        self.found: dict[int, NDArray[np.uint8]] = {}

    @property
    def needs(self) -> Needs:
        return Needs(pixels=True)

    def observe(self, rows: NDArray[np.int64], seen: NetworkOutputs) -> None:
        assert seen.pixels is not None
        self.found.update(zip(rows.tolist(), seen.pixels, strict=True))


def reference_of(
    bundle: Bundle,
    images: ExportImages,
    progress: Progress | None = None,
    on: str | None = None,
) -> Reference:
    """Return the classifier's own predictions for the compared images.

    `on` is as for :class:`kindsight.Predictor`.

    Raises
    ------
    UsageError
        If none of the images can be read.
    """
    pixels = _Pixels()
    predictions = []
    with Predictor(bundle, on=on) as predictor:
        for prediction in predictor.predict_dataset(images.compared, pixels):
            predictions.append(prediction)
            if progress is not None:
                progress("reference", len(predictions), len(images.compared))
    rows = tuple(row for row, each in enumerate(predictions) if each.error is None)
    if not rows:
        raise UsageError(f"None of the {images.description} can be read.")
    return Reference(
        images, rows, np.stack([pixels.found[row] for row in rows]),
        tuple(predictions[row] for row in rows), len(predictions) - len(rows),
    )  # fmt: skip
