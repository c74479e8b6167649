from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kindsight.dataset.names import IgnoredFile
from kindsight.errors import ImageError
from kindsight.evaluation import evaluate
from kindsight.options import OPTIONS, PANELS
from kindsight.runs.train import TrainResult, TrainSettings
from kindsight.training.engine.history import EpochRow, History


def scores(right: int, wrong: int):
    """Evaluate cats that are all right, and dogs some of which are taken for cats."""
    table = np.array([[0.9, 0.1]] * (5 + wrong) + [[0.2, 0.8]] * right, np.float32)
    targets = np.array([0] * 5 + [1] * (wrong + right))
    return evaluate(table, targets, ("cat", "dog"))


def result(run: Path, **changes) -> TrainResult:
    facts = {
        "run": run,
        "report": run / "report.html",
        "classes": ("cat", "dog"),
        "images": {"train": 1200, "validation": 10, "test": 0, "skipped": 3},
        "validation": scores(3, 2),
        "test": None,
        "seconds": {"read": 0.001, "features": 8.25, "fit": 0.75, "total": 10.5},
        "cache": {"computed": 1000, "reused": 213, "folder": "/cache"},
        "notes": ("Something was found.",),
        "problems": tuple(ImageError(c, "x") for c in ("empty", "truncated", "truncated")),
        "model": {"head": "linear (L2 strength 0.006)"},
        "temperature": 1.25,
    }
    return TrainResult(**{**facts, **changes})


NETWORK_OPTIONS = {
    "preset": "course",
    "epochs": 3, "batch_size": 7, "augment": "classic", "optimizer": "rmsprop",
    "learning_rate": 0.01, "momentum": 0.5, "schedule": "cosine", "warmup": 1.5,
    "label_smoothing": 0.1, "patience": 2, "final_weights": "last", "compute_dtype": "float32",
    "mix": "cutmix",
    "filters": (8, 4), "dense": (9, 7), "dropout": 0.25, "batch_norm": True, "l2": 0.001,
    "pooling": "average", "tensorboard": "logs", "mlflow": True,
}  # fmt: skip
DECAY = {"weight_decay": 0.01}
LEARNS = {
    "model": "inception-v3", "weights": "none", "cut": "mixed7", "freeze": "mixed5",
    "train_batch_norm": True, "cached_copies": 3, "augment": "light", "layer_decay": 0.9,
    "ema_decay": 0.99,
    "dense": (1024,),
}  # fmt: skip


@pytest.fixture
def trained_with(monkeypatch, tmp_path):
    """Put a training of no time in the place of the real one; return the settings it was given."""
    given: list[TrainSettings] = []

    def train(settings, *, progress=None, callback=None, reference=()):
        given.append(settings)
        progress("images", 0, 10)
        return result(tmp_path / "runs" / "photos-1")

    monkeypatch.setattr("kindsight.runs.train.train", train)
    return given


def test_without_options_the_settings_are_the_defaults(run, trained_with):
    assert run("train", "photos").exit_code == 0
    assert trained_with == [TrainSettings(data="photos")]


def test_every_option_is_a_setting(run, trained_with):
    options = {
        "run": "mine", "runs": "elsewhere", "model": "efficientnet-lite1",
        "weights": "none", "tta_flips": 3, "tta_crops": 2, "size": 128,
        "resize": "pad", "head": "linear", "fine_tune": "full", "budget": "20m",
        "class_weight": "balanced", "validation": 0.25,
        "test": 300, "seed": 7, "workers": 3, "validation_data": "kept",
        "label_from": r"^(.+?)_\d+", "group_from": "p(1)", "label_map": "names.csv",
        "pixel_shape": "20x30", "root": "in",
        "split": "split.csv", "split_by": "random", "fold": "2/5", "leakage": "move",
        "known_kept": 0.9, "target_accuracy": 0.98, "device": "cpu", "on": "ray",
        "check": "full", "verify": "full", "multi_label": "first", "encoding": "cp1252",
    }  # fmt: skip
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    words += [
        "--group-near-duplicates",
        "--keep-na-labels",
        "--column=label=species",
        "--column",
        "path=where",
        "--label-names=ash, elm",
        "--value-range=-5,4095.5",
    ]
    words.append("--no-follow-links")
    options["follow_links"] = False
    options["group_near_duplicates"] = True
    options["keep_na_labels"] = True
    options["columns"] = {"label": "species", "path": "where"}
    options["label_names"] = ("ash", "elm")
    options["value_range"] = (-5.0, 4095.5)
    outcome = run("train", "photos", *words)
    assert outcome.exit_code == 0, outcome.stderr
    assert trained_with == [TrainSettings(data="photos", **options)]
    # no setting is without its option
    every = set(OPTIONS) - {"cache"}
    others = {*NETWORK_OPTIONS, *DECAY, *LEARNS, "phases"}
    assert {"data", "test_data", "folds", "target_coverage", *options, *others} == every


