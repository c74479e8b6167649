from __future__ import annotations

import json
import math
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from kindsight.predictor import Predictor
from tiny_bundle import COLOURS, SIDE, write_bundle, write_image

KEYS = [
    "images",
    "copies",
    "accuracy",
    "accuracy_interval",
    "balanced_accuracy",
    "macro_f1",
    "log_loss",
    "ece",
    "roc_auc",
    "average_precision",
    "top_k_accuracy",
    "kappa",
    "mcc",
    "top_k",
    "ece_if_calibrated",
    "ece_limit",
    "intervals",
    "classes",
    "confusion",
]


SIDES = count(SIDE)


def write(folder: Path, label: str, *colours: str) -> None:
    """Write images of different sizes, so that none is a copy of another."""
    for number, colour in enumerate(colours):
        write_image(folder / label / f"{number}.png", COLOURS[colour], next(SIDES))


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four images that count, one that cannot be read, two of a class nobody knows."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data"
    write(folder, "blue", "blue", "blue", "red")
    write(folder, "red", "red")
    write(folder, "yellow", "red", "green")
    (folder / "red" / "broken.png").write_bytes(b"no image at all")
    return folder


def test_the_scores_are_those_worked_out_by_hand(run, tiny, data):
    result = run("evaluate", tiny, "data", "--json")
    scores = json.loads(result.stdout)
    assert result.exit_code == 0
    assert result.stdout.count("\n") == 1
    assert list(scores) == [
        *KEYS,
        "labelled",
        "prediction_sets",
        "costs",
        "slices",
        "unknown_classes",
        "absent_classes",
        "trained_on",
        "skipped",
        "ignored_files",
    ]
    assert scores["trained_on"] is None  # this bundle does not say
    assert scores["images"] == 4
    assert scores["prediction_sets"] is None  # nor this
    assert scores["labelled"] == {
        "images": 4, "coverage": 1, "accuracy": 0.75, "unsure": 0, "unknown": 0,
    }  # fmt: skip
    assert scores["accuracy"] == 0.75
    # Wilson, n = 4, 3 right
    assert scores["accuracy_interval"] == pytest.approx([0.300642, 0.954413], abs=1e-6)
    assert scores["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)
    assert scores["macro_f1"] == pytest.approx((4 / 5 + 2 / 3) / 2)
    right, wrong = math.exp(5.1) / (math.exp(5.1) + 2), 1 / (math.exp(5.1) + 2)
    assert scores["log_loss"] == pytest.approx(-(3 * math.log(right) + math.log(wrong)) / 4)
    assert scores["ece"] == pytest.approx(right - 0.75, abs=1e-6)
    assert scores["confusion"] == [[2, 0, 1], [0, 0, 0], [0, 0, 1]]
    assert [row["support"] for row in scores["classes"]] == [3, 0, 1]


def test_skipped_images_are_listed(run, tiny, data):
    scores = json.loads(run("evaluate", tiny, "data", "--json").stdout)
    assert scores["unknown_classes"] == {"yellow": 2}
    assert scores["absent_classes"] == ["green"]
    (problem,) = scores["skipped"]
    assert (problem["path"], problem["code"]) == ("red/broken.png", "not-an-image")
    assert problem["message"] and problem["label"] == "red"


def test_unknown_classes_that_are_only_spelled_differently_are_said(run, tiny, data):
    (data / "red").rename(data / "Red ")
    text = " ".join(run("evaluate", tiny, "data").stdout.split())
    assert "unknown to the classifier: Red " in text
    assert "(but it has 'red', spelled differently)" in text


def test_ignored_files_are_counted_by_class(run, tiny, data):
    (data / "red" / "notes.txt").write_text("late")
    (data / "blue" / "photo").write_bytes(b"\xff\xd8\xff cut")
    (data / ".green").mkdir()
    (data / ".green" / "1.png").write_bytes(b"")
    result = run("evaluate", tiny, "data", "--json")
    scores = json.loads(result.stdout)
    assert scores["ignored_files"] == [
        {"label": None, "reason": "hidden folder with images", "files": 1},
        {"label": "red", "reason": "not an image (.txt)", "files": 1},
    ]
    assert [problem["path"] for problem in scores["skipped"]] == ["blue/photo", "red/broken.png"]
    assert "Ignored, hidden folder with images: 1; first '.green'." in result.stderr
    text = " ".join(run("evaluate", tiny, "data").stdout.split())
    assert "ignored 1 x hidden folder with images, 1 x not an image (.txt)" in text
    assert "1 truncated in 'blue'" in text


def test_the_text_has_the_same_numbers(run, tiny, data):
    result = run("evaluate", tiny, "data")
    text = result.stdout
    assert result.exit_code == 0
    assert "75.0% accuracy (95% CI 30.1\N{EN DASH}95.4%), 4 images" in text
    assert "balanced accuracy (mean recall) 83.3%" in " ".join(text.split())
    assert "skipped, class unknown to the classifier: yellow (2)" in " ".join(text.split())
    assert "classes without images: green" in text
    assert "1 image could not be read: 1 not-an-image in 'red'" in text
    assert "red/broken.png: " in text


def test_the_table_of_classes_and_the_confusion_matrix(run, tiny, data):
    lines = [line.split() for line in run("evaluate", tiny, "data").stdout.splitlines()]
    # class, images, precision, 95% CI, recall, 95% CI, F1, ...
    starts = [line[:7] for line in lines]
    recall, precision = "20.8\N{EN DASH}93.9%", "34.2\N{EN DASH}100%"
    assert ["blue", "3", "100%", precision, "66.7%", recall, "80.0%"] in starts
    recall, precision = "20.7\N{EN DASH}100%", "9.5\N{EN DASH}90.5%"
    assert ["red", "1", "50.0%", precision, "100%", recall, "66.7%"] in starts
    assert ["green", "0", *["\N{EN DASH}"] * 5] in starts
    matrix = lines.index(["blue", "green", "red"])
    assert lines[matrix + 1 : matrix + 4] == [
        ["blue", "2", ".", "1"],
        ["green", ".", ".", "."],
        ["red", ".", ".", "1"],
    ]


def test_a_wide_matrix_is_replaced_by_the_most_frequent_confusions(run, tmp_path, data):
    names = tuple(f"{name} of a rather long name" for name in COLOURS)
    bundle = write_bundle(tmp_path / "long", names)
    for name in COLOURS:
        if (data / name).exists():
            (data / name).rename(data / f"{name} of a rather long name")
    from kindsight.cli.terminal.evaluation import confusion_lines
    from kindsight.cli.terminal.text import Paint
    from kindsight.dataset import ImageDataset

    dataset = ImageDataset.from_folder(data, classes=names)
    evaluation = Predictor(bundle).evaluate(dataset).evaluation
    lines = list(confusion_lines(evaluation, Paint.none(), 80))
    assert lines == [
        "  most frequent confusions",
        "  blue of a rather long name predicted as red of a rather long name: "
        "1 (33.3% of its images)",
    ]


def split_data(folder: Path) -> Path:
    """Training: all wrong; validation: half right; test: all right."""
    for part, blues in (("train", ("red",)), ("val", ("blue", "red")), ("test", ("blue",) * 3)):
        write(folder / part, "blue", *blues)
        write(folder / part, "red", *(["blue"] if part == "train" else ["red"]))
    return folder


@pytest.mark.parametrize(
    ("options", "images", "right"),
    [
        ((), 4, 4),
        (("--split", "test"), 4, 4),
        (("--split", "validation"), 3, 2),
        (("--split", "train"), 2, 0),
        (("--split", "all"), 9, 6),
    ],
)
def test_splits_of_the_data(run, tiny, tmp_path, options, images, right):
    folder = split_data(tmp_path / "parts")
    scores = json.loads(run("evaluate", tiny, str(folder), "--json", *options).stdout)
    assert (scores["images"], scores["accuracy"]) == (images, right / images)


def test_the_text_names_the_split(run, tiny, tmp_path):
    folder = split_data(tmp_path / "parts")
    assert "parts, test split" in run("evaluate", tiny, str(folder)).stdout


def test_without_a_test_split_the_validation_split_is_evaluated(run, tiny, tmp_path):
    folder = split_data(tmp_path / "parts")
    for file in (folder / "test").rglob("*.png"):
        file.unlink()
    result = run("evaluate", tiny, str(folder))
    assert "validation split" in result.stdout
    assert "66.7% accuracy" in result.stdout


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ("test", "The data have no test split; they have no splits. Use --split all or omit it."),
        ("tset", "--split must be one"),
    ],
)
def test_a_missing_split_is_a_misuse(run, tiny, data, part, said):
    result = run("evaluate", tiny, "data", "--split", part)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


