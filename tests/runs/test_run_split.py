"""The split of a run: leakage, split files, folds, dates, and the training images it remembers."""

from __future__ import annotations

import csv
import io
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "checks"))
from check_images import scene

from fake_keras import use_fake_keras
from kindsight import trained_images
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.groups import group_indices
from kindsight.errors import DatasetError, SettingsError
from kindsight.predictor import Predictor
from kindsight.runs.split import open_data, split_images
from kindsight.runs.train import TrainSettings, train
from kindsight.trained_images import TrainedImages
from kindsight.training.trainer import prepare
from shapes import CLASSES, shape, write_shapes


@pytest.fixture
def quick(backbone, tmp_path, monkeypatch):
    """Train without starting Keras, into a temporary folder."""
    use_fake_keras(monkeypatch)

    def quick(data, **settings):
        settings = {"runs": str(tmp_path / "runs"), "size": 64, "head": "linear", **settings}
        return train(TrainSettings(str(data), **settings))

    return quick


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def splits(run: Path) -> dict[str, str]:
    return {row["path"]: row["split"] for row in rows_of(run / "split.csv")}


def jpeg(image: np.ndarray, quality: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return file.getvalue()


@pytest.fixture(scope="module")
def leaking(tmp_path_factory) -> Path:
    """Split folders that share an image, a re-encoded and a mirrored one."""
    folder = tmp_path_factory.mktemp("leaking") / "photos"
    write_shapes(folder / "train", dict.fromkeys(CLASSES, 8), first=500)
    write_shapes(folder / "test", dict.fromkeys(CLASSES, 4), first=600)
    for part, name, data in (
        ("train", "bar/same.jpg", jpeg(shape("bar", 900), 90)),
        ("test", "bar/same too.jpg", jpeg(shape("bar", 900), 90)),
        ("train", "ring/encoded.jpg", jpeg(scene(901), 95)),
        ("test", "ring/encoded.jpg", jpeg(scene(901), 60)),
        ("train", "chequer/mirrored.jpg", jpeg(scene(903, 128, 128), 95)),
        ("test", "chequer/mirrored.jpg", jpeg(scene(903, 128, 128)[:, ::-1], 95)),
    ):
        (folder / part / name).write_bytes(data)
    return folder


DUPLICATES = ("bar/same.jpg", "ring/encoded.jpg", "chequer/mirrored.jpg")


def test_duplicates_are_dropped_from_the_train_split(quick, leaking):
    result = quick(leaking)
    split = splits(result.run)
    assert {path for path, part in split.items() if part == "excluded"} == {
        f"train/{name}" for name in DUPLICATES
    }
    assert sum(result.images[name] for name in ("train", "validation")) == 24
    assert result.images["test"] == 15
    assert result.leakage == {"mode": "drop", "groups": 3, "images": 3}
    assert any(note.startswith("Dropped 3 images of the train split") for note in result.notes)
    assert "Dropped 3 images of the train split" in result.report.read_text("utf-8")
    named = [
        (row["path"], row["split_after"], row["match"])
        for row in rows_of(result.run / "leakage.csv")
    ]
    assert sorted(named) == sorted(
        [
            ("train/bar/same.jpg", "excluded", "identical"),
            ("test/bar/same too.jpg", "test", "identical"),
            *((f"train/{name}", "excluded", "near-duplicate") for name in DUPLICATES[1:]),
            *((f"test/{name}", "test", "near-duplicate") for name in DUPLICATES[1:]),
        ]
    )


def test_duplicates_are_moved(quick, leaking):
    result = quick(leaking, leakage="move")
    split = splits(result.run)
    assert all(split[f"test/{name}"] != "test" for name in DUPLICATES[1:])
    assert result.images["test"] == 12 and "excluded" not in split.values()


def test_duplicates_are_kept_and_accuracy_is_also_stated_without_them(quick, leaking):
    result = quick(leaking, leakage="keep", validation=0)
    assert result.images["test"] == 15 and result.images["train"] == 27
    notes = " ".join(result.notes)
    assert "Kept 3 images of the test split" in notes or "Kept 3 images of the train" in notes
    assert "Without 3 images that have a duplicate in the train split" in notes
    assert "on 12 images" in notes
    assert result.leakage["mode"] == "keep" and result.leakage["without"]["test"]["images"] == 12
    page = result.report.read_text("utf-8")
    assert page.count("identical</td>") == 2 and page.count("near-duplicate</td>") == 4
    # The run recognises its training images, whatever their names and encodings.
    dataset = ImageDataset.from_folder(leaking).where(split="test")
    scores = Predictor(result.run).evaluate(dataset)
    known = {path for path, t in zip(scores.dataset.path, scores.trained_on, strict=True) if t}
    assert known == {"test/bar/same too.jpg", "test/ring/encoded.jpg", "test/chequer/mirrored.jpg"}
    assert scores.evaluate_unseen().images == 12
    right = scores.probabilities.argmax(axis=1) == scores.dataset.targets
    assert scores.evaluate_unseen().accuracy == pytest.approx(right[~scores.trained_on].mean())


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("plain") / "photos"
    return write_shapes(folder, dict.fromkeys(CLASSES, 10), first=700)


def test_a_split_file_repeats_the_split_of_another_run(quick, plain):
    first = quick(plain, seed=4, test=0.2)
    again = quick(plain, seed=9, split=str(first.run / "split.csv"))
    assert splits(again.run) == splits(first.run)
    assert again.images == first.images
    assert "Split as in 'split.csv'." in again.notes


def test_folds_validate_every_image_once(quick, plain):
    held: list[str] = []
    for fold in ("1/3", "2/3", "3/3"):
        split = splits(quick(plain, fold=fold).run)
        held += [path for path, part in split.items() if part == "validation"]
    assert len(held) == len(set(held)) == 30


def test_a_split_by_date_validates_the_latest_images(quick, tmp_path):
    folder = tmp_path / "dated"
    for n in range(12):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0x9003] = f"2024:01:{n + 1:02} 10:00:00"
        kind = CLASSES[n % 3]
        path = folder / kind / f"{n:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(shape(kind, 800 + n)).save(path, "JPEG", quality=95, exif=exif)
    result = quick(folder, split_by="date", validation=3)
    held = {Path(path).stem for path, part in splits(result.run).items() if part == "validation"}
    assert held == {"09", "10", "11"}
    assert "Images of the validation split were taken from 2024-01-10 10:00 on." in result.notes


