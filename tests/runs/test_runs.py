"""A whole training: what the run folder holds, what it says, and what makes it fail."""

import csv
import dataclasses
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest

import kindsight
from fake_keras import FakeKeras, use_fake_keras
from kindsight.bundle import load_bundle
from kindsight.cache.folder import MARKER, Cache
from kindsight.dataset import ImageDataset
from kindsight.digest import content_digest, file_digest
from kindsight.errors import (
    BundleError,
    DatasetError,
    MissingExtraError,
    ParityError,
    SettingsError,
    UsageError,
)
from kindsight.images import read, read_image, resize_image
from kindsight.models.heads import LinearHead
from kindsight.predictor import Predictor
from kindsight.runs.train import TrainSettings, train
from kindsight.training import parity
from kindsight.training.frozen import fitted
from mlflow_store import use_store
from shapes import CLASSES, encoded, shape, write_shapes

EVALUATION_KEYS = {
    *("images", "copies", "accuracy", "accuracy_interval", "balanced_accuracy", "macro_f1"),
    *("log_loss", "ece", "roc_auc", "average_precision", "top_k_accuracy", "kappa", "mcc"),
    *("top_k", "ece_if_calibrated", "ece_limit", "intervals", "classes", "confusion"),
}


def rows_of(path):
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def quick(backbone, tmp_path, monkeypatch):
    """Train without starting Keras, into a folder of the test's own."""
    use_fake_keras(monkeypatch)

    def quick(data, progress=None, **settings):
        settings = {"runs": str(tmp_path / "runs"), "size": 64, **settings}
        return train(TrainSettings(str(data), **settings), progress=progress)

    return quick


@pytest.fixture
def small(tmp_path):
    """Thirty images of three classes, none of them in `photos`."""
    return write_shapes(tmp_path / "small", dict.fromkeys(CLASSES, 10), first=300)


# The run folder ---------------------------------------------------------------------------------


def test_the_run_folder_holds_everything(trained):
    assert trained.run.name == "photos-1"
    assert {path.name for path in trained.run.iterdir()} == {
        *("bundle.json", "model.tflite", "model.keras", "validation.csv", "train.csv"),
        *("diagnosis.json", "report.json", "model_card.md"),
        *("problems.csv", "settings.toml", "report.html", "split.csv", "trained_on.npz"),
    }
    assert trained.report == trained.run / "report.html"


def test_what_the_bundle_says(trained, photos):
    facts = json.loads((trained.run / "bundle.json").read_text("utf-8"))
    assert facts["format"] == 1 and facts["classes"] == list(CLASSES)
    assert (facts["input"]["height"], facts["input"]["width"]) == (64, 64)
    assert facts["backbone"] == "efficientnet-lite0" and facts["seed"] == 3
    assert facts["temperature"] == trained.temperature > 0
    assert facts["settings"]["seed"] == 3 and facts["settings"]["size"] == 64
    assert not {"cache", "workers"} & set(facts["settings"])
    assert {"python", "kindsight", "numpy", "keras"} <= set(facts["versions"])
    assert facts["data"]["images"] == {"train": 73, "validation": 18, "test": 0}
    assert facts["data"]["skipped"] == 3
    assert facts["metrics"]["validation"] == trained.validation.to_dict()
    assert facts["metrics"]["test"] is None
    assert facts["head"]["kind"] in ("linear", "rbf")
    assert facts["seconds"] == trained.seconds
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", facts["created"])
    for name in ("model.tflite", "model.keras"):
        assert facts["files"][name] == file_digest(trained.run / name)
    # The digest of the data is that of the readable images and their labels.
    dataset = ImageDataset.from_folder(photos)
    dataset = dataset[[p not in {str(e.path) for e in trained.problems} for p in dataset.path]]
    digests = [content_digest(dataset.load(row)) for row in range(len(dataset))]
    assert facts["data"]["digest"] == dataset.with_columns(digest=digests).dataset_digest()


def test_the_networks_were_compared(trained, photos):
    found = load_bundle(trained.run).facts["parity"]
    # All of the validation part, copies once; Keras and LiteRT never agree to the last bit.
    rows = rows_of(trained.run / "validation.csv")
    images = {content_digest((photos / row["path"]).read_bytes()) for row in rows}
    assert found["images"] == len(images) and 1e-4 <= found["tolerance"] <= 0.01
    assert 0 < found["largest_difference"] <= 1e-4 and "loaded and run by Keras" in found["keras"]


