"""The fast JPEG decoder: exactly Keras's pixels."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from kindsight.preprocessing._loading import LoadSettings, load_jpeg, load_pixels

SETTINGS = ("rgb", (15, 22), "nearest", False)


def write(path, height=40, width=30, mode="RGB", **options):
    noise = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path, "JPEG", **options)
    return str(path)


def of_keras(path, size):
    image = keras.utils.load_img(path, target_size=size, interpolation="nearest")
    return np.asarray(image)


@settings(max_examples=30, deadline=None)
@given(*[st.integers(1, 260)] * 4, st.booleans())
def test_sizes(tmp_path_factory, height, width, new_height, new_width, progressive):
    path = write(tmp_path_factory.getbasetemp() / "one.jpg", height, width, progressive=progressive)
    size = (new_height, new_width)
    image, pixels = load_jpeg(path, LoadSettings("rgb", size, "nearest", False))
    assert (image.height, image.width) == (height, width)
    assert np.array_equal(pixels, of_keras(path, size))


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_use_keras(tmp_path, mode):
    path = write(tmp_path / "other.jpg", mode=mode)
    assert load_jpeg(path, LoadSettings(*SETTINGS)) is None
    assert np.array_equal(load_pixels(path, LoadSettings(*SETTINGS)), of_keras(path, (15, 22)))


@pytest.mark.parametrize(
    "loading",
    [
        LoadSettings("grayscale", (15, 22), "nearest", False),
        LoadSettings("rgb", (15, 22), "bilinear", False),
        LoadSettings("rgb", (15, 22), "nearest", True),
    ],
)
def test_other_settings_use_keras(tmp_path, loading):
    assert load_jpeg(write(tmp_path / "one.jpg"), loading) is None


def test_damaged_and_large_images_use_keras(tmp_path, monkeypatch):
    path = write(tmp_path / "one.jpg")
    whole = (tmp_path / "one.jpg").read_bytes()
    for data in (whole[: len(whole) // 2], b"\xff\xd8\xff", b"", b"BM no JPEG"):
        (tmp_path / "cut.jpg").write_bytes(data)
        assert load_jpeg(str(tmp_path / "cut.jpg"), LoadSettings(*SETTINGS)) is None
    assert load_jpeg(str(tmp_path / "absent.jpg"), LoadSettings(*SETTINGS)) is None
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000)
    assert load_jpeg(path, LoadSettings(*SETTINGS)) is None
