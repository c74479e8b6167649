"""HEIC through a package that the user installs; camera raw files, whose thumbnail is no photo."""

import importlib.util
import io
import sys
import types

import numpy as np
import pytest
from PIL import Image, PngImagePlugin, TiffImagePlugin

from kindsight.cache.folder import Cache
from kindsight.checks import measure_dataset
from kindsight.dataset import ImageDataset
from kindsight.errors import ImageError
from kindsight.images import read_image
from kindsight.images.formats import HEIF_MODULES, heif_module

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


class HeifImageFile(PngImagePlugin.PngImageFile):
    """A decoder that shows a red image, turned upright, whatever the file."""

    def __init__(self, file):
        assert file.read()[4:12] == b"ftypheic"
        stored = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6  # which the decoder has applied
        Image.new("RGB", (6, 4), (255, 0, 0)).save(stored, "PNG", exif=exif)
        stored.seek(0)
        super().__init__(stored)


@pytest.fixture
def install(monkeypatch):
    """Return a function that pretends that pi-heif is installed, or is not."""
    find_spec = importlib.util.find_spec
    module = types.ModuleType("pi_heif")
    module.HeifImageFile = HeifImageFile

    def set_installed(installed: bool) -> None:
        def find(name, *rest):
            if name not in HEIF_MODULES:
                return find_spec(name, *rest)
            return "there" if installed and name == "pi_heif" else None

        heif_module.cache_clear()
        monkeypatch.setattr(importlib.util, "find_spec", find)
        monkeypatch.setitem(sys.modules, "pi_heif", module)

    yield set_installed
    monkeypatch.undo()
    heif_module.cache_clear()


def test_without_a_package_the_error_names_one(install):
    install(False)
    with pytest.raises(
        ImageError, match="HEIC photo: to read it, run pip install pi-heif"
    ) as error:
        read_image(HEIC)
    assert error.value.code == "unsupported"


def test_with_a_package_it_is_read_and_not_turned_twice(install):
    install(True)
    image = read_image(HEIC)
    assert image.shape == (4, 6, 3)
    assert image.reshape(-1, 3).tolist() == [[255, 0, 0]] * 24


def test_a_photo_is_read_again_after_the_package_was_installed(tmp_path, install):
    for name in ("1.HEIC", "2.HEIC"):
        (tmp_path / name).write_bytes(HEIC)
    dataset, cache = ImageDataset.from_folder(tmp_path, labelled=False), Cache(tmp_path / "cache")
    install(False)
    assert measure_dataset(dataset, cache)[1].code.tolist() == ["unsupported"] * 2
    install(True)
    _, measured = measure_dataset(dataset, cache)
    assert measured.code.tolist() == ["", ""]
    assert measured.format.tolist() == ["HEIC"] * 2


def test_a_real_photo():
    pillow_heif = pytest.importorskip("pillow_heif")
    pixels = np.full((16, 24, 3), (20, 200, 60), np.uint8)
    file = io.BytesIO()
    pillow_heif.from_bytes("RGB", (24, 16), pixels.tobytes()).save(file, quality=90)
    image = read_image(file.getvalue())
    assert image.shape == (16, 24, 3)
    assert np.abs(image.astype(int) - pixels).max() < 12


@pytest.mark.parametrize(
    ("tags", "is_raw"),
    [
        ({254: 1, 330: 8}, True),  # a thumbnail first, the photo in a subfile
        ({50706: b"\1\4\0\0"}, True),  # DNG
        ({254: 0, 330: 8}, False),  # an image first, smaller ones in subfiles
        ({254: 1}, False),
        ({}, False),
    ],
)
def test_of_a_camera_raw_file_the_thumbnail_is_not_read(tags, is_raw):
    file = io.BytesIO()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag, value in tags.items():
        info[tag] = value
        info.tagtype[tag] = 1 if isinstance(value, bytes) else 4
    Image.new("RGB", (8, 6), (9, 9, 9)).save(file, "TIFF", tiffinfo=info)
    if not is_raw:
        assert read_image(file.getvalue()).shape == (6, 8, 3)
        return
    with pytest.raises(ImageError, match="camera raw file") as error:
        read_image(file.getvalue())
    assert error.value.code == "unsupported"