def test_training_images_are_predicted_in_inference_mode(trained, photos):
    rows = rows_of(trained.run / "train.csv")
    splits = {row["path"]: row["split"] for row in rows_of(trained.run / "split.csv")}
    assert len(rows) == 73 == trained.images["train"]
    assert {splits[row["path"]] for row in rows} == {"train"}
    right = np.mean([row["label"] == row["prediction"] for row in rows])
    assert right >= trained.validation.accuracy


def test_validation_table(trained, photos):
    rows = rows_of(trained.run / "validation.csv")
    assert len(rows) == 18 == trained.images["validation"]
    names = [f"p_{name}" for name in CLASSES]
    assert list(rows[0]) == ["path", "label", "prediction", *names, "ood_score"]
    assert len({row["path"] for row in rows}) == 18
    for row in rows:
        assert (photos / row["path"]).is_file() and row["path"].startswith(row["label"] + "/")
        shares = [float(row[f"p_{name}"]) for name in CLASSES]
        assert sum(shares) == pytest.approx(1, abs=1e-4) and min(shares) >= 0
        assert row["prediction"] == CLASSES[int(np.argmax(shares))]
    # A file and its copy are two rows and one image.
    once = {content_digest((photos / row["path"]).read_bytes()): row for row in rows}
    assert trained.validation.images == len(once) == 18 - trained.validation.copies
    right = np.mean([row["label"] == row["prediction"] for row in once.values()])
    assert trained.validation.accuracy == pytest.approx(right) and right > 0.6
    losses = [-np.log(float(row[f"p_{row['label']}"])) for row in once.values()]
    assert trained.validation.log_loss == pytest.approx(np.mean(losses), rel=1e-3)
    # Stratified: 33 readable bars, 30 chequers, 29 rings give 6 or so each.
    assert {name: sum(row["label"] == name for row in rows) for name in CLASSES} == {
        "bar": 6,
        "chequer": 6,
        "ring": 6,
    }


def test_problems_are_listed(trained):
    rows = rows_of(trained.run / "problems.csv")
    assert [(row["path"], row["label"], row["code"]) for row in rows] == [
        ("bar/cut.jpg", "bar", "truncated"),
        ("chequer/empty.png", "chequer", "empty"),
        ("chequer/letter.jpg", "chequer", "not-an-image"),
    ]
    assert all(row["reason"].endswith(".") for row in rows)
    assert [error.path for error in trained.problems] == [row["path"] for row in rows]
    assert trained.images == {"train": 73, "validation": 18, "test": 0, "skipped": 3}


def test_the_report_stands_alone(trained):
    page = trained.report.read_text("utf-8")
    assert f"{100 * trained.validation.accuracy:.1f}" in page
    for word in (*CLASSES, "cut.jpg", "letter.jpg", "efficientnet-lite0", "data:image/jpeg;base64"):
        assert word in page, word
    without = re.sub(r"data:[\w/;,+=.-]+", "", page)
    assert not re.search(r"""(src|href)\s*=\s*["']?(https?:|//|file:)""", without)
    assert not re.search(r"<(link|script|iframe|object)\b[^>]*\b(src|href|data)\s*=", without)
    assert "@import" not in without and "url(http" not in without


def test_what_the_command_line_prints(trained):
    said = trained.to_dict()
    assert set(said) == {
        *("run", "classes", "images", "leakage", "validation", "test", "seconds", "cache"),
        *("skipped", "ignored_files", "uncertainty", "diagnosis"),
    }
    assert json.loads(json.dumps(said, allow_nan=False)) == said
    assert said["run"] == str(trained.run) and said["classes"] == list(CLASSES)
    assert set(said["images"]) == {"train", "validation", "test", "skipped"}
    assert set(said["validation"]) == EVALUATION_KEYS and said["test"] is None
    assert {"read", "prepare", "fit", "total"} <= set(said["seconds"])
    stages = {name: value for name, value in said["seconds"].items() if name != "total"}
    assert sum(stages.values()) == pytest.approx(said["seconds"]["total"], abs=0.1)
    assert {"computed", "reused", "folder"} <= set(said["cache"])
    assert said["cache"]["computed"] + said["cache"]["reused"] == 90


