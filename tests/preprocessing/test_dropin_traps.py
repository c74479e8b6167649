"""The traps: each said once, at the user's own line, with the cure; and not where there is none."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from side_by_side import OURS, write_class_folders

from kindsight.preprocessing import _messages as _traps
from kindsight.preprocessing._messages import TRAPS, KerasTrapWarning

pandas = pytest.importorskip("pandas")
WHOLE = np.random.RandomState(0).uniform(0, 255, (4, 6, 6, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def forget():
    _traps.forget_warnings()
    yield
    _traps.forget_warnings()


@pytest.fixture
def folders(tmp_path):
    root = write_class_folders(tmp_path / "photos")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "zebra").mkdir()
    return root


def said(action) -> list[str]:
    """What traps an action met, by name."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        action()
    found = [w for w in caught if issubclass(w.category, KerasTrapWarning)]
    assert all(Path(w.filename) == Path(__file__) for w in found), "not at the user's line"
    return [_name(str(w.message)) for w in found]


def _name(message: str) -> str:
    for name, template in TRAPS.items():
        pattern = re.sub(r"\\\{.*?\\\}", ".*", re.escape(template))
        if re.fullmatch(rf"{pattern} \[{name}\]", message, re.S):
            return name
    raise AssertionError(message)


def make(**settings):
    return lambda: OURS.ImageDataGenerator(**settings)


def flow(x, settings, **options):
    return lambda: next(OURS.ImageDataGenerator(**settings).flow(x, **options))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, []),
        ({"shear_range": 0.2}, ["shear-degrees"]),
        ({"shear_range": 12}, []),
        ({"zoom_range": 0.2}, ["zoom-stretches"]),
        ({"zoom_range": (0.9, 0.9)}, []),
        ({"width_shift_range": 0.2, "height_shift_range": 0.2}, []),
        ({"width_shift_range": 0.2}, ["swapped-shifts"]),
        ({"width_shift_range": [1, 2], "height_shift_range": [1, 2]}, []),
        ({"width_shift_range": 1, "height_shift_range": 1}, ["shift-of-one"] * 2),
        ({"rotation_range": 30, "horizontal_flip": True, "rescale": 1 / 255}, []),
    ],
)
def test_settings(settings, expected):
    if expected == ["shift-of-one"] * 2:
        expected = expected[:1]
    assert said(make(**settings)) == expected
    assert said(make(**settings)) == []


@pytest.mark.parametrize(
    ("x", "settings", "expected"),
    [
        (WHOLE, {"channel_shift_range": 0.2}, "channel-shift-small"),
        (WHOLE / 255, {"channel_shift_range": 20.0}, "channel-shift-large"),
        (WHOLE / 255, {"channel_shift_range": 0.2}, None),
        (WHOLE, {"channel_shift_range": 20.0}, None),
        (WHOLE / 255, {"brightness_range": (0.5, 1.5)}, "brightness-rounds"),
        (WHOLE * 2 - 255, {"brightness_range": (0.5, 1.5)}, "brightness-stretches"),
        (WHOLE, {"brightness_range": (0.5, 1.5)}, None),
        (WHOLE, {"featurewise_center": True}, "not-fitted"),
        (WHOLE, {"featurewise_center": True, "zca_whitening": True}, "not-fitted"),
        (WHOLE[:, :4], {"rotation_range": 20}, "off-centre"),
        (WHOLE[:, :4], {"horizontal_flip": True, "width_shift_range": [2]}, "swapped-shifts"),
        (WHOLE, {"rotation_range": 20}, None),
    ],
)
def test_arrays(x, settings, expected):
    assert said(flow(x, settings)) == ([expected] if expected else [])
    assert said(flow(x, settings)) == []


def test_parts_of_arrays():
    split = {"validation_split": 0.5, "horizontal_flip": True}
    assert said(flow(WHOLE, split, subset="training")) == []
    assert said(flow(WHOLE, split, subset="validation")) == ["augmented-validation"]
    plain = {"validation_split": 0.5, "rescale": 1 / 255}
    assert said(flow(WHOLE, plain, subset="validation")) == []
    weights = {"sample_weight": np.ones(4)}
    assert said(flow(WHOLE, plain, subset="training", **weights)) == ["weights-not-split"]


