"""Perceptual hashes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from image_makers import smooth

from kindsight.images.hashes import (
    ORIENTATIONS,
    hamming,
    oriented_hashes,
    perceptual_hash,
    popcount,
    small_grey,
)


def photo(seed):
    """Return a grey image with energy at all sizes, as photographs have."""
    random = np.random.default_rng(seed)
    image = np.zeros((150, 200))
    for size in (3, 6, 12, 24, 48):
        coarse = random.normal(size=(size, size))
        image += cv2.resize(coarse, (200, 150), interpolation=cv2.INTER_CUBIC) / size**0.5
    return ((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)


def test_the_bits_are_signs_of_the_cosine_transform():
    small = small_grey(photo(1))
    # OpenCV's own transform, which is orthonormal too.
    coefficients = cv2.dct(small.astype(np.float64))[:16, :16]
    bits = np.unpackbits(perceptual_hash(small).view(np.uint8), bitorder="little")
    noise = 0.02 * small.std()
    low = (coefficients[:8, :8] > noise).ravel()
    low[0] = False
    assert np.array_equal(bits[:64], low)
    assert bits.sum() == (coefficients > noise).sum() - 1


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_hash_of_an_oriented_image_follows_from_that_of_the_image(orientation):
    transposed, mirrored, upended = orientation
    for seed in range(5):
        small = small_grey(photo(seed))
        turned = small.T if transposed else small
        turned = turned[:, ::-1] if mirrored else turned
        turned = turned[::-1] if upended else turned
        expected = perceptual_hash(np.ascontiguousarray(turned))
        found = oriented_hashes(perceptual_hash(small)[None], orientation)[0]
        assert hamming(found, expected) <= 16  # coefficients near zero


def test_copies_are_near_and_others_far():
    grey = photo(3)
    smaller = cv2.resize(grey, (90, 70), interpolation=cv2.INTER_AREA)
    stored = cv2.imdecode(cv2.imencode(".jpg", grey, [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 0)
    here = perceptual_hash(small_grey(grey))
    for copy in (smaller, stored):
        assert hamming(here, perceptual_hash(small_grey(copy))) <= 12
    assert hamming(here, perceptual_hash(small_grey(photo(4)))) >= 80


def test_the_hash_of_a_plain_image_is_zero():
    assert not perceptual_hash(np.full((32, 32), 77, np.uint8)).any()


def test_counting_bits_is_the_same_without_numpys_own_function(monkeypatch):
    values = np.random.default_rng(0).integers(0, 2**63, (50, 4)).astype(np.uint64)
    expected = [[bin(int(v)).count("1") for v in row] for row in values]
    assert hamming(values, np.zeros_like(values)).tolist() == [sum(row) for row in expected]
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    assert hamming(values, np.zeros_like(values)).tolist() == [sum(row) for row in expected]


def test_small_images_can_be_hashed():
    assert small_grey(smooth(1, 1)[..., 0]).shape == (32, 32)
    assert small_grey(smooth(500, 3)[..., 0]).shape == (32, 32)


@pytest.mark.parametrize("dtype", [np.uint16, np.uint64])
@pytest.mark.parametrize("count", [0, 5])
def test_bits_are_counted_without_numpy_2(dtype, count, monkeypatch):
    monkeypatch.delattr(np, "bitwise_count", raising=False)
    values = np.arange(count, dtype=dtype) * 37
    assert popcount(values).tolist() == [bin(int(value)).count("1") for value in values]
