"""Fine-tuning from a folder of images to a run: settings, rejections, whole and resumed runs."""

import csv
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from fake_keras import use_fake_keras
from kindsight.bundle import load_bundle
from kindsight.classifier import ImageClassifier
from kindsight.dataset import open_dataset
from kindsight.errors import SettingsError
from kindsight.models.runtime import InterpreterPool
from kindsight.predictor import Predictor
from kindsight.runs.train import TrainSettings, train
from kindsight.training.budget import run as budget_run
from kindsight.training.budget import wider
from kindsight.training.budget.run import fine_tune
from kindsight.training.engine.checkpoints import CHECKPOINT_FILE
from kindsight.training.engine.history import EpochRow, History
from kindsight.training.fine_tuning import images as training_images
from kindsight.training.fine_tuning import train as fine_tuning
from kindsight.training.fine_tuning import train as train_module
from kindsight.training.fine_tuning.state import DECISIONS_FILE, MONITOR, FineTuningState
from kindsight.training.fine_tuning.train import FittedFineTuned
from kindsight.training.frozen.features import compute_all_features
from kindsight.training.frozen.fitted import fit_frozen
from kindsight.training.frozen.settings import (
    FINE_TUNING_WORKER,
    FrozenTrainer,
    parse_budget,
)
from kindsight.training.frozen.softmax import CrossValidation
from kindsight.training.protocols import FineTuningResult, rejection_notes
from network_process import SharedKeras
from shapes import write_small_network


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), ("45", 45), (2.5, 2.5)]
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "10 minutes", "0", "-5m", "1000h", True, "nan"])
def test_other_budgets_are_refused(text):
    with pytest.raises(SettingsError, match="`budget` must be a time"):
        parse_budget(text)


def test_settings_of_fine_tuning():
    assert FrozenTrainer().fine_tune_mode == "off"
    assert FrozenTrainer(budget="5m").fine_tune_mode == "light"
    assert FrozenTrainer(budget="5m", fine_tune="full").fine_tune_mode == "full"
    (fault,) = FrozenTrainer(fine_tune="ful").faults()
    assert "Did you mean 'full'?" in fault
    (fault,) = FrozenTrainer(fine_tune="off", budget="5m").faults()
    assert "`budget` needs fine-tuning" in fault
    with pytest.raises(SettingsError, match="fine_tune"):
        TrainSettings("photos", model="small-cnn", fine_tune="light", budget="5m")


def test_a_fine_tuned_network_is_described_by_its_best_epoch(tmp_path):
    rows = [EpochRow(k, "top", 1.0, 1e-4, 0.3, 0.9, loss, 0.9) for k, loss in ((1, 0.4), (2, 0.2))]
    history = History([*rows, EpochRow(3, "top", 1.0, 1e-4, 0.2, 0.9, 0.3, 0.9)], MONITOR)
    result = FineTuningResult(True, "upper layers", {}, 0.9, 0.95, history)
    head = SimpleNamespace(input_row=lambda name: {name: "128 px"})
    network = FittedFineTuned(
        FrozenTrainer(), ("a", "b"), None, None, None, tmp_path / "k", tmp_path / "t", history,
        fine_tuning=result, frozen=head,
    )  # fmt: skip
    assert network.describe() == {
        "input": "128 px",
        "network": "efficientnet-lite0, upper layers",
        "training": "3 epochs, best epoch 2",
    }


def test_decisions_of_another_format_are_ignored(tmp_path):
    state = FineTuningState(None, [], [], None, tmp_path)
    state.decide(copies=3)
    assert state.decisions()["copies"] == 3
    file = tmp_path / DECISIONS_FILE
    for content in ('{"copies": 3}', '{"copies": 3, "format": 1}', "[]", "no JSON"):
        file.write_text(content)
        assert state.decisions() == {}


@pytest.fixture(scope="module")
def fitted(photos, backbone):
    """A frozen head on all images of the folder."""
    trainer = FrozenTrainer(size=64)
    features = compute_all_features(trainer, open_dataset(str(photos)), backbone)
    return fit_frozen(trainer, features, backbone, features.dataset.classes)


def test_few_validation_images_or_little_time_leave_the_head_frozen(fitted, tmp_path):
    rows = np.arange(len(fitted.dataset))
    for validation, seconds, reason in ((rows[:9], None, "there are 9"), (rows, 1.0, "no time")):
        state = FineTuningState(fitted, rows, validation, None, tmp_path, seconds=seconds)
        found = fine_tune(state)
        assert found.head is fitted.head and not found.fine_tuning.accepted
        assert reason in found.fine_tuning.description
        assert rejection_notes(found.fine_tuning)[0].startswith("Not fine-tuned")