@pytest.mark.slow
def test_plain_keras_loads_the_network(trained, photos, environment):
    code = f"""
import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import keras, numpy as np, sys
assert not any(name.split(".")[0] == "kindsight" for name in sys.modules)
pixels = np.load({str(trained.run / "pixels.npy")!r})
model = keras.models.load_model({str(trained.run / "model.keras")!r})
print(model.input_shape, model.output_shape)
np.save({str(trained.run / "logits.npy")!r}, model.predict(pixels, verbose=0)[0])
"""
    predictor = Predictor(trained.run)
    files = sorted((photos / "ring").glob("ring *.*"))[:8]
    answers = list(predictor.predict(files))
    spec = load_bundle(trained.run).spec
    pixels = [resize_image(read_image(file, target=spec.size), spec) for file in files]
    try:
        np.save(trained.run / "pixels.npy", np.stack(pixels).astype(np.float32))
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == "(None, 64, 64, 3) [(None, 3), (None, 1)]\n"
        logits = np.load(trained.run / "logits.npy").astype(np.float64)
    finally:
        for name in ("pixels.npy", "logits.npy"):
            (trained.run / name).unlink(missing_ok=True)
    powers = np.exp(logits / trained.temperature)
    shares = powers / powers.sum(1, keepdims=True)
    np.testing.assert_allclose(shares, [answer.probabilities for answer in answers], atol=1e-4)


# Again, and differently ---------------------------------------------------------------------------


def test_the_settings_repeat_the_run(trained, tmp_path):
    settings = TrainSettings.from_toml(trained.run / "settings.toml", runs=str(tmp_path))
    again = train(settings)
    assert again.run == tmp_path / "photos-1"
    for name in ("validation.csv", "problems.csv", "model.tflite"):
        assert (again.run / name).read_bytes() == (trained.run / name).read_bytes(), name
    assert again.validation.to_dict() == trained.validation.to_dict()


def test_another_seed_reads_no_image(trained, photos, quick, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("an image was read")

    monkeypatch.setattr(read, "read_bytes", fail)
    monkeypatch.setattr("kindsight.dataset.reading.process_images.read_loaded", fail)
    monkeypatch.setattr(read, "read_image", fail)
    other = quick(photos, seed=4, test=0.1, head="linear")
    assert other.cache["computed"] == 0 and other.cache["reused"] == 90
    before = {row["path"] for row in rows_of(trained.run / "validation.csv")}
    assert before != {row["path"] for row in rows_of(other.run / "validation.csv")}


def test_a_finished_run_is_never_overwritten(small, quick, tmp_path):
    first = quick(small)
    content = {path.name: path.read_bytes() for path in first.run.iterdir()}
    second = quick(small)
    named = quick(small, run="mine")
    assert [one.run.name for one in (first, second, named)] == ["small-1", "small-2", "mine"]
    with pytest.raises(UsageError, match="never overwritten"):
        quick(small, run="mine")
    with pytest.raises(UsageError, match="never overwritten"):
        quick(small, run="small-1")
    assert {path.name: path.read_bytes() for path in first.run.iterdir()} == content
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        "mine",
        "small-1",
        "small-2",
    ]


def test_stages_come_in_their_order(small, quick):
    seen = []
    quick(small, progress=lambda *step: seen.append(step))
    stages = list(dict.fromkeys(stage for stage, _, _ in seen))
    assert stages in (
        ["features", "head", "check", "report"],  # where the backbone was built before
        ["backbone", "features", "head", "check", "report"],
    )
    assert [step for step in seen if step[0] == "features"][-1] == ("features", 30, 30)


@pytest.mark.parametrize("settings", [{"head": "linear"}, {"head": "rbf"}])
def test_settings_reach_the_bundle(small, quick, settings):
    result = quick(small, class_weight="balanced", resize="pad", seed=9, **settings)
    bundle = load_bundle(result.run)
    assert bundle.facts["head"]["kind"] == settings["head"]
    assert result.model["head"].lower().startswith(settings["head"])
    assert bundle.spec.fit == "pad" and bundle.facts["seed"] == 9
    assert bundle.facts["settings"]["class_weight"] == "balanced"
    assert TrainSettings.from_toml(result.run / "settings.toml").seed == 9


