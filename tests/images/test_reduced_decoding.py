"""Reduced decoding of large JPEGs, and many threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import encode, exif, noise, smooth
from PIL import Image

from kindsight.errors import ImageError
from kindsight.images import InputSpec, read_image, resize_image

LARGE = smooth(403, 601)
JPEG = encode(LARGE, "JPEG", quality=92)


@pytest.mark.parametrize(
    ("target", "size"),
    [
        ((403, 601), (403, 601)),
        ((202, 300), (403, 601)),  # 403 / 202 is below 2
        ((201, 300), (202, 301)),  # halves
        ((100, 150), (101, 150)),
        ((50, 75), (50, 75)),  # eighths, to the nearest
        ((1, 1), (50, 75)),  # an eighth is the least
        ((50, 301), (403, 601)),  # the side that needs more decides
        ((1000, 1000), (403, 601)),
    ],
)
def test_the_size_of_reduced_decoding(target, size):
    assert read_image(JPEG, target=target).shape == (*size, 3)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 8))
def test_reduced_is_never_below_the_target(height, width, orientation):
    image = read_image(
        encode(LARGE[:200, :300], "JPEG", exif=exif(orientation)), target=(height, width)
    )
    full = (300, 200) if orientation >= 5 else (200, 300)
    assert image.shape[0] >= min(height, full[0])
    assert image.shape[1] >= min(width, full[1])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["baseline", "progressive"])
@pytest.mark.parametrize("target", [(200, 300), (96, 128), (32, 32)])
def test_reduced_decoding_resembles_full_decoding(mode, options, target):
    data = encode(LARGE, "JPEG", mode=mode, quality=92, **options)
    spec = InputSpec(*target)
    reduced = read_image(data, target=target)
    assert reduced.shape[0] < 403
    difference = resize_image(reduced, spec).astype(int) - resize_image(read_image(data), spec)
    assert np.abs(difference).mean() < 1


def test_other_formats_are_not_reduced():
    assert read_image(encode(LARGE, "PNG"), target=(10, 10)).shape == LARGE.shape
    assert read_image(encode(LARGE, "WEBP"), target=(10, 10)).shape == LARGE.shape


def outcome(data):
    try:
        return read_image(data, target=(60, 60))
    except ImageError as error:
        return error.code


def test_eight_threads_read_what_one_reads(capfd):
    pixels = noise(90, 120)
    files = [JPEG, JPEG[:-5], b"text", encode(pixels, "JPEG", exif=exif(6))]
    files += [encode(pixels, "JPEG", mode="CMYK"), encode(pixels, "PNG", exif=exif(5))]
    files += [encode(pixels, name) for name in ("GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000")]
    files += [encode(pixels, "TIFF", compression="tiff_lzw")[:-400], encode(pixels, "PNG")[:-99]]
    files += [encode(Image.fromarray(pixels).convert("RGBA"), "PNG")]
    serial = [outcome(data) for data in files] * 12
    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(outcome, files * 12))
    for one, other in zip(serial, parallel, strict=True):
        assert type(one) is type(other)
        assert np.array_equal(one, other)
    assert sum(isinstance(one, str) for one in serial) == 4 * 12
    assert capfd.readouterr().err == ""
