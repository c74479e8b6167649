"""Channel shift and brightness: exactly Keras's pixels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from side_by_side import KERAS, OURS, examples, run_both

# Black, within 0 to 255, in 0 to 1, beyond both ends.
spans = st.sampled_from([(0, 0), (0, 255), (0, 1), (-40, 300), (10, 90), (255, 255)])
shapes = st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 3, 4]))


def image(span, shape, seed: int, dtype: str) -> np.ndarray:
    return np.random.RandomState(seed).uniform(*span, shape).astype(dtype)


@examples(40)
@given(
    spans,
    shapes,
    st.floats(-100, 100),
    st.sampled_from(["float32", "float64", "int16"]),
    st.integers(0, 99),
    st.sampled_from([0, 2]),
)
def test_channel_shift(span, shape, intensity, dtype, seed, axis):
    x = image(span, shape, seed, dtype)
    keras_, ours = (m.apply_channel_shift(x, intensity, channel_axis=axis) for m in (KERAS, OURS))
    assert keras_.dtype == ours.dtype
    assert np.array_equal(keras_, ours)


@examples(40)
@given(
    spans,
    shapes,
    st.one_of(st.floats(-1, 3), st.sampled_from([0.0, 1.0, 0.5])),
    st.booleans(),
    st.sampled_from(["float32", "uint8", "float64"]),
    st.integers(0, 99),
)
@example((-40, 300), (4, 4, 3), 1.2, False, "float32", 0)
def test_brightness(span, shape, brightness, scale, dtype, seed):
    x = image(span, shape, seed, dtype)
    keras_, ours = (m.apply_brightness_shift(x, brightness, scale) for m in (KERAS, OURS))
    assert keras_.dtype == ours.dtype
    assert np.array_equal(keras_, ours)


def test_brightness_by_hand():
    x = np.array([[[10.9, 100.0, 200.0]]], np.float32)
    assert OURS.apply_brightness_shift(x, 1.5, scale=False).tolist() == [[[15, 150, 255]]]
    assert OURS.apply_brightness_shift(x, 0.25, scale=False).tolist() == [[[2, 25, 50]]]


def test_alpha_does_not_change():
    x = np.full((2, 2, 4), 100, np.float32)
    assert OURS.apply_brightness_shift(x, 0.5, scale=False)[0, 0].tolist() == [50, 50, 50, 100]


def test_brightness_uses_the_data_format_of_keras():
    x = np.random.RandomState(0).uniform(0, 255, (3, 5, 7)).astype(np.float32)
    for module in (KERAS, OURS):
        with pytest.raises(ValueError):
            module.apply_brightness_shift(x, 0.5)
    keras.config.set_image_data_format("channels_first")
    try:
        keras_, ours = (m.apply_brightness_shift(x, 0.5, False) for m in (KERAS, OURS))
    finally:
        keras.config.set_image_data_format("channels_last")
    assert np.array_equal(keras_, ours)


@examples(40)
@given(st.integers(0, 2**31), st.booleans())
def test_random_functions(seed, scale):
    x = image((0, 255), (5, 6, 3), 3, "float32")

    def run(module):
        return [
            module.random_brightness(x, (0.3, 2), scale),
            module.random_channel_shift(x, 50, 2),
        ]

    for one, other in zip(*run_both(run, seed), strict=True):
        assert np.array_equal(one, other)
