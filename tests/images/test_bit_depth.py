"""16-bit, 32-bit, floating-point and transparent images; files written byte by byte."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import chunk, encode, png, tiff
from PIL import Image

from kindsight.errors import ImageError, SettingsError
from kindsight.images import read_image
from kindsight.images.convert import ValueScale, flatten, scale_values
from kindsight.images.read import read_with_scale

# Worked by hand: value / 257, rounded. 128 / 257 = 0.498, 129 / 257 = 0.502.
SIXTEEN = [0, 128, 129, 257, 32768, 32896, 65406, 65407, 65535]
EIGHT = [0, 0, 1, 1, 128, 128, 254, 255, 255]


def grey(values):
    return np.repeat(np.array([values], np.uint8)[..., None], 3, axis=2)


@pytest.mark.parametrize(
    ("bits", "raw", "expected"),
    [
        (1, b"\xa0", [255, 0, 255]),
        (2, b"\x1b", [0, 85, 170, 255]),
        (4, b"\x0f\x70", [0, 255, 119, 0]),
        (8, b"\0\x7b\xff", [0, 123, 255]),
        (16, struct.pack(">9H", *SIXTEEN), EIGHT),
    ],
)
def test_grey_png_of_every_depth(bits, raw, expected):
    image = read_image(png(1, len(expected), bits, 0, raw))
    assert np.array_equal(image, grey(expected))


def test_16_bit_colour_png_is_rounded_and_not_cut():
    raw = struct.pack(">9H", *SIXTEEN)
    assert read_image(png(1, 3, 16, 2, raw)).reshape(-1).tolist() == EIGHT


def test_16_bit_png_with_alpha():
    # Half of 65535 is 32768 -> 128; 129 -> 1, and (1 * 128 + 255 * 127) / 255 = 127.50 -> 128.
    # 65407 -> 255 stays 255; fully transparent gives the background.
    raw = struct.pack(">8H", 129, 65407, 0, 32768, 1, 2, 3, 0)
    assert read_image(png(1, 2, 16, 6, raw))[0].tolist() == [[128, 255, 127], [255] * 3]
    raw = struct.pack(">6H", 129, 65535, 129, 0, 65407, 65535)
    image = read_image(png(1, 3, 16, 4, raw), background=(9, 8, 7))
    assert image[0].tolist() == [[1, 1, 1], [9, 8, 7], [255, 255, 255]]


@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_in_both_byte_orders(order):
    raw = struct.pack(order + "9H", *SIXTEEN)
    assert np.array_equal(read_image(tiff(1, 9, 16, 1, 1, raw, order=order)), grey(EIGHT))
    colour = read_image(tiff(1, 3, 16, 3, 2, raw, order=order))
    assert colour.reshape(-1).tolist() == EIGHT


def test_16_bit_tiff_compressed():
    values = np.array([SIXTEEN] * 4, np.uint16)
    data = encode(values, "TIFF", compression="tiff_lzw")
    assert np.array_equal(read_image(data)[:1], grey(EIGHT))


def test_tiff_in_which_white_is_zero():
    raw = struct.pack("<9H", *SIXTEEN)
    inverted = [255, 255, 254, 254, 127, 127, 1, 0, 0]  # (65535 - value) / 257, rounded
    assert np.array_equal(read_image(tiff(1, 9, 16, 1, 0, raw)), grey(inverted))
    assert np.array_equal(read_image(tiff(1, 3, 8, 1, 0, b"\0\x64\xff")), grey([255, 155, 0]))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.25, 0.5, 1.0], [0, 64, 128, 255]),  # 63.75, 127.5
        ([0.0, 1.4, 7.6, 255.0], [0, 1, 8, 255]),
        ([-1.0, 0.0, 1.0, 3.0], [0, 64, 128, 255]),  # 255 / 4 a unit: 63.75, 127.5
        ([-7.0, -7.0, -7.0, -7.0], [0, 0, 0, 0]),
        ([np.nan, 0.5, np.inf, 1.0], [0, 0, 255, 255]),
        ([np.nan, np.nan, np.nan, np.nan], [0, 0, 0, 0]),
    ],
)
def test_float_tiff_is_scaled_by_its_own_range(values, expected):
    raw = np.array(values, "<f4").tobytes()
    image = read_image(tiff(1, 4, 32, 1, 1, raw, sample_format=3))
    assert np.array_equal(image, grey(expected))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 100, 255], [0, 1, 100, 255]),
        ([-100, 0, 50, 410], [0, 50, 75, 255]),  # 255 / 510 a unit
        ([0, 2**29, 2**30, 2**31 - 1], [0, 64, 128, 255]),
    ],
)
def test_32_bit_integer_tiff_is_scaled_by_its_own_range(values, expected):
    raw = np.array(values, "<i4").tobytes()
    image = read_image(tiff(1, 4, 32, 1, 1, raw, sample_format=2))
    assert np.array_equal(image, grey(expected))


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
@pytest.mark.parametrize(("sample_format", "code"), [(3, "<f4"), (2, "<i4")])
def test_a_value_above_a_usual_maximum_changes_little(top, sample_format, code):
    random = np.random.default_rng(0)
    values = random.random(400) * top if sample_format == 3 else random.integers(0, 200, 400)
    images = []
    for first in (top, top * 1.01 if sample_format == 3 else top + 1):
        values[0] = first
        raw = values.astype(code).tobytes()
        images.append(read_image(tiff(20, 20, 32, 1, 1, raw, sample_format=sample_format)))
    assert np.abs(images[0].astype(int) - images[1]).max() <= (3 if top > 1 else 128)


# Each pair of samples of 12 bits is 3 bytes: 0x000, 0x801, 0xFFF, 0x400. 2049 / 4095 * 255 = 127.6.
TWELVE, FROM_TWELVE = b"\x00\x08\x01\xff\xf4\x00", [0, 128, 255, 64]


def test_a_stated_depth_of_12_bits_is_the_scale():
    data = tiff(1, 4, 12, 1, 1, TWELVE)
    assert np.array_equal(read_image(data), grey(FROM_TWELVE))
    assert np.array_equal(read_image(data, value_range=(0, 8190)), grey([0, 64, 128, 32]))


def deep_files(values):
    """Return files of each kind with more than 8 bits and the same values."""
    numbers = np.array(values)
    wide, n = numbers.astype(">u2").tobytes(), len(values)
    little = numbers.astype("<u2").tobytes()
    colour = np.repeat(numbers, 3)
    yield png(1, n, 16, 0, wide)
    yield png(1, n, 16, 2, colour.astype(">u2").tobytes())
    yield tiff(1, n, 16, 1, 1, little)
    yield tiff(1, n, 16, 3, 2, colour.astype("<u2").tobytes())
    yield tiff(1, n, 32, 1, 1, numbers.astype("<i4").tobytes(), sample_format=2)
    yield tiff(1, n, 32, 1, 1, numbers.astype("<f4").tobytes(), sample_format=3)
    yield b"P5 %d 1 65535\n" % n + wide
    yield b"P6 %d 1 65535\n" % n + colour.astype(">u2").tobytes()


def test_a_given_range_is_the_scale_of_every_kind_of_file():
    values = [0, 100, 1124, 2148, 4196, 9000]  # 255 / 4096 a value from 100 on
    for data in deep_files(values):
        scale = ValueScale((100, 4196))
        image = read_with_scale(data, scale)
        assert np.array_equal(image, grey([0, 0, 64, 128, 255, 255]))
        assert (scale.low, scale.high, scale.clipped) == (0, 9000, pytest.approx(2 / 6))
        assert np.array_equal(read_image(data, value_range=(100, 4196)), image)
    raw = np.array(values, "<u2").tobytes()
    inverted = read_image(tiff(1, 6, 16, 1, 0, raw), value_range=(100, 4196))
    assert np.array_equal(inverted, grey([255, 255, 191, 127, 0, 0]))


def test_a_range_does_not_change_8_bits():
    data = png(1, 3, 8, 0, b"\0\x7b\xff")
    assert np.array_equal(read_image(data, value_range=(0, 4095)), grey([0, 123, 255]))
    assert np.array_equal(
        read_image(b"P5 3 1 255\n\0\x7b\xff", value_range=(0, 4095)), grey([0, 123, 255])
    )


@pytest.mark.parametrize("value_range", [(1, 1), (2, 1), (0, np.inf), (0, np.nan), (1,), "ab", 3])
def test_an_invalid_range_is_refused(value_range):
    with pytest.raises(SettingsError, match="two different finite numbers"):
        read_image(b"P5 1 1 255\n\0", value_range=value_range)


@given(st.integers(0, 65535))
def test_16_bits_scale_as_exact_fractions_round(value):
    eight = int(scale_values(np.array([value], np.uint16), 0, 65535)[0])
    assert abs(eight * 257 - value) <= 128


@given(st.integers(0, 255), st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=100)
def test_flattening_is_the_rounded_weighted_mean(colour, alpha, background):
    colours, weights = np.full((1, 1, 3), colour, np.uint8), np.full((1, 1), alpha, np.uint8)
    flat = int(flatten(colours, weights, (background,) * 3)[0, 0, 0])
    assert abs(flat * 255 - (colour * alpha + background * (255 - alpha))) <= 127


@given(st.lists(st.floats(allow_nan=True, width=32), min_size=1, max_size=9))
def test_any_floats_become_bytes(numbers):
    values = np.array(numbers, np.float32)
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
    scaled = scale_values(values, low, high)
    assert scaled.dtype == np.uint8
    # Order is kept.
    assert (np.diff(scaled[np.isfinite(values)][np.argsort(finite)].astype(int)) >= 0).all()


# (200 * 128 + 255 * 127) / 255 = 227.4; 100 -> 177.2; 50 -> 152.1. On blue: 100.4, 50.2, 152.1.
HALF, ON_WHITE, ON_BLUE = (200, 100, 50, 128), [227, 177, 152], [100, 50, 152]


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "ICO"])
def test_alpha_is_blended_with_the_background(name):
    image = Image.new("RGBA", (16, 16), HALF)
    image.putpixel((0, 0), (1, 2, 3, 0))
    image.putpixel((1, 0), (1, 2, 3, 255))
    options = {"lossless": True, "exact": True} if name == "WEBP" else {}
    options |= {"sizes": [(16, 16)]} if name == "ICO" else {}
    data = encode(image, name, **options)
    assert read_image(data)[0, :3].tolist() == [[255] * 3, [1, 2, 3], ON_WHITE]
    blue = read_image(data, background=(0, 0, 255))
    assert blue[0, :3].tolist() == [[0, 0, 255], [1, 2, 3], ON_BLUE]


def test_grey_with_alpha():
    # (200 * 128 + 255 * 127) / 255 = 227.4
    image = read_image(png(1, 3, 8, 4, bytes([200, 128, 200, 0, 200, 255])))
    assert np.array_equal(image, grey([227, 255, 200]))


def test_premultiplied_alpha_is_not_multiplied_again():
    # Stored 100 at alpha 128 is 100 * 255 / 128 = 199.2, so 199: laid on white 226.9.
    raw = bytes([100, 100, 100, 128])
    data = tiff(1, 1, 8, 4, 2, raw, extra=[(338, 3, [1])])
    assert read_image(data)[0, 0].tolist() == [227] * 3


def test_a_palette_with_transparent_entries():
    palette = chunk(b"PLTE", bytes([255, 0, 0, 200, 100, 50, 0, 0, 255]))
    data = png(1, 3, 8, 3, b"\0\1\2", before=palette + chunk(b"tRNS", b"\xff\x80\0"))
    assert read_image(data)[0].tolist() == [[255, 0, 0], ON_WHITE, [255, 255, 255]]
    assert read_image(data, background=(0, 0, 255))[0, 2].tolist() == [0, 0, 255]


@pytest.mark.parametrize(
    ("bits", "colour", "raw", "key", "expected"),
    [
        (1, 0, b"\x80", struct.pack(">H", 0), [[255] * 3, [9, 8, 7]]),
        (2, 0, b"\x6c", struct.pack(">H", 1), [[9, 8, 7], [170] * 3, [255] * 3]),
        (4, 0, b"\x3f", struct.pack(">H", 3), [[9, 8, 7], [255] * 3]),
        (8, 0, b"\x10\x11", struct.pack(">H", 16), [[9, 8, 7], [17] * 3]),
        (8, 2, b"\1\2\3\1\2\4", struct.pack(">3H", 1, 2, 3), [[9, 8, 7], [1, 2, 4]]),
        # Two greys and two colours that only their lower bytes tell apart.
        (16, 0, b"\x40\x01\x40\x02", struct.pack(">H", 0x4001), [[9, 8, 7], [64] * 3]),
        (
            16,
            2,
            struct.pack(">6H", 257, 514, 771, 257, 514, 772),
            struct.pack(">3H", 257, 514, 771),
            [[9, 8, 7], [1, 2, 3]],
        ),
    ],
)
def test_png_with_one_transparent_colour(bits, colour, raw, key, expected):
    data = png(1, len(expected), bits, colour, raw, before=chunk(b"tRNS", key))
    assert read_image(data, background=(9, 8, 7))[0].tolist() == expected


def test_gif_with_a_transparent_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putdata([0, 1])
    pixels = read_image(encode(image, "GIF", transparency=1), background=(1, 2, 3))
    assert pixels[0].tolist() == [[255, 0, 0], [1, 2, 3]]


def bitmap_with_alpha(alphas):
    """Return a BMP of one row, with the header of 108 bytes that gives a mask for alpha."""
    raw = b"".join(bytes([50, 100, 200, alpha]) for alpha in alphas)  # blue, green, red, alpha
    header = struct.pack("<IiiHHIIiiII", 108, len(alphas), 1, 1, 32, 3, len(raw), 0, 0, 0, 0)
    header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + b"BGRs" + bytes(48)
    return struct.pack("<2sIHHI", b"BM", 14 + 108 + len(raw), 0, 0, 14 + 108) + header + raw


def test_alpha_in_a_bitmap_counts_unless_it_is_zero_everywhere():
    assert read_image(bitmap_with_alpha([128, 0]))[0].tolist() == [ON_WHITE, [255] * 3]
    assert read_image(bitmap_with_alpha([0, 0]))[0].tolist() == [[200, 100, 50]] * 2


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1\n# a comment\n3 1\n1 0\n1", [0, 255, 0]),
        (b"P1 3 1 101", [0, 255, 0]),
        (b"P4 3 1\n\xa0", [0, 255, 0]),
        (b"P2\n3 1\n15\n0 # none\n5 15\n", [0, 85, 255]),
        (b"P5 3 1 255\n\x00\x7b\xff", [0, 123, 255]),
        (b"P5 3 1 4\n\x00\x01\x04", [0, 64, 255]),
        (b"P5 9 1 65535\n" + struct.pack(">9H", *SIXTEEN), EIGHT),
        (b"P5 3 1 1023\n" + struct.pack(">3H", 0, 512, 1023), [0, 128, 255]),
        (b"P2 3 1 65535 0 32896 65535", [0, 128, 255]),
    ],
)
def test_bitmaps_and_greymaps(data, expected):
    assert np.array_equal(read_image(data), grey(expected))


@pytest.mark.parametrize(
    "data",
    [
        b"P3 1 2 255 1 2 3 40 50 60",
        b"P6 1 2 255\n\1\2\3\x28\x32\x3c",
        b"P6 1 2 65535\n" + struct.pack(">6H", 257, 514, 771, 10280, 12850, 15420),
    ],
)
def test_pixmaps(data):
    assert read_image(data)[:, 0].tolist() == [[1, 2, 3], [40, 50, 60]]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"P5 3 1 255\n\x00\x7b", "truncated"),
        (b"P4 9 1\n\xa0", "truncated"),
        (b"P1 3 1 10", "truncated"),
        (b"P2 3 1 15 10 10", "truncated"),
        (b"P2 2 1 15 1\n\n\n", "truncated"),
        (b"P2 3", "truncated"),
        (b"P2 2 1 15 3 16", "corrupt"),
        (b"P2 2 1 15 3 4294967297", "corrupt"),
        (b"P2 2 1 15 3 -1", "corrupt"),
        (b"P2 2 1 70000 3 1", "corrupt"),
        (b"P2 2 1 0 3 1", "corrupt"),
        (b"P2 0 1 9 3 1", "corrupt"),
        (b"P2 x 1 9 3 1", "corrupt"),
        (b"P5 99999 99999 255\n", "too-large"),
        (b"P5 99999999999 1 255\n", "corrupt"),
    ],
)
def test_faulty_netpbm_files(data, code):
    with pytest.raises(ImageError) as caught:
        read_image(data)
    assert caught.value.code == code


@pytest.mark.parametrize(
    "options",
    [
        {"target": (0, 5)},
        {"target": (5,)},
        {"background": (0, 0)},
        {"background": (0, 0, 256)},
        {"max_pixels": 0},
    ],
)
def test_invalid_options(options):
    with pytest.raises(SettingsError, match="; got "):
        read_image(b"P5 1 1 255\n\0", **options)
