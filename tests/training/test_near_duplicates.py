"""Copies among the images of a training, by what is kept of them."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))
from check_images import scene

from kindsight.dataset import ImageDataset
from kindsight.training import near_duplicates as alike
from kindsight.training.near_duplicates import (
    find_near_duplicates,
    measure_similarity,
    small_greys,
)


def images() -> np.ndarray:
    """Twelve different ones, and after them copies of the first four."""
    made = [scene(n, 224, 224) for n in range(12)]
    cheap = cv2.imdecode(cv2.imencode(".jpg", made[1], [cv2.IMWRITE_JPEG_QUALITY, 40])[1], 1)
    small = cv2.resize(cv2.resize(made[3], (120, 120)), (224, 224))
    blank = np.full((224, 224, 3), 90, np.uint8)
    return np.stack([*made, made[0], cheap, made[2][:, ::-1], small, blank, blank + 1])


@pytest.mark.parametrize("held", [20_000, 0])
def test_copies_are_found_and_nothing_else(held, monkeypatch):
    monkeypatch.setattr(alike, "MAX_IN_MEMORY", held)
    pixels = images()
    digests = [str(i) for i in range(len(pixels))]
    digests[12] = digests[0]
    dataset = ImageDataset(path=tuple(map(str, range(len(pixels)))), digest=tuple(digests))
    found = find_near_duplicates(
        dataset,
        lambda rows: measure_similarity(small_greys(pixels[rows])),
        lambda rows: small_greys(pixels[rows]),
    )
    assert found.hashes.shape == (18, 4) and (found.hashes[12] == found.hashes[0]).all()
    assert sorted(map(list, found.groups)) == [[0, 12], [1, 13], [2, 14], [3, 15]]


def test_small_greys_by_hand():
    """Red is 0.299 of white, rounded: 76."""
    red = np.zeros((2, 128, 64, 3), np.uint8)
    red[0, :, :, 0] = 255
    small = small_greys(red)
    assert small.shape == (2, 64, 64) and set(small[0].ravel()) == {76} and not small[1].any()
