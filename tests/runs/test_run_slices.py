"""Slices of a run for its report: by folder and group, by measurements only if they are cached."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.cache.folder import Cache
from kindsight.checks.measurements import cached_measurements, measure_dataset
from kindsight.dataset import ImageDataset
from kindsight.runs.evaluate import record_slices, report_slices
from kindsight.runs.record import load_run
from tiny_bundle import CLASSES, write_bundle


@pytest.fixture
def data(tmp_path: Path) -> ImageDataset:
    """Forty images of two folders; those of "night" are dark and predicted wrongly."""
    for number in range(40):
        place = "night" if number % 4 == 0 else "day"
        path = tmp_path / "data" / place / "blue" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 20 if place == "night" else 150
        Image.new("L", (30 + number, 50), level + number % 3).save(path)
    root = tmp_path / "data"
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.png"))
    return ImageDataset(tuple(paths), ("blue",) * 40, root=root)


def write_run(folder: Path, dataset: ImageDataset, split: str = "validation") -> Path:
    write_bundle(folder)
    with (folder / "split.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split", "digest"))
        for path, digest in zip(dataset.path, dataset.digest, strict=True):
            rows.writerow((path, "blue", split, digest))
    with (folder / f"{split}.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "prediction", *(f"p_{name}" for name in CLASSES)))
        for path in dataset.path:
            p = (0.2, 0, 0.8) if path.startswith("night") else (0.8, 0, 0.2)
            rows.writerow((path, "blue", CLASSES[int(np.argmax(p))], *p))
    return folder


def test_without_measurements_no_image_is_read(tmp_path, data):
    cache = Cache(tmp_path / "cache")
    dataset = data.with_columns(digest=[f"digest {i}" for i in range(40)])
    record = load_run(write_run(tmp_path / "run", dataset))
    found = record_slices(record, cache)
    assert {each.column for each in found} == {"folder"}
    assert (found[0].value, found[0].images, found[0].errors) == ("night", 10, 10)
    (worse,) = report_slices(record, cache)
    assert (worse.column, worse.value, worse.accuracy, worse.others) == ("folder", "night", 0, 1)
    assert worse.low == 0 and worse.p_value < 0.001


def test_cached_measurements_are_used(tmp_path, data):
    cache = Cache(tmp_path / "cache")
    dataset, measured = measure_dataset(data, cache)
    again = cached_measurements(dataset, cache)
    assert again is not None
    assert again.brightness.tolist() == measured.brightness.tolist()
    assert again.format.tolist() == measured.format.tolist()
    rows = np.arange(3)
    assert (again.small_images(rows) == measured.small_images(rows)).all()
    record = load_run(write_run(tmp_path / "run", dataset, "test"))
    columns = {each.column for each in record_slices(record, cache)}
    assert {"brightness", "size"} <= columns
    more = dataset.with_columns(digest=["unknown", *dataset.digest[1:]])
    assert cached_measurements(more, cache) is None


def test_a_run_without_predictions_has_no_slices(tmp_path):
    record = load_run(write_bundle(tmp_path / "bundle"))
    assert record_slices(record, Cache(tmp_path / "cache")) == ()
