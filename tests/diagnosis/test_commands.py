"""Every command that a finding gives is a valid training of the run's own kind."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from made import curves, evidence, predictions
from typer.testing import CliRunner

from kindsight.cli.app import app
from kindsight.diagnosis import diagnose
from kindsight.diagnosis.commands import applied, check_command, train_command
from kindsight.diagnosis.evidence import BatchNormEvidence
from kindsight.runs.settings import TrainSettings

POLICY = {"rotation": 30.0, "horizontal_flip": True}
SETTINGS = {
    "network": [
        {}, {"augment": "classic", "dropout": 0.5}, {"augment": "strong", "pooling": "average"},
        {"augment": POLICY}, {"batch_norm": True, "batch_size": 64, "dense": ()},
        {"optimizer": "sgd", "momentum": 0.5, "learning_rate": 0.3, "test": 0.1, "seed": 4},
        {"l2": 0.3, "dropout": 0.9, "filters": (4, 4), "ema_decay": 0.99},
        {"phases": [{"epochs": 3}, {"epochs": 5, "learning_rate": 1e-4}], "size": (96, 64)},
    ],
    "transfer": [
        {"freeze": "none"}, {"freeze": "all", "augment": "light"}, {"cut": "stage4_out"},
        {"dropout": 0.2, "train_batch_norm": True},
        {"phases": [{"freeze": "all", "epochs": 3}, {"freeze": "none", "learning_rate": 1e-4}]},
    ],
    "frozen": [{}, {"model": "efficientnet-lite1", "head": "linear", "leakage": "keep"}],
}  # fmt: skip


def made_ill(settings, kind, run):
    """Yield evidence for many findings, with the same settings."""
    steady = np.linspace(0.7, 0.1, 10)
    flat = np.full(12, 0.69)
    for history, train, validation in [
        (curves(steady, 1 - steady, steady + 1, [0.5] * 10), (400, 400), (200, 120)),
        (curves(flat, [0.5] * 12, flat, [0.5] * 12, rate=0.3), (400, 210), (200, 104)),
        (curves(flat, [0.5] * 12, flat, [0.5] * 12, rate=1e-6), (400, 210), (20, 11)),
        (curves(steady[:4], steady[:4], steady[:4], steady[:4]), (400, 300), (200, 150)),
        (curves([0.7, 9e9, 0.7], [0.5] * 3, flat[:3], [0.5] * 3), (400, 210), (200, 104)),
        (curves(steady, 1 - steady, flat[:10], [0.5] * 10), (400, 200), (200, 100)),
    ]:
        parts = {"train": predictions(*train), "validation": predictions(*validation)}
        parts["test"] = predictions(200, 60, 0.95)
        yield evidence(
            settings=settings, kind=kind, history=history if kind != "frozen" else None,
            predictions=parts, run=run, leaking={"validation": 20},
            batch_norm=BatchNormEvidence(64, 20) if settings.get("batch_norm") else None,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"), [(kind, each) for kind, many in SETTINGS.items() for each in many]
)
def test_every_command_parses_and_every_remedy_is_valid(kind, options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    base = {"model": "small-cnn"} if kind == "network" else {}
    given = TrainSettings("photos", **{**base, **options})
    Path("runs/one").mkdir(parents=True)
    given.write("runs/one/settings.toml")
    settings = given.to_dict()
    seen = []
    monkeypatch.setattr("kindsight.runs.train.train", lambda s, **_: seen.append(s) or 1 / 0)
    monkeypatch.setattr("kindsight.cli.train.show_learning_rates", lambda s, **_: seen.append(s))
    commands, remedies = set(), []
    for ill in made_ill(settings, kind, "runs/one"):
        for finding in diagnose(ill):
            commands |= set(finding.commands)
            remedies += finding.remedies
    assert commands
    for remedy in remedies:
        TrainSettings(**applied(settings, remedy))
    for command in commands:
        name, *words = shlex.split(command)
        assert name == "kindsight"
        if words[0] == "train":
            seen.clear()
            result = CliRunner().invoke(app, words)
            assert len(seen) == 1, (command, result.output, result.exception)
            assert str(seen[0].data) == "photos"


def test_a_command_keeps_the_options_of_the_run():
    settings = TrainSettings(
        "my photos", model="small-cnn", size=96, augment="light", validation=100, columns={},
        label_names=("a", "b"), seed=3,
    ).to_dict()  # fmt: skip
    assert train_command(settings, {"dropout": 0.5}) == (
        "kindsight train 'my photos' --label-names a,b --validation 100 --seed 3 "
        "--model small-cnn --size 96 --dropout 0.5 --augment light"
    )


def test_a_policy_is_taken_from_the_settings_file():
    settings = {"data": "photos", "model": "small-cnn", "augment": POLICY, "run": "mine"}
    assert train_command(settings, {"dropout": 0.5}, "runs/mine") == (
        "kindsight train --settings runs/mine/settings.toml --dropout 0.5 --run mine-2"
    )


def test_a_preset_is_taken_from_the_settings_file():
    settings = TrainSettings(
        "photos", model="small-cnn", preset="modern", epochs=15, augment="light", run="mine"
    ).to_dict()
    assert train_command(settings, {"dropout": 0.5}, "runs/mine") == (
        "kindsight train --settings runs/mine/settings.toml --dropout 0.5 --run mine-2"
    )


def test_data_are_checked_as_they_were_read(tmp_path, monkeypatch):
    settings = TrainSettings(
        "my photos", label_map="map.csv", multi_label="first", keep_na_labels=True,
        follow_links=False, value_range=(0, 4095), group_from=r"(\d+)", epochs=3, workers=3,
        model="small-cnn",
    ).to_dict()  # fmt: skip
    command = check_command(settings)
    assert command == (
        "kindsight check 'my photos' --full --value-range 0,4095 --label-map map.csv "
        "--multi-label first --keep-na-labels --no-follow-links --workers 3"
    )
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, shlex.split(command)[1:])
    assert "No such option" not in result.output and "my photos" in result.output
    on_ray = TrainSettings("s3://bucket/photos", on="ray://10.0.0.1:6379").to_dict()
    assert check_command(on_ray) == (
        "kindsight check s3://bucket/photos --full --on ray://10.0.0.1:6379"
    )
