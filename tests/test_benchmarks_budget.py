"""The benchmark of time budgets: its generated images, its splits and its targets."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    """Let the scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def test_each_font_has_each_character_and_test_fonts_are_others():
    glyphs = importlib.import_module("glyphs")
    assert len(glyphs.CLASSES) == 36 and not set(glyphs.TRAIN_FONTS) & set(glyphs.TEST_FONTS)
    for font in (*glyphs.TRAIN_FONTS, *glyphs.TEST_FONTS):
        masks = [glyphs._mask(character, font) for character in "AI08"]
        assert all(min(mask.shape) > 5 and mask.max() > 200 for mask in masks), font
        shapes = {mask.tobytes() for mask in masks}
        assert len(shapes) == len(masks), font


def test_glyphs_depend_on_the_seed_alone(tmp_path):
    write = importlib.import_module("glyphs").write_glyphs
    first, again = write(tmp_path / "a", 40, 36), write(tmp_path / "b", 40, 36)
    files = sorted(path.relative_to(first) for path in first.rglob("*.png"))
    assert len(files) == 76 and len(list((first / "test").iterdir())) == 36
    pixels = [np.asarray(Image.open(first / file)) for file in files]
    assert all(image.shape == (32, 32, 3) for image in pixels)
    for file, image in zip(files, pixels, strict=True):
        assert (np.asarray(Image.open(again / file)) == image).all()


def test_targets_compare_the_budget_with_what_it_chooses_from():
    section = importlib.import_module("budget_job").section

    def result(accuracy):
        return {"accuracy": accuracy, "seconds": 1.0, "model": ""}

    cifar = {"frozen": result(0.80), "scratch": result(0.70), "budget": result(0.82)}
    glyphs = {"frozen": result(0.80), "scratch": result(0.95), "keras": result(0.94)}
    found = section({"cifar10 10m": cifar, "glyphs 10m": {**glyphs, "budget": result(0.946)}})
    assert [(row.what, row.met) for row in found.rows] == [
        ("cifar10 10m", True), ("cifar10 10m", False), ("glyphs 10m", True), ("glyphs 10m", True),
    ]  # fmt: skip
    (behind,) = section({"glyphs 10m": {**glyphs, "budget": result(0.944)}}).rows[:1]
    assert behind.met is False and section({"glyphs 10m": glyphs}).rows == []


def test_images_without_a_test_folder_are_split_the_same_each_time(tmp_path):
    load = importlib.import_module("budget_job").load
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in range(8):
            pixels = np.full((5, 5, 3), number + 100 * (name == "b"), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{number}.png")
    (train, test), (again, _) = load(tmp_path, None), load(tmp_path, None)
    assert (len(train), len(test)) == (12, 4) and [*train.path] == [*again.path]
    assert not set(train.path) & set(test.path)
