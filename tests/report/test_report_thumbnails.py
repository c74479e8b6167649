"""Selection of gallery images, and thumbnails."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kindsight.errors import UsageError
from kindsight.report.data import Predictions
from kindsight.report.gallery import (
    confident_mistakes,
    most_uncertain,
    thumbnail_uri,
)


def opened(uri: str) -> Image.Image:
    start = "data:image/jpeg;base64,"
    assert uri.startswith(start)
    return Image.open(io.BytesIO(base64.b64decode(uri[len(start) :], validate=True)))


def test_aspect_ratio_and_colours_are_preserved():
    image = np.zeros((300, 600, 3), np.uint8)
    image[:, :300] = (220, 30, 40)
    image[:, 300:] = (20, 40, 210)
    small = opened(thumbnail_uri(image, 128))
    assert small.size == (128, 64)
    pixels = np.asarray(small.convert("RGB")).astype(int)
    assert np.abs(pixels[32, 20] - (220, 30, 40)).max() < 8
    assert np.abs(pixels[32, 108] - (20, 40, 210)).max() < 8


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(16, 200))
def test_any_shape_fits_the_size(height, width, size):
    small = opened(thumbnail_uri(np.zeros((height, width, 3), np.uint8), size))
    assert max(small.size) == min(size, max(height, width))
    assert min(small.size) >= 1


def test_invalid_images_raise():
    for image in (
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(UsageError, match="uint8 array"):
            thumbnail_uri(image)
    with pytest.raises(UsageError, match="size must be"):
        thumbnail_uri(np.zeros((4, 4, 3), np.uint8), 5000)


def small_predictions() -> Predictions:
    return Predictions(
        ("a", "b", "c", "d", "e"),
        np.array([0, 1, 1, 0, 1]),
        # correct, wrong 0.6, wrong 0.9, correct with a small margin, wrong 0.9
        np.array([[0.99, 0.01], [0.6, 0.4], [0.9, 0.1], [0.51, 0.49], [0.9, 0.1]]),
    )


def test_mistakes_are_sorted_by_confidence():
    assert confident_mistakes(small_predictions()).tolist() == [2, 4, 1]
    assert confident_mistakes(small_predictions(), 1).tolist() == [2]


def test_uncertain_predictions_are_sorted_by_margin():
    # margins: 0.98, 0.2, 0.8, 0.02, 0.8
    assert most_uncertain(small_predictions()).tolist() == [3, 1]
    assert most_uncertain(small_predictions(), margin=0.9).tolist() == [3, 1, 2, 4]
    assert most_uncertain(
        small_predictions(), exclude=confident_mistakes(small_predictions())
    ).tolist() == [3]
    assert most_uncertain(small_predictions(), limit=1).tolist() == [3]