# Splits -------------------------------------------------------------------------------------------


def test_splits_of_the_folder_are_respected(quick, tmp_path):
    data = tmp_path / "parted"
    for split, count, first in (("Training", 8, 0), ("valid", 3, 50), ("TEST", 4, 80)):
        write_shapes(data / split, dict.fromkeys(CLASSES, count), first)
    result = quick(data)
    assert result.images == {"train": 24, "validation": 9, "test": 12, "skipped": 0}
    for name, folder in (("validation", "valid"), ("test", "TEST")):
        rows = rows_of(result.run / f"{name}.csv")
        assert all(row["path"].startswith(f"{folder}/{row['label']}/") for row in rows)
        right = np.mean([row["label"] == row["prediction"] for row in rows])
        scores = getattr(result, name)
        assert scores.images == len(rows) and scores.accuracy == pytest.approx(right)
    said = result.to_dict()
    assert set(said["test"]) == EVALUATION_KEYS and said["test"]["images"] == 12
    facts = load_bundle(result.run).facts
    assert facts["metrics"]["test"] == said["test"]
    # Fewer where Keras has run this pairing before.
    assert facts["parity"]["images"] in (8, 9)


def test_a_test_split_is_made_on_request(small, quick):
    result = quick(small, validation=0.2, test=0.3)
    assert result.images == {"train": 15, "validation": 6, "test": 9, "skipped": 0}
    paths = [
        row["path"]
        for name in ("validation", "test")
        for row in rows_of(result.run / f"{name}.csv")
    ]
    assert len(set(paths)) == 15 and result.test.images == 9


@pytest.mark.parametrize("validation", [0, 9, 12])
def test_the_hint_on_a_budget_appears_only_if_one_could_help(small, quick, validation):
    said = quick(small, validation=validation).hint
    assert said.startswith("--budget 10m also fine-tunes") if validation == 12 else not said


@pytest.mark.parametrize("number", [9, 9.0])
def test_splits_may_be_numbers_of_images(small, quick, number):
    result = quick(small, validation=number, test=3)
    assert result.images == {"train": 18, "validation": 9, "test": 3, "skipped": 0}


def test_without_a_validation_split(small, quick):
    result = quick(small, validation=0)
    assert result.images == {"train": 30, "validation": 0, "test": 0, "skipped": 0}
    assert result.validation is None and result.to_dict()["validation"] is None
    assert not (result.run / "validation.csv").exists()
    facts = load_bundle(result.run).facts
    assert facts["metrics"] == {"validation": None, "test": None}
    assert facts["parity"]["images"] in (8, 30)  # training images
    assert "<html" in result.report.read_text("utf-8")
    only_test = quick(small, validation=0, test=0.2)
    assert only_test.test.images == 6 and (only_test.run / "test.csv").exists()


def test_splits_that_leave_nothing_to_train_on(small, quick, tmp_path):
    with pytest.raises(SettingsError, match="leave images to train on"):
        quick(small, validation=0.6, test=0.4)
    assert not list((tmp_path / "runs").rglob("bundle.json"))


# What fails ---------------------------------------------------------------------------------------


def test_a_class_with_nothing_left(small, quick):
    for path in (small / "ring").iterdir():
        path.write_bytes(b"no image, but a file all the same")
    with pytest.raises(DatasetError, match=r"No image of 'ring' is readable"):
        quick(small, run="lost")
    run = small.parent / "runs" / "lost"
    assert [row["label"] for row in rows_of(run / "problems.csv")] == ["ring"] * 10
    with pytest.raises(BundleError, match="did not finish"):
        load_bundle(run)
    # Mended, the same command goes on in the same folder.
    for number, path in enumerate(sorted((small / "ring").iterdir())):
        path.write_bytes(encoded(shape("ring", number), "png"))
    assert quick(small, run="lost").images["skipped"] == 0