def test_ctrl_c_before_training_returns_the_best_head_so_far(fitted, tmp_path, monkeypatch):
    best, rows, interrupts = replace(fitted), np.arange(len(fitted.dataset)), []
    keras = type("Keras", (), {"interrupted_twice": False})
    callback = type("Callback", (), {"on_interrupt": lambda self: interrupts.append(1)})()

    def run(error=KeyboardInterrupt, seconds=600.0, own=None):
        def interrupted(state, states, own):
            states.append(replace(state, fitted=best))
            raise error

        monkeypatch.setattr(budget_run, "_run", interrupted)
        state = FineTuningState(
            fitted, rows, rows, keras, tmp_path, seconds=seconds, callback=callback
        )
        return fine_tune(state, own)

    found = run()
    assert found.head is best.head and found.dataset is best.dataset and interrupts == [1]
    assert not found.fine_tuning.accepted
    assert "not fine-tuned: ended by Ctrl-C" in found.fine_tuning.description
    # A second Ctrl-C, no budget, and a fit in Python raise it.
    for more in ({"error": fine_tuning.StopNow}, {"seconds": None}, {"own": object()}):
        with pytest.raises(KeyboardInterrupt):
            run(**more)
    keras.interrupted_twice = True
    with pytest.raises(KeyboardInterrupt):
        run()
    # A trained checkpoint is not lost: the run can be resumed.
    keras.interrupted_twice = False
    (tmp_path / CHECKPOINT_FILE).write_bytes(b"")
    with pytest.raises(KeyboardInterrupt):
        run()


def test_ctrl_c_while_flips_are_chosen_ends_the_run_with_the_frozen_head(
    photos, backbone, tmp_path, monkeypatch
):
    use_fake_keras(monkeypatch)

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(budget_run, "choose_flips", interrupt)
    monkeypatch.setattr("fake_keras.FakeKeras.interrupted_twice", False, raising=False)
    monkeypatch.setattr("fake_keras.FakeKeras.__init__", lambda self, **_: None, raising=False)
    result = train(TrainSettings(str(photos), run="one", runs=str(tmp_path), size=64, budget="1h"))
    assert not result.fine_tuning["accepted"]
    assert any(note.endswith("ot fine-tuned: ended by Ctrl-C") for note in result.notes)
    files = {"bundle.json", "diagnosis.json", "report.json"}
    assert {path.name for path in result.run.glob("*.json")} == files
    assert not any("was exceeded" in note for note in result.notes)


def test_an_exceeded_budget_is_reported(photos, backbone, tmp_path, monkeypatch):
    use_fake_keras(monkeypatch)
    monkeypatch.setattr("fake_keras.FakeKeras.__init__", lambda self, **_: None, raising=False)
    monkeypatch.setattr("kindsight.runs.train.BUDGET_TOLERANCE", 0.0)
    result = train(TrainSettings(str(photos), run="one", runs=str(tmp_path), size=64, budget="1s"))
    assert not result.fine_tuning["accepted"]
    assert result.notes[-1].startswith("The time budget of 1.00 s was exceeded: the training took ")
    assert "The time budget of 1.00 s was exceeded" in result.report.read_text("utf-8")


# Whole runs, in one worker process ---------------------------------------------------------------