def test_data_of_other_classes_are_never_scored_against_the_wrong_ones(run, tiny, tmp_path):
    write(tmp_path / "data", "cat", "red")
    write(tmp_path / "data", "dog", "blue")
    result = run("evaluate", tiny, str(tmp_path / "data"))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "'cat', 'dog', the classifier 'blue', 'green', 'red'" in result.stderr


def test_a_folder_of_a_single_known_class_can_be_evaluated(run, tiny, tmp_path):
    write(tmp_path / "data", "red", "red", "red", "blue")
    scores = json.loads(run("evaluate", tiny, str(tmp_path / "data"), "--json").stdout)
    assert (scores["images"], scores["absent_classes"]) == (3, ["blue", "green"])


def test_a_note_if_the_images_were_trained_on(run, tmp_path, data):
    bundle = write_bundle(tmp_path / "run")
    (bundle / "settings.toml").write_text(f"data = {json.dumps(str(data))}\n")
    assert "was trained on these data" in run("evaluate", str(bundle), "data").stderr
    assert "trained on" not in run("evaluate", str(bundle), "data", "--quiet").stderr


def test_progress_names_every_image_once(tiny, data):
    from kindsight.dataset import ImageDataset

    calls = []
    Predictor(tiny).evaluate(ImageDataset.from_folder(data), lambda *call: calls.append(call))
    assert calls == [("evaluate", done, 5) for done in range(6)]


