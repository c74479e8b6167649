"""The resized images that the cache keeps beside their features, as JPEGs.

For reports, and for comparing networks, without reading the images again.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.images.hashes import small_grey
from kindsight.threads import count_cores, in_batches, map_ordered
from kindsight.training.common import share_outside
from kindsight.training.frozen.feature_cache import FeatureTable

__all__ = ["KeptImage", "kept_greys", "kept_images", "kept_pixels", "share_cut_off", "to_jpeg"]

# Some 15 kB an image, no damage that an eye sees.
JPEG_QUALITY = 92
# How many a thread makes small and grey at once: each takes a tenth of a millisecond.
GREYS = 32


@dataclass(frozen=True)
class KeptImage:
    """An image as the network saw it.

    Parameters
    ----------
    pixels : array
        uint8 (h, w, 3) of the network's size.
    height, width : int
        Of the image before, so that it can be shown in proportion.
    """

    pixels: NDArray[np.uint8]
    height: int
    width: int


def to_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    """Return uint8 (h, w, 3) as a JPEG; nothing where that cannot be made."""
    good, data = cv2.imencode(
        ".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    )
    return data.tobytes() if good else b""


def kept_images(path: Path, width: int, digests: Sequence[str]) -> list[KeptImage | None]:
    """Return the resized images that the cache kept, in the order of `digests`.

    Parameters
    ----------
    path : pathlib.Path
        The table of features.
    width : int
        How many numbers a row has.
    digests : sequence of str
        Which images.
    """
    with closing(FeatureTable(path, width)) as table:
        rows = table.images(digests)
    kept: list[KeptImage | None] = []
    for digest in digests:
        row = rows.get(digest)
        pixels = None if row is None else cv2.imdecode(np.frombuffer(row.jpeg, np.uint8), 1)
        if row is None or pixels is None:
            kept.append(None)
        else:
            rgb = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), np.uint8)
            kept.append(KeptImage(rgb, row.height, row.width))
    return kept


def kept_pixels(
    path: Path, width: int, dataset: ImageDataset, spec: InputSpec, digests: Sequence[str]
) -> NDArray[np.uint8]:
    """Return images of a dataset as the network sees them: uint8 (n, height, width, 3).

    What the cache no longer has is read again.

    Parameters
    ----------
    path, width
        As :func:`kept_images` takes them.
    dataset : ImageDataset
        That they are of.
    spec : InputSpec
        How they are resized.
    digests : sequence of str
        Which images, at least one.
    """
    pixels = []
    for digest, image in zip(digests, kept_images(path, width, digests), strict=True):
        if image is not None:
            pixels.append(image.pixels)
            continue
        data = dataset.load(dataset.digest.index(digest))
        read = read_image(data, target=spec.size) if isinstance(data, bytes) else data
        pixels.append(resize_image(read, spec))
    return np.stack(pixels)


def kept_greys(path: Path, width: int, digests: Sequence[str], side: int) -> NDArray[np.uint8]:
    """Return the images that the cache kept, small and grey: uint8 (n, side, side).

    Zeros stand for those that it no longer has.

    Parameters
    ----------
    path : pathlib.Path
        The table of features.
    width : int
        How many numbers a row has.
    digests : sequence of str
        Which images.
    side : int
        Height and width.
    """
    with closing(FeatureTable(path, width)) as table:
        rows = table.images(digests)

    found = np.zeros((len(digests), side, side), np.uint8)

    def fill(bundle: list[tuple[int, str]]) -> None:
        for place, digest in bundle:
            row = rows.get(digest)
            if row is None:
                continue
            decoded = cv2.imdecode(np.frombuffer(row.jpeg, np.uint8), cv2.IMREAD_GRAYSCALE)
            if decoded is not None:
                found[place] = small_grey(np.asarray(decoded, np.uint8), side)

    cores = count_cores()
    for _ in map_ordered(fill, in_batches(enumerate(digests), GREYS, cores), cores):
        pass
    return found


def share_cut_off(path: Path, width: int, digests: Sequence[str], spec: InputSpec) -> float:
    """Return how much of the images' area lies outside the crop, on average: 0 to 1.

    Parameters
    ----------
    path : pathlib.Path
        The table of features.
    width : int
        How many numbers a row has.
    digests : sequence of str
        Which images.
    spec : InputSpec
        How they were resized; only ``"crop"`` cuts anything off.
    """
    if spec.fit != "crop" or not digests:
        return 0.0
    with closing(FeatureTable(path, width)) as table:
        return share_outside(table.sizes(digests), spec.size)
