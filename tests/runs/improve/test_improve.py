"""Experiments on real runs: the images, resumption, the better run, and the command."""

import csv
import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from fake_keras import FakeKeras, use_fake_keras
from kindsight.cli.app import app
from kindsight.cli.improve import result_lines
from kindsight.errors import BundleError, MissingExtraError, UsageError
from kindsight.runs.improve import ImproveResult, improve, search
from kindsight.runs.improve import run as improve_run
from kindsight.runs.improve.changes import Factor, changed
from kindsight.runs.improve.experiments import Verdict
from kindsight.runs.improve.original import budget_choices, plan_images, settings_of
from kindsight.runs.record import load_run
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.fine_tuning import images as training_images
from kindsight.training.fine_tuning import train as fine_tuning
from kindsight.training.frozen.settings import FINE_TUNING_WORKER, FrozenTrainer
from kindsight.training.network.settings import NetworkTrainer
from network_process import SharedKeras, shared_process
from shapes import CLASSES, encoded, shape, write_shapes, write_small_network

NETWORK = {
    **{"model": "small-cnn", "size": 24, "filters": (6, 8), "dense": (16,)},
    **{"epochs": 3, "batch_size": 16, "optimizer": "adam"},
}


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def silent(stage, done, total):
    pass


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "small"
    write_shapes(folder, dict.fromkeys(CLASSES, 24), first=700)
    (folder / "bar" / "copy.jpg").write_bytes(encoded(shape("bar", 700), "jpg"))
    return folder


@pytest.fixture
def frozen(data, tmp_path, monkeypatch, backbone):
    """Return a function that trains a frozen head, without Keras, and few factors to try."""
    use_fake_keras(monkeypatch)
    factors = (
        Factor("head", ({"head": "linear"}, {"head": "rbf"})),
        Factor("class_weight", ({"class_weight": "balanced"},)),
    )
    monkeypatch.setattr(search, "factors_of", lambda *_: factors)
    monkeypatch.setattr(search, "PATIENCE", 2)

    def trained(**options):
        settings = {"runs": str(tmp_path / "runs"), "size": 64, **options}
        return train(TrainSettings(str(data), **settings)).run

    return trained


def accepting(monkeypatch):
    """Let every search accept its last experiment."""

    def confirm(self, original):
        best = next(each for each in self.experiments[::-1] if not each.stopped)
        difference = best.compare(original, self.explored)
        return Verdict(True, best, difference, self.explored, 2, 0.01, "As the test says.")

    monkeypatch.setattr(search.Search, "_confirm", confirm)


# The images -------------------------------------------------------------------------------------


def test_the_run_keeps_its_own_test_and_validation_split(frozen, tmp_path):
    run = frozen(test=0.25)
    record = load_run(run)
    images = plan_images(record, record.settings, tmp_path, silent)
    split = {row["path"]: row["split"] for row in rows_of(run / "split.csv")}
    assert images.test == "own"
    assert {path for path, fold in images.fold_of.items() if fold == 1} == {
        path for path, name in split.items() if name == "validation"
    }
    assert {path for path, fold in images.fold_of.items() if fold > 1} == {
        path for path, name in split.items() if name == "train"
    }
    held_out = [images.rows(images.dataset, fold)[1] for fold in range(1, images.folds + 1)]
    assert images.folds >= 3 and len(np.unique(np.concatenate(held_out))) == len(images.fold_of)
    fold_of = images.fold_of
    if {"bar/copy.jpg", "bar/bar 700.png"} <= set(fold_of):  # neither is a test image
        assert fold_of["bar/copy.jpg"] == fold_of["bar/bar 700.png"]
    for fold in range(1, images.folds + 1):
        rows, out = images.rows(images.dataset, fold)
        assert not set(rows) & set(out) and len(rows) + len(out) == len(fold_of)


def test_a_run_without_a_test_split_gets_one_that_no_experiment_sees(frozen, monkeypatch):
    accepting(monkeypatch)
    monkeypatch.setattr(improve_run, "SEARCH_TRAININGS", 1e9)  # no time for nested folds
    run = frozen()
    result = improve(run, budget="1h")
    folder = run.with_name(run.name + "-improve")
    split = {row["path"]: row["split"] for row in rows_of(folder / "split.csv")}
    test = {path for path, name in split.items() if name == "test"}
    assert len(test) == pytest.approx(0.25 * 73, abs=2)
    record = load_run(run)
    images = plan_images(record, record.settings, folder, silent)
    assert images.test == "new" and not test & set(images.fold_of)
    for name in ("best", "original"):
        found = {row["path"]: row["split"] for row in rows_of(folder / name / "split.csv")}
        assert found == split
        assert {row["path"] for row in rows_of(folder / name / "test.csv")} == test
    assert result.final.images == len(test) and "trained again without it" in result.final.source
    assert result.final.kind == "test split" and not result.final.optimistic
    assert TrainSettings.from_toml(folder / "settings.toml").head == result.changes.get(
        "head", "auto"
    )