def test_a_split_by_date_needs_dates(quick, plain):
    with pytest.raises(DatasetError, match="none of 30 images has a capture date"):
        quick(plain, split_by="date")


def test_near_duplicates_stay_together(quick, tmp_path):
    folder = write_shapes(tmp_path / "bursts", dict.fromkeys(CLASSES, 8), first=850)
    for kind in CLASSES:
        for n in range(6):
            for quality in (95, 60):
                name = folder / kind / f"burst {n} {quality}.jpg"
                name.write_bytes(jpeg(scene(880 + n + 10 * CLASSES.index(kind)), quality))
    for seed in (0, 1):
        result = quick(folder, group_near_duplicates=True, seed=seed)
        split = splits(result.run)
        for kind in CLASSES:
            for n in range(6):
                both = {split[f"{kind}/burst {n} {quality}.jpg"] for quality in (95, 60)}
                assert len(both) == 1
        assert result.leakage["groups"] == 0 and "excluded" not in split.values()
    assert quick(folder, seed=0).leakage["groups"] > 0


def test_near_duplicates_of_a_given_train_split_are_grouped(tmp_path, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "photos"
    for part, first in (("train", 700), ("validation", 780)):
        write_shapes(folder / part, dict.fromkeys(CLASSES, 6), first=first)
    for n in range(3):
        for quality in (95, 60):
            name = folder / "train" / "bar" / f"burst {n} {quality}.jpg"
            name.write_bytes(jpeg(scene(880 + n), quality))
    settings = TrainSettings(str(folder), model="small-cnn", size=64, group_near_duplicates=True)
    dataset = open_data(settings)
    with closing(prepare(settings.training(), dataset)) as prepared:
        found = split_images(prepared, settings, dataset).images.dataset
    group = dict(zip(found.path, group_indices(found).tolist(), strict=True))
    for n in range(3):
        assert len({group[f"train/bar/burst {n} {quality}.jpg"] for quality in (95, 60)}) == 1


def test_classes_with_few_images_are_noted(quick, plain):
    result = quick(plain)
    assert not (result.run / "leakage.csv").exists()
    notes = [note for note in result.notes if note.startswith("KS601")]
    assert len(notes) == 3 and "'bar' has 10 readable" in notes[0]


def test_a_training_runs_all_checks(quick, plain):
    result = quick(plain, check="full")
    (note,) = (note for note in result.notes if note.startswith("Checks of the data: "))
    (page,) = result.run.glob("checks/*/report.html")
    assert str(page) in note and "KS601" in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"leakage": "delete"}, "`leakage` must be one of drop, move, keep; got 'delete'"),
        ({"check": "some"}, "`check` must be one of basic, full"),
        ({"fold": "7/5"}, "`fold` must be"),
        ({"split_by": "month"}, "`split_by` must be one of random, date"),
        ({"group_near_duplicates": "yes"}, "`group_near_duplicates` must be true or false"),
    ],
)
def test_invalid_settings(settings, message):
    with pytest.raises(SettingsError, match=message):
        TrainSettings("photos", **settings)


