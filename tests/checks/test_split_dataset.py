"""Dividing in one call: what is alike is found, leakage are mended, what cannot be read is left."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from check_images import scene
from PIL import Image

from kindsight import ImageDataset, split_dataset
from kindsight.cache.folder import Cache
from kindsight.errors import DatasetError, SettingsError


def jpeg(image: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two classes of eight images, each of which is there in two qualities; and a damaged one."""
    folder = tmp_path_factory.mktemp("dividing")
    for kind, first in (("a", 100), ("b", 200)):
        (folder / "photos" / kind).mkdir(parents=True)
        for n in range(8):
            for quality in (95, 60):
                file = folder / "photos" / kind / f"{n} {quality}.jpg"
                file.write_bytes(jpeg(scene(first + n), quality))
    (folder / "photos" / "a" / "cut.jpg").write_bytes(jpeg(scene(300), 90)[:600])
    return folder


def parts_of(dataset: ImageDataset) -> dict[str, str | None]:
    return dict(zip(dataset.path, dataset.split, strict=True))


def test_copies_stay_together(folder):
    cache = Cache(folder / "cache")
    dataset = split_dataset(
        ImageDataset.open(folder / "photos"),
        validation=0.25,
        group_near_duplicates=True,
        cache=cache,
    )
    parts = parts_of(dataset)
    for kind in "ab":
        pairs = [{parts[f"{kind}/{n} {quality}.jpg"] for quality in (95, 60)} for n in range(8)]
        assert all(len(pair) == 1 for pair in pairs)
        assert sum(pair == {"validation"} for pair in pairs) == 2
    assert parts["a/cut.jpg"] is None and len(dataset) == 33
    assert any(
        note.startswith("In no split because they could not be read: 1") for note in dataset.notes
    )


def test_duplicates_across_splits_are_left_out_of_training(folder):
    cache = Cache(folder / "cache")
    stated = ImageDataset.open(folder / "photos")
    parts = ["train" if "95" in path or "cut" in path else "test" for path in stated.path]
    parts[stated.path.index("b/7 60.jpg")] = "train"
    parts[stated.path.index("a/7 60.jpg")] = "train"
    found = split_dataset(stated.with_columns(split=parts), validation=0, cache=cache)
    assert {path for path, part in parts_of(found).items() if part == "train"} == {
        f"{kind}/7 {quality}.jpg" for kind in "ab" for quality in (95, 60)
    }
    assert found.split_counts()["test"] == 14


def test_folds_hold_each_image_out_once(folder):
    cache, dataset = Cache(folder / "cache"), ImageDataset.open(folder / "photos")
    held: list[str] = []
    for k in (1, 2):
        parts = parts_of(split_dataset(dataset, fold=f"{k}/2", leakage="keep", cache=cache))
        held += [path for path, part in parts.items() if part == "validation"]
    assert len(held) == len(set(held)) == 32


def test_what_cannot_be(folder, tmp_path):
    cache, dataset = Cache(folder / "cache"), ImageDataset.open(folder / "photos")
    with pytest.raises(SettingsError, match="`leakage` must be one of"):
        split_dataset(dataset, leakage="delete", cache=cache)
    with pytest.raises(DatasetError, match="contains none of the 32 images"):
        table = tmp_path / "split.csv"
        table.write_text("path,split\nelsewhere.jpg,train\n")
        split_dataset(dataset, file=table, cache=cache)
    with pytest.raises(DatasetError, match="None of the 1 image could be read"):
        split_dataset(dataset.where(split=None)[[dataset.path.index("a/cut.jpg")]], cache=cache)
