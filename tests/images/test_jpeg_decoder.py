"""The second JPEG decoder gives exactly Pillow's pixels."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import encode, exif, noise, smooth
from PIL import Image

from kindsight.errors import ImageError
from kindsight.images import jpeg, read_image


def pillow_alone(data, size=None):
    """Return Pillow's pixels, the reference."""
    image = Image.open(io.BytesIO(data))
    if size is not None:
        image.draft(None, (size[1], size[0]))
    return np.asarray(image.convert("RGB"))


@pytest.fixture
def decoded(monkeypatch):
    """Return a list with one item per JPEG that simplejpeg was given: whether it decoded it."""
    outcomes = []
    decode = simplejpeg.decode_jpeg

    def watched(*args, **kwargs):
        outcomes.append(False)
        pixels = decode(*args, **kwargs)
        outcomes[-1] = True
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", watched)
    return outcomes


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_the_pixels_are_those_of_pillow(mode, subsampling, progressive, decoded):
    options = {} if mode == "L" else {"subsampling": subsampling}
    for shape in ((1, 1), (7, 9), (64, 48), (203, 301)):
        for pixels in (smooth(*shape), noise(*shape)):
            data = encode(pixels, "JPEG", mode, progressive=progressive, **options)
            assert np.array_equal(read_image(data), pillow_alone(data))
    assert decoded == [True] * 8


@settings(max_examples=60, deadline=None)
@given(st.integers(8, 300), st.integers(8, 300), st.integers(1, 80), st.integers(1, 80))
def test_reduced_pixels_are_those_of_pillow(height, width, least_height, least_width):
    data = encode(smooth(height, width), "JPEG", quality=90)
    size = (least_height, least_width)
    expected = pillow_alone(data, size)
    image = read_image(data, target=size)
    # The last row or column is dropped if it covers less than half a pixel.
    assert 0 <= expected.shape[0] - image.shape[0] <= 1
    assert 0 <= expected.shape[1] - image.shape[1] <= 1
    assert np.array_equal(image, expected[: image.shape[0], : image.shape[1]])


def test_the_orientation_is_applied_once(decoded):
    data = encode(smooth(40, 60), "JPEG", exif=exif(6))
    expected = np.rot90(pillow_alone(data), -1)
    assert np.array_equal(read_image(data), expected)
    assert decoded == [True]


def test_adobe_cmyk_is_left_to_pillow(decoded):
    data = encode(smooth(16, 16), "JPEG", "CMYK")
    assert read_image(data).shape == (16, 16, 3)
    assert decoded == []


def test_damaged_pixels_are_left_to_pillow(decoded, capfd):
    data = bytearray(encode(noise(64, 64), "JPEG", quality=95))
    scan = data.index(b"\xff\xda") + 20
    data[scan + 400 : scan + 440] = b"\xff\x00" * 20
    short = bytes(data[: len(data) // 2]) + b"\xff\xd9"
    for damaged in (bytes(data), short):
        assert np.array_equal(read_image(damaged), pillow_alone(damaged))
    assert decoded == [False, False]
    with pytest.raises(ImageError) as caught:
        read_image(short[:-2])
    assert caught.value.code == "truncated"
    assert capfd.readouterr() == ("", "")


def test_without_simplejpeg_pillow_decodes(monkeypatch):
    data = encode(smooth(50, 70), "JPEG")
    with_it = read_image(data)
    monkeypatch.setattr(jpeg, "simplejpeg_module", lambda: None)
    assert np.array_equal(read_image(data), with_it)
