"""The header of ordinary JPEGs, compared with Pillow's reading of the same file."""

from __future__ import annotations

import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_makers import encode, exif, smooth
from PIL import JpegImagePlugin

from kindsight.errors import ImageError
from kindsight.images.jpeg import check_jpeg, plain_header, reduced_size, unpack_tables
from kindsight.images.read import read_with_metadata

IMAGE = smooth(30, 41)
XMP = b"http://ns.adobe.com/xap/1.0/\0"


def with_segment(data, marker, body, at=2):
    """Return a JPEG with one more segment."""
    segment = bytes((0xFF, marker)) + struct.pack(">H", len(body) + 2) + body
    return data[:at] + segment + data[at:]


def compared_with_pillow(data):
    """Return the header, after a comparison of all that Pillow reads too."""
    header = plain_header(data)
    if header is None:
        return None
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    orientation = image.getexif().get(274, 1)
    assert header.orientation == (orientation if orientation in range(1, 9) else 1)
    assert (header.height, header.width, header.mode) == (image.height, image.width, image.mode)
    assert header.sampling == tuple(layer[1:3] for layer in image.layer)
    assert header.progressive == ("progressive" in image.info)
    assert header.segments == tuple(name for name, _ in image.applist)
    assert unpack_tables(header.tables) == image.quantization
    assert header.exif == image.info.get("exif", b"")
    assert header.mp == image.info.get("mp", b"")
    return header


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 2}])
def test_ordinary_files(mode, options):
    assert compared_with_pillow(encode(IMAGE, "JPEG", mode, **options)) is not None


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_in_exif_data(orientation):
    header = compared_with_pillow(encode(IMAGE, "JPEG", exif=exif(orientation)))
    assert header.orientation == orientation


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (0xFE, b"a comment"),
        (0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", 2) + b"ab"),
        (0xE1, XMP + b"<x/>"),
        (0xE2, b"ICC_PROFILE\0\1\1" + bytes(40)),
        (0xE2, b"MPF\0II*\0" + struct.pack("<IHI", 8, 0, 0)),
    ],
)
def test_further_segments(kind, body):
    plain = encode(IMAGE, "JPEG")
    header = compared_with_pillow(with_segment(plain, kind, body, plain.index(b"\xff\xdb")))
    assert header.segments == ("APP0", "COM" if kind == 0xFE else f"APP{kind & 15}")


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:2] + b"\xff" + data[2:],  # a fill byte
        lambda data: data[:2] + b"stray" + data[2:],
        lambda data: with_segment(data, 0xE1, XMP + b'<r tiff:Orientation="6"/>'),
        lambda data: with_segment(with_segment(data, 0xE1, exif(6)), 0xE1, exif(3)),
        lambda data: with_segment(data, 0xE1, b"Exif\0\0II*\0" + struct.pack("<IH", 8, 9)),
        lambda data: with_segment(data, 0xDB, b"\x10" + bytes(128)),  # a table of 16 bits
        lambda data: with_segment(data, 0xE0, b"JFIF\0"),
        lambda data: with_segment(data, 0xDC, b"\0\x1e"),
        lambda data: data[:40],
    ],
)
def test_unusual_headers_are_left_to_pillow(change):
    assert plain_header(change(encode(IMAGE, "JPEG"))) is None


def test_cmyk_is_left_to_pillow():
    assert plain_header(encode(IMAGE, "JPEG", "CMYK")) is None


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([{}, {"exif": exif(5)}]), st.integers(2, 400), st.binary(max_size=3))
def test_a_changed_header_is_read_like_pillow_or_not_at_all(options, at, new):
    data = encode(IMAGE, "JPEG", **options)
    data = data[:at] + new + data[at + len(new) :]
    try:
        check_jpeg(data, 10**6)
    except ImageError:
        return
    compared_with_pillow(data)


@pytest.mark.parametrize("options", [{}, {"exif": exif(6)}, {"progressive": True, "comment": "x"}])
def test_the_metadata_do_not_depend_on_who_reads_the_header(options):
    data = encode(IMAGE, "JPEG", **options)
    image, metadata = read_with_metadata(data, target=(10, 10))
    unusual = data[:2] + b"\xff" + data[2:]  # a fill byte, which leaves the header to Pillow
    assert plain_header(unusual) is None
    other_image, others = read_with_metadata(unusual, target=(10, 10))
    assert repr(metadata) == repr(others)
    assert (image == other_image).all()
    assert len(image) in (15, 21)


@pytest.mark.parametrize(
    ("full", "target", "used", "decoded"),
    [
        ((30, 41), (30, 41), (30, 41), (30, 41)),
        ((30, 41), (15, 20), (15, 21), (15, 21)),
        ((30, 41), (16, 20), (30, 41), (30, 41)),
        ((33, 41), (5, 5), (8, 10), (9, 11)),  # a fourth: 8.25 and 10.25
        ((800, 900), (100, 100), (100, 113), (100, 113)),  # an eighth: 112.5
    ],
)
def test_reduced_size(full, target, used, decoded):
    assert reduced_size(full, target) == (used, decoded)