def test_folders(folders):
    def ask(**options):
        settings = {"rescale": 1 / 255}
        return lambda: OURS.ImageDataGenerator(**settings).flow_from_directory(folders, **options)

    assert said(ask()) == ["skipped-files", "odd-classes", "odd-classes"]
    assert said(ask()) == []
    assert said(ask(class_mode=None)) == ["shuffled-names"]
    _traps.forget_warnings()
    assert said(ask(class_mode=None, shuffle=False, classes=["cat"])) == []


def test_files_that_are_left_out_are_counted_and_named(folders):
    with pytest.warns(KerasTrapWarning) as caught:
        OURS.ImageDataGenerator().flow_from_directory(folders)
    texts = [str(w.message) for w in caught]
    assert re.match(r"3 files of .* dog/notes.txt, dog/x.webp, dog/y.gif. It reads png, ", texts[0])
    assert ".ipynb_checkpoints" in texts[1] and "zebra" in texts[2]


def test_a_photograph_that_lies_on_its_side(tmp_path):
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "turned.jpg", exif=exif)
    exif[0x0112] = 1
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "upright.jpg", exif=exif)
    iterator = OURS.ImageDataGenerator().flow_from_directory(
        tmp_path, shuffle=False, batch_size=1, target_size=(5, 9)
    )
    assert said(lambda: next(iterator)) == ["not-turned"]
    assert said(lambda: next(iterator)) == []


def test_several_bands(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "x.tiff")
    generator = OURS.ImageDataGenerator()
    assert said(lambda: generator.flow_from_directory(tmp_path)) == ["several-bands"]


def test_tables(folders):
    names = ["cat/p00.jpg", "cat/p02.png", "dog/p00.jpg", "dog/p01.palette.png"]
    table = pandas.DataFrame({"filename": names, "class": ["cat", "cat", "dog", "dog"]})

    def ask(table_=table, settings=None, **options):
        generator = OURS.ImageDataGenerator(**(settings or {"validation_split": 0.5}))
        return lambda: generator.flow_from_dataframe(table_, str(folders), **options)

    assert said(ask()) == []
    assert said(ask(subset="training")) == ["sorted-split"]
    assert said(ask(table.iloc[[0, 2, 1, 3]], subset="validation")) == []
    assert said(ask(keep_aspect_ratio=True, shufle=False)) == ["ignored-arguments"]
    assert said(ask(class_mode=None)) == ["shuffled-names"]
    turning = {"rotation_range": 9}
    assert said(ask(settings=turning, target_size=(9, 8))) == ["off-centre"]


def test_functions():
    x = WHOLE[0]
    assert said(lambda: OURS.apply_brightness_shift(x, 0.5)) == ["brightness-scale"]
    assert said(lambda: OURS.apply_brightness_shift(x, 0.5, scale=False)) == []
    _traps.forget_warnings()
    assert said(lambda: OURS.random_brightness(x, (0.5, 1))) == ["brightness-scale"]
    assert said(lambda: OURS.random_brightness(x * 2, (0.5, 1), False)) == ["brightness-stretches"]


def test_worker_processes():
    iterator = OURS.ImageDataGenerator().flow(WHOLE)
    iterator.workers = 2
    assert not iterator.use_multiprocessing

    def switch_on():
        iterator.use_multiprocessing = True

    assert said(switch_on) == ["forked-chance"]
    assert iterator.use_multiprocessing
    _traps.forget_warnings()
    assert said(lambda: OURS.Iterator(3, 1, False, None, use_multiprocessing=True)) == [
        "forked-chance"
    ]


def test_every_trap_is_tried_here():
    text = Path(__file__).read_text("utf-8")
    assert [name for name in TRAPS if f'"{name}"' not in text] == []


def test_every_trap_is_in_the_guide_with_its_cure():
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "generator.md").read_text("utf-8")
    assert [name for name in TRAPS if f"`{name}`" not in guide] == []
