"""Tests of the benchmark of scaling: its images, and its tables."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kindsight.cache.folder import Cache
from kindsight.checks import CheckContext, measure_dataset
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.dataset import ImageDataset

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path() -> Iterator[None]:
    """Let the scripts import each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


@pytest.mark.parametrize(("kind", "grouped"), [("tracks", 54), ("unrelated", 0)])
def test_frames_of_a_track_are_near_duplicates_and_unrelated_images_none(tmp_path, kind, grouped):
    made = module("generated_images")
    for label in range(made.CLASSES):
        (tmp_path / "images" / f"{label:02d}").mkdir(parents=True)
    made._write(kind, tmp_path / "images", range(60), 0)
    dataset = ImageDataset.from_folder(tmp_path / "images")
    assert len(dataset) == 60
    context = CheckContext(*measure_dataset(dataset, Cache(str(tmp_path / "cache"))))
    found = find_duplicates(context).groups()
    # In their own size, a few of the frames of 20 pixels are too coarse.
    assert sum(map(len, found)) >= grouped and (found == []) == (not grouped)
    for rows in found:
        assert len({Path(dataset.path[row]).name.split("_")[0] for row in rows}) == 1


def test_the_search_may_take_a_fifth_of_the_features_time():
    seconds = {"features": 100.0, "near-duplicates": 19.0, "fit": 50.0}
    found = {
        "images": 600, "seconds": seconds, "groups": 20, "grouped": 600, "complete": True
    }  # fmt: skip
    rows = {row.what: row for row in module("scale").section_of("tracks", found, 900.0).rows}
    assert rows["near-duplicates"].ratio == pytest.approx(0.19)
    assert all(row.met is not False for row in rows.values())
    seconds["near-duplicates"], found["complete"] = 21.0, False
    section = module("scale").section_of("tracks", found, 1600.0)
    assert [row.what for row in section.rows if row.met is False] == [
        "near-duplicates", "peak memory"
    ]  # fmt: skip
    assert section.notes[0].startswith("Too many images are similar")
