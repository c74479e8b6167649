"""Cross-validation in one command: leak-free folds, the same as separate trainings, resumable."""

import csv
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from fake_keras import use_fake_keras
from kindsight.bundle import load_bundle
from kindsight.cli.terminal.summary import summary_lines
from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError, SettingsError
from kindsight.evaluation import wilson_interval
from kindsight.runs.cross_validation import CrossValidation, Fold
from kindsight.runs.record import load_run
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.engine.history import EpochRow
from kindsight.training.network.settings import NetworkTrainer
from network_process import shared_process
from shapes import CLASSES, encoded, shape, write_shapes

FOLDS = 3
NETWORK = {
    **{"model": "small-cnn", "size": 24, "filters": (6, 8), "dense": (16,)},
    **{"epochs": 4, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.005},
}


def rows_of(path):
    """Return the rows of a table, without a score that is not of the predictions."""
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "ood_score"}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Thirty-six images of three classes, and near copies of two of them."""
    folder = tmp_path_factory.mktemp("data") / "small"
    write_shapes(folder, dict.fromkeys(CLASSES, 12), first=500)
    for kind in CLASSES[:2]:
        (folder / kind / "copy.png").write_bytes(encoded(shape(kind, 500), "png"))
    return folder


@pytest.fixture
def options(tmp_path, monkeypatch, backbone):
    use_fake_keras(monkeypatch)
    return {"runs": str(tmp_path / "runs"), "size": 64, "seed": 1}


# The split --------------------------------------------------------------------------------------


@st.composite
def datasets(draw):
    """Images of two classes, some in groups, and which of them are near-duplicates."""
    count = draw(st.integers(24, 50))
    labels = draw(st.permutations(["a", "b"] * count))[:count]
    groups = [draw(st.sampled_from([None] * 6 + ["g", "h"])) for _ in range(count)]
    near = [draw(st.sampled_from([None] * 6 + [1, 2, 3])) for _ in range(count)]
    return labels, groups, near


@given(datasets(), st.integers(2, 4), st.integers(0, 5))
@hypothesis_settings(max_examples=60)
def test_folds_share_no_group_and_no_duplicate(case, folds, seed):
    labels, groups, near = case
    dataset = ImageDataset.from_arrays(
        np.zeros((len(labels), 2, 2, 3), np.uint8), labels
    ).with_columns(group=groups, digest=[f"{i:04d}" for i in range(len(labels))])
    duplicates = [[i for i, n in enumerate(near) if n == k] for k in (1, 2, 3)]
    duplicates = [rows for rows in duplicates if len(rows) > 1]
    settings = TrainSettings("x", folds=folds, test=0.2, seed=seed)
    held_out, tests = [], set()
    try:
        for fold in range(1, folds + 1):
            split = settings.split_settings(fold).split_without_leakage(dataset, duplicates)[0]
            train_rows = {i for i, name in enumerate(split.split) if name == "train"}
            held_out.append({i for i, name in enumerate(split.split) if name == "validation"})
            tests.add(frozenset(i for i, name in enumerate(split.split) if name == "test"))
            for part in (held_out[-1], *tests):
                assert not {groups[i] for i in part} & {groups[i] for i in train_rows} - {None}
                assert not {near[i] for i in part} & {near[i] for i in train_rows} - {None}
    except DatasetError:
        return  # a class is in too few groups for so many folds
    (test,) = tests
    assert sorted(i for part in held_out for i in part) == sorted(set(range(len(labels))) - test)
    whole = settings.split_settings().split_without_leakage(dataset, duplicates)[0]
    assert {i for i, name in enumerate(whole.split) if name == "train"} == set().union(*held_out)


def test_options_that_exclude_folds():
    for other in ({"fold": "1/3"}, {"validation_data": "b"}, {"split_by": "date"}):
        with pytest.raises(SettingsError, match="folds"):
            TrainSettings("a", folds=3, **other)
    with pytest.raises(SettingsError, match="folds"):
        TrainSettings("a", folds=1)


# A frozen backbone ------------------------------------------------------------------------------


def test_out_of_fold_predictions_equal_those_of_separate_trainings(data, options):
    result = train(TrainSettings(str(data), folds=FOLDS, test=0.2, **options))
    rows = rows_of(result.run / "folds.csv")
    split = {row["path"]: row["split"] for row in rows_of(result.run / "split.csv")}
    assert {row["path"] for row in rows} == {p for p, name in split.items() if name == "train"}
    assert not (result.run / "validation.csv").exists()
    assert not list(result.run.glob("fold-*"))
    for fold in range(1, FOLDS + 1):
        alone = train(
            TrainSettings(
                str(data), fold=f"{fold}/{FOLDS}", test=0.2, group_near_duplicates=True, **options
            )
        )
        theirs = rows_of(alone.run / "validation.csv")
        ours = [{**row} for row in rows if row["fold"] == str(fold)]
        for row in ours:
            del row["fold"]
        assert ours == theirs and alone.cache["computed"] == 0
    assert result.images["train"] == len(rows) and result.images["validation"] == 0


def test_the_figures_by_hand(data, options):
    result = train(TrainSettings(str(data), folds=FOLDS, **options))
    rows = rows_of(result.run / "folds.csv")
    right = [row["label"] == row["prediction"] for row in rows]
    assert result.validation.accuracy == sum(right) / len(rows)
    assert result.validation.accuracy_interval == wilson_interval(sum(right), len(rows))
    of_folds = [
        np.mean([ok for ok, row in zip(right, rows, strict=True) if row["fold"] == str(fold)])
        for fold in (1, 2, 3)
    ]
    saved = json.loads((result.run / "folds.json").read_text("utf-8"))
    assert [fold["accuracy"] for fold in saved["folds"]] == pytest.approx(of_folds)
    assert saved["standard_deviation"] == pytest.approx(np.std(of_folds, ddof=1))
    assert result.to_dict()["cross_validation"]["accuracy"] == result.validation.accuracy
    metrics = load_bundle(result.run).facts["metrics"]
    assert metrics["validation"]["accuracy"] == result.validation.accuracy
    said = "\n".join(summary_lines(result))
    assert "Cross-validation, 3 folds: " in said and "standard deviation" in said
    assert (
        len([line for line in said.splitlines() if line.strip()[:3] in ("1  ", "2  ", "3  ")]) == 3
    )
    record = load_run(result.run)
    assert list(record.predictions["validation"].paths) == [row["path"] for row in rows]


def test_an_interrupted_cross_validation_continues(data, options):
    settings = TrainSettings(str(data), folds=FOLDS, **options)

    def interrupt(stage, done, total):
        if stage == "Fold 3 of 3":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(settings, progress=interrupt)
    stages = []
    result = train(settings, progress=lambda stage, done, total: stages.append(stage))
    assert result.run.name == "small-1"
    assert "Fold 3 of 3" in stages and not {"Fold 1 of 3", "Fold 2 of 3"} & set(stages)
    again = train(settings)
    assert (result.run / "folds.csv").read_bytes() == (again.run / "folds.csv").read_bytes()


def test_a_damaged_fold_is_trained_again(tmp_path):
    row = EpochRow(1, "training", 1.0, 0.1, 0.5, 0.5, 0.4, 0.6)
    rows, held_out = np.arange(4), np.arange(4, 6)
    fold = Fold(2, rows, held_out, np.full((2, 3), 1 / 3, np.float32), 1.5, (row,), 1, 2.0)
    path = tmp_path / "fold-2.npz"
    fold.write(path, "key")
    found = Fold.read(path, "key", 2, rows, held_out, 3)
    assert found.history == (row,) and (found.temperature, found.best_epoch) == (1.5, 1)
    assert (found.probabilities == fold.probabilities).all()
    assert Fold.read(path, "other", 2, rows, held_out, 3) is None
    assert Fold.read(path, "key", 2, rows, held_out[:1], 3) is None
    path.write_bytes(path.read_bytes()[:-40])
    assert Fold.read(path, "key", 2, rows, held_out, 3) is None
    assert Fold.read(tmp_path / "none", "key", 2, rows, held_out, 3) is None


# What the folds choose --------------------------------------------------------------------------


def made_fold(number, phases, best, temperature):
    rows = tuple(
        EpochRow(k, phase, 1.0, 0.1, 0.5, 0.5, 0.4, 0.6) for k, phase in enumerate(phases, 1)
    )
    none = np.zeros(0, np.int64)
    return Fold(number, none, none, np.zeros((0, 2), np.float32), temperature, rows, best, 1.0)


def test_the_final_model_has_the_median_epochs_of_each_phase():
    folds = (
        made_fold(1, "aaabbb", 5, 1.0),  # 3 of a, 2 of b
        made_fold(2, "aabbbb", 6, 2.0),  # 2 of a, 4 of b
        made_fold(3, "aaab", 2, 4.0),  # 2 of a, none of b
    )
    trainer = NetworkTrainer(phases=[{"epochs": 5, "name": "a"}, {"epochs": 5, "name": "b"}])
    found = CrossValidation(None, folds).choices(trainer)
    assert found.epochs == (2, 2) and found.temperature == pytest.approx(2.0)
    last = NetworkTrainer(final_weights="last", phases=trainer.phases)
    assert CrossValidation(None, folds).choices(last).epochs == (3, 3)
    assert math.isclose(CrossValidation(None, folds[:1]).choices(trainer).temperature, 1.0)


# A network by epochs ----------------------------------------------------------------------------


@pytest.mark.slow
def test_folds_of_a_network(data, tmp_path):
    given = {"runs": str(tmp_path), **NETWORK}
    with shared_process():
        result = train(TrainSettings(str(data), folds=2, **given))
        alone = train(
            TrainSettings(str(data), fold="2/2", group_near_duplicates=True, run="alone", **given)
        )
        rows = [row for row in rows_of(result.run / "folds.csv") if row.pop("fold") == "2"]
        assert rows == rows_of(alone.run / "validation.csv")
        best = [fold.best_epoch for fold in result.cross_validation.folds]
        assert len(result.history) == math.floor(np.median(best) + 0.5)
        assert not result.history.validated and "weights of the last" in result.model["training"]
        temperatures = [fold.temperature for fold in result.cross_validation.folds]
        assert result.temperature == pytest.approx(math.sqrt(math.prod(temperatures)))
        assert any("best epoch of each fold" in note for note in result.notes)
        saved = json.loads((result.run / "folds.json").read_text("utf-8"))
        assert [len(fold["history"]) for fold in saved["folds"]] == [4, 4]
