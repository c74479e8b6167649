"""The resized images that the feature cache stores as JPEGs, for reports and the parity check."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.cache.sqlite_table import lost_error
from kindsight.dataset import ImageDataset
from kindsight.errors import KindsightError
from kindsight.images import InputSpec, read_loaded, resize_image
from kindsight.images.hashes import small_grey
from kindsight.threads import count_cores, in_batches, map_ordered
from kindsight.training.common import fraction_outside
from kindsight.training.frozen.feature_cache import FeatureTable
from kindsight.training.protocols import StoredImage

__all__ = [
    "SHRINKS", "cropped_fraction", "jpeg_grey", "read_greys", "read_images", "read_pixels",
    "read_stored", "to_jpeg",
]  # fmt: skip

# About 15 kB an image, without visible damage.
JPEG_QUALITY = 92
# OpenCV's flags for decoding at a fraction of the size, by divisor.
SHRINKS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Images that a thread shrinks per task; each takes a tenth of a millisecond.
GREYS_PER_TASK = 32


def to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 (h, w, 3) as a JPEG; empty if it cannot be encoded."""
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return data.tobytes() if good else b""


def read_stored(
    path: Path, width: int, digests: Sequence[str], *, shrink: int = 1
) -> list[StoredImage | None]:
    """Return the stored images in the order of `digests`; None for a missing one.

    Parameters
    ----------
    path : pathlib.Path
        The feature cache.
    width : int
        Number of features in a row.
    digests : sequence of str
        Content digests of the images.
    shrink : int
        Divisor of their height and width, one of :data:`SHRINKS`; a larger one decodes faster.
    """
    with closing(FeatureTable(path, width)) as table:
        rows = table.images(digests)

    how = SHRINKS[shrink]

    def decode(digest: str) -> StoredImage | None:
        row = rows.get(digest)
        pixels = None if row is None else cv2.imdecode(np.frombuffer(row.jpeg, np.uint8), how)
        if row is None or pixels is None:
            return None
        rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
        return StoredImage(rgb, row.height, row.width)

    return list(map_ordered(decode, digests, count_cores()))


def read_pixels(
    path: Path, width: int, dataset: ImageDataset, spec: InputSpec, digests: Sequence[str]
) -> NDArray[np.uint8]:
    """Return resized images of a dataset, uint8 (n, height, width, 3).

    Images that are no longer in the cache are read again.

    Parameters
    ----------
    path, width
        See :func:`read_stored`.
    dataset : ImageDataset
        The dataset that contains these images.
    spec : InputSpec
        How they are resized.
    digests : sequence of str
        At least one.
    """
    return np.stack(
        [
            _read_again(dataset, spec, digest).pixels if image is None else image.pixels
            for digest, image in zip(digests, read_stored(path, width, digests), strict=True)
        ]
    )


def read_images(
    path: Path, width: int, dataset: ImageDataset, spec: InputSpec, digests: Sequence[str]
) -> list[StoredImage | None]:
    """Return resized images of a dataset; None for those that can no longer be read.

    Images that the cache does not store are read again.

    Parameters
    ----------
    path, width, dataset, spec, digests
        See :func:`read_pixels`.
    """
    found = read_stored(path, width, digests)
    for row, digest in enumerate(digests):
        if found[row] is None:
            with contextlib.suppress(KindsightError, ValueError):  # ValueError: not of the dataset
                found[row] = _read_again(dataset, spec, digest)
    return found


def _read_again(dataset: ImageDataset, spec: InputSpec, digest: str) -> StoredImage:
    image = read_loaded(dataset.load(dataset.digest.index(digest)), spec)
    return StoredImage(resize_image(image, spec), image.shape[0], image.shape[1])


def read_greys(path: Path, width: int, digests: Sequence[str], side: int) -> NDArray[np.uint8]:
    """Return the stored images as small grey ones, uint8 (n, side, side).

    Zeros for an image that could not be stored; LostTableError for one that the cache has lost.

    Parameters
    ----------
    path, width, digests
        See :func:`read_stored`.
    side : int
        Height and width.
    """
    with closing(FeatureTable(path, width)) as table:
        rows = table.images(digests)
        if not table.known(digests).issuperset(digests):
            raise lost_error(path)

    found = np.zeros((len(digests), side, side), np.uint8)

    def fill(bundle: list[tuple[int, str]]) -> None:
        for index, digest in bundle:
            row = rows.get(digest)
            grey = None if row is None else jpeg_grey(row.jpeg, side)
            if grey is not None:
                found[index] = grey

    cores = count_cores()
    for _ in map_ordered(fill, in_batches(enumerate(digests), GREYS_PER_TASK, cores), cores):
        pass
    return found


def jpeg_grey(jpeg: bytes, side: int) -> NDArray[np.uint8] | None:
    """Return a stored image as a small grey one, uint8 (side, side); None without an image."""
    data = np.frombuffer(jpeg, np.uint8)
    decoded = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if len(data) else None
    return None if decoded is None else small_grey(np.asarray(decoded, np.uint8), side)


def cropped_fraction(path: Path, width: int, digests: Sequence[str], spec: InputSpec) -> float:
    """Return the mean fraction of the images' area outside the crop, 0-1.

    Parameters
    ----------
    path, width, digests
        See :func:`read_stored`.
    spec : InputSpec
        How they were resized; the result is 0 unless by ``"crop"``.
    """
    if spec.fit != "crop" or not digests:
        return 0.0
    with closing(FeatureTable(path, width)) as table:
        return fraction_outside(table.sizes(digests), spec.size)
