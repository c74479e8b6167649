"""Colour, worked out by hand."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import noise, transforms

from kindsight.augment import Augment
from kindsight.augment.apply import apply_transforms


def coloured(pixels, **values) -> list:
    """Change a row of pixels; return it as lists."""
    image = np.array([pixels], np.uint8)
    return apply_transforms(image[None], transforms(1, **values), Augment(), 1)[0, 0].tolist()


def near(got, expected, off=1) -> bool:
    """Whether all values agree; OpenCV's matrices have a fixed point, and are off by 1 at times."""
    return np.abs(np.array(got) - np.array(expected)).max() <= off


def test_brightness_multiplies():
    assert near(coloured([(200, 100, 51)], brightness=0.5), [(100, 50, 25.5)])
    assert near(coloured([(200, 100, 51)], brightness=1.5), [(255, 150, 76.5)])
    assert coloured([(200, 100, 51)], brightness=0) == [[0, 0, 0]]


def test_contrast_multiplies_the_distance_from_the_mean_grey():
    # Greys 0.299 * 200 + 0.587 * 100 + 0.114 * 50 = 124.2 and 20, so their mean is 72.1.
    pixels = [(200, 100, 50), (20, 20, 20)]
    assert near(coloured(pixels, contrast=0), [(72.1,) * 3] * 2)
    assert near(coloured(pixels, contrast=0.5), [(136.05, 86.05, 61.05), (46.05,) * 3])
    assert near(coloured(pixels, contrast=1.5), [(255, 113.95, 38.95), (0, 0, 0)])


def test_contrast_is_that_of_the_brightened_image():
    pixels = [(200, 100, 50), (20, 20, 20)]
    assert near(coloured(pixels, contrast=0, brightness=0.5), [(36.05,) * 3] * 2)


def test_saturation_multiplies_the_distance_from_the_grey_of_the_same_luma():
    assert near(coloured([(200, 100, 50)], saturation=0), [(124.2,) * 3])
    assert near(coloured([(200, 100, 50)], saturation=0.5), [(162.1, 112.1, 87.1)])
    assert near(coloured([(200, 100, 50)], saturation=1.5), [(237.9, 87.9, 12.9)])


@pytest.mark.parametrize("angle", [-120, -30, 17, 90, 180])
def test_hue_turns_colours_and_keeps_luma_and_distance_from_grey(angle):
    pixel = np.array([140.0, 120, 110])
    (got,) = np.array(coloured([pixel], hue=angle), float)
    # The standard library's YIQ has coefficients that differ in the third digit.
    _, i, q = colorsys.rgb_to_yiq(*pixel)
    luma, new_i, new_q = colorsys.rgb_to_yiq(*got)
    assert luma == pytest.approx(0.299 * 140 + 0.587 * 120 + 0.114 * 110, abs=1)
    turned = complex(i, q) * np.exp(1j * np.radians(angle))
    assert abs(complex(new_i, new_q) - turned) < 1.2


def test_the_opposite_hue_mirrors_the_colour_at_its_grey():
    # Grey 0.299 * 140 + 0.587 * 120 + 0.114 * 100 = 123.7
    assert near(coloured([(140, 120, 100)], hue=180), [(107.4, 127.4, 147.4)])


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 255), min_size=1, max_size=9),
    *[st.floats(0, 3)] * 3,
    st.floats(-180, 180),
)
def test_greys_stay_grey(values, brightness, contrast, saturation, hue):
    got = coloured(
        [(value,) * 3 for value in values],
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
    )
    assert all(near(pixel, pixel[0]) for pixel in got)
    mean = np.mean(values)
    expected = brightness * (mean + contrast * (np.array(values) - mean))
    assert near([pixel[1] for pixel in got], expected.clip(0, 255), off=2)


@settings(max_examples=60)
@given(st.integers(0, 999), *[st.floats(0, 2)] * 3, st.floats(-180, 180))
def test_all_colour_together_is_one_after_the_other(seed, brightness, contrast, saturation, hue):
    # A pale image and weak changes, so that nothing is cut off on the way.
    pixels = noise(seed, 8) // 8 + 100
    weak = {"brightness": 0.9 + brightness / 10, "contrast": 0.5 + contrast / 4, "hue": hue}
    got = coloured(pixels, saturation=0.5 + saturation / 4, **weak)
    x = pixels * weak["brightness"]
    grey = x @ (0.299, 0.587, 0.114)
    x = grey.mean() + weak["contrast"] * (x - grey.mean())
    to_yiq = np.array([[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
    luma, i, q = to_yiq @ x.T
    turned = (i + 1j * q) * np.exp(1j * np.radians(hue)) * (0.5 + saturation / 4)
    expected = np.linalg.solve(to_yiq, np.stack([luma, turned.real, turned.imag])).T
    assert near(got, expected.clip(0, 255), off=2)


def test_posterize_keeps_the_high_bits():
    assert coloured([(191, 16, 15)], posterize=4) == [[0b10110000, 16, 0]]
    assert coloured([(191, 16, 15)], posterize=7) == [[190, 16, 14]]


def test_solarize_inverts_from_a_value_on():
    assert coloured([(191, 128, 127)], solarize=128) == [[64, 127, 127]]
    assert coloured([(255, 1, 0)], solarize=0) == [[0, 254, 255]]


def test_autocontrast_stretches_each_channel_for_itself():
    # Red 50-100, green 0-255, blue of one value only.
    pixels = [(50, 0, 7), (100, 255, 7), (60, 10, 7)]
    assert coloured(pixels, autocontrast=True) == [[0, 0, 7], [255, 255, 7], [51, 10, 7]]


def test_equalize_spreads_each_channel_evenly():
    # Of four values, each after the least is a third of the way further.
    pixels = [(10, 0, 7), (11, 1, 7), (12, 100, 7), (13, 200, 7)]
    expected = [[0, 0, 7], [85, 85, 7], [170, 170, 7], [255, 255, 7]]
    assert coloured(pixels, equalize=True) == expected
