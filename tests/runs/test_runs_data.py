"""Whole trainings on tables, rows of pixels and arrays."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from fake_keras import use_fake_keras
from kindsight import ImageClassifier, ImageDataset
from kindsight.runs.train import TrainSettings, train
from shapes import CLASSES, shape, write_shapes

SIDE = 24


@pytest.fixture
def quick(backbone, tmp_path, monkeypatch):
    """Train without starting Keras, in a folder of the test's own."""
    use_fake_keras(monkeypatch)
    monkeypatch.chdir(tmp_path)
    return lambda data, **settings: train(TrainSettings(str(data), size=64, **settings))


def grey(kind, seed):
    return shape(kind, seed, 72)[::3, 4:76:3].mean(axis=2).round().astype(int)


def pixel_csv(path, per_class, first):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["label", *(f"pixel{k}" for k in range(1, SIDE * SIDE + 1))])
        for seed in range(first, first + per_class):
            for number, kind in enumerate(CLASSES):
                out.writerow([number, *grey(kind, seed).ravel()])
    return path


def rows_of(file):
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_rows_of_pixels_in_a_training_and_a_test_file(quick, tmp_path):
    pixel_csv(tmp_path / "signs" / "sign_train.csv", 8, 400)
    pixel_csv(tmp_path / "signs" / "sign_test.csv", 3, 500)
    result = quick("signs", label_names=CLASSES, validation=6)
    assert result.run.name == "signs-1" and result.classes == CLASSES
    assert result.images == {"train": 18, "validation": 6, "test": 9, "skipped": 0}
    names = [row["path"] for row in rows_of(result.run / "test.csv")]
    assert names == [f"signs/sign_test.csv:{line}" for line in range(2, 11)]
    again = TrainSettings.from_toml(result.run / "settings.toml")
    assert again.label_names == CLASSES and again.data == "signs"
    # The same images, each file by itself, are the same training: nothing is computed again.
    other = quick(
        "signs/sign_train.csv", test_data="signs/sign_test.csv", label_names=CLASSES, validation=6
    )
    assert other.run.name == "sign_train-1"
    assert other.cache["computed"] == 0 and other.cache["reused"] == 33
    assert other.test.confusion.tolist() == result.test.confusion.tolist()
    facts = [json.loads((run / "bundle.json").read_text()) for run in (result.run, other.run)]
    assert facts[0]["data"]["digest"] == facts[1]["data"]["digest"]


def test_a_table_of_paths_with_a_file_that_is_gone(quick, tmp_path):
    folder = write_shapes(tmp_path / "photos", dict.fromkeys(CLASSES, 6), first=600)
    dataset = ImageDataset.from_folder(folder)
    split = ["validation" if "605" in path else "train" for path in dataset.path]
    dataset.with_columns(split=split).write_csv(tmp_path / "all.csv")
    with (tmp_path / "all.csv").open("a") as file:
        file.write("photos/gone.jpg,ring,train\n")
    result = quick("all.csv")
    assert result.run.name == "all-1"
    assert result.images == {"train": 15, "validation": 3, "test": 0, "skipped": 1}
    assert rows_of(result.run / "problems.csv") == [
        {
            "path": "photos/gone.jpg",
            "label": "ring",
            "code": "missing",
            "reason": "There is no such file.",
        }
    ]
    paths = [row["path"] for row in rows_of(result.run / "validation.csv")]
    assert paths == [f"photos/{name}/{name} 605.jpg" for name in CLASSES]


def test_every_file_that_is_not_used_is_named(quick, tmp_path):
    folder = write_shapes(tmp_path / "photos", dict.fromkeys(CLASSES, 6), first=600)
    (folder / "ring" / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40))
    (folder / "ring" / "notes.txt").write_text("late")
    (folder / ".hidden").mkdir()
    first = next((folder / "ring").glob("*.jpg"))
    first.rename(folder / "ring" / "photo.jpg?w=200")
    result = quick("photos", validation=3)
    assert sum(result.images.values()) == 19 and result.images["skipped"] == 1
    rows = {row.pop("path"): row for row in rows_of(result.run / "problems.csv")}
    assert rows == {
        "ring/IMG_1.HEIC": {
            "label": "ring",
            "code": "unsupported",
            "reason": "The file is a HEIC photo: to read it, run pip install pi-heif; or save it "
            "as JPEG or PNG.",
        },
        "ring/notes.txt": {"label": "ring", "code": "ignored", "reason": "Not an image (.txt)."},
        ".hidden": {"label": "", "code": "ignored", "reason": "Hidden folder."},
    }
    assert any("pip install pi-heif" in note for note in result.notes)
    assert "Ignored, not an image (.txt): 1 in 'ring'; first 'ring/notes.txt'." in result.notes
    page = result.report.read_text("utf-8")
    assert all(path in page for path in rows)
    assert json.loads((result.run / "bundle.json").read_text())["data"]["ignored"] == {
        "hidden folder": 1,
        "not an image (.txt)": 1,
    }


def test_names_tell_labels_and_groups(quick, tmp_path):
    folder = write_shapes(tmp_path / "photos", dict.fromkeys(CLASSES, 6), first=700)
    flat = tmp_path / "flat"
    flat.mkdir()
    for file in sorted(folder.glob("*/*")):
        file.rename(flat / file.name)
    result = quick("flat", label_from="^([a-z]+) ", group_from=r" (\d+)\.", validation=0.3)
    assert result.classes == CLASSES
    kept = {row["path"][:-4].split()[1] for row in rows_of(result.run / "validation.csv")}
    # A group is one of each class: groups are whole, so the numbers of the classes are equal.
    assert result.images["validation"] == 3 * len(kept)


def test_a_classifier_fits_a_file_and_predicts_another(backbone, tmp_path):
    train_file = pixel_csv(tmp_path / "train.csv", 8, 400)
    test_file = pixel_csv(tmp_path / "test.csv", 3, 500)
    classifier = ImageClassifier(size=64).fit(train_file)
    assert classifier.classes_.tolist() == ["0", "1", "2"]
    x = np.array([grey(kind, seed) for seed in range(500, 503) for kind in CLASSES], np.uint8)
    assert classifier.predict(test_file).tolist() == classifier.predict(x).tolist()
    score = classifier.score(test_file)
    assert score == pytest.approx(np.mean(classifier.predict(x) == np.tile(["0", "1", "2"], 3)))