@pytest.fixture(scope="module")
def worker():
    keras = SharedKeras(module=FINE_TUNING_WORKER)
    yield keras
    keras.close()


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A network of one convolution, which trains in no time."""
    return write_small_network(tmp_path_factory.mktemp("own") / "own.keras", 64)


@pytest.fixture
def run(photos, tmp_path, worker, monkeypatch):
    """Train a run with few steps in the shared worker, and accept or reject its network."""
    monkeypatch.setattr(FrozenTrainer, "process", lambda self: worker)
    return partial(start_run, monkeypatch, photos, tmp_path)


def start_run(
    patch, photos, runs, callback=None, accepted=True, epochs=3, rates=1, run="one", **settings
):
    patch.setattr(fine_tuning, "is_clearly_better", lambda *_: accepted)
    patch.setattr(training_images, "EPOCHS", epochs)
    patch.setattr(training_images, "FIRST_EPOCHS", 1)
    # Learning-rate trials take sixty steps: small ones, and few rates.
    patch.setattr(training_images, "BATCH_SIZE", 8)
    patch.setattr(train_module, "LEARNING_RATES", train_module.LEARNING_RATES[:rates])
    patch.setattr(train_module, "CHECKPOINT_SECONDS", 0.0)
    given = {"run": run, "runs": str(runs), "size": 64, **settings}
    return train(TrainSettings(str(photos), **given), callback=callback)


class Interrupter:
    """Presses Ctrl-C in an epoch, and records the epochs."""

    def __init__(self, epoch=0):
        self.epoch, self.epochs, self.notified = epoch, [], False

    def on_start(self, epochs, done):
        self.done = done

    def on_step(self, phase, epoch, *_):
        if epoch == self.epoch:
            raise KeyboardInterrupt

    def on_epoch(self, row):
        self.epochs.append(row.epoch)

    def on_interrupt(self):
        self.notified = True


def predictions(result):
    with (result.run / "validation.csv").open(newline="") as file:
        return [row[1:] for row in csv.reader(file)]


@pytest.mark.slow
def test_a_resumed_run_gives_the_same_network(photos, run):
    light = {"fine_tune": "light", "epochs": 2}
    whole = run(run="whole", **light)
    assert [row.epoch for row in whole.history] == [1, 2]
    assert {row.phase for row in whole.history} == {"upper layers"}
    assert "cut after stage5, 3 augmented copies" in whole.fine_tuning["description"]
    assert load_bundle(whole.run).facts["parity"]["largest_difference"] < 1e-3
    assert "Gain" in whole.report.read_text("utf-8")
    # The written files are what predicted.
    paths = [row["path"] for row in csv.DictReader((whole.run / "validation.csv").open())]
    found = list(Predictor(whole.run).predict([str(photos / path) for path in paths[:3]]))
    assert [one.best for one in found] == [row[1] for row in predictions(whole)[1:4]]

    with pytest.raises(KeyboardInterrupt):
        run(callback=Interrupter(2), **light)
    callback = Interrupter()
    resumed = run(callback=callback, **light)
    # From the interrupted epoch on, or the one after where the message came late.
    assert callback.done in (1, 2) and callback.epochs == [1, 2]
    assert predictions(resumed) == predictions(whole)


@pytest.mark.slow
def test_all_layers_are_trained_and_a_rejected_network_leaves_nothing(run, own):
    full = {"model": own, "fine_tune": "full", "epochs": 2}
    result = run(**full)
    assert [row.phase for row in result.history] == ["upper layers", *["all layers"] * 2]
    assert "all layers" in result.fine_tuning["description"] and result.fine_tuning["accepted"]
    page = result.report.read_text("utf-8")
    assert "all layers" in page and "Gain" in page
    assert load_bundle(result.run).facts["parity"]["largest_difference"] < 1e-3

    refused = run(run="refused", accepted=False, **full)
    reason = "The frozen head is used: fine-tuning reached"
    assert not refused.fine_tuning["accepted"]
    assert any(note.startswith(reason) for note in refused.notes)
    assert reason in refused.report.read_text("utf-8")
    plain = run(run="plain", model=own)
    assert predictions(refused) == predictions(plain) and plain.fine_tuning == {}
    assert {path.name for path in refused.run.iterdir()} <= {
        *(path.name for path in plain.run.iterdir()), "history.csv"
    }  # fmt: skip


@pytest.mark.slow
def test_a_network_without_an_epoch_is_not_kept(run, own, monkeypatch):
    monkeypatch.setattr(budget_run, "choose_flips", lambda *_: ((0,), 60))
    callback = Interrupter(1)
    result = run(callback=callback, model=own, fine_tune="full", budget="1h")
    assert callback.notified and not result.history
    assert "not fine-tuned: the time was over before its first epoch" in " ".join(result.notes)
    assert not result.fine_tuning["accepted"]
    files = {"bundle.json", "diagnosis.json", "report.json"}
    assert {path.name for path in result.run.glob("*.json")} == files
    assert not (result.run / CHECKPOINT_FILE).exists()
    load_bundle(result.run)


@pytest.mark.slow
def test_within_a_budget_ctrl_c_finishes_with_the_best_epoch(run, own, monkeypatch, tmp_path):
    # Wider features are accepted whatever they bring: two backbones at two sizes, the first one
    # with center crops. Lite0 is fine-tuned at its own size, and joins them.
    large = write_small_network(tmp_path / "large.keras", 96)

    def wide(trainer, flips):
        return replace(
            trainer, model=f"efficientnet-lite0+{large}", size=96, flip_ids=flips,
            first_size=(64, 64), first_tta_crops=2,
        )  # fmt: skip

    score = CrossValidation.score

    def always_the_mean(task, logits, kind, *more):
        found = score(task, logits, kind, *more)
        return replace(found, log_loss=1e-3) if kind == "mean" else found

    monkeypatch.setattr(CrossValidation, "score", always_the_mean)
    lite0 = replace(wider.get_backbone("efficientnet-lite0"), size=(64, 64))
    monkeypatch.setattr(wider, "get_backbone", lambda name: lite0)
    monkeypatch.setattr(wider, "WIDE_SIZE", 96)
    monkeypatch.setattr(wider, "choose_wide_flips", lambda *_: (0, 1))
    monkeypatch.setattr(wider, "_wide_trainer", wide)
    monkeypatch.setattr(wider, "is_clearly_better", lambda *_: True)
    monkeypatch.setattr(wider, "fine_tunes_small", lambda *_: True)
    monkeypatch.setattr(budget_run, "is_default", lambda trainer: True)
    monkeypatch.setattr(budget_run, "choose_flips", lambda *_: ((0, 1), 60))
    monkeypatch.setattr(train_module, "ENSEMBLE_MARGIN", 1.0)
    callback = Interrupter(3)
    result = run(callback=callback, budget="1h")
    assert callback.notified and "ended by Ctrl-C" in result.fine_tuning["description"]
    assert 2 <= len(result.history) <= 4
    assert "over 2 flips: cross-validated" in result.fine_tuning["description"]
    assert "fine-tuned: efficientnet-lite0 at 64 px" in result.fine_tuning["description"]
    assert "mean of 4 and 2 TTA variants" in result.report.read_text("utf-8")
    assert (
        "augmentation over 2 flips; ensemble with the frozen head"
        in result.fine_tuning["description"]
    )
    assert result.fine_tuning["accepted"] and "wider features" in result.fine_tuning["seconds"]
    assert load_bundle(result.run).facts["parity"]["largest_difference"] < 1e-3
    files = {"bundle.json", "diagnosis.json", "report.json"}
    assert {path.name for path in result.run.glob("*.json")} == files


@pytest.mark.slow
def test_the_judged_logits_are_those_of_the_file(photos, own, worker, monkeypatch):
    monkeypatch.setattr(FrozenTrainer, "process", lambda self: worker)
    monkeypatch.setattr(budget_run, "choose_flips", lambda *_: ((0, 2), 60))
    monkeypatch.setattr(wider, "is_clearly_better", lambda *_: False)
    monkeypatch.setattr(fine_tuning, "is_clearly_better", lambda *_: True)
    # The ensemble is preferred to the network alone, and its flips to the ensemble.
    monkeypatch.setattr(train_module, "MARGIN", -1e9)
    monkeypatch.setattr(train_module, "LEARNING_RATES", (1e-3,))
    monkeypatch.setattr(
        budget_run, "worker_limits",
        lambda left: {"seconds": left, "trial_fraction": 0, "epoch_fraction": 1, "max_epochs": 2},
    )  # fmt: skip
    classifier = ImageClassifier(
        model=own, size=64, fine_tune="full", budget="1h", validation=0.4, seed=1
    ).fit(photos)
    network = classifier._fitted
    assert network.fine_tuning.description.endswith("test-time augmentation over 2 flips")
    rows = np.array(sorted(network._logits))
    assert len(rows) >= 10
    images = network.stored.pixels(rows)
    pool = InterpreterPool(network.tflite, 1)
    logits = np.stack([pool.run(image) for image in images])
    judged = np.stack([network._logits[row] for row in rows.tolist()])
    np.testing.assert_allclose(judged, logits, atol=0.01 * np.abs(logits).max())
    np.testing.assert_allclose(network.logits_of(network.dataset[rows]), logits, atol=1e-4)
    # The mean over an image and its upside-down copy is the same for that copy.
    np.testing.assert_allclose(pool.run(np.flipud(images[0])), logits[0], atol=1e-3)
    assert np.abs(pool.run(np.fliplr(images[0])) - logits[0]).max() > 1e-3