def test_every_option_of_a_network_is_a_setting(run, trained_with):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in NETWORK_OPTIONS.items()]
    words = [word.replace("=True", "").replace("=(", "=").replace(")", "") for word in words]
    outcome = run("train", "photos", "--model=small-cnn", *words)
    assert outcome.exit_code == 0, outcome.stderr
    assert trained_with == [TrainSettings("photos", model="small-cnn", **NETWORK_OPTIONS)]
    assert trained_with[0].filters == [8, 4] and trained_with[0].dense == [9, 7]


def test_every_option_of_a_trained_backbone_is_a_setting(run, trained_with):
    words = [f"--{name.replace('_', '-')}={value}" for name, value in LEARNS.items()]
    words = [word.replace("=True", "").replace("=(", "=").replace(",)", "") for word in words]
    words += ["--phase", "freeze=all epochs=3", "--phase", "freeze=12 learning-rate=1e-5 name=rest"]
    outcome = run("train", "photos", *words)
    assert outcome.exit_code == 0, outcome.stderr
    phases = [
        {"freeze": "all", "epochs": 3},
        {"freeze": "12", "learning_rate": 1e-5, "name": "rest"},
    ]
    assert trained_with == [TrainSettings("photos", phases=phases, **LEARNS)]
    assert [phase.freeze for phase in trained_with[0].training().plan().phases] == ["all", "12"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--phase", "epochs=x"], "A phase's epochs must be a whole number"),
        (["--phase", "freezes=all"], "Did you mean 'freeze'?"),
        (["--freeze=all", "--filters=3"], "filters applies only to a network from scratch"),
    ],
)
def test_invalid_settings_of_a_phase_are_misuse(run, trained_with, words, said):
    outcome = run("train", "photos", *words)
    assert (outcome.exit_code, trained_with) == (2, []) and said in outcome.stderr


def test_options_of_the_other_kind_are_named_at_once(run, trained_with):
    outcome = run("train", "photos", "--epochs=3", "--optimizer=adam")
    assert (outcome.exit_code, trained_with) == (2, [])
    assert "--epochs, --optimizer apply only to a network" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    outcome = run("train", "photos", "--model=small-cnn", "--head=linear")
    assert outcome.exit_code == 2 and "--head applies only to a frozen backbone" in outcome.stderr


def test_the_defaults_in_the_help_are_the_settings_own(run):
    text = " ".join(run("train", "--help").stdout.partition("Data:")[2].split())
    for name in ("runs", "model", "resize", "class_weight", "validation", "seed", "check"):
        default = getattr(TrainSettings("x"), name)
        start = text.index(f"--{name.replace('_', '-')} ")
        shown = text[start:].partition("[default: ")[2].partition("]")[0]
        assert shown == str(default)


def test_the_help_groups_options_in_panels(run):
    text = run("train", "--help").stdout
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert titles == ["Arguments", *PANELS]


def test_a_settings_file_repeats_a_run_and_options_win(run, trained_with, tmp_path):
    TrainSettings("photos", size=96, seed=5, head="linear").write(tmp_path / "settings.toml")
    outcome = run("train", "--settings", str(tmp_path / "settings.toml"), "--seed", "6")
    assert outcome.exit_code == 0
    assert trained_with == [TrainSettings("photos", size=96, seed=6, head="linear")]


def test_without_data_and_settings_nothing_is_trained(run, trained_with):
    outcome = run("train")
    assert (outcome.exit_code, outcome.stdout, trained_with) == (2, "", [])
    assert "kindsight train photos/" in outcome.stderr


def test_all_faults_are_reported_at_once_with_the_nearest_known_name(run, trained_with):
    options = ("--model", "efficientnet-light0", "--head", "strait", "--resize", "squeeze")
    outcome = run("train", "photos", *options)
    assert (outcome.exit_code, trained_with) == (2, [])
    for said in ("'strait'", "'squeeze'", "'efficientnet-lite0'"):
        assert said in outcome.stderr


