"""The images of a finished run: from the cache, or else from the data."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.image_cache import read_cached_images
from kindsight.digest import content_digest
from kindsight.errors import CacheError, KindsightError
from kindsight.images import InputSpec, read_loaded, resize_image
from kindsight.runs.record import RunRecord
from kindsight.runs.split import open_data
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.training.frozen.stored_images import SHRINKS, read_stored

__all__ = ["find_images"]

Image = NDArray[np.uint8]


def find_images(
    record: RunRecord, sides: Mapping[str, int], features_file: str, cache: Cache
) -> dict[str, Image]:
    """Return the images that can still be found, by content digest.

    Parameters
    ----------
    record : RunRecord
    sides : mapping of str to int
        Content digest of each wanted image -> minimum longer side in pixels.
    features_file : str
        Path of the feature cache below the cache folder; empty for none.
    cache : Cache

    Returns
    -------
    dict of str to uint8 array (height, width, 3)
        In the original proportions, at the size of the network's input, or smaller if that
        suffices.
    """
    spec, wanted = record.bundle.spec, list(sides)
    found = dict[str, tuple[Image, tuple[int, int]]]()
    with contextlib.suppress(CacheError):
        for shrink in SHRINKS:
            digests = [digest for digest in wanted if _shrink(spec, sides[digest]) == shrink]
            found |= _from_features(cache, features_file, digests, shrink)
    missing = [digest for digest in wanted if digest not in found]
    with contextlib.suppress(CacheError):
        found |= read_cached_images(spec, cache, missing) if missing else {}
    if missing := [digest for digest in wanted if digest not in found]:
        found |= _from_data(record, missing)
    stretched = spec.fit == "stretch"
    return {
        digest: _in_proportion(pixels, size, sides[digest]) if stretched else pixels
        for digest, (pixels, size) in found.items()
    }


def _shrink(spec: InputSpec, side: int) -> int:
    """Return the largest divisor that leaves the longer side of the input at least this long."""
    return max(each for each in SHRINKS if each == 1 or max(spec.size) >= each * side)


def _from_features(
    cache: Cache, name: str, digests: list[str], shrink: int
) -> dict[str, tuple[Image, tuple[int, int]]]:
    """Return the JPEGs in a table of features."""
    path = cache.folder("features") / Path(name).name
    if not name or not path.is_file():
        return {}
    rows = zip(digests, read_stored(path, 0, digests, shrink=shrink), strict=True)
    return {
        digest: (image.pixels, (image.height, image.width))
        for digest, image in rows
        if image is not None
    }


def _from_data(record: RunRecord, digests: list[str]) -> dict[str, tuple[Image, tuple[int, int]]]:
    """Return the images of unchanged files of the run's data."""
    if record.settings is None:
        return {}
    try:
        dataset = open_data(record.settings)
    except KindsightError:  # moved or deleted
        return {}
    rows = {path: row for row, path in enumerate(dataset.path)}
    wanted = set(digests)
    places = {
        image.digest: rows[image.path]
        for image in record.images
        if image.digest in wanted and image.path in rows
    }

    def read(item: tuple[str, int]) -> tuple[str, tuple[Image, tuple[int, int]] | None]:
        return item[0], _read(dataset, *item, record.bundle.spec)

    with single_threaded_opencv():
        found = list(map_ordered(read, places.items(), count_cores()))
    return {digest: image for digest, image in found if image is not None}


def _read(
    dataset: ImageDataset, digest: str, row: int, spec: InputSpec
) -> tuple[Image, tuple[int, int]] | None:
    try:
        data = dataset.load(row)
        if content_digest(data) != digest:
            return None
        image = read_loaded(data, spec)
        return resize_image(image, spec), (image.shape[0], image.shape[1])
    except KindsightError:
        return None


def _in_proportion(pixels: Image, size: tuple[int, int], longer_side: int) -> Image:
    """Undo the stretching to the network's input."""
    scale = longer_side / max(size)
    height, width = (max(1, round(side * scale)) for side in size)
    return resize_image(pixels, InputSpec(height, width))
