"""The nearest training images: those whose features point in the most similar direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.models.pooled_maps import PooledMap

__all__ = ["Neighbour", "TrainingImages", "feature_vector", "unit_rows"]

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image that is near an image in feature space.

    Parameters
    ----------
    path, label : str
        As in the run's dataset.
    similarity : float
        Cosine of the two feature vectors, -1 to 1.
    jpeg : bytes
        The resized image as the cache has it; empty where it has none.
    file : str or None
        The image file; None if it is not where it was during the training.
    """

    path: str
    label: str
    similarity: float
    jpeg: bytes = b""
    file: str | None = None


@dataclass(frozen=True, eq=False)
class TrainingImages:
    """The training images of a run with their feature vectors.

    Parameters
    ----------
    paths, labels, digests : tuple of str
        Of n images; byte-identical images once.
    vectors : array
        float32 (n, width), each of length 1; see :func:`feature_vector`.
    total : int
        Number of training images of the run, of which these are some or all.
    load : callable
        Returns the resized image of a digest as JPEG, empty if there is none.
    find : callable
        Returns the file of a path; None if it is not there.
    """

    paths: tuple[str, ...]
    labels: tuple[str, ...]
    digests: tuple[str, ...]
    vectors: Floats
    total: int
    load: Callable[[str], bytes]
    find: Callable[[str], str | None]

    def nearest(self, vector: Floats, count: int, digest: str = "") -> tuple[Neighbour, ...]:
        """Return the training images with the highest cosine to a feature vector, highest first.

        The image with the content digest `digest`, the image itself, is left out.
        """
        similarities = self.vectors @ vector
        order = np.argsort(-similarities, kind="stable")
        rows = [row for row in order[: count + 1].tolist() if self.digests[row] != digest]
        return tuple(
            Neighbour(
                self.paths[row],
                self.labels[row],
                float(similarities[row]),
                self.load(self.digests[row]),
                self.find(self.paths[row]),
            )
            for row in rows[:count]
        )


def feature_vector(maps: Sequence[PooledMap], values: Sequence[Floats]) -> Floats:
    """Return the feature vector of an image, float32 (width,), of length 1.

    It is the mean over the image of the last feature maps of each network (of the unchanged image,
    with test-time augmentation), each network's scaled to the same length. Of the features of an
    EfficientNet-Lite0, their cosine found images of the same class most often.
    """
    parts = [
        found.mean(axis=(0, 1))
        for each, found in zip(maps, values, strict=True)
        if each.is_last and not each.flips and not each.is_cropped
    ]
    joined = np.concatenate([unit_rows(part[None]) for part in parts], axis=1)
    vector: Floats = unit_rows(joined)[0]
    return vector


def unit_rows(vectors: Floats) -> Floats:
    """Return vectors (n, width) scaled to length 1; zeros stay zeros."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), np.float32)
