"""Every format, with known pixels."""

from __future__ import annotations

import io

import cv2
import numpy as np
import PIL
import pytest
from image_makers import encode, noise, smooth, tiff
from PIL import Image, features

from kindsight.errors import ImageError
from kindsight.images import read_image
from kindsight.images.formats import READABLE, detect_format

GREY = np.array([[0, 1, 127], [128, 254, 255]], np.uint8)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def by_opencv(data):
    """Decode with an independent implementation."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)


LOSSLESS = {
    "png": ("PNG", {}),
    "bmp": ("BMP", {}),
    "webp": ("WEBP", {"lossless": True, "exact": True}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "tiff-deflate": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    "tiff-packbits": ("TIFF", {"compression": "packbits"}),
    "ppm": ("PPM", {}),
    "jpeg-2000": ("JPEG2000", {}),
    "ico": ("ICO", {"sizes": [(41, 30)]}),
}


@pytest.mark.parametrize("case", LOSSLESS)
def test_lossless_formats_give_every_pixel(case):
    pixels = noise(30, 41)
    name, options = LOSSLESS[case]
    image = read_image(encode(pixels, name, **options))
    assert np.array_equal(image, pixels)
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert image.flags.writeable


@pytest.mark.parametrize("side", [1, 2, 3, 127, 128, 129, 300])
def test_images_of_any_number_of_bands_are_whole(side):
    pixels = noise(side, 2 * side + 1)
    assert np.array_equal(read_image(encode(pixels, "PNG")), pixels)


def test_an_image_wider_than_a_band_is_whole():
    pixels = noise(3, 70_000)
    assert np.array_equal(read_image(encode(pixels, "PNG")), pixels)


@pytest.mark.parametrize(
    "options",
    [
        {"quality": 95, "subsampling": 0},
        {"quality": 95, "subsampling": 2},
        {"quality": 90, "progressive": True},
        {"quality": 90, "optimize": True},
        {"quality": 90, "restart_marker_blocks": 2},
    ],
    ids=str,
)
def test_jpeg_is_near_its_source_and_equal_to_opencv(options):
    pixels = smooth(77, 110)
    data = encode(pixels, "JPEG", **options)
    image = read_image(data).astype(int)
    assert np.abs(image - pixels).mean() < 3
    assert np.abs(image - by_opencv(data)).max() <= 1


def test_grey_jpeg_has_three_equal_channels():
    pixels = smooth(40, 50)[..., 0]
    image = read_image(encode(pixels, "JPEG", quality=95)).astype(int)
    assert image.shape == (40, 50, 3)
    assert np.array_equal(image[..., 0], image[..., 1])
    assert np.array_equal(image[..., 0], image[..., 2])
    assert np.abs(image[..., 0] - pixels).max() <= 4


def test_cmyk_jpeg_has_its_true_colours():
    # Cyan, magenta, yellow, black ink, 0-255; no ink is white, all of magenta and yellow is red.
    inks = np.zeros((16, 48, 4), np.uint8)
    inks[:, 16:32, 1:3] = 255
    inks[:, 32:, 3] = 255
    data = encode(Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes()), "JPEG", quality=95)
    image = read_image(data).astype(int)
    assert np.abs(image[:, 2:14] - 255).max() <= 3
    assert np.abs(image[:, 18:30] - [255, 0, 0]).max() <= 3
    assert image[:, 34:].max() <= 3
    assert np.abs(image - by_opencv(data)).max() <= 3


def test_cmyk_tiff_has_its_true_colours():
    inks = np.array([[[0, 0, 0, 0], [0, 255, 255, 0], [255, 0, 0, 0], [0, 0, 0, 255]]], np.uint8)
    image = read_image(encode(Image.frombytes("CMYK", inks.shape[1::-1], inks.tobytes()), "TIFF"))
    assert image[0].tolist() == [[255, 255, 255], [255, 0, 0], [0, 255, 255], [0, 0, 0]]


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "PPM", "GIF"])
def test_grey_images_have_three_equal_channels(name):
    image = read_image(encode(GREY, name))
    assert np.array_equal(image, np.stack([GREY] * 3, -1))


@pytest.mark.parametrize(
    ("name", "options"),
    [("PNG", {}), ("BMP", {}), ("PPM", {}), ("GIF", {}), ("TIFF", {"compression": "group4"})],
)
def test_one_bit_images_are_black_and_white(name, options):
    bits = np.array([[True, False, True], [False, False, True]])
    image = read_image(encode(Image.fromarray(bits), name, **options))
    assert np.array_equal(image, np.stack([bits * np.uint8(255)] * 3, -1))


@pytest.mark.parametrize("name", ["PNG", "BMP", "TIFF", "GIF"])
def test_palette_images_have_their_colours(name):
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, 10, 20, 30])
    image.putdata([2, 0, 1])
    assert read_image(encode(image, name))[0].tolist() == [[10, 20, 30], [*RED], [*GREEN]]


def test_lab_tiff_becomes_rgb():
    # TIFF 6.0: a and b are signed; grey of 128 has a lightness of 53.6 of 100, 137 of 255.
    lab = tiff(1, 2, 8, 3, 8, bytes([137, 0, 0] * 2))
    assert np.abs(read_image(lab).astype(int) - 128).max() <= 2


@pytest.mark.skipif(PIL.__version__ < "13", reason="Pillow 12 reads four bytes a pixel here")
def test_ycbcr_tiff_becomes_rgb():
    ycbcr = tiff(1, 2, 8, 3, 6, bytes([128, 128, 128] * 2), extra=[(530, 3, [1, 1])])
    assert np.abs(read_image(ycbcr).astype(int) - 128).max() <= 1


def test_of_an_animation_the_first_frame_is_taken():
    first, second = Image.new("RGB", (5, 4), RED), Image.new("RGB", (5, 4), BLUE)
    for name, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})):
        data = encode(first, name, save_all=True, append_images=[second], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 2
        assert np.array_equal(read_image(data), np.full((4, 5, 3), RED, np.uint8)), name


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif():
    pixels = smooth(48, 64)
    image = read_image(encode(pixels, "AVIF", quality=95)).astype(int)
    assert np.abs(image - pixels).mean() < 3


def test_lossy_webp_is_near_its_source():
    pixels = smooth(48, 64)
    assert np.abs(read_image(encode(pixels, "WEBP", quality=95)).astype(int) - pixels).mean() < 3


def test_a_second_image_in_a_jpeg_is_passed_over():
    pixels = smooth(20, 30)
    data = encode(pixels, "JPEG") + encode(smooth(40, 60, 1), "JPEG")
    assert read_image(data).shape == (20, 30, 3)


def test_the_name_of_a_file_does_not_matter(tmp_path):
    pixels = noise(5, 6)
    path = tmp_path / "photo.jpg"
    path.write_bytes(encode(pixels, "PNG"))
    assert np.array_equal(read_image(path), pixels)
    assert np.array_equal(read_image(str(path)), pixels)


def test_every_readable_format_is_told_from_its_bytes():
    names = {"JPEG": "JPEG", "PNG": "PNG", "GIF": "GIF", "WEBP": "WebP", "BMP": "BMP"}
    names |= {"TIFF": "TIFF", "PPM": "PPM", "JPEG2000": "JPEG 2000", "ICO": "ICO"}
    found = {detect_format(encode(noise(16, 16), name)) for name in names}
    assert found == set(names.values())
    assert set(READABLE) == found | {"AVIF"}
    assert detect_format(b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf") == "AVIF"
    assert detect_format(b"MM\0+\0\x08") == "TIFF"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
        (b"8BPS\0\1", "Photoshop"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", "video"),
        (b"\xff\x0a\xfa\x1f", "JPEG XL"),
        (b'<?xml version="1.0"?>\n<svg xmlns="">', "SVG"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio"),
        (b"qoif\0\0\0\1", "QOI"),
    ],
)
def test_known_unsupported_formats_are_named(data, word):
    with pytest.raises(ImageError, match=word) as caught:
        read_image(data + bytes(100))
    assert caught.value.code == "unsupported"
    assert caught.value.reason.endswith(".")


@pytest.mark.parametrize(
    "data", [b"hello", b"BM is a motor maker" * 9, b"\0" * 64, b"P9 3 3", b"\xff\xd8", b"P5"]
)
def test_other_files_are_not_images(data):
    with pytest.raises(ImageError) as caught:
        read_image(data)
    assert caught.value.code == "not-an-image"