@pytest.mark.parametrize("options", [{}, {"folds": 3}])
def test_a_run_without_a_test_split_has_nested_folds(frozen, monkeypatch, options):
    accepting(monkeypatch)
    monkeypatch.setattr(search, "factors_of", lambda *_: (Factor("head", ({"head": "rbf"},)),))
    monkeypatch.setattr(search, "TWO_FOLDS", 1e9)
    run = frozen(**options)
    result = improve(run, budget="1h")
    final = result.final
    assert final.kind == "nested folds" and not final.optimistic
    folder, images = result.folder, sum(each.images for each in final.outer)
    assert len(final.outer) == options.get("folds", 5) and images == final.images >= 70
    right = sum(each.images * each.best for each in final.outer)
    assert final.best == pytest.approx(right / images)
    assert not [row for row in rows_of(folder / "split.csv") if row["split"] == "test"]
    assert load_run(result.best_run).settings.folds == options.get("folds")
    assert not (folder / "original").exists()
    said = "\n".join(result_lines(result))
    assert "Nested folds: " in said and "Fold 2: " in said
    assert "Nested folds: " in (result.best_run / "report.html").read_text("utf-8")
    if "folds" in options:  # experiments have the run's own folds, and its predictions
        record = load_run(run)
        plan = plan_images(record, record.settings, folder, silent, make_test=False)
        folds = {row["path"]: int(row["fold"]) for row in rows_of(run / "folds.csv")}
        assert plan.fold_of == folds
        predictions = record.predictions["validation"]
        right = predictions.predicted == predictions.targets
        assert final.original == pytest.approx(right.mean(), abs=0.02)


@pytest.mark.parametrize("options", [{}, {"validation": 0}])
def test_no_image_of_an_outer_fold_is_trained_on(frozen, tmp_path, options):
    run = frozen(**options)
    record = load_run(run)
    images = plan_images(record, record.settings, tmp_path, silent, make_test=False)
    for outer in images.every:
        _, left_out = images.rows(images.dataset, outer)
        for fold in images.every:
            if fold != outer:
                rows, held_out = images.rows(images.dataset, fold, outer)
                assert not set(rows) & set(left_out) and not set(held_out) & set(left_out)
                assert len(rows) + len(held_out) + len(left_out) == len(images.fold_of)


def test_without_time_for_either_the_figure_is_called_too_high(frozen, monkeypatch):
    accepting(monkeypatch)
    monkeypatch.setattr(improve_run, "SEARCH_TRAININGS", 1e9)
    monkeypatch.setattr(improve_run, "MAX_RETRAINING", 0.0)
    run = frozen()
    result = improve(run, budget="1h")
    assert result.final.kind == "deciding folds" and result.final.optimistic
    row = next(r for r in result.experiments if r.change == result.change)
    assert result.final.best == row.accuracy
    said = " ".join("\n".join(result_lines(result)).split())
    assert "the accuracy is too high" in said and "a run trained with --test 0.2" in said


# A time budget ----------------------------------------------------------------------------------


def test_a_run_with_a_budget_is_improved_without_it(frozen, monkeypatch):
    monkeypatch.setattr("kindsight.training.frozen.settings.KerasProcess", lambda **_: FakeKeras())
    accepting(monkeypatch)
    monkeypatch.setattr(search, "TWO_FOLDS", 1e9)
    run = frozen(test=0.25, validation=6, budget="5m")  # too few to fine-tune
    result = improve(run, budget="1h")
    first, second, *others = result.experiments
    predictions = load_run(run).predictions["validation"]
    assert first.accuracy == (predictions.predicted == predictions.targets).mean()
    assert second.change == "no budget, fine-tune off" and second.origin == "reference"
    assert others and all(row.change.startswith(second.change) for row in others)
    best = load_run(result.best_run).settings
    assert best.budget is None and best.fine_tune == "off"
    assert any("time budget of 5m" in note for note in result.notes)
    own = load_run(run).predictions["test"]
    assert result.final.original == (own.predicted == own.targets).mean()


def stated(settings, facts):
    return budget_choices(SimpleNamespace(bundle=SimpleNamespace(facts=facts)), settings)


