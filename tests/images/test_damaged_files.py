"""Cut, damaged, lying and hostile files: an array or one typed error, and silence."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import chunk, encode, png, smooth
from PIL import Image, features

from kindsight.errors import ImageError
from kindsight.images import read_image
from kindsight.images.pillow_decoder import translated_errors

PIXELS = smooth(60, 80)
FILES = {
    "jpeg": encode(PIXELS, "JPEG"),
    "progressive": encode(PIXELS, "JPEG", progressive=True),
    "cmyk": encode(PIXELS, "JPEG", mode="CMYK"),
    "png": encode(PIXELS, "PNG"),
    "png-16": png(8, 8, 16, 2, bytes(384)),
    "palette": encode(PIXELS, "PNG", mode="P"),
    "gif": encode(PIXELS, "GIF"),
    "webp": encode(PIXELS, "WEBP"),
    "webp-lossless": encode(PIXELS, "WEBP", lossless=True),
    "bmp": encode(PIXELS, "BMP"),
    "tiff": encode(PIXELS, "TIFF"),
    "tiff-lzw": encode(PIXELS, "TIFF", compression="tiff_lzw"),
    "tiff-jpeg": encode(PIXELS, "TIFF", compression="jpeg"),
    "tiff-group4": encode(PIXELS, "TIFF", mode="1", compression="group4"),
    "ppm": encode(PIXELS, "PPM"),
    "jpeg-2000": encode(PIXELS, "JPEG2000"),
    "ico": encode(PIXELS, "ICO", sizes=[(80, 60)]),
}
if features.check("avif"):
    FILES["avif"] = encode(PIXELS, "AVIF")

STRICT = {"jpeg", "progressive", "cmyk", "png", "png-16", "palette", "bmp", "tiff", "ppm"}
STRICT |= {"webp", "webp-lossless"}


def code_of(data, **options):
    """Return "image", or the code of the ImageError; anything else is a failure."""
    try:
        image = read_image(data, **options)
    except ImageError as error:
        assert error.code in ImageError.CODES
        assert error.reason.endswith(".")
        assert "\n" not in error.reason
        return error.code
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.flags.c_contiguous
    return "image"


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere(name, capfd):
    whole = FILES[name]
    assert code_of(whole) == "image"
    cuts = [len(whole) * k // 20 for k in range(1, 20)] + [len(whole) - 1, len(whole) - 2]
    codes = {code_of(whole[:cut]) for cut in cuts}
    if name in STRICT:
        assert "image" not in codes
        assert "truncated" in codes
    assert codes <= {"image", "truncated", "corrupt", "not-an-image"}
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["jpeg", "progressive", "cmyk", "png", "palette"])
def test_jpeg_and_png_cut_in_half_are_truncated(name):
    assert code_of(FILES[name][: len(FILES[name]) // 2]) == "truncated"
    assert code_of(FILES[name][:-1]) == "truncated"


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "gif", "webp", "bmp", "tiff"])
def test_bytes_after_the_end_are_ignored(name):
    assert np.array_equal(read_image(FILES[name] + b"\0" * 999), read_image(FILES[name]))


@settings(max_examples=200, deadline=None)
@given(
    name=st.sampled_from(sorted(FILES)),
    changes=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=6,
    ),
    front=st.booleans(),
)
def changed_files_are_read_or_refused(name, changes, front):
    data = bytearray(FILES[name])
    reach = min(len(data), 200) if front else len(data)
    for where, new in changes:
        at = int(where * reach)
        data[at : at + len(new)] = new
    code_of(bytes(data), target=(20, 20))


def test_changed_files_are_read_or_refused_silently(capfd):
    changed_files_are_read_or_refused()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


@settings(max_examples=100, deadline=None)
@given(
    start=st.sampled_from(
        [
            *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBP", b"II*\0"),
            *(b"P6 ", b"P2 ", b"\xff\x4f\xff\x51", b"\0\0\0\x1cftypavif"),
            b"\0\0\x01\0\x01\0\x10\x10\0\0",
        ]
    ),
    rest=st.binary(max_size=200),
)
def random_bytes_are_refused(start, rest):
    code_of(start + rest)


def test_random_bytes_after_a_valid_signature_are_refused_silently(capfd):
    random_bytes_are_refused()
    assert capfd.readouterr().err == ""


def test_damaged_entropy_data_is_silent(capfd):
    # OpenCV would print "Corrupt JPEG data" for most of these.
    rng = np.random.default_rng(5)
    for name in ("jpeg", "progressive"):
        for _ in range(30):
            data = bytearray(FILES[name])
            data[int(rng.integers(700, len(data) - 2))] = int(rng.integers(256))
            code_of(bytes(data))
    assert capfd.readouterr().err == ""


def test_damage_inside_a_png_is_found_by_its_checksum():
    for at in (70, 200, 400):
        data = bytearray(FILES["png"])
        data[at] ^= 1
        assert code_of(bytes(data)) == "corrupt"


def test_a_png_with_too_few_rows_is_truncated():
    rows = zlib.compress(b"\0" + bytes(30))
    start = FILES["png"][:33]
    assert code_of(start + chunk(b"IDAT", rows) + chunk(b"IEND", b"")) == "truncated"


def test_chunks_that_the_first_image_does_not_need_are_ignored(capfd):
    # A text that unfolds to 100 MB, a broken profile, an animation without frames.
    bomb = chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(100_000_000)))
    before = bomb + chunk(b"iCCP", b"a\0\x07nonsense") + chunk(b"acTL", bytes(8))
    data = png(1, 2, 8, 0, b"\x05\x07", before=before, after=chunk(b"fdAT", b"\0"))
    assert read_image(data)[0, :, 0].tolist() == [5, 7]
    assert capfd.readouterr().err == ""


def jpeg_header(height, width, *, marker=0xC0, precision=8):
    frame = struct.pack(">BHHB", precision, height, width, 1) + b"\x01\x11\0"
    scan = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(frame) + 2) + frame + scan


BOMBS = {
    "png": FILES["png"][:8] + chunk(b"IHDR", struct.pack(">IIBBxxx", 100000, 100000, 8, 6)),
    "jpeg": jpeg_header(65500, 65500) + b"\xff\xd9",
    "gif": b"GIF89a\xff\xff\xff\xff\0\0\0," + bytes(4) + b"\xff\xff\xff\xff\0\x02\x02\x4c\x01\0;",
    "webp": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + bytes(4) + b"\xff\xff\xff\xff\xff\xff",
    "webp-lossless": b"RIFF\x16\0\0\0WEBPVP8L\x0a\0\0\0\x2f\xff\xff\xff\x0f" + bytes(5),
    "webp-lossy": b"RIFF\x16\0\0\0WEBPVP8 \x0a\0\0\0\0\0\0\x9d\x01\x2a\xff\x3f\xff\x3f",
    "bmp": b"BM" + bytes(8) + struct.pack("<IIiiHHI", 54, 40, 50000, 50000, 1, 24, 0) + bytes(20),
    "ppm": b"P6 100000 100000 255\n" + bytes(99),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_decompression_bombs_are_refused_by_their_header(name):
    assert code_of(BOMBS[name]) == "too-large"


@pytest.mark.parametrize("name", FILES)
def test_the_limit_of_pixels_is_exact(name):
    height, width = read_image(FILES[name]).shape[:2]
    assert code_of(FILES[name], max_pixels=height * width) == "image"
    assert code_of(FILES[name], max_pixels=height * width - 1) == "too-large"


def test_a_jpeg_with_too_many_scans_is_refused():
    whole = jpeg_header(8000, 8000, marker=0xC2) + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" * 100
    with pytest.raises(ImageError, match="101 scans") as caught:
        read_image(whole + b"\xff\xd9")
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (jpeg_header(9, 9, precision=12) + b"\xff\xd9", "unsupported"),
        (jpeg_header(9, 9, marker=0xC3) + b"\xff\xd9", "unsupported"),
        (jpeg_header(0, 9) + b"\xff\xd9", "corrupt"),
        (b"\xff\xd8\xff\xda\0\x02" + b"\xff\xd9", "corrupt"),
        (b"\xff\xd8\xff\xd9" + bytes(9), "truncated"),
        (b"\xff\xd8\xff\xe0\0\0" + bytes(9), "corrupt"),
        (b"\xff\xd8\xff\xe0\0\x02" * 1 + b"\xff\xe0\0\x02" * 30_000, "corrupt"),
        (b"\xff\xd8\xff\xe0\0\x02" + bytes(100_000) + b"\xff\xda\0\x02", "corrupt"),
        (b"\xff\xd8" + b"\xff" * 100_000, "corrupt"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IDAT", b""), "corrupt"),
        (FILES["png"][:33] + chunk(b"abcd", b"") * 250_000, "corrupt"),
        (b"RIFF\x16\0\0\0WEBPJUNK" + bytes(30), "corrupt"),
        (FILES["png"][:33] + chunk(b"IEND", b""), "corrupt"),
    ],
)
def test_invalid_structures(data, code):
    assert code_of(data) == code


def test_pillow_warnings_and_log_records_are_not_printed(capfd):
    # A tag that says it holds more than there is: Pillow warns of it and reads on.
    data = encode(PIXELS, "TIFF", tiffinfo={33432: "x" * 50})
    at = data.index(struct.pack("<HHI", 33432, 2, 51))
    data = data[: at + 8] + struct.pack("<I", len(data) - 5) + data[at + 12 :]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("error")
        assert np.array_equal(read_image(data), PIXELS)
    assert caught == []
    assert any(
        isinstance(handler, logging.NullHandler) for handler in logging.getLogger("PIL").handlers
    )
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OverflowError("int too large"), "corrupt"),
        (struct.error("unpack requires"), "corrupt"),
        (SyntaxError("not a TIFF file"), "corrupt"),
        (RecursionError(), "corrupt"),
        (KeyError("x"), "corrupt"),
        (MemoryError(), "too-large"),
        (Image.DecompressionBombError("x"), "too-large"),
        (EOFError(), "truncated"),
        (OSError("image file is truncated (3 bytes not processed)"), "truncated"),
        (NotImplementedError("x"), "unsupported"),
        (OSError("Unsupported BMP compression (9)"), "unsupported"),
        (ImageError("empty", "The file is empty."), "empty"),
    ],
)
def test_whatever_a_decoder_raises_becomes_an_image_error(error, code):
    with pytest.raises(ImageError) as caught, translated_errors("TIFF"):
        raise error
    assert caught.value.code == code


def test_keyboard_interrupt_is_not_translated():
    with pytest.raises(KeyboardInterrupt), translated_errors("TIFF"):
        raise KeyboardInterrupt
