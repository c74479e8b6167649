"""Resizing and its settings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import noise

from kindsight.errors import SettingsError, UsageError
from kindsight.images import InputSpec, resize_image
from kindsight.images.resize import MAX_SIDE, PAD_VALUE

FITS = ["stretch", "crop", "pad"]
INTERPOLATIONS = ["auto", "area", "linear", "cubic", "nearest"]


def image_of(rows):
    """Return an image whose three channels are the values, values + 1 and values + 2."""
    values = np.array(rows, np.uint8)
    return np.stack([values, values + 1, values + 2], -1)


def test_four_pixels_become_their_mean():
    # (10 + 20 + 60 + 30) / 4 = 30
    resized = resize_image(image_of([[10, 20], [60, 30]]), InputSpec(1, 1))
    assert resized.tolist() == [[[30, 31, 32]]]


def test_shrinking_one_side_averages_that_side():
    resized = resize_image(image_of([[10, 20, 60, 30]]), InputSpec(1, 2))
    assert resized[0, :, 0].tolist() == [15, 45]
    # By 1.5: (10 + 20 / 2) / 1.5 = 13.3, (20 / 2 + 60) / 1.5 = 46.7
    spec = InputSpec(1, 2, interpolation="area")
    resized = resize_image(image_of([[10, 20, 60]]), spec)
    assert resized[0, :, 0].tolist() == [13, 47]


def test_shrinking_to_half_or_more_is_linear_by_default():
    # Centres of the two new pixels lie at 0.25 and 1.75 of the three old:
    # 0.75 * 10 + 0.25 * 30 = 15, 0.25 * 30 + 0.75 * 70 = 60.
    resized = resize_image(image_of([[10, 30, 70]]), InputSpec(1, 2))
    assert resized[0, :, 0].tolist() == [15, 60]


def test_shrinking_to_less_than_half_averages_by_default():
    # By 2.5: (10 + 30 + 20 / 2) / 2.5 = 20, (20 / 2 + 60 + 80) / 2.5 = 60.
    resized = resize_image(image_of([[10, 30, 20, 60, 80]]), InputSpec(1, 2))
    assert resized[0, :, 0].tolist() == [20, 60]


def test_growing_is_linear():
    # Centres of the four new pixels lie at -0.25, 0.25, 0.75 and 1.25 of the two old.
    resized = resize_image(image_of([[0, 100]]), InputSpec(1, 4))
    assert resized[0, :, 0].tolist() == [0, 25, 75, 100]


def test_shrinking_one_side_and_growing_the_other_averages_still():
    # Rows alternate 0 and 200: an average of ten is 100, while a linear resize could pick one row.
    image = np.zeros((20, 2, 3), np.uint8)
    image[1::2] = 200
    assert (resize_image(image, InputSpec(2, 6)) == 100).all()
    assert (resize_image(image.transpose(1, 0, 2), InputSpec(6, 2)) == 100).all()


def test_cropping_takes_the_middle():
    image = image_of([[1, 2, 3, 4, 5], [11, 12, 13, 14, 15], [21, 22, 23, 24, 25]])
    cropped = resize_image(image, InputSpec(3, 3, "crop"))
    assert cropped[..., 0].tolist() == [[2, 3, 4], [12, 13, 14], [22, 23, 24]]
    cropped = resize_image(image.transpose(1, 0, 2), InputSpec(1, 1, "crop", "nearest"))
    assert cropped[0, 0, 0] == 13
    # 5 x 3 to 2:1 keeps two rows and four columns of the middle.
    wide = resize_image(image, InputSpec(1, 2, "crop"))
    assert wide.shape == (1, 2, 3)


def test_padding_keeps_all_of_the_image_in_the_middle():
    padded = resize_image(image_of([[10, 20]] * 4), InputSpec(4, 6, "pad"))
    grey = [PAD_VALUE] * 2
    assert padded[0, :, 0].tolist() == [*grey, 10, 20, *grey]
    assert padded[:, 2, 1].tolist() == [11] * 4
    padded = resize_image(image_of([[10, 20, 60, 30]]), InputSpec(3, 2, "pad"))
    assert padded[..., 0].tolist() == [grey, [15, 45], grey]


def test_the_same_size_is_the_same_array():
    image = noise(7, 9)
    for fit in FITS:
        assert resize_image(image, InputSpec(7, 9, fit)) is image
    view = noise(9, 7).transpose(1, 0, 2)
    resized = resize_image(view, InputSpec(7, 9))
    assert np.array_equal(resized, view)
    assert resized.flags.c_contiguous


sides = st.integers(1, 40)


@settings(max_examples=100, deadline=None)
@given(sides, sides, sides, sides, st.sampled_from(FITS), st.sampled_from(INTERPOLATIONS))
def test_shape_and_layout_for_all_sizes(height, width, new_height, new_width, fit, interpolation):
    image = noise(height, width)
    before = image.copy()
    resized = resize_image(image, InputSpec(new_height, new_width, fit, interpolation))
    assert resized.shape == (new_height, new_width, 3)
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    assert np.array_equal(image, before)


@settings(max_examples=100, deadline=None)
@given(
    sides,
    sides,
    sides,
    sides,
    st.sampled_from(["stretch", "crop"]),
    st.sampled_from(INTERPOLATIONS),
    st.tuples(*[st.integers(0, 255)] * 3),
)
def test_one_colour_stays_that_colour(h, w, new_h, new_w, fit, interpolation, colour):
    image = np.full((h, w, 3), colour, np.uint8)
    resized = resize_image(image, InputSpec(new_h, new_w, fit, interpolation))
    assert (resized == colour).all()


@settings(max_examples=100, deadline=None)
@given(*[st.integers(1, 12)] * 4, st.integers(0, 2**32 - 1))
def test_whole_shrinking_is_the_mean_of_each_block(height, width, times_down, times_right, seed):
    image = noise(height * times_down, width * times_right, seed)
    blocks = image.reshape(height, times_down, width, times_right, 3).mean((1, 3))
    resized = resize_image(image, InputSpec(height, width))
    assert np.abs(resized - blocks).max() <= 0.51
    assert abs(resized.mean() - image.mean()) < 1


@pytest.mark.parametrize("shape", [(70_000, 2, 3), (2, 70_000, 3)])
def test_very_long_images(shape):
    assert (resize_image(np.full(shape, 9, np.uint8), InputSpec(8, 8)) == 9).all()


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
    ids=["grey", "four channels", "floats", "no rows", "a list"],
)
def test_other_inputs_are_refused(image):
    with pytest.raises(UsageError, match="; got "):
        resize_image(image, InputSpec(2, 2))


def test_a_spec_goes_to_plain_values_and_back():
    spec = InputSpec(np.int64(224), 160, "crop", "linear")
    assert spec.size == (224, 160)
    assert type(spec.height) is int
    settings = spec.to_dict()
    assert settings == {"height": 224, "width": 160, "fit": "crop", "interpolation": "linear"}
    assert InputSpec.from_dict(json.loads(json.dumps(settings))) == spec
    assert InputSpec.from_dict({"height": 5, "width": 6}) == InputSpec(5, 6, "stretch", "auto")
    assert spec.key() == "224x160-crop-linear"


def test_every_setting_is_in_the_key():
    specs = {
        InputSpec(height, width, fit, interpolation)
        for height in (1, 11)
        for width in (1, 11)
        for fit in FITS
        for interpolation in INTERPOLATIONS
    }
    assert len({spec.key() for spec in specs}) == len(specs) == 60


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 5), "`height` must be an integer from 1 to 8192; got 0."),
        ((5, -1), "`width` must be"),
        ((5, MAX_SIDE + 1), "`width` must be"),
        ((5.0, 5), "`height` must be"),
        ((True, 5), "`height` must be"),
        (("5", 5), "`height` must be"),
        ((5, 5, "fill"), "`fit` must be one of stretch, crop, pad; got 'fill'."),
        (
            (5, 5, "pad", "bicubic"),
            "`interpolation` must be one of auto, area, linear, cubic, nearest",
        ),
        ((5, 5, ["pad"]), "`fit` must be one of"),
    ],
)
def test_invalid_specs(arguments, message):
    with pytest.raises(SettingsError) as caught:
        InputSpec(*arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"height": 5}, "needs both height and width"),
        ({"height": 5, "width": 5, "interpolatoin": "area"}, "Did you mean 'interpolation'?"),
        ({"height": 5, "width": 5, 3: 4}, "got 3"),
        ([5, 5], "must be a table of settings"),
        ({"height": 5, "width": 10**30}, "`width` must be"),
    ],
)
def test_invalid_saved_specs(settings, message):
    with pytest.raises(SettingsError) as caught:
        InputSpec.from_dict(settings)
    assert message in str(caught.value)