def test_what_a_budget_chose_is_stated_as_options():
    plain = TrainSettings("photos")
    assert stated(plain, {}) is None
    assert stated(plain.with_options(fine_tune="light"), {"fine_tuning": "x"}) is None
    budget = plain.with_options(budget="10m")
    ensemble = "efficientnet-lite0+efficientnet-lite2"
    wide = {"model": ensemble, "size": [300, 300], "first_size": [224, 224], "flip_ids": [0, 1]}
    assert stated(budget, {"settings": wide}) == {
        "budget": None, "fine_tune": "off", "model": ensemble, "size": 300, "tta_flips": 2,
    }  # fmt: skip
    small = {"model": "efficientnet-lite0", "size": [300, 300], "first_size": [224, 224]}
    assert stated(budget, {"settings": small, "fine_tuning": "words"}) == {
        "budget": None, "fine_tune": "light",
    }  # fmt: skip
    large = {"model": "efficientnet-lite2", "size": [300, 300]}
    full = budget.with_options(fine_tune="full")
    found = stated(full, {"settings": large, "fine_tuning": "words"})
    assert found == {
        "budget": None, "fine_tune": "full", "model": "efficientnet-lite2", "size": 300,
    }  # fmt: skip
    network = NetworkTrainer(preset="modern", size=32, epochs=12, batch_norm=True).to_dict()
    found = stated(budget, {"settings": network})
    assert found["model"] == "small-cnn" and found["epochs"] == 12 and "budget" in found
    chosen = changed(budget, found)
    assert chosen.training().to_dict() == {**network, "class_weight": "none"}
    wrong = {"model": "no-such-backbone", "size": "large"}
    assert stated(budget, {"settings": wrong}) == {"budget": None, "fine_tune": "off"}


# A whole search ---------------------------------------------------------------------------------


def test_nothing_helps_a_healthy_run(frozen, monkeypatch):
    monkeypatch.setattr(search, "TWO_FOLDS", 1e9)
    run = frozen(test=0.25)
    lines = []
    result = improve(run, budget="1h", on_experiment=lambda e, s, t: lines.append(e.number))
    assert not result.helped and result.best_run is None and result.changes == {}
    assert lines == [row.number for row in result.experiments] and len(lines) >= 4
    assert not (run.with_name(run.name + "-improve") / "best").exists()
    said = "\n".join(result_lines(result))
    assert "Nothing helped." in said and "as it was" in said and "class-weight balanced" in said
    first = result.experiments[0]
    predictions = load_run(run).predictions["validation"]
    right = predictions.predicted == predictions.targets
    assert (first.images, first.accuracy) == (len(right), right.mean())
    options = ["tta-flips 2", "resize stretch", "head linear", "class-weight balanced", "size 80"]
    long = replace(result, experiments=(replace(first, change=", ".join(options)),))
    lines = [line for line in result_lines(long) if any(each in line for each in options)]
    assert len(lines) > 1 and all(each in " ".join(lines) for each in options)
    row = result.experiments[1]
    assert row.difference.difference == pytest.approx(row.accuracy - first.accuracy)


def test_the_better_run_is_compared_on_the_same_test_images(frozen, monkeypatch):
    accepting(monkeypatch)
    run = frozen(test=0.25)
    result = improve(run, budget="1h")
    assert result.helped and result.best_run.name == "best"
    old, new = (load_run(path).predictions["test"] for path in (run, result.best_run))
    assert old.paths == new.paths
    right_old, right_new = ((p.predicted == p.targets) for p in (old, new))
    assert result.final.original == right_old.mean() and result.final.best == right_new.mean()
    assert result.final.difference.first_only == (right_old & ~right_new).sum()
    assert (result.best_run / "report.html").exists()
    said = "\n".join(result_lines(result))
    assert "Test split: " in said and "which no experiment used" in said


def test_an_interrupted_search_continues(frozen):
    run = frozen(test=0.25)

    def interrupt(experiment, found, timer):
        if experiment.number == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        improve(run, budget="1h", on_experiment=interrupt)
    stages = []
    result = improve(run, budget="1h", progress=lambda stage, *_: stages.append(stage))
    trained = {stage.split(":")[0] for stage in stages if stage.startswith("Experiment")}
    assert not {"Experiment 1", "Experiment 2"} & trained and "Experiment 3" in trained
    again = improve(run, budget="1h")
    assert again.experiments == result.experiments and "finished before" in again.notes[-1]


