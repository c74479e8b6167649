"""EXIF orientation, applied once and to every format that has it."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from image_makers import chunk, encode, exif, png, tiff
from PIL import Image, features

from kindsight.errors import ImageError, UsageError
from kindsight.images import read_image
from kindsight.images.convert import apply_orientation

# Six colours, written out by hand for each orientation (TIFF 6.0, tag 274).
TURNED = {
    1: ["ABC", "DEF"],
    2: ["CBA", "FED"],
    3: ["FED", "CBA"],
    4: ["DEF", "ABC"],
    5: ["AD", "BE", "CF"],
    6: ["DA", "EB", "FC"],
    7: ["FC", "EB", "DA"],
    8: ["CF", "BE", "AD"],
}
COLOURS = {
    "A": (250, 10, 10),
    "B": (10, 250, 10),
    "C": (10, 10, 250),
    "D": (250, 250, 10),
    "E": (10, 250, 250),
    "F": (128, 128, 128),
}
BLOCK = 16


def painted(rows):
    pixels = np.array([[COLOURS[letter] for letter in row] for row in rows], np.uint8)
    return pixels.repeat(BLOCK, 0).repeat(BLOCK, 1)


NAMES = [
    ("JPEG", {"quality": 95, "subsampling": 0}, 8),
    ("PNG", {}, 0),
    ("WEBP", {"lossless": True}, 0),
    ("TIFF", {}, 0),
    ("TIFF", {"compression": "tiff_lzw"}, 0),
]
if features.check("avif"):
    NAMES.append(("AVIF", {"quality": 95, "subsampling": "4:4:4"}, 8))


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize(("name", "options", "tolerance"), NAMES)
def test_every_orientation(name, options, tolerance, orientation):
    data = encode(painted(TURNED[1]), name, exif=exif(orientation), **options)
    image = read_image(data).astype(int)
    expected = painted(TURNED[orientation]).astype(int)
    assert image.shape == expected.shape
    # The middle of each block, where a JPEG is true.
    middle = slice(BLOCK // 2, None, BLOCK)
    assert np.abs(image - expected)[middle, middle].max() <= tolerance


@pytest.mark.parametrize("orientation", TURNED)
def test_orienting_an_array(orientation):
    turned = apply_orientation(painted(TURNED[1]), orientation)
    assert np.array_equal(turned, painted(TURNED[orientation]))
    assert turned.flags.c_contiguous


def test_an_upright_image_is_not_copied():
    image = painted(TURNED[1])
    assert apply_orientation(image, 1) is image


@pytest.mark.parametrize("orientation", TURNED)
def test_reduced_decoding_considers_the_orientation(orientation):
    pixels = painted(TURNED[1]).repeat(8, 0).repeat(8, 1)  # 256 x 384
    data = encode(pixels, "JPEG", exif=exif(orientation))
    tall = orientation >= 5
    assert read_image(data, target=(128, 64)).shape[:2] == ((192, 128) if tall else (128, 192))
    assert read_image(data, target=(90, 190)).shape[:2] == ((384, 256) if tall else (128, 192))


@pytest.mark.parametrize("value", [0, 9, 255, 65535])
def test_an_invalid_orientation_is_ignored(value):
    data = encode(painted(TURNED[1]), "PNG", exif=exif(value))
    assert np.array_equal(read_image(data), painted(TURNED[1]))


def test_orientation_in_xmp_counts_too():
    body = b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="3"/>'
    data = png(1, 2, 8, 0, b"\x0a\xc8", before=chunk(b"iTXt", body))
    assert read_image(data)[0, :, 0].tolist() == [200, 10]


def test_a_tiff_is_oriented_once():
    data = tiff(2, 3, 8, 1, 1, bytes([1, 2, 3, 4, 5, 6]), extra=[(274, 3, [6])])
    assert read_image(data)[..., 0].tolist() == [[4, 1], [5, 2], [6, 3]]


HOSTILE = {
    "empty": b"",
    "no header": b"garbage",
    "points outside": b"II*\0\xff\xff\xff\xff",
    "points to itself": b"II*\0\x08\0\0\0\x01\0\x69\x87\x04\0\x01\0\0\0\x08\0\0\0\x08\0\0\0",
    "countless entries": b"II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0" * 9,
    "wrong type": b"II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x04\0\0\0ABC\0\0\0\0\0",
    "two values": b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x01\0\x06\0\0\0\0\0",
    "fraction": b"II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8),
    "signed": b"II*\0\x08\0\0\0\x01\0\x12\x01\x08\0\x01\0\0\0\xfa\xff\0\0\0\0\0\0",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_metadata_do_not_make_the_image_unreadable(case, capfd):
    pixels = painted(TURNED[1])
    block = HOSTILE[case]
    segment = b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block
    jpeg = encode(pixels, "JPEG", quality=95)
    assert read_image(jpeg[:2] + segment + jpeg[2:]).shape == pixels.shape
    whole = encode(pixels, "PNG")
    at = whole.index(b"IDAT") - 4
    assert np.array_equal(read_image(whole[:at] + chunk(b"eXIf", block) + whole[at:]), pixels)
    assert capfd.readouterr().err == ""


def test_an_image_is_the_same_in_every_stored_orientation():
    # The same image, turned beforehand and marked so, and not.
    upright = painted(TURNED[1])
    for orientation, k in ((6, 1), (3, 2), (8, 3)):
        stored = Image.fromarray(np.rot90(upright, k))
        data = encode(stored, "PNG", exif=exif(orientation))
        assert np.array_equal(read_image(data), upright), orientation


def test_images_of_pillow_and_open_files_are_read_as_their_files_are(tmp_path):
    upright = painted(TURNED[1])
    alpha = np.dstack([upright, np.full(upright.shape[:2], 99, np.uint8)])
    files = {
        "turned.png": encode(Image.fromarray(np.rot90(upright, 1)), "PNG", exif=exif(6)),
        "turned.webp": encode(Image.fromarray(np.rot90(upright, 3)), "WEBP", exif=exif(8)),
        "turned.tif": tiff(2, 3, 8, 1, 1, bytes([1, 2, 3, 4, 5, 6]), extra=[(274, 3, [6])]),
        "alpha.png": encode(Image.fromarray(alpha), "PNG"),
        "grey.jpg": encode(Image.fromarray(upright[..., 0]), "JPEG"),
    }
    for name, data in files.items():
        expected = read_image(data)
        (tmp_path / name).write_bytes(data)
        with (tmp_path / name).open("rb") as file:
            assert np.array_equal(read_image(file), expected), name
        with Image.open(io.BytesIO(data)) as image:
            assert np.array_equal(read_image(image), expected), name
    with pytest.raises(ImageError) as error:
        read_image(Image.open(io.BytesIO(files["alpha.png"][:-60])))
    assert error.value.code == "truncated"
    with pytest.raises(ImageError, match="limit"):
        read_image(Image.new("L", (20, 20)), max_pixels=399)
    for wrong in (upright, None, io.StringIO("text")):
        with pytest.raises(UsageError, match="got") as refused:
            read_image(wrong)
        assert len(str(refused.value)) < 300
