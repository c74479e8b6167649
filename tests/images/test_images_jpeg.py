"""The second JPEG decoder, held to Pillow's pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import encode, exif, noise, smooth
from PIL import Image

from kindsight.errors import ImageError
from kindsight.images import read_image
from kindsight.images.formats import jpeg


def pillow_alone(data, size=None):
    """Return what Pillow makes of a JPEG: the independent implementation."""
    image = Image.open(io.BytesIO(data))
    if size is not None:
        image.draft(None, (size[1], size[0]))
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def taken(monkeypatch):
    """Return a list that fills with whether each JPEG was decoded here."""
    decoded = []
    decode = jpeg.decode_jpeg

    def watched(*given):
        image = decode(*given)
        decoded.append(image is not None)
        return image

    monkeypatch.setattr(jpeg, "decode_jpeg", watched)
    return decoded


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (7, 9), (64, 48), (203, 301)])
def test_the_pixels_are_those_of_pillow(mode, subsampling, progressive, shape, taken):
    for pixels in (smooth(*shape), noise(*shape)):
        options = {} if mode == "L" else {"subsampling": subsampling}
        data = encode(pixels, "JPEG", mode, progressive=progressive, **options)
        assert np.array_equal(read_image(data), pillow_alone(data))
    assert taken == [True, True]


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 80), st.integers(1, 80))
def test_reduced_pixels_are_those_of_pillow(height, width, least_height, least_width):
    data = encode(smooth(height, width), "JPEG", quality=90)
    size = (least_height, least_width)
    expected = pillow_alone(data, size)
    image = read_image(data, target=size)
    # The last row or column is left out where it stands for less than half a pixel.
    assert 0 <= expected.shape[0] - image.shape[0] <= 1
    assert 0 <= expected.shape[1] - image.shape[1] <= 1
    assert np.array_equal(image, expected[: image.shape[0], : image.shape[1]])


def test_a_turned_image_is_turned_once(taken):
    data = encode(smooth(40, 60), "JPEG", exif=exif(6))
    expected = np.rot90(pillow_alone(data), -1)
    assert np.array_equal(read_image(data), expected)
    assert taken == [True]


def test_adobe_cmyk_is_left_to_pillow(taken):
    data = encode(smooth(16, 16), "JPEG", "CMYK")
    assert read_image(data).shape == (16, 16, 3)
    assert taken == [False]


def test_of_damage_pillow_speaks(taken, capfd):
    data = bytearray(encode(noise(64, 64), "JPEG", quality=95))
    scan = data.index(b"\xff\xda") + 20
    data[scan + 400 : scan + 440] = b"\xff\x00" * 20
    short = bytes(data[: len(data) // 2]) + b"\xff\xd9"
    for damaged in (bytes(data), short):
        assert np.array_equal(read_image(damaged), pillow_alone(damaged))
    assert taken == [False, False]
    with pytest.raises(ImageError) as caught:
        read_image(short[:-2])
    assert caught.value.code == "truncated"
    assert capfd.readouterr() == ("", "")


def test_without_the_library_pillow_does_all(monkeypatch):
    data = encode(smooth(50, 70), "JPEG")
    with_it = read_image(data)
    monkeypatch.setattr(jpeg, "_simplejpeg", lambda: None)
    assert np.array_equal(read_image(data), with_it)
