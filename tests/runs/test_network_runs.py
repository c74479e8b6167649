"""Runs of the small CNN: run folder, report, resuming, scikit-learn's contract."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.model_selection import cross_val_score

from kindsight import ImageClassifier, ImageDataset, Predictor
from kindsight.augment import Augment
from kindsight.bundle import load_bundle
from kindsight.digest import file_digest
from kindsight.errors import ParityError, SettingsError, UsageError
from kindsight.evaluation import evaluate, to_probabilities
from kindsight.evaluation.calibration import MIN_CALIBRATION_IMAGES
from kindsight.models.networks.small_cnn import SmallCNN
from kindsight.runs.learning_rates import find_learning_rate
from kindsight.runs.train import TrainSettings, train
from kindsight.training.engine.history import History
from network_process import shared_process
from shapes import CLASSES, encoded, shape, write_shapes

SPLIT = {"validation": 0.3, "test": 0.2}
NETWORK = {"model": "small-cnn", "size": 24, "filters": (6, 8), "dense": (16,)}
LEARN = {"epochs": 5, "batch_size": 16, "augment": "light", "optimizer": "adam"}


def tinted(kind, number):
    """An image in a tint of its kind, so that a small network learns the kinds fast."""
    image = shape(kind, number).astype(np.int64)
    image[..., CLASSES.index(kind)] += 22
    return image.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Class folders of 90 tinted images, and three files that are no images."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    for kind in CLASSES:
        (folder / kind).mkdir(parents=True)
        for number in range(30):
            file = folder / kind / f"{kind} {number:03d}.png"
            file.write_bytes(encoded(tinted(kind, number), "png"))
    jpeg = encoded(shape("bar", 3), "jpg")
    (folder / "bar" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "chequer" / "empty.png").write_bytes(b"")
    (folder / "chequer" / "letter.jpg").write_bytes(b"Dear reader, this is no image.\n" * 9)
    return folder


@pytest.fixture(scope="module", autouse=True)
def process():
    with shared_process() as process:
        yield process


@pytest.fixture(scope="module")
def settings(photos, tmp_path_factory):
    runs = tmp_path_factory.mktemp("network-runs")
    return TrainSettings(
        str(photos), runs=str(runs), **NETWORK, **LEARN, **SPLIT, dropout=0.2, learning_rate=0.005
    )


@pytest.fixture(scope="module")
def events():
    return []


@pytest.fixture(scope="module")
def trained(settings, events):
    class Recorder:
        def on_start(self, epochs, done):
            events.append(("start", epochs, done))

        def on_step(self, phase, epoch, step, steps, loss, accuracy, images_per_second):
            events.append(("step", epoch, step, steps))

        def on_epoch(self, row):
            events.append(("epoch", row.epoch))

    return train(settings, callback=Recorder())


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_time(run):
    return [row.cells()[:2] + row.cells()[3:] for row in History.read_csv(run / "history.csv")]


# The run folder ---------------------------------------------------------------------------------


def test_files_of_the_run_folder(trained):
    assert {path.name for path in trained.run.iterdir()} == {
        *("bundle.json", "model.tflite", "model.keras", "validation.csv", "test.csv"),
        *("train.csv", "diagnosis.json", "model_card.md", "report.json"),
        *("problems.csv", "settings.toml", "report.html", "split.csv", "trained_on.npz"),
        *("history.csv", "history.svg", "history.png"),
    }
    assert [row["path"] for row in rows_of(trained.run / "problems.csv")] == [
        "bar/cut.jpg", "chequer/empty.png", "chequer/letter.jpg",
    ]  # fmt: skip


def test_the_loss_falls(trained):
    assert trained.history.rows()[-1].loss < trained.history.rows()[0].loss
    assert trained.test.accuracy > 0.5  # a third by guessing
    assert len(trained.history) == 5 and trained.history.validated


def test_callback_events(trained, events):
    assert events[0] == ("start", 5, 0)
    assert [item for item in events if item[0] == "epoch"] == [("epoch", k) for k in range(1, 6)]
    last = [item for item in events if item[0] == "step"][-1]
    assert last[1] == 5 and last[2] == last[3] == -(-trained.images["train"] // 16)


def test_facts_of_the_bundle(trained):
    facts = json.loads((trained.run / "bundle.json").read_text("utf-8"))
    assert facts["backbone"] == "small-cnn" and facts["classes"] == list(CLASSES)
    assert facts["input"]["height"] == 24 and facts["settings"]["filters"] == [6, 8]
    assert facts["settings"]["augment"] == "light" and facts["settings"]["epochs"] == 5
    assert facts["epochs"] == {"trained": 5, "best": trained.history.best_epoch}
    network = SmallCNN(size=(24, 24), filters=(6, 8), dense=(16,), dropout=0.2)
    assert [row["name"] for row in facts["network"]] == [row.name for row in network.layers(3)]
    assert facts["temperature"] == trained.temperature > 0
    parity = facts["parity"]
    assert 0 <= parity["largest_difference"] <= 1e-4 and parity["images"] > 10
    assert "loaded and run by Keras" in parity["keras"]
    for name in ("model.tflite", "model.keras"):
        assert facts["files"][name] == file_digest(trained.run / name)


def test_plain_keras_gives_the_logits_of_the_bundle(trained, photos):
    import keras

    from kindsight.images import read_image, resize_image

    model = keras.models.load_model(trained.run / "model.keras")
    bundle = load_bundle(trained.run)
    files = sorted((photos / "ring").glob("*.png"))[:6]
    pixels = [resize_image(read_image(file), bundle.spec) for file in files]
    theirs, scores = map(np.asarray, model(np.stack(pixels).astype(np.float32)))
    answers = list(Predictor(bundle).predict(files))
    assert np.array([answer.logits for answer in answers]) == pytest.approx(theirs, abs=1e-4)
    ours = [answer.ood_score for answer in answers]
    assert ours == pytest.approx(scores[:, 0].tolist(), rel=1e-3)
    part = bundle.uncertainty["unknown"]
    assert (part["known_kept"], part["source"]) == (0.95, "validation predictions")
    unknown = [answer.reason == "unknown" for answer in answers]
    assert unknown == [score > part["threshold"] for score in ours]


def test_test_predictions_equal_those_of_new_images(trained, photos):
    rows = rows_of(trained.run / "test.csv")
    answers = list(Predictor(trained.run).predict([photos / row["path"] for row in rows]))
    for row, answer in zip(rows, answers, strict=True):
        said = [float(row[f"p_{name}"]) for name in CLASSES]
        assert said == pytest.approx(answer.probabilities, abs=1e-5)
        assert row["prediction"] == answer.best
        assert float(row["ood_score"]) == pytest.approx(answer.ood_score, rel=1e-4)


def test_validation_probabilities_use_cross_fitted_temperatures(trained, photos):
    from kindsight.evaluation import fit_temperature

    rows = rows_of(trained.run / "validation.csv")
    logits = np.array(
        [a.logits for a in Predictor(trained.run).predict([photos / r["path"] for r in rows])]
    )
    targets = np.array([CLASSES.index(row["label"]) for row in rows])
    assert trained.temperature == pytest.approx(fit_temperature(logits, targets), rel=1e-3)
    said = np.array([[float(row[f"p_{name}"]) for name in CLASSES] for row in rows])
    # Each image's temperature, from its two likeliest classes: five of them, none that of all.
    order = np.argsort(-logits, 1)
    pairs = np.take_along_axis(logits, order[:, :2], 1), np.take_along_axis(said, order[:, :2], 1)
    found = np.diff(pairs[0], axis=1) / np.diff(np.log(pairs[1]), axis=1)
    clear = np.abs(np.diff(pairs[0], axis=1)[:, 0]) > 0.2
    groups = {round(float(value), 2) for value in found[clear, 0]}
    assert 2 <= len(groups) <= 6
    metrics = load_bundle(trained.run).facts["metrics"]["validation"]
    wanted = evaluate(said.astype(np.float32), targets, CLASSES)
    assert metrics["accuracy"] == wanted.accuracy
    assert metrics["log_loss"] == pytest.approx(wanted.log_loss, rel=1e-3)
    assert (to_probabilities(logits, trained.temperature).argmax(1) == said.argmax(1)).all()


def test_report_describes_the_training(trained):
    page = trained.report.read_text("utf-8")
    for said in (
        "trained from random weights",
        "adam, learning rate 0.005, batch size 16",
        "rotation ±10°",
        "Layers of the network",
        "Training curves",
        "cross-fitted in five folds",
    ):
        assert said in page, said
    assert re.search(r"dense_1.*dense, ReLU", page)


def test_a_finished_run_is_not_overwritten(trained, settings):

    with pytest.raises(UsageError, match="never overwritten"):
        train(settings.with_options(run=trained.run.name))


def test_no_bundle_without_parity(settings, tmp_path, monkeypatch, process):

    real = process.run

    def run(*given):
        features, logits, scores = real(*given)
        return features, logits + np.array([0.0, 0.01, 0.0], np.float32), scores

    monkeypatch.setattr(process, "run", run)
    with pytest.raises(ParityError):
        train(settings.with_options(runs=str(tmp_path), epochs=1))
    (run,) = tmp_path.iterdir()
    assert not (run / "bundle.json").exists()


def test_a_learning_rate_is_found(settings, tmp_path):

    sweep, files = find_learning_rate(settings.with_options(runs=str(tmp_path)))
    assert 50 < len(sweep.rates) == len(sweep.losses) and 1e-6 < sweep.suggestion < 1
    assert [file.name for file in files] == ["learning_rate.svg", "learning_rate.png"]
    assert all(file.parent == tmp_path / "photos-learning-rate" for file in files)
    with pytest.raises(SettingsError, match="small-cnn"):
        find_learning_rate(TrainSettings(settings.data))


# Killed and continued ---------------------------------------------------------------------------

CHILD = """
import os, signal, sys
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.network import fit