def test_training_images_are_counted_and_left_out(run, tmp_path, data):
    from kindsight.digest import content_digest
    from kindsight.trained_images import TrainedImages

    bundle = write_bundle(tmp_path / "run")
    learned = {content_digest((data / "blue" / f"{n}.png").read_bytes()) for n in (0, 1)}
    TrainedImages(frozenset(learned), np.zeros((1, 4), np.uint64)).write(bundle / "trained_on.npz")
    said = json.loads(run("evaluate", str(bundle), "data", "--json").stdout)
    # Of the other two one is right: a red one labelled blue, and a red one labelled red.
    assert said["accuracy"] == 0.75 and said["trained_on"]["images"] == 2
    assert said["trained_on"]["without"]["images"] == 2
    assert said["trained_on"]["without"]["accuracy"] == 0.5
    text = run("evaluate", str(bundle), "data").stdout
    assert "was trained on 2 of these images, or on duplicates of them" in text
    assert "Without them: 50.0% accuracy" in text


@pytest.mark.parametrize(("limit", "code"), [("0.75", 0), ("0", 0), ("0.7501", 1), ("1", 1)])
def test_fail_under_ends_with_1_below_it(run, tiny, data, limit, code):
    for options in ([], ["--json"], ["--quiet"]):
        result = run("evaluate", tiny, "data", "--fail-under", limit, *options)
        assert result.exit_code == code
        assert result.stdout == run("evaluate", tiny, "data", *options).stdout
        said = f"the accuracy, 0.7500, is below --fail-under {limit}."
        assert (said in result.stderr) == (code == 1)


@pytest.mark.parametrize("limit", ["75", "-0.1", "nan"])
def test_fail_under_is_a_fraction(run, tiny, data, limit):
    result = run("evaluate", tiny, "data", "--fail-under", limit)
    assert result.exit_code == 2 and "must be an accuracy from 0 to 1; got" in result.stderr
    assert result.stdout == ""


def test_copies_of_a_file_count_once(run, tiny, data):
    """Of two files, one wrong, nine copies of the wrong one do not make it 9%."""
    folder = data.parent / "copied"
    write(folder, "blue", "blue", "red")
    for number in range(9):
        copied = (folder / "blue" / "1.png").read_bytes()
        (folder / "blue" / f"copy-{number}.png").write_bytes(copied)
    scores = json.loads(run("evaluate", tiny, "copied", "--json").stdout)
    assert (scores["images"], scores["copies"], scores["accuracy"]) == (2, 9, 0.5)
    text = run("evaluate", tiny, "copied").stdout
    assert "50.0% accuracy" in text
    assert "2 images (9 identical copies not counted)" in text
