"""The typical size of a dataset's images, from headers alone."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from kindsight.dataset import ImageDataset
from kindsight.dataset.properties import LARGE_FILE, typical_sides
from kindsight.images.read import stored_size


def encoded(height, width, format, **options):
    file = io.BytesIO()
    Image.new("RGB", (width, height), (10, 200, 90)).save(file, format, **options)
    return file.getvalue()


def folder_of(root, images):
    for number, data in enumerate(images):
        path = root / "ab"[number % 2] / f"{number:03}.img"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    paths = [f"{'ab'[number % 2]}/{number:03}.img" for number in range(len(images))]
    return ImageDataset(
        path=tuple(paths), label=tuple(path[0] for path in paths), root=root,
        size=tuple(len(data) for data in images),
    )  # fmt: skip


@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WebP", "PPM"])
def test_the_size_is_read_from_the_header(format):
    assert stored_size(encoded(30, 47, format)) == (30, 47)


def test_a_progressive_jpeg_and_one_with_a_rotation():
    exif = Image.Exif()
    exif[274] = 6
    assert stored_size(encoded(30, 47, "JPEG", progressive=True, exif=exif)) == (30, 47)


@pytest.mark.parametrize("data", [b"", b"no image", encoded(9, 9, "PNG")[:40], b"P6 5"])
def test_no_size_of_what_is_no_image(data):
    assert stored_size(data) is None


def test_the_median_of_shorter_and_longer_sides(tmp_path):
    sizes = [(20, 50), (60, 30), (40, 44)]
    images = [encoded(*size, "PNG") for size in sizes]
    assert typical_sides(folder_of(tmp_path, images)) == (30, 50)


def test_unreadable_images_do_not_count(tmp_path):
    images = [b"damaged", encoded(20, 50, "JPEG"), b"\x89PNG\r\n\x1a\n"]
    assert typical_sides(folder_of(tmp_path, images)) == (20, 50)
    assert typical_sides(folder_of(tmp_path, [b"damaged"] * 3)) is None
    assert typical_sides(folder_of(tmp_path, [])) is None


@pytest.mark.parametrize("known", [True, False])
def test_large_files_are_not_read_and_count_as_large(tmp_path, known):
    large = encoded(10, 10, "PNG") + bytes(LARGE_FILE)
    dataset = folder_of(tmp_path, [large, large, encoded(10, 10, "PNG")])
    if not known:
        dataset = dataset.with_columns(size=[0, 0, 0])
    assert typical_sides(dataset) == (math.inf, math.inf)


def test_arrays_have_sizes_of_their_own():
    images = [np.zeros((28, 30, 3), np.uint8), np.zeros((50, 20), np.uint8)]
    images += [np.zeros((32, 32, 1), np.uint8)]
    assert typical_sides(ImageDataset.from_arrays(images, ["a", "b", "a"])) == (28, 32)


def test_a_sample_is_spread_over_all_images():
    small, large = np.zeros((8, 8, 3), np.uint8), np.zeros((16, 16, 3), np.uint8)
    images = [small] * 400 + [large] * 600
    assert typical_sides(ImageDataset.from_arrays(images, ["a", "b"] * 500)) == (16, 16)