# The training images that a classifier remembers.


def test_trained_images_are_read_back(tmp_path):
    hashes = np.arange(8, dtype=np.uint64).reshape(2, 4)
    TrainedImages(frozenset({"ab" * 16, "01" * 16}), hashes).write(tmp_path / "trained_on.npz")
    found = TrainedImages.read(tmp_path)
    assert found.digests == {"ab" * 16, "01" * 16} and (found.hashes == hashes).all()
    assert TrainedImages.read(tmp_path / "elsewhere") is None
    TrainedImages(frozenset(), hashes[:0]).write(tmp_path / "trained_on.npz")
    assert TrainedImages.read(tmp_path).digests == frozenset()


def test_copies_are_recognised_whatever_is_compared_at_once(monkeypatch):
    hashes = np.random.default_rng(3).integers(0, 2**63, (40, 4), np.uint64)
    trained = TrainedImages(frozenset({"aa" * 16}), hashes[::5])
    other = hashes.copy()
    other[10] ^= np.array([3, 1, 0, 0], np.uint64)  # a re-encoded copy
    other[15] = ~other[15]
    names = ["aa" * 16 if row == 1 else None for row in range(40)]
    expected = [row == 1 or (row % 5 == 0 and row != 15) for row in range(40)]
    for at_once in (1, 3, 1000):
        monkeypatch.setattr(trained_images, "COMPARED_AT_ONCE", at_once)
        assert trained.contains(names, other).tolist() == expected


def test_blank_images_are_recognised_by_digest_alone():
    none = np.zeros((1, 4), np.uint64)
    trained = TrainedImages(frozenset({"aa" * 16}), none)
    assert trained.contains(["aa" * 16, "bb" * 16], np.zeros((2, 4), np.uint64)).tolist() == [
        True,
        False,
    ]


@pytest.mark.parametrize("damage", ["text", "cut", "pickle", "shape"])
def test_damaged_files_are_refused(tmp_path, damage):
    from kindsight.errors import BundleError

    path = tmp_path / "trained_on.npz"
    if damage == "pickle":
        np.savez(path, digests=np.array([{}], object), hashes=np.zeros((1, 4), "<u8"))
    elif damage == "shape":
        np.savez(path, digests=np.zeros((2, 16), np.uint8), hashes=np.zeros((2, 3), "<u8"))
    else:
        TrainedImages(frozenset({"ab" * 16}), np.zeros((1, 4), np.uint64)).write(path)
        path.write_bytes(b"no archive" if damage == "text" else path.read_bytes()[:120])
    with pytest.raises(BundleError, match="trained_on"):
        TrainedImages.read(tmp_path)
