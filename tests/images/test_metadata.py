"""Metadata of image files."""

from __future__ import annotations

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_makers import chunk, encode, smooth
from PIL import Image

from kindsight.images.metadata import count_frames, read_exif
from kindsight.images.read import read_image, read_with_metadata

IMAGE = smooth(30, 40)


def metadata_of(data):
    image, metadata = read_with_metadata(data)
    assert np.array_equal(image, read_image(data))
    return metadata


@pytest.mark.parametrize(
    ("name", "mode", "stated"),
    [
        ("JPEG", "RGB", "RGB"),
        ("JPEG", "L", "L"),
        ("JPEG", "CMYK", "CMYK"),
        ("PNG", "RGBA", "RGBA"),
        ("PNG", "LA", "LA"),
        ("PNG", "P", "P"),
        ("PNG", "1", "1"),
        ("PNG", "I;16", "I;16"),
        ("TIFF", "F", "F"),
        ("GIF", "P", "P"),
        ("WebP", "RGB", "RGB"),
        ("BMP", "RGB", "RGB"),
        ("PPM", "RGB", "RGB"),
        ("PPM", "L", "L"),
        ("PPM", "1", "1"),
    ],
)
def test_format_mode_and_size(name, mode, stated):
    metadata = metadata_of(encode(IMAGE[..., 0] if mode == "I;16" else IMAGE, name, mode))
    assert (metadata.format, metadata.mode) == (name, stated)
    assert (metadata.height, metadata.width, metadata.frames, metadata.orientation) == (
        30,
        40,
        1,
        1,
    )


def test_a_palette_in_which_one_colour_is_transparent():
    image = Image.fromarray(IMAGE).quantize(16)
    assert metadata_of(encode(image, "PNG", transparency=3)).mode == "P+alpha"


def test_sixteen_bits_a_sample():
    deep = np.zeros((30, 40), np.uint16)
    assert metadata_of(b"P5 40 30 65535\n" + deep.astype(">u2").tobytes()).mode == "L;16"


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 95])
def test_the_quality_of_a_jpeg_is_estimated(quality):
    metadata = metadata_of(encode(IMAGE, "JPEG", quality=quality, subsampling=0, progressive=True))
    assert abs(metadata.quality - quality) <= 2.5
    assert (metadata.subsampling, metadata.progressive) == ("4:4:4", True)
    assert math.isnan(metadata_of(encode(IMAGE, "PNG")).quality)


def test_the_encoder_is_the_same_for_the_same_settings_whatever_the_image():
    one, other = encode(IMAGE, "JPEG", quality=80), encode(smooth(50, 60, 1), "JPEG", quality=80)
    assert metadata_of(one).encoder == metadata_of(other).encoder
    assert len(metadata_of(one).encoder) == 8
    assert metadata_of(one).encoder != metadata_of(encode(IMAGE, "JPEG", quality=81)).encoder


@pytest.mark.parametrize("name", ["GIF", "PNG", "WebP", "TIFF", "AVIF"])
def test_frames_are_counted(name):
    frames = [Image.fromarray(smooth(30, 40, seed)) for seed in range(3)]
    data = encode(frames[0], name, save_all=True, append_images=frames[1:])
    assert metadata_of(data).frames == 3


def test_a_png_that_claims_more_frames_than_it_has():
    data = encode(IMAGE, "PNG")
    claim = chunk(b"acTL", struct.pack(">II", 4_000_000_000, 0))
    assert metadata_of(data[:33] + claim + data[33:]).frames == 1


def test_a_tiff_with_circular_directories():
    data = bytearray(encode(IMAGE, "TIFF"))
    (start,) = struct.unpack_from("<I", data, 4)
    (entries,) = struct.unpack_from("<H", data, start)
    struct.pack_into("<I", data, start + 2 + 12 * entries, start)
    assert count_frames("TIFF", bytes(data), None) == 1


def exif_block():
    tags = Image.Exif()
    tags[271], tags[272], tags[305] = "Maker", "Model 7", "Program 1.2"
    tags[274] = 6
    tags.get_ifd(0x8769)[36867] = "2021:03:04 05:06:07"
    return tags.tobytes()


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WebP", "TIFF", "AVIF"])
def test_exif_data_of_a_camera(name):
    metadata = metadata_of(encode(IMAGE, name, exif=exif_block()))
    assert (metadata.exif.camera, metadata.exif.software) == ("Maker Model 7", "Program 1.2")
    assert metadata.exif.taken == 1_614_834_367  # 2021-03-04 05:06:07 UTC
    assert (metadata.orientation, metadata.height, metadata.width) == (6, 30, 40)


def test_the_exif_thumbnail_is_extracted():
    small = encode(smooth(12, 16), "JPEG")
    # II, one empty directory, then one of two entries: where the thumbnail is and how long.
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14)
    second = struct.pack("<HHHIIHHII", 2, 513, 4, 1, 44, 514, 4, 1, len(small)) + bytes(4)
    block = head + second
    assert read_exif(b"Exif\0\0" + block.ljust(44, b"\0") + small).thumbnail == small


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_invalid_exif_data_never_raise(tail, at, value):
    block = bytearray(exif_block())
    block[at % len(block)] = value
    read_exif(bytes(block))
    read_exif(b"II*\0" + tail)
    read_exif(b"MM\0*" + tail)


@given(st.sampled_from(["GIF", "PNG", "WebP", "TIFF"]), st.binary(max_size=300))
def test_counting_frames_never_raises(name, data):
    assert 1 <= count_frames(name, data, None) <= 10_000
