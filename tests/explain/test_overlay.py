"""Overlays: in the image's own orientation and proportion."""

from __future__ import annotations

import numpy as np
import pytest

from kindsight.explain.overlay import draw_overlay, place_map, shrink
from kindsight.images import InputSpec


def corner(height: int, width: int) -> np.ndarray:
    """Return a map of 1 in its top left quarter, 0 elsewhere."""
    values = np.zeros((height, width), np.float32)
    values[: height // 2, : width // 2] = 1
    return values


def test_stretched_map_covers_the_whole_image():
    placed = place_map(corner(16, 16), InputSpec(64, 64), (40, 200))
    assert placed.values.shape == (40, 200)
    assert placed.seen.all()
    assert placed.values[:15, :90].min() > 0.9
    assert placed.values[25:].max() < 0.1 and placed.values[:, 110:].max() < 0.1


@pytest.mark.parametrize("size", [(100, 300), (300, 100)])
def test_cropped_map_covers_the_middle(size):
    placed = place_map(np.ones((8, 8), np.float32), InputSpec(64, 64, fit="crop"), size)
    assert placed.values.shape == size
    assert placed.seen.sum() == 100 * 100
    rows, columns = np.nonzero(placed.seen)
    assert (rows.min(), columns.min()) == ((size[0] - 100) // 2, (size[1] - 100) // 2)
    assert placed.values[~placed.seen].max() == 0
    assert placed.values[placed.seen].min() == 1


def test_padded_map_is_without_the_padding():
    values = np.zeros((64, 64), np.float32)
    values[16:48] = 1  # where an image of 2:1 is
    placed = place_map(values, InputSpec(64, 64, fit="pad"), (50, 100))
    assert placed.values.shape == (50, 100)
    assert placed.seen.all() and placed.values.min() > 0.99


def test_map_is_scaled_to_its_highest_value():
    assert place_map(7 * corner(8, 8), InputSpec(8, 8), (8, 8)).values.max() == 1
    empty = place_map(np.zeros((8, 8), np.float32), InputSpec(8, 8), (8, 8))
    assert empty.values.max() == 0
    grey = draw_overlay(np.full((8, 8, 3), (200, 10, 10), np.uint8), empty)
    assert np.ptp(grey, axis=2).max() == 0  # no colour without saliency


def test_overlay_is_coloured_where_the_map_is_and_dark_outside():
    image = np.full((90, 30, 3), 120, np.uint8)
    placed = place_map(np.ones((8, 8), np.float32), InputSpec(8, 8, fit="crop"), (90, 30))
    drawn = draw_overlay(image, placed)
    assert drawn.shape == image.shape and drawn.dtype == np.uint8
    assert np.ptp(drawn[45, 15]) > 50
    assert drawn[5].max() < 60


def test_shrink_keeps_the_proportion():
    image = np.zeros((600, 1200, 3), np.uint8)
    assert shrink(image, 300).shape == (150, 300, 3)
    assert shrink(image, 1200) is image