@pytest.mark.parametrize("text", ["a half", "20%", ""])
def test_a_share_that_is_no_number_is_a_misuse(run, trained_with, text):
    outcome = run("train", "photos", "--validation", text)
    assert (outcome.exit_code, trained_with) == (2, [])
    assert "--validation must be a fraction from 0 to below 1" in outcome.stderr
    assert f"got {text!r}." in outcome.stderr


def test_the_summary(run, trained_with, tmp_path):
    outcome = run("train", "photos")
    text = " ".join(outcome.stdout.split())
    # 8 of 10 correct; Wilson: 49.0 to 94.3
    assert "Validation split: 80.0% accuracy (95% CI 49.0\N{EN DASH}94.3%), 10 images" in text
    assert "Lowest recall on the validation split: class dog, 60.0% (3 of 5 images)" in text
    assert "images 1,200 train, 10 validation" in text
    assert "skipped 3 images (2 truncated, 1 empty), listed in" in text and "problems.csv" in text
    assert "head linear (L2 strength 0.006)" in text
    assert "time 10.5 s" in text
    assert "cache 1,000 images computed, 213 from the cache" in text
    assert "note Something was found." in text
    assert "report.html" in text
    run_folder = tmp_path / "runs" / "photos-1"
    assert f"kindsight predict {run_folder} " in text
    assert f"kindsight evaluate {run_folder} " in text


def test_progress_and_result_go_to_different_streams(run, trained_with):
    outcome = run("train", "photos", "--json")
    assert outcome.stderr == "Decoding images: 0 of 10\n"
    value = json.loads(outcome.stdout)
    assert outcome.stdout.count("\n") == 1
    assert list(value) == [
        "run", "classes", "images", "skipped", "ignored_files", "leakage", "validation", "test",
        "uncertainty", "diagnosis", "seconds", "cache",
    ]  # fmt: skip
    assert value["images"] == {"train": 1200, "validation": 10, "test": 0, "skipped": 3}
    assert value["validation"]["accuracy"] == 0.8


def test_a_diverged_training_fails_and_keeps_the_best_epoch(run, tmp_path, monkeypatch):
    rows = [EpochRow(1, "on", 1.0, 0.1, 0.5, 0.5), EpochRow(2, "on", 1.0, 0.1, math.nan, 0.5)]
    found = result(tmp_path / "runs" / "photos-1", history=History(rows))

    def train(settings, *, progress=None, callback=None, reference=()):
        return found

    monkeypatch.setattr("kindsight.runs.train.train", train)
    outcome = run("train", "photos")
    assert outcome.exit_code == 1 and "80.0%" in outcome.stdout
    sentence = (
        "Training diverged: the loss is NaN in epoch 2, at a learning rate of 0.1. Lower "
        "--learning-rate. The model has the weights of epoch 1."
    )
    assert outcome.stderr == f"kindsight: {sentence}\n"
    value = json.loads(run("train", "photos", "--json").stdout)
    assert value["epochs"] == {"trained": 2, "best": 1} and "epoch 2" in value["diverged"]
    # A fine-tuned network is better than the frozen head, whatever came after its best epoch.
    found = replace(found, fine_tuning={"kept": True})
    assert run("train", "photos").exit_code == 0


def test_quiet_keeps_the_result(run, trained_with):
    outcome = run("train", "photos", "--quiet")
    assert outcome.stderr == ""
    assert "80.0%" in outcome.stdout