fit.CHECKPOINT_SECONDS = 0.0

class Killer:
    count = 0
    def note(self, *_):
        self.count += 1
        if self.count == int(sys.argv[2]):
            assert not {"tensorflow", "keras"} & set(sys.modules)
            os.kill(os.getpid(), signal.SIGKILL)
    def on_start(self, epochs, done):
        pass
    on_step = on_epoch = note

train(TrainSettings.from_toml(sys.argv[1]), callback=Killer())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
def test_a_killed_run_ends_the_same_to_the_bit(trained, settings, tmp_path, environment):
    file = tmp_path / "settings.toml"
    settings.with_options(runs=str(tmp_path / "runs")).write(file)
    killed = subprocess.run(
        [sys.executable, "-c", CHILD, str(file), "4"],
        capture_output=True, text=True, env=environment, timeout=400, check=False,
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = tmp_path / "runs" / "photos-1"
    assert (run / "checkpoint.npz").exists() and not (run / "bundle.json").exists()
    starts = []

    class Recorder:
        def on_start(self, epochs, done):
            starts.append(done)

        def on_step(self, *_):
            pass

        on_epoch = on_step

    result = train(TrainSettings.from_toml(file), callback=Recorder())
    assert result.run == run and starts[0] >= 1 and result.cache["computed"] == 0
    assert without_time(run) == without_time(trained.run)
    assert {path.name for path in run.iterdir()} == {path.name for path in trained.run.iterdir()}
    for name in ("validation.csv", "test.csv", "model.tflite"):
        assert (run / name).read_bytes() == (trained.run / name).read_bytes(), name


# Two classes, and scikit-learn's contract -------------------------------------------------------


@pytest.fixture(scope="module")
def images():
    arrays = np.stack([tinted(name, n) for n in range(24) for name in ("bar", "ring")])
    return arrays, np.array(["bar", "ring"] * 24)


@pytest.fixture(scope="module")
def classifier(images):
    made = ImageClassifier(
        **NETWORK, epochs=4, batch_size=8, augment=Augment(rotation=5), optimizer="adam",
        learning_rate=0.005, seed=1,
    )  # fmt: skip
    return made.fit(*images)


def test_classifier_predicts(classifier, images):
    probabilities = classifier.predict_proba(images[0][:10])
    assert probabilities.shape == (10, 2) and probabilities.sum(1) == pytest.approx(1, abs=1e-6)
    assert set(classifier.predict(images[0])) <= {"bar", "ring"}
    assert classifier.score(*images) > 0.8
    assert len(classifier.history_) == 4 and not hasattr(classifier, "head_")


def test_two_classes_have_one_unit(classifier, tmp_path):
    import keras

    classifier.save(tmp_path / "bundle")
    model = keras.models.load_model(tmp_path / "bundle" / "model.keras")
    assert model.get_layer("unit").output.shape == (None, 1)
    assert model.output_shape == [(None, 2), (None, 1)]
    loaded = ImageClassifier.load(tmp_path / "bundle")
    assert loaded.epochs == 4 and loaded.filters == (6, 8) and loaded.model == "small-cnn"
    assert loaded.history_ == classifier.history_
    images = np.stack([shape("bar", 90 + n) for n in range(3)])
    assert loaded.predict_proba(images) == pytest.approx(classifier.predict_proba(images), abs=1e-6)


def test_classifier_can_be_cloned_and_cross_validated(classifier, images):
    copy = clone(classifier)
    assert copy.get_params() == classifier.get_params() and not hasattr(copy, "classes_")
    scores = cross_val_score(copy.set_params(epochs=1), *images, cv=2)
    assert len(scores) == 2 and all(0 <= score <= 1 for score in scores)


def test_the_validation_split_of_a_dataset_is_used(images):
    dataset = ImageDataset.from_arrays(*images).with_columns(
        split=["validation"] * 10 + ["test"] * 8 + ["train"] * 30
    )
    fitted = ImageClassifier(**NETWORK, epochs=1).fit(dataset)
    assert len(fitted._fitted.rows) == 30 and len(fitted._fitted.held_out().rows) == 10
    without = ImageClassifier(**NETWORK, epochs=1, validation=0.0).fit(*images)
    assert not without.history_.validated and without.temperature_ == 1.0


def test_options_of_another_trainer_raise(images):
    with pytest.raises(SettingsError, match="`head` applies only to a frozen backbone"):
        ImageClassifier(model="small-cnn", head="linear").fit(*images)
    with pytest.raises(SettingsError, match=r"`filters`, `epochs` apply only to a network"):
        ImageClassifier(epochs=3, filters=(3,)).fit(*images)
    with pytest.raises(SettingsError, match="`validation` is not used with a frozen backbone"):
        ImageClassifier(validation=0.5).fit(*images)


def test_no_temperature_with_few_validation_images(tmp_path):
    data = write_shapes(tmp_path / "few", {"bar": 12, "ring": 12})
    few = TrainSettings(
        str(data), runs=str(tmp_path), **NETWORK, epochs=1, validation=4, batch_size=8
    )
    result = train(few)
    assert result.temperature == 1.0 and MIN_CALIBRATION_IMAGES > 4
    assert "not fitted" in result.report.read_text("utf-8")
    assert result.classes == ("bar", "ring")
    answer = next(iter(Predictor(result.run).predict([Path(data, "bar", "bar 000.png")])))
    assert answer.logits[0] == 0


def test_uncertainty_is_measured_on_validation_predictions(trained, photos):
    parts = load_bundle(trained.run).uncertainty
    rows = rows_of(trained.run / "validation.csv")
    assert parts["unsure"]["source"] == parts["sets"]["source"] == "validation predictions"
    assert parts["unsure"]["images"] == parts["sets"]["images"] == len(rows)
    # The scores are those of the written network, at the temperature for new images.
    found = Predictor(trained.run).predict([photos / row["path"] for row in rows])
    scores = [
        1 - dict(prediction.top(3))[row["label"]]
        for row, prediction in zip(rows, found, strict=True)
    ]
    stored = sorted(score for own in parts["sets"]["scores"] for score in own)
    assert stored == pytest.approx(sorted(scores), abs=1e-4)
