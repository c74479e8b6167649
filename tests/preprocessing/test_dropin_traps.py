"""Trap warnings: issued once, at the user's line, with the cure, and only if they apply."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from side_by_side import OURS, write_class_folders

from kindsight.preprocessing._warnings import TRAPS, KerasTrapWarning, reset_warnings

pandas = pytest.importorskip("pandas")
WHOLE = np.random.RandomState(0).uniform(0, 255, (4, 6, 6, 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def fresh_warnings():
    reset_warnings()
    yield
    reset_warnings()


@pytest.fixture
def folders(tmp_path):
    root = write_class_folders(tmp_path / "photos")
    (root / ".ipynb_checkpoints").mkdir()
    (root / "zebra").mkdir()
    return root


def issued(action) -> list[str]:
    """Return the names of the trap warnings that an action issues."""
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
    assert issued(make(**settings)) == expected
    assert issued(make(**settings)) == []


@pytest.mark.parametrize(
    ("x", "settings", "expected"),
    [
        (WHOLE, {"channel_shift_range": 0.2}, "channel-shift-small"),
        (WHOLE / 255, {"channel_shift_range": 20.0}, "channel-shift-large"),
        (WHOLE / 255, {"channel_shift_range": 0.2}, []),
        (WHOLE, {"channel_shift_range": 20.0}, []),
        (WHOLE / 255, {"brightness_range": (0.5, 1.5)}, "brightness-rounds"),
        (WHOLE * 2 - 255, {"brightness_range": (0.5, 1.5)}, "brightness-stretches"),
        (WHOLE, {"brightness_range": (0.5, 1.5)}, []),
        (WHOLE, {"featurewise_center": True}, "not-fitted"),
        (WHOLE, {"featurewise_center": True, "zca_whitening": True}, ["not-fitted"] * 2),
        (WHOLE[:, :4], {"rotation_range": 20}, "off-centre"),
        (WHOLE[:, :4], {"horizontal_flip": True, "width_shift_range": [2]}, "swapped-shifts"),
        (WHOLE, {"rotation_range": 20}, []),
    ],
)
def test_arrays(x, settings, expected):
    assert issued(flow(x, settings)) == ([expected] if isinstance(expected, str) else expected)
    if expected != "not-fitted" and "not-fitted" not in expected:
        assert issued(flow(x, settings)) == []


def test_subsets_of_arrays():
    split = {"validation_split": 0.5, "horizontal_flip": True}
    assert issued(flow(WHOLE, split, subset="training")) == []
    assert issued(flow(WHOLE, split, subset="validation")) == ["augmented-validation"]
    plain = {"validation_split": 0.5, "rescale": 1 / 255}
    assert issued(flow(WHOLE, plain, subset="validation")) == []
    weights = {"sample_weight": np.ones(4)}
    assert issued(flow(WHOLE, plain, subset="training", **weights)) == ["weights-not-split"]


def test_folders(folders):
    def run(**options):
        settings = {"rescale": 1 / 255}
        return lambda: OURS.ImageDataGenerator(**settings).flow_from_directory(folders, **options)

    assert issued(run()) == ["skipped-files", "odd-classes", "odd-classes"]
    assert issued(run()) == []
    assert issued(run(class_mode=None)) == ["shuffled-names"]
    reset_warnings()
    assert issued(run(class_mode=None, shuffle=False, classes=["cat"])) == []


def test_skipped_files_are_counted_and_named(folders):
    with pytest.warns(KerasTrapWarning) as caught:
        OURS.ImageDataGenerator().flow_from_directory(folders)
    texts = [str(w.message) for w in caught]
    assert re.match(
        r"3 files of .* are skipped, .* dog/notes.txt, dog/x.webp, dog/y.gif. It reads png, ",
        texts[0],
    )
    assert ".ipynb_checkpoints" in texts[1] and "zebra" in texts[2]


def test_linked_folders(tmp_path):
    for name in ("data/cat", "data/dog", "elsewhere"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (9, 5)).save(tmp_path / name / "1.png")
    try:
        (tmp_path / "data/cat/more").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    except (OSError, NotImplementedError):
        pytest.skip("no symbolic links here")
    (tmp_path / "data/cat/loop").symlink_to(tmp_path / "data", target_is_directory=True)

    def names(**options):
        return OURS.ImageDataGenerator().flow_from_directory(tmp_path / "data", **options).filenames

    assert issued(names) == ["links-not-followed"]
    reset_warnings()
    with pytest.warns(KerasTrapWarning, match="2 linked subfolders of .* cat/loop, cat/more"):
        assert names() == ["cat/1.png", "dog/1.png"]
    reset_warnings()
    with pytest.warns(KerasTrapWarning, match="1 linked subfolders of .* cat/loop"):
        assert names(follow_links=True) == ["cat/1.png", "cat/more/1.png", "dog/1.png"]


def test_exif_orientation(tmp_path):
    (tmp_path / "a").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "turned.jpg", exif=exif)
    exif[0x0112] = 1
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "upright.jpg", exif=exif)
    iterator = OURS.ImageDataGenerator().flow_from_directory(
        tmp_path, shuffle=False, batch_size=1, target_size=(5, 9)
    )
    assert issued(lambda: next(iterator)) == ["orientation-ignored"]
    assert issued(lambda: next(iterator)) == []


def test_several_bands(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 5)).save(tmp_path / "a" / "x.tiff")
    generator = OURS.ImageDataGenerator()
    assert issued(lambda: generator.flow_from_directory(tmp_path)) == ["several-bands"]


def test_tables(folders):
    names = ["cat/p00.jpg", "cat/p02.png", "dog/p00.jpg", "dog/p01.palette.png"]
    table = pandas.DataFrame({"filename": names, "class": ["cat", "cat", "dog", "dog"]})

    def run(table_=table, settings=None, **options):
        generator = OURS.ImageDataGenerator(**(settings or {"validation_split": 0.5}))
        return lambda: generator.flow_from_dataframe(table_, str(folders), **options)

    assert issued(run()) == []
    assert issued(run(subset="training")) == ["sorted-split"]
    assert issued(run(table.iloc[[0, 2, 1, 3]], subset="validation")) == []
    assert issued(run(keep_aspect_ratio=True, shufle=False)) == ["ignored-arguments"]
    assert issued(run(class_mode=None)) == ["shuffled-names"]
    turning = {"rotation_range": 9}
    assert issued(run(settings=turning, target_size=(9, 8))) == ["off-centre"]


def test_functions():
    x = WHOLE[0]
    assert issued(lambda: OURS.apply_brightness_shift(x, 0.5)) == ["brightness-scale"]
    assert issued(lambda: OURS.apply_brightness_shift(x, 0.5, scale=False)) == []
    reset_warnings()
    assert issued(lambda: OURS.random_brightness(x, (0.5, 1))) == ["brightness-scale"]
    assert issued(lambda: OURS.random_brightness(x * 2, (0.5, 1), False)) == [
        "brightness-stretches"
    ]


def test_worker_processes():
    iterator = OURS.ImageDataGenerator().flow(WHOLE)
    iterator.workers = 2
    assert not iterator.use_multiprocessing

    def switch_on():
        iterator.use_multiprocessing = True

    assert issued(switch_on) == ["forked-random-state"]
    assert iterator.use_multiprocessing
    reset_warnings()
    assert issued(lambda: OURS.Iterator(3, 1, False, None, use_multiprocessing=True)) == [
        "forked-random-state"
    ]


def test_every_trap_is_tested_here():
    text = Path(__file__).read_text("utf-8")
    assert [name for name in TRAPS if f'"{name}"' not in text] == []


def test_every_trap_is_in_the_guide():
    guide = (Path(__file__).parents[2] / "docs" / "guide" / "generator.md").read_text("utf-8")
    assert [name for name in TRAPS if f"`{name}`" not in guide] == []