def test_a_train_split_without_a_readable_image_of_a_class(quick, tmp_path):
    data = tmp_path / "parted"
    write_shapes(data / "train", dict.fromkeys(CLASSES, 5))
    write_shapes(data / "val", dict.fromkeys(CLASSES, 2), 50)
    for path in (data / "train" / "bar").iterdir():
        path.write_bytes(b"no image, but a file all the same")
    with pytest.raises(DatasetError, match=r"none of bar\."):
        quick(data)


def other_head(head):
    """The same head, but one class a little more likely."""
    bias = head.bias.copy()
    bias[0] += 0.05
    return dataclasses.replace(head, bias=bias)


@pytest.mark.parametrize("which", ["tflite", "keras"])
def test_a_file_that_is_not_what_was_fitted_fails_the_run(
    small, quick, monkeypatch, backbone, which
):
    right = {}

    def wrong(template, head, *rest):
        assert isinstance(head, LinearHead)
        right["head"] = head
        return real(template, other_head(head), *rest)

    with monkeypatch.context() as patch:
        real = getattr(fitted, f"write_{which}")
        patch.setattr(fitted, f"write_{which}", wrong)
        with pytest.raises(ParityError):
            quick(small, head="linear")
    folder = small.parent / "runs" / "small-1"
    assert right and not (folder / "bundle.json").exists()
    with pytest.raises(BundleError, match="did not finish"):
        Predictor(folder)
    # The same command continues unfinished work.
    assert quick(small, head="linear").run == folder and (folder / "bundle.json").exists()


@pytest.mark.parametrize(("offset", "said"), [(0.5, "is accepted"), (np.nan, "not finite")])
def test_keras_that_predicts_otherwise_fails_the_run(small, quick, monkeypatch, offset, said):
    monkeypatch.setattr(FakeKeras, "offset", offset)
    with pytest.raises(ParityError, match=said):
        quick(small, verify="full")
    assert not list((small.parent / "runs").rglob("bundle.json"))


class CountingKeras(FakeKeras):
    """Counts the images that it runs."""

    runs: ClassVar[list[int]] = []

    def run(self, model, pixels):
        self.runs.append(len(pixels))
        return super().run(model, pixels)


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """Train on 24 images in a cache of the test's own, where no pairing has been verified."""
    backbones = Cache().folder("backbones")
    shutil.copytree(
        backbones, tmp_path / "cache" / "backbones", ignore=shutil.ignore_patterns("*.parity.json")
    )
    (tmp_path / "cache" / MARKER).touch()
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("kindsight.training.frozen.settings.KerasProcess", CountingKeras)
    monkeypatch.setattr(CountingKeras, "runs", [])
    write_shapes(tmp_path / "data", dict.fromkeys(CLASSES, 8), 1000)

    def counted(**settings):
        settings = {"runs": str(tmp_path / "runs"), "size": 64, "validation": 9, **settings}
        return load_bundle(train(TrainSettings(str(tmp_path / "data"), **settings)).run)

    return counted


def test_keras_runs_a_pairing_of_backbone_and_kind_of_head_once(counted):
    first = counted(head="linear").facts["parity"]
    assert "loaded and run by Keras" in first["keras"] and CountingKeras.runs == [9]
    # Any other seed: NumPy against LiteRT, and the weights read back.
    again = counted(head="linear", seed=12345).facts["parity"]
    assert "compared with NumPy" in again["keras"] and CountingKeras.runs == [9]
    assert again["images"] == 8 and again["largest_difference"] < 1e-5
    # Another kind of head is a new pairing.
    assert "loaded and run by Keras" in counted(head="rbf").facts["parity"]["keras"]
    assert CountingKeras.runs == [9, 9]
    # Full verification runs Keras whatever is known.
    assert "loaded and run" in counted(head="linear", verify="full").facts["parity"]["keras"]
    assert CountingKeras.runs == [9, 9, 9]


def test_a_failed_comparison_is_repeated(counted, monkeypatch):
    monkeypatch.setattr(CountingKeras, "offset", 0.5)
    for _ in range(2):
        with pytest.raises(ParityError):
            counted(head="linear")
    monkeypatch.setattr(CountingKeras, "offset", 0.0)
    assert "loaded and run" in counted(head="linear").facts["parity"]["keras"]
    assert CountingKeras.runs == [9, 9, 9]