def test_skipped_images_and_ignored_files_are_counted_by_class(tmp_path):
    from kindsight.cli.terminal.summary import summary_lines

    files = [("cat/a.txt", "not an image (.txt)", "cat"), (".git", "hidden folder", None)]
    found = result(
        tmp_path / "run",
        problem_labels=("dog", "cat", "cat"),
        ignored_files=tuple(IgnoredFile(*file) for file in files),
    )
    text = " ".join("\n".join(summary_lines(found)).split())
    assert "skipped 3 images (2 truncated in 'cat', 1 empty in 'dog'), listed in" in text
    assert "ignored 1 x hidden folder, 1 x not an image (.txt), listed in" in text
    assert found.to_dict()["skipped"] == [
        {"label": "cat", "code": "truncated", "images": 2},
        {"label": "dog", "code": "empty", "images": 1},
    ]
    assert found.to_dict()["ignored_files"] == [
        {"label": None, "reason": "hidden folder", "files": 1},
        {"label": "cat", "reason": "not an image (.txt)", "files": 1},
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 100])
def test_the_summary_is_wrapped_between_words(tmp_path, monkeypatch, width):
    from kindsight.cli.terminal import summary

    monkeypatch.setattr(summary, "line_width", lambda: width)
    names = ("dog with a long name", "another dog with a long name", "a third dog")
    table = np.eye(3, dtype=np.float32)[[0, 1, 1, 2, 2, 0]]
    some = evaluate(table, np.array([0, 0, 1, 1, 2, 2]), names)
    shown = result(Path("run"), validation=some, classes=names)
    lines = list(summary.summary_lines(shown))
    lines = lines[: lines.index("Next")]
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "class dog with a long name, 50.0% (1 of 2 images); class another dog" in text
    plain = list(summary.summary_lines(result(Path("run"), validation=None)))
    assert max(map(len, plain)) <= width
    assert "Accuracy not measured: there is no" in plain[1]


def test_the_lines_of_a_budget_begin_with_the_time_used(run, trained_with):
    outcome = run("train", "photos", "--budget", "2m")
    assert outcome.stderr == "[0:00 of 2:00] Decoding images: 0 of 10\n"


def test_missing_validation_images_are_reported(tmp_path):
    from kindsight.cli.terminal.summary import summary_lines

    lines = list(summary_lines(result(tmp_path, validation=None)))
    assert lines[1].startswith("Accuracy not measured")


def test_the_test_split_is_listed_first(tmp_path):
    from kindsight.cli.terminal.summary import summary_lines

    lines = list(summary_lines(result(tmp_path, test=scores(5, 0))))
    assert lines[1].startswith("Test split: 100% accuracy")
    assert lines[2].startswith("Validation split: 80.0% accuracy")


def test_names_are_safe_to_print_and_to_paste(tmp_path):
    from kindsight.cli.terminal.summary import summary_lines

    run = tmp_path / "a run"
    text = "\n".join(summary_lines(result(run, classes=("a\x1b[31m", "b"))))
    assert "\x1b" not in text
    assert f"kindsight predict '{run}' new/" in text or os.name == "nt"


def test_ctrl_c_says_that_the_same_command_continues(run, monkeypatch):
    def train(settings, *, progress=None, callback=None, reference=()):
        raise KeyboardInterrupt

    monkeypatch.setattr("kindsight.runs.train.train", train)
    outcome = run("train", "photos", "--quiet")
    assert (outcome.exit_code, outcome.stdout) == (130, "")
    assert outcome.stderr.count("\n") == 1
    assert "run the same command again to continue" in outcome.stderr


@pytest.mark.slow
def test_a_real_training_from_the_command_line(start, photos, backbone, tmp_path):
    command = ("train", str(photos), "--size", "64", "--runs", str(tmp_path), "--json")
    process = start(*command)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    value = json.loads(out)
    folder = Path(value["run"])
    assert folder == tmp_path / "photos-1"
    assert value["classes"] == ["bar", "chequer", "ring"]
    assert value["images"]["skipped"] == 3
    assert (folder / "report.html").stat().st_size > 1000
    assert b"Traceback" not in err and b"WARNING" not in err
    again = start(*command, "--run", "photos-1")
    out, err = again.communicate(timeout=400)
    assert (again.returncode, out) == (2, b"")
    assert b"never overwritten" in err
    answers = start("predict", str(folder), str(photos / "ring"), "--json")
    rows = [json.loads(line) for line in answers.communicate(timeout=400)[0].splitlines()]
    assert len(rows) == 29
    assert sum(row["label"] == "ring" for row in rows) >= 20


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_training_stopped_by_a_signal_is_continued(
    start, photos, backbone, tmp_path, number, code
):
    command = ("train", str(photos), "--size", "64", "--runs", str(tmp_path), "--json")
    process = start(*command)
    assert process.stderr.readline().startswith(b"Computing features")
    process.send_signal(number)
    _, err = process.communicate(timeout=400)
    assert process.returncode == code
    assert err.splitlines()[-1].endswith(b"run the same command again to continue.")
    assert b"Traceback" not in err
    process = start(*command)
    out, _ = process.communicate(timeout=400)
    assert json.loads(out)["run"] == str(tmp_path / "photos-1")
