"""A network from scratch within a budget: from a folder of images to a run that is used."""

import csv
import json
from functools import partial

import numpy as np
import pytest

from kindsight import ImageClassifier, diagnose
from kindsight.bundle import load_bundle
from kindsight.errors import DivergedError
from kindsight.predictor import Predictor
from kindsight.runs.diagnosing.evidence import trained_settings
from kindsight.runs.train import TrainSettings, train
from kindsight.training.budget import from_scratch
from kindsight.training.fine_tuning import train as fine_tuning
from kindsight.training.fine_tuning.state import DECISIONS_FILE
from kindsight.training.frozen.settings import FINE_TUNING_WORKER, FrozenTrainer
from kindsight.training.network.fit import NetworkImages
from kindsight.training.trainer import make_training
from network_process import SharedKeras
from shapes import write_small_network


@pytest.fixture(scope="module")
def worker():
    keras = SharedKeras(module=FINE_TUNING_WORKER)
    yield keras
    keras.close()


@pytest.fixture
def run(photos, tmp_path, worker, monkeypatch):
    """Train a run in the shared worker, in which a network from scratch is tried."""
    monkeypatch.setattr(FrozenTrainer, "process", lambda self: worker)
    monkeypatch.setattr(from_scratch, "is_default_backbone", lambda trainer: True)
    monkeypatch.setattr(from_scratch, "is_candidate", lambda *_: True)
    monkeypatch.setattr(from_scratch, "planned_epochs", lambda *_: 2)
    monkeypatch.setattr(from_scratch, "input_size", lambda dataset: 20)
    # Fewer than the images of a class: the speed is measured on images of all classes.
    monkeypatch.setattr(from_scratch, "MEASURED_IMAGES", 4)
    own = write_small_network(tmp_path / "own.keras", 64)
    return partial(start_run, monkeypatch, photos, tmp_path, own)


def start_run(patch, photos, runs, own, *, expected, accepted, name="one"):
    patch.setattr(from_scratch, "predict_log_loss", lambda *_: expected)
    patch.setattr(fine_tuning, "is_clearly_better", lambda *_: accepted)
    given = {"model": own, "run": name, "runs": str(runs), "size": 64, "budget": "10m"}
    return train(TrainSettings(str(photos), **given))


def test_settings_of_a_chosen_network_take_the_place_of_the_runs():
    settings = TrainSettings("photos", budget="10m", seed=3).to_dict()
    network = make_training({"model": "small-cnn", "preset": "modern", "size": 32, "seed": 3})
    found = trained_settings(settings, network.to_dict())
    assert found["model"] == "small-cnn" and found["data"] == "photos" and "budget" not in found
    again = TrainSettings(**found).training()
    assert again.network() == network.network() and again.plan() == network.plan()
    assert trained_settings(settings, FrozenTrainer(budget="10m").to_dict()) == settings
    assert trained_settings({}, network.to_dict()) == {}


@pytest.mark.slow
def test_an_accepted_network_is_the_model_of_the_run(run, photos):
    result = run(expected=0.0, accepted=True)
    assert result.model["chosen"].startswith("network from scratch: ")
    assert "of the frozen head on " in result.model["chosen"]
    assert result.model["chosen"].endswith(": accepted") and len(result.history) == 2
    bundle = load_bundle(result.run)
    assert bundle.facts["settings"]["preset"] == "modern" and bundle.spec.size == (20, 20)
    assert bundle.facts["parity"]["largest_difference"] < 1e-3
    assert "unknown" in bundle.facts["uncertainty"]
    assert not (result.run / DECISIONS_FILE).exists()
    assert "network from scratch" in result.report.read_text("utf-8")
    stored = json.loads((result.run / "diagnosis.json").read_text("utf-8"))
    assert [found.code for found in diagnose(result.run)] == [
        found["code"] for found in stored["findings"]
    ]
    # The written files are what predicted.
    rows = list(csv.DictReader((result.run / "validation.csv").open()))[:3]
    found = list(Predictor(result.run).predict([str(photos / row["path"]) for row in rows]))
    assert all(np.isfinite(one.ood_score) for one in found)


@pytest.mark.slow
def test_in_python_the_network_predicts_too(run, photos, monkeypatch, tmp_path):
    monkeypatch.setattr(from_scratch, "predict_log_loss", lambda *_: 0.0)
    monkeypatch.setattr(fine_tuning, "is_clearly_better", lambda *_: True)
    own = str(tmp_path / "own.keras")
    classifier = ImageClassifier(model=own, size=64, budget="10m", validation=0.2).fit(str(photos))
    assert len(classifier.history_) == 2 and not hasattr(classifier, "fine_tuning_")
    paths = sorted(str(path) for path in photos.rglob("*.png"))[:3]
    assert classifier.predict_proba(paths).sum(1) == pytest.approx(1, abs=1e-5)
    classifier.save(tmp_path / "saved")
    assert load_bundle(tmp_path / "saved").spec.size == (20, 20)


@pytest.mark.slow
def test_a_trial_that_diverges_leaves_the_head(run, monkeypatch):
    def diverge(*_):
        raise DivergedError("the loss is NaN")

    monkeypatch.setattr(NetworkImages, "try_out", diverge)
    result = run(expected=0.0, accepted=True)
    assert "a network from scratch diverged" in result.fine_tuning["description"]
    assert load_bundle(result.run).facts["settings"].get("preset") is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expected", "said"),
    [(float("inf"), "was tried on "), (0.0, ": not accepted")],
)
def test_a_network_that_is_no_better_leaves_the_head(run, expected, said):
    result = run(expected=expected, accepted=False)
    assert "from scratch" in result.fine_tuning["description"]
    assert said in result.fine_tuning["description"]
    assert load_bundle(result.run).facts["settings"].get("preset") is None
    assert not list(result.run.glob("network.*"))
