"""Which images a classifier was trained on, known again whatever they are called or stored as.

``trained_on.npz`` in a run folder holds, of each image of the training part, the digest of its
content and a perceptual hash: 48 bytes, from which no image can be made.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.checks.duplicates.hash_index import find_near_pairs
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

__all__ = ["TRAINED_ON_FILE", "Recognition", "TrainedImages", "image_hash"]

TRAINED_ON_FILE = "trained_on.npz"

MAX_BYTES = 2**30

# As for the checks of duplicates: an image that was stored anew differs in up to 7 of the 64
# lowest bits, and in up to 22 of all 255; other images in 36 and more.
LOW_BITS = 7
ALL_BITS = 28

FEWEST_BITS = 16
"""Hashes of fewer ones, or fewer zeros, are of images that show nothing."""


def image_hash(pixels: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return the perceptual hash of a resized image, uint8 (h, w, 3), RGB: uint64 (4,)."""
    grey = np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), np.uint8)
    # In two steps, as it is made of what a training keeps: the same to the bit where it can be.
    return perceptual_hash(small_grey(small_grey(grey, 64)))


@dataclass(frozen=True, eq=False)
class TrainedImages:
    """The images of a training part.

    Parameters
    ----------
    digests : frozenset of str
        Of their content.
    hashes : uint64 array (n, 4)
        As :func:`image_hash` gives them, of the images resized as the network sees them.
    """

    digests: frozenset[str]
    hashes: NDArray[np.uint64]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write them to a file without a pickle."""
        joined = b"".join(bytes.fromhex(digest) for digest in sorted(self.digests))
        names = np.frombuffer(joined, np.uint8).reshape(len(self.digests), -1 if joined else 16)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez(file, digests=names, hashes=self.hashes.astype("<u8"))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> TrainedImages | None:
        """Read them from a run folder; None where it has no such file.

        Raises
        ------
        BundleError
            If the file is damaged.
        """
        path = Path(folder, TRAINED_ON_FILE)
        if not path.exists():
            return None
        try:
            if path.stat().st_size > MAX_BYTES:
                raise ValueError(f"it is larger than {MAX_BYTES:,} bytes")
            _check_sizes(path)
            with np.load(path, allow_pickle=False) as held:
                names, hashes = held["digests"], held["hashes"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise BundleError(
                f"{path} must be as a training wrote it. It is not: {error}."
            ) from error
        sound = names.dtype == np.uint8 and names.ndim == 2 and hashes.dtype == np.dtype("<u8")
        if not sound or hashes.ndim != 2 or hashes.shape[1] != 4:
            raise BundleError(
                f"{path} must hold digests and hashes of images. Received: {names.dtype} "
                f"{names.shape} and {hashes.dtype} {hashes.shape}."
            )
        return cls(frozenset(row.tobytes().hex() for row in names), hashes.astype(np.uint64))

    def knows(self, digests: list[str | None], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Say which images were trained on: the same file, or the same image stored anew.

        Also mirrored and turned ones are known. Images of one burst are not.

        Parameters
        ----------
        digests : list of (str or None)
            Of n images.
        hashes : uint64 array (n, 4)
            As :func:`image_hash` gives them.

        Returns
        -------
        bool array (n,)
        """
        known = np.array([digest in self.digests for digest in digests], np.bool_)
        mine, theirs = self.hashes[_shows(self.hashes)], np.flatnonzero(_shows(hashes) & ~known)
        if not len(mine) or not len(theirs):
            return known
        every = np.concatenate([hashes[theirs], mine])
        low = every[:, 0].copy()
        for turn in ORIENTATIONS:
            turned = oriented_hashes(every, turn)
            pairs = find_near_pairs(low, LOW_BITS, turned[:, 0].copy()).pairs
            pairs = pairs[(pairs[:, 0] < len(theirs)) & (pairs[:, 1] >= len(theirs))]
            apart = hamming(every[pairs[:, 0]], turned[pairs[:, 1]])
            known[theirs[pairs[apart <= ALL_BITS, 0]]] = True
        return known


class Recognition:
    """Knows the images that a classifier was trained on while they go by.

    Parameters
    ----------
    trained : TrainedImages
        What it was trained on.
    """

    def __init__(self, trained: TrainedImages) -> None:
        self._trained = trained
        self._seen: dict[int, tuple[str, NDArray[np.uint64]]] = {}

    @classmethod
    def of(cls, folder: str | os.PathLike[str]) -> Recognition | None:
        """Read what a run was trained on; None where it does not say.

        Raises
        ------
        BundleError
            If the file is damaged.
        """
        trained = TrainedImages.read(folder)
        return None if trained is None else cls(trained)

    def see(self, row: int, data: bytes | NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
        """Take note of an image; from any thread.

        Parameters
        ----------
        row : int
            Its number.
        data : bytes or uint8 array
            The file, or the image in memory.
        pixels : uint8 array (h, w, 3)
            Resized, RGB.
        """
        self._seen[row] = content_digest(data), image_hash(pixels)

    def known(self, rows: list[int]) -> NDArray[np.bool_]:
        """Say which of the images that were seen it was trained on: bool (rows,)."""
        seen = [self._seen[row] for row in rows]
        hashes = np.array([hashed for _, hashed in seen], np.uint64).reshape(-1, 4)
        return self._trained.knows([digest for digest, _ in seen], hashes)


def _check_sizes(path: Path) -> None:
    """Refuse a file that would unpack to more than a training writes."""
    with zipfile.ZipFile(path) as held:
        total = sum(item.file_size for item in held.infolist())
    if total > MAX_BYTES:
        raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")


def _shows(hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    ones = hamming(hashes, np.zeros_like(hashes))
    shows: NDArray[np.bool_] = (ones >= FEWEST_BITS) & (ones <= 255 - FEWEST_BITS)
    return shows
