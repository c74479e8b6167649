"""Detect images that a classifier was trained on, whatever their names or file formats.

``trained_on.npz`` in a run folder has, for each image of the train split, its content digest and a
perceptual hash: 48 bytes, from which no image can be reconstructed.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.linking import find_near_pairs
from kindsight.digest import content_digest
from kindsight.errors import BundleError
from kindsight.files import replacing
from kindsight.images.hashes import (
    ORIENTATIONS,
    hamming,
    oriented_hashes,
    perceptual_hash,
    small_grey,
)

__all__ = [
    "ALL_BITS", "TRAINED_ON_FILE", "TrainedImages", "TrainingImageDetector", "has_content",
    "image_hash",
]  # fmt: skip

TRAINED_ON_FILE = "trained_on.npz"

MAX_BYTES = 2**30

# Thresholds in bits, as for the checks of duplicates: a re-encoded image differs in up to 7 of the
# 64 lowest bits, and in up to 22 of all 255; different images differ in 36 and more.
LOW_BITS = 7
ALL_BITS = 28

FEWEST_BITS = 16
"""Hashes with fewer ones, or fewer zeros, are of images without content."""


def image_hash(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the perceptual hash of a resized image, uint8 (h, w, 3), RGB: uint64 (4,)."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # In two steps, as training computes it from its stored 64x64 images: bit-identical.
    return perceptual_hash(small_grey(small_grey(grey, 64)))


@dataclass(frozen=True, eq=False)
class TrainedImages:
    """Digests and hashes of the images of a train split."""

    digests: frozenset[str]
    hashes: NDArray[np.uint64]  # (n, 4), `image_hash` of each image at the network's input size

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` file without a pickle."""
        joined = b"".join(bytes.fromhex(digest) for digest in sorted(self.digests))
        names = np.frombuffer(joined, np.uint8).reshape(len(self.digests), -1 if joined else 16)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, digests=names, hashes=self.hashes.astype("<u8"))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrainedImages | None:
        """Read the file of a run folder; None if there is none, BundleError if it is damaged."""
        path = Path(folder, TRAINED_ON_FILE)
        if not path.exists():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
            _check_unpacked_size(path)
            with np.load(path, allow_pickle=False) as arrays:
                names, hashes = arrays["digests"], arrays["hashes"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{path} is damaged: {error}. Restore it, or delete it to evaluate without it."
            ) from error
        valid = names.dtype == np.uint8 and names.ndim == 2 and hashes.dtype == np.dtype("<u8")
        if not valid or hashes.ndim != 2 or hashes.shape[1] != 4:
            raise BundleError(
                f"{path} is damaged: it contains {names.dtype} {names.shape} and {hashes.dtype} "
                f"{hashes.shape}. Restore it, or delete it to evaluate without it."
            )
        return cls(frozenset(row.tobytes().hex() for row in names), hashes.astype(np.uint64))

    def contains(self, digests: list[str | None], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return which images were trained on, as the same file or a re-encoded copy.

        Mirrored and rotated copies are detected; other images of the same burst are not.

        - `digests`: list of (str or None); content digests of n images.
        - `hashes`: uint64 array (n, 4); their :func:`image_hash`.

        Returns bool array (n,).
        """
        found = np.array([digest in self.digests for digest in digests], np.bool_)
        trained = self.hashes[has_content(self.hashes)]
        candidates = np.flatnonzero(has_content(hashes) & ~found)
        if not len(trained) or not len(candidates):
            return found
        every = np.concatenate([hashes[candidates], trained])
        low = every[:, 0].copy()
        for orientation in ORIENTATIONS:
            oriented = oriented_hashes(every, orientation)
            pairs = find_near_pairs(low, LOW_BITS, oriented[:, 0].copy()).pairs
            pairs = pairs[(pairs[:, 0] < len(candidates)) & (pairs[:, 1] >= len(candidates))]
            distance = hamming(every[pairs[:, 0]], oriented[pairs[:, 1]])
            found[candidates[pairs[distance <= ALL_BITS, 0]]] = True
        return found


class TrainingImageDetector:
    """Detects training images among the images of a prediction stream."""

    def __init__(self, trained: TrainedImages) -> None:
        self._trained = trained
        self._observed: dict[int, tuple[str, NDArray[np.uint64]]] = {}

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> TrainingImageDetector | None:
        """Load it from a run folder; None if the run does not record its training images."""
        trained = TrainedImages.read(folder)
        return None if trained is None else cls(trained)

    def observe(self, row: int, data: bytes | NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
        """Record an image; called on many threads.

        - `data`: bytes or uint8 array; the file, or the array in memory.
        - `pixels`: uint8 array (h, w, 3); resized, RGB.
        """
        self._observed[row] = content_digest(data), image_hash(pixels)

    def trained_on(self, rows: list[int]) -> NDArray[np.bool_]:
        """Return which of the observed images were trained on: bool (rows,)."""
        observed = [self._observed[row] for row in rows]
        hashes = np.array([hashed for _, hashed in observed], np.uint64).reshape(-1, 4)
        return self._trained.contains([digest for digest, _ in observed], hashes)


def _check_unpacked_size(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        total = sum(item.file_size for item in archive.infolist())
    if total > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")


def has_content(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which hashes, uint64 (n, 4), are of images with content, not of one tone."""
    ones = hamming(hashes, np.zeros_like(hashes))
    result: NDArray[np.bool_] = (ones >= FEWEST_BITS) & (ones <= 255 - FEWEST_BITS)
    return result
