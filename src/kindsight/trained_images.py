"""Detect images that a classifier was trained on, whatever their names or file formats.

``trained_on.npz`` in a run folder has, for each image of the train split, its content digest and a
perceptual hash: 48 bytes, from which no image can be reconstructed.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.hash_index import NearPairSearch
from kindsight.errors import BundleError
from kindsight.files import replacing
from kindsight.images.hashes import (
    ORIENTATIONS,
    hamming,
    oriented_hashes,
)

__all__ = [
    "ALL_BITS", "TRAINED_ON_FILE", "TrainedImages", "has_content",
]  # fmt: skip

TRAINED_ON_FILE = "trained_on.npz"

MAX_BYTES = 2**30

# Thresholds in bits, as for the checks of duplicates: a re-encoded image differs in up to 7 of the
# 64 lowest bits, and in up to 22 of all 255; different images differ in 36 and more.
LOW_BITS = 7
ALL_BITS = 28

COMPARED_AT_ONCE = 1 << 17
"""Number of images compared with the training images at once, at a few hundred bytes each."""

FEWEST_BITS = 16
"""Hashes with fewer ones, or fewer zeros, are of images without content."""


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

    def contains(
        self, digests: Sequence[str | None], hashes: NDArray[np.uint64]
    ) -> NDArray[np.bool_]:
        """Return which images were trained on, as the same file or a re-encoded copy.

        Mirrored and rotated copies are detected; other images of the same burst are not.

        - `digests`: content digests of n images.
        - `hashes`: uint64 array (n, 4); their :func:`.hashes.image_hash`.

        Returns bool array (n,).
        """
        known = (digest in self.digests for digest in digests)
        found = np.fromiter(known, np.bool_, len(digests))
        trained = self.hashes[has_content(self.hashes)]
        candidates = np.flatnonzero(~found)
        if len(trained):
            for at in range(0, len(candidates), COMPARED_AT_ONCE):
                some = candidates[at : at + COMPARED_AT_ONCE]
                some = some[has_content(hashes[some])]
                found[some] = _near(hashes[some], trained)
        return found


def _near(hashes: NDArray[np.uint64], trained: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Return which images' hashes, (n, 4), are near to one of the training images'."""
    found = np.zeros(len(hashes), np.bool_)
    for orientation in ORIENTATIONS if len(hashes) else ():
        oriented = oriented_hashes(trained, orientation)
        for near in NearPairSearch(hashes[:, 0].copy(), LOW_BITS, oriented[:, 0].copy()):
            distance = hamming(hashes[near.first], oriented[near.second])
            found[near.first[distance <= ALL_BITS]] = True
    return found


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