def test_folders_of_others_are_left_alone(frozen, tmp_path):
    run = frozen(test=0.25)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("text")
    with pytest.raises(UsageError, match="do not belong"):
        improve(run, folder=tmp_path / "mine")
    improve(run, budget="1h", folder=tmp_path / "e")
    with pytest.raises(UsageError, match="other settings"):
        improve(run, budget="1h", folder=tmp_path / "e", any_model=True)
    result = ImproveResult.read(tmp_path / "e")
    assert ImproveResult.read(tmp_path) is None
    assert json.loads((tmp_path / "e" / "improve.json").read_text("utf-8")) == json.loads(
        json.dumps(result.to_dict())
    )
    (tmp_path / "e" / "improve.json").write_text("{")
    with pytest.raises(BundleError, match="damaged"):
        ImproveResult.read(tmp_path / "e")


def test_what_cannot_be_improved(frozen, monkeypatch, tmp_path):
    run = frozen(test=0.25)
    record = load_run(run)
    with pytest.raises(UsageError, match="without settings"):
        settings_of(replace(record, settings=None))
    with pytest.raises(UsageError, match=r"of \d+m or more"):
        improve(run, budget=1, folder=tmp_path / "short")
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(MissingExtraError, match=r"kindsight\[improve\]"):
        improve(run)


def test_the_command(frozen):
    run = frozen(test=0.25)
    runner = CliRunner()
    found = runner.invoke(app, ["improve", str(run), "--budget", "1h", "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["helped"] is False
    found = runner.invoke(app, ["improve", str(run / "none")])
    assert found.exit_code == 1
    found = runner.invoke(app, ["improve", str(run), "--budget", "soon"])
    assert found.exit_code == 2 and "budget" in found.output


@pytest.mark.slow
def test_a_network_is_improved_and_its_final_training_continues_from_its_checkpoint(
    data, tmp_path, monkeypatch
):
    factors = (Factor("dropout", ({"dropout": 0.2},)), Factor("pooling", ({"pooling": "max"},)))
    monkeypatch.setattr(search, "factors_of", lambda *_: factors)
    monkeypatch.setattr(search, "PATIENCE", 1)
    monkeypatch.setattr(search, "TWO_FOLDS", 1e9)
    monkeypatch.setattr("kindsight.training.network.fit.CHECKPOINT_SECONDS", 0.0)
    accepting(monkeypatch)
    with shared_process():
        run = train(TrainSettings(str(data), runs=str(tmp_path), test=0.25, **NETWORK)).run
        stages = []
        result = improve(run, budget="1h", progress=lambda stage, *_: stages.append(stage))
        assert "Experiment 0: as it was" not in stages  # its predictions are in the run
        best = load_run(result.best_run)
        row = next(r for r in result.experiments if r.change == result.change)
        predictions = best.predictions["validation"]
        assert row.accuracy == (predictions.predicted == predictions.targets).mean()
        assert len(best.history) == 3 and best.settings.model == "small-cnn"
        assert not list(result.folder.glob("experiments/checkpoint.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"budget": "10m"}])
def test_a_fine_tuned_run_is_improved(data, tmp_path, monkeypatch, backbone, options):
    """A budget that ended in a fine-tuned network is improved as one."""
    keras = SharedKeras(module=FINE_TUNING_WORKER)
    monkeypatch.setattr(FrozenTrainer, "process", lambda self: keras)
    monkeypatch.setattr(fine_tuning, "is_clearly_better", lambda *_: True)
    monkeypatch.setattr(training_images, "EPOCHS", 2)
    monkeypatch.setattr(training_images, "FIRST_EPOCHS", 1)
    monkeypatch.setattr(training_images, "BATCH_SIZE", 8)
    monkeypatch.setattr(fine_tuning, "LEARNING_RATES", fine_tuning.LEARNING_RATES[:1])
    factors = (Factor("head", ({"head": "linear"},)),)
    monkeypatch.setattr(search, "factors_of", lambda *_: factors)
    monkeypatch.setattr(search, "PATIENCE", 1)
    monkeypatch.setattr(search, "TWO_FOLDS", 1e9)
    accepting(monkeypatch)
    own = write_small_network(tmp_path / "own.keras", 64)
    settings = {"model": own, "size": 64, "test": 0.25, "runs": str(tmp_path / "runs")}
    settings["fine_tune"] = "full"
    run = train(TrainSettings(str(data), **settings, **options)).run
    assert load_run(run).bundle.facts.get("fine_tuning")
    result = improve(run, budget="1h")
    keras.close()
    words = [row.change for row in result.experiments]
    start = "no budget, fine-tune full" if "budget" in options else "as it was"
    assert (
        words[0] == "as it was" and start in words and not any(r.note for r in result.experiments)
    )
    best = load_run(result.best_run)
    assert best.settings.head == "linear" and best.settings.fine_tune == "full"
    assert best.bundle.facts.get("fine_tuning") and best.settings.budget is None
    assert result.final.kind == "test split"