def test_at_most_64_images_are_compared_by_default(counted, monkeypatch):
    assert parity.COMPARED_IMAGES == 64 and parity.TOLERANCE == 1e-4
    monkeypatch.setattr(parity, "COMPARED_IMAGES", 5)
    assert counted().facts["parity"]["images"] == 5 and CountingKeras.runs == [5]


def test_a_larger_difference_is_a_note(small, quick, monkeypatch):
    monkeypatch.setattr(parity, "TOLERANCE", 1e-9)
    monkeypatch.setattr(FakeKeras, "offset", 1e-4)
    result = quick(small, verify="full")
    (note,) = (note for note in result.notes if "probabilities of model.keras" in note)
    assert load_bundle(result.run).facts["parity"]["note"] == note


def test_a_little_rounding_is_no_disagreement(small, quick, monkeypatch):
    monkeypatch.setattr(FakeKeras, "offset", 1e-5)
    found = load_bundle(quick(small, verify="full").run).facts["parity"]
    assert 0 < found["largest_difference"] < 1e-4 and found["images"] == 6


def test_a_folder_that_is_none_makes_no_run(quick, tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        quick(tmp_path / "absent")
    assert not (tmp_path / "runs").exists()


def test_an_error_of_the_report_leaves_no_bundle(small, quick, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("kindsight.runs.reporting.make.render_report", fail)
        with pytest.raises(MemoryError):
            quick(small)
    run = small.parent / "runs" / "small-1"
    assert not (run / "bundle.json").exists() and not (run / "report.html").exists()
    assert quick(small).run == run


# Names ----------------------------------------------------------------------------------------


def test_classes_and_files_of_any_name(quick, tmp_path):
    names = ['Käse, "reif"', "<b>bold", "new\nline"]
    data = tmp_path / "any"
    write_shapes(data, dict.fromkeys(CLASSES, 8))
    for kind, name in zip(CLASSES, names, strict=True):
        (data / kind).rename(data / name)
    odd = ["=1+1.png", "a,b.png", 'q".png', "tab\t.png", "cr\r.png"]
    if os.name == "posix":
        odd.append(os.fsdecode(b"caf\xe9.png"))
    for number, name in enumerate(odd):
        (data / names[0] / name).write_bytes(encoded(shape("bar", 90 + number), "png"))
    result = quick(data, validation=0.5)
    assert result.classes == tuple(sorted(names))
    assert load_bundle(result.run).classes == result.classes
    rows = rows_of(result.run / "validation.csv")
    assert len(rows) == result.images["validation"]
    assert {row["label"] for row in rows} == set(names)
    probabilities = {f"p_{name}" for name in names}
    assert set(rows[0]) == {"path", "label", "prediction", "ood_score"} | probabilities
    assert all((data / row["path"]).is_file() for row in rows)
    page = result.report.read_bytes().decode("utf-8", "replace")
    assert "<b>bold" not in page and "&lt;b&gt;bold" in page


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_a_data_folder_whose_name_is_no_unicode(quick, tmp_path):
    data = write_shapes(tmp_path / os.fsdecode(b"caf\xe9"), dict.fromkeys(CLASSES[:2], 6))
    result = quick(data)
    assert (result.run / "bundle.json").exists() and result.report.exists()
    shutil.copytree(result.run, tmp_path / "moved")
    assert Predictor(tmp_path / "moved").classes == CLASSES[:2]


def test_missing_mlflow_is_reported_before_anything_is_read(photos, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "mlflow" else real(name)
    )
    settings = TrainSettings(
        str(photos), runs=str(tmp_path / "runs"), model="small-cnn", mlflow=True
    )
    with pytest.raises(MissingExtraError, match=r"kindsight\[mlflow\]"):
        train(settings)
    assert not (tmp_path / "runs").exists()


def test_a_frozen_head_is_logged_to_tensorboard_and_mlflow(quick, photos, tmp_path, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    store = use_store(monkeypatch)
    result = quick(photos, tensorboard=str(tmp_path / "board"), mlflow=True, seed=4)
    (logged,) = store.runs.values()
    assert (logged.name, logged.status) == (result.run.name, "FINISHED")
    assert (logged.params["head"], logged.params["seed"], logged.params["data"]) == (
        "auto", "4", str(photos),
    )  # fmt: skip
    metrics = {metric.key: metric.value for metric in logged.metrics}
    assert metrics["validation_accuracy"] == result.validation.accuracy
    assert metrics["train_images"] == result.images["train"] > 0
    assert metrics["skipped_images"] == 3 and metrics["total_seconds"] > 0
    assert logged.files == {"report.html": result.report.read_bytes()}
    board = tmp_path / "board" / result.run.name
    events = accumulator.EventAccumulator(str(board / "result"))
    events.Reload()
    (scalar,) = events.Scalars("validation_log_loss")
    assert scalar.value == pytest.approx(result.validation.log_loss)
    assert (board / "report.html").read_bytes() == result.report.read_bytes()
    assert set(json.loads((result.run / "logs.json").read_text())) == {"tensorboard", "mlflow"}


def test_a_store_that_fails_does_not_lose_the_run(quick, photos, monkeypatch):
    store = use_store(monkeypatch)

    def fail(stage, done, total):
        store.broken = stage == "report"

    with pytest.warns(UserWarning, match=r"missing there: metrics, report\. ConnectionError"):
        result = quick(photos, progress=fail, mlflow=True)
    assert (result.run / "bundle.json").exists() and result.report.exists()


def test_uncertainty_is_measured_on_out_of_fold_predictions(trained, photos):
    parts = load_bundle(trained.run).uncertainty
    unsure, sets = parts["unsure"], parts["sets"]
    assert unsure["source"] == sets["source"] == "out-of-fold predictions"
    rows = [row for row in rows_of(trained.run / "split.csv") if row["split"] == "train"]
    assert unsure["images"] == sets["images"] == len(rows)
    of_class = [sum(row["label"] == name for row in rows) for name in trained.classes]
    assert [len(own) for own in sets["scores"]] == of_class
    assert unsure["threshold"] is unsure["target_accuracy"] is unsure["target_coverage"] is None
    assert sets["confidence_level"] == 0.9 and unsure["curve"][-1][1] == 1
    # Validation images are not used: the sets keep their promise on them.
    predictions = rows_of(trained.run / "validation.csv")
    covered = [
        any(row["label"] == name for name in found.prediction_set)
        for row, found in zip(
            predictions,
            Predictor(trained.run, sets=0.9).predict([photos / row["path"] for row in predictions]),
            strict=True,
        )
    ]
    assert np.mean(covered) > 0.75


def test_a_target_sets_a_threshold_or_is_noted(small, quick, tmp_path):
    found = quick(small, target_coverage=0.5)
    unsure = load_bundle(found.run).uncertainty["unsure"]
    assert unsure["target_coverage"] == 0.5 and 0.3 < unsure["threshold"] <= 1
    assert found.to_dict()["uncertainty"]["unsure"]["threshold"] == unsure["threshold"]
    assert "curve" not in found.to_dict()["uncertainty"]["unsure"]
    assert found.model["unsure"].startswith("below ") and "50% coverage" in found.model["unsure"]
    assert TrainSettings.from_toml(found.run / "settings.toml").target_coverage == 0.5
    new = write_shapes(tmp_path / "new", dict.fromkeys(CLASSES, 10), first=700)
    predictions = [*Predictor(found.run).predict(sorted(new.rglob("*.png")))]
    confidences = [p.confidence for p in predictions if p.reason == "unsure"]
    assert 0 < len(confidences) < 30 and max(confidences) < unsure["threshold"]
    assert all(p.label or p.reason for p in predictions)
    without = quick(small, target_accuracy=0.9999)
    assert any("99.99% accuracy cannot be promised with" in note for note in without.notes)
    assert load_bundle(without.run).uncertainty["unsure"]["threshold"] is None
    assert "unsure" not in without.model


def test_a_run_is_diagnosed_from_its_folder_as_in_the_training(trained):
    found = kindsight.diagnose(trained.run)
    assert [each.code for each in found] == [each.code for each in trained.diagnosis]
    stored = json.loads((trained.run / "diagnosis.json").read_text("utf-8"))
    assert stored["findings"] == [each.to_dict() for each in trained.diagnosis]
    # Eighteen validation images cannot give the accuracy to within 10 points.
    assert "KD107" in {each.code for each in found}
