"""Labels that are withheld, and prediction sets, of a bundle whose numbers are worked out by hand.

Shades of blue have a confidence between a third and one.
"""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from html_page import Page
from kindsight import Predictor, load_bundle
from kindsight.errors import BundleError, SettingsError
from kindsight.uncertainty.prediction import Decisions, Prediction
from tiny_bundle import CLASSES, SIDE, probabilities, write_bundle, write_image

SHADES = {"certain": (0, 0, 250), "middle": (0, 50, 140), "close": (0, 110, 124)}
CONFIDENCE = {name: max(probabilities(colour).values()) for name, colour in SHADES.items()}
# Of 600 held-out images, all those above 0.75 are correct, and half of those below.
CURVE = [[0.9, 0.25, 1.0], [0.75, 0.5, 1.0], [0.5, 1.0, 0.75]]
UNSURE = {
    "curve": CURVE, "threshold": None, "target_accuracy": None, "target_coverage": None,
    "images": 600, "source": "out-of-fold predictions",
}  # fmt: skip
# (9 + 1) x 0.9 = 9: the largest of nine scores, 0.45; (9 + 1) x 0.5 = 5: the fifth, 0.05.
SETS = {
    "method": "lac", "per_class": False, "confidence_level": 0.9, "images": 9, "source": "x",
    "scores": [[0.01, 0.02, 0.03], [0.04, 0.05, 0.06], [0.07, 0.08, 0.45]],
}  # fmt: skip


def bundle_with(folder: Path, classes=CLASSES, **parts) -> str:
    """Write a bundle with parts of its entry on uncertainty."""
    path = write_bundle(folder, classes) / "bundle.json"
    content = {**json.loads(path.read_text("utf-8")), "uncertainty": parts}
    path.write_text(json.dumps(content), "utf-8")
    return str(folder)


@pytest.fixture
def shades(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for side, (name, colour) in enumerate(SHADES.items(), SIDE):
        write_image(Path("new", f"{name}.png"), colour, side)
    return tmp_path


@pytest.fixture
def whole(tmp_path: Path) -> str:
    return bundle_with(tmp_path / "bundle", unsure=UNSURE, sets=SETS)


def rows_of(result) -> dict[str, dict]:
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    return {Path(row["path"]).stem: row for row in rows}


def test_the_confidences_are_as_assumed():
    assert CONFIDENCE["certain"] > 0.95
    assert 0.8 < CONFIDENCE["middle"] < 0.9
    assert 0.5 < CONFIDENCE["close"] < 0.55


def test_without_a_target_every_image_has_a_label(run, whole, shades):
    result = run("predict", whole, "new", "--json")
    assert result.exit_code == 0 and result.stderr == ""
    assert all(row["label"] == "blue" and row["reason"] is None for row in rows_of(result).values())


def test_a_stored_threshold_withholds_labels(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "threshold": 0.8})
    result = run("predict", bundle, "new", "--json")
    rows = rows_of(result)
    assert result.exit_code == 0
    assert rows["certain"]["label"] == rows["middle"]["label"] == "blue"
    close = rows["close"]
    assert close["label"] is None and close["reason"] == "unsure" and close["best"] == "blue"
    assert close["confidence"] == pytest.approx(CONFIDENCE["close"], rel=1e-5)
    assert close["probabilities"]["blue"] == close["confidence"] and close["error"] is None
    assert "1 of 3 images has no label: 1 unsure. --always labels all." in result.stderr
    always = run("predict", bundle, "new", "--json", "--always")
    assert all(row["label"] == "blue" for row in rows_of(always).values())
    assert always.stderr == ""


@pytest.mark.parametrize(
    ("options", "labelled"),
    [
        # 300 of 300 are correct: 0.98^300 = 0.0023. All 600: 450 are too few even for 0.8.
        (["--target-accuracy", "0.98"], {"certain", "middle"}),
        (["--target-accuracy", "0.6"], {"certain", "middle", "close"}),
        # 0.25 x 601 = 150.25: more than the first point has
        (["--target-coverage", "0.2"], {"certain"}),
        (["--target-coverage", "0.25"], {"certain", "middle"}),
        (["--target-coverage", "0.6"], {"certain", "middle", "close"}),
    ],
)
def test_a_target_is_reached_without_another_training(run, whole, shades, options, labelled):
    rows = rows_of(run("predict", whole, "new", "--json", *options))
    assert {name for name, row in rows.items() if row["label"]} == labelled


def test_an_accuracy_that_cannot_be_promised(run, whole, shades):
    result = run("predict", whole, "new", "--target-accuracy", "0.999")
    assert result.exit_code == 2 and result.stdout == ""
    # 0.986^300 = 0.0146, above a fourth of 0.05; 0.985^300 = 0.0107
    assert "99.9% accuracy cannot be promised with 600 held-out images" in result.stderr
    assert "at most 98.5%" in result.stderr
    # The cure works, and a little more does not.
    cure = re.search(r"Set a target accuracy of ([\d.]+) or less", result.stderr)[1]
    assert run("predict", whole, "new", "--target-accuracy", cure).exit_code == 0
    more = run("predict", whole, "new", "--target-accuracy", str(float(cure) + 0.001))
    assert more.exit_code == 2


def test_where_no_accuracy_can_be_promised_a_coverage_can(run, tmp_path, shades):
    curve = [[0.9, 0.5, 0.0], [0.5, 1.0, 0.0]]
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "curve": curve, "images": 4})
    result = run("predict", bundle, "new", "--target-accuracy", "0.9")
    assert result.exit_code == 2
    assert "no lower accuracy can, either" in result.stderr
    assert "Set a target coverage instead." in result.stderr
    assert run("predict", bundle, "new", "--target-coverage", "0.5").exit_code == 0


def test_a_training_whose_target_could_not_be_promised_is_noted(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "target_accuracy": 0.999})
    result = run("predict", bundle, "new", "--json")
    assert all(row["label"] for row in rows_of(result).values())
    assert "cannot be promised" in result.stderr and "Every image gets a label" in result.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--target-accuracy", "98"], "--target-accuracy must be a fraction between 0 and 1"),
        (["--target-coverage", "0"], "--target-coverage must be a fraction between 0 and 1"),
        (["--target-accuracy", "nan"], "--target-accuracy must be a fraction"),
        (["--target-accuracy", "0.9", "--target-coverage", "0.9"], "cannot be combined"),
        (["--always", "--target-accuracy", "0.9"], "--always, which labels every image, excludes"),
        (["--sets", "90"], "--sets must be a confidence level between 0 and 1"),
        (["--sets", "nan"], "--sets must be a confidence level between 0 and 1"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "evaluate"])
def test_misuse(run, whole, shades, command, options, message):
    if command == "evaluate" and "--always" in options:
        pytest.skip("an option of predict")
    result = run(command, whole, "new", *options)
    assert result.exit_code == 2 and result.stdout == ""
    assert message in " ".join(result.stderr.split())


@pytest.mark.parametrize("options", [["--target-accuracy", "0.9"], ["--sets", "0.9"]])
def test_an_older_bundle_predicts_and_says_what_it_lacks(run, tiny, shades, options):
    assert all(row["label"] for row in rows_of(run("predict", tiny, "new", "--json")).values())
    result = run("predict", tiny, "new", *options)
    assert result.exit_code == 2 and "has no held-out predictions" in result.stderr


def test_sets_by_hand(run, whole, shades):
    rows = rows_of(run("predict", whole, "new", "--json", "--sets", "0.9"))
    # From a probability of 1 - 0.45: of the close image, no class has that.
    assert {name: row["prediction_set"] for name, row in rows.items()} == {
        "certain": ["blue"], "middle": ["blue"], "close": [],
    }  # fmt: skip
    lower = rows_of(run("predict", whole, "new", "--json", "--sets", "0.5"))
    assert lower["certain"]["prediction_set"] == ["blue"]  # 1 - 0.05
    assert lower["middle"]["prediction_set"] == []
    higher = rows_of(run("predict", whole, "new", "--json", "--sets", "0.95"))
    assert sorted(higher["certain"]["prediction_set"]) == sorted(CLASSES)  # nine are too few
    assert higher["close"]["prediction_set"][:2] == ["blue", "green"]  # most probable first


def test_sets_per_class_by_hand(run, whole, shades):
    # Of three scores each, (3 + 1) x 0.7 = 2.8: the third, 0.03 of blue, 0.06 of green, 0.45.
    result = run("predict", whole, "new", "--json", "--sets", "0.7", "--sets-per-class")
    found = {name: row["prediction_set"] for name, row in rows_of(result).items()}
    assert found == {"certain": ["blue"], "middle": [], "close": []}


def test_tables_have_the_columns(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "threshold": 0.8}, sets=SETS)
    run("predict", bundle, "new", "--sets", "0.9", "--out", "a.csv")
    run("predict", bundle, "new", "--sets", "0.9", "--out", "a.parquet")
    run("predict", bundle, "new", "--sets", "0.9", "--out", "a.xlsx")
    with Path("a.csv").open(encoding="utf-8", newline="") as file:
        rows = {Path(row["path"]).stem: row for row in csv.DictReader(file)}
    assert rows["close"]["label"] == "" and rows["close"]["reason"] == "unsure"
    assert rows["close"]["best"] == "blue" and json.loads(rows["close"]["prediction_set"]) == []
    assert json.loads(rows["certain"]["prediction_set"]) == ["blue"]
    assert rows["certain"]["label"] == "blue" and rows["certain"]["reason"] == ""
    table = {Path(row["path"]).stem: row for row in parquet.read_table("a.parquet").to_pylist()}
    assert table["close"]["label"] is None and table["close"]["prediction_set"] == "[]"
    assert table["close"]["ood_score"] is None and table["certain"]["reason"] is None
    assert Path("a.xlsx").stat().st_size > 1000


def test_the_table_for_people(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "threshold": 0.8}, sets=SETS)
    lines = run("predict", bundle, "new", "--sets", "0.9").stdout.splitlines()
    close, certain = (next(line for line in lines if name in line) for name in ("close", "certain"))
    assert close.startswith("unsure") and close.endswith("close.png  (most probable: blue)  {}")
    assert certain.startswith("blue") and certain.endswith("certain.png  {blue}")


def test_the_contact_sheet_marks_images_without_a_label(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "threshold": 0.9})
    run("predict", bundle, "new", "--sheet", "sheet.html")
    page = Page(Path("sheet.html").read_text("utf-8"))
    text = " ".join("".join(piece for _, piece in page.pieces).split())
    assert not page.unbalanced
    assert text.count("unsure: blue") == 2 and "2 images without a label." in text


def test_evaluate_reports_them_beside_the_accuracy(run, tmp_path, shades):
    bundle = bundle_with(tmp_path / "b", unsure={**UNSURE, "threshold": 0.8}, sets=SETS)
    for name, label in (("certain", "blue"), ("middle", "green"), ("close", "blue")):
        Path("data", label).mkdir(parents=True, exist_ok=True)
        Path("new", f"{name}.png").rename(Path("data", label, f"{name}.png"))
    write_image(Path("data", "blue", "copy.png"), SHADES["certain"], SIDE)  # counts once
    result = run("evaluate", bundle, "data", "--json", "--fail-under", "0.6")
    scores = json.loads(result.stdout)
    assert scores["images"] == 3 and scores["accuracy"] == pytest.approx(2 / 3)
    assert result.exit_code == 0  # of the most probable classes, not of the labels
    labelled = {"images": 2, "coverage": 2 / 3, "accuracy": 0.5, "unsure": 1, "unknown": 0}
    assert scores["labelled"] == pytest.approx(labelled)
    sets = scores["prediction_sets"]
    assert sets["confidence_level"] == 0.9 and sets["sizes"] == [1, 2]
    assert sets["coverage"] == pytest.approx(1 / 3)
    assert sets["mean_size"] == pytest.approx(2 / 3)
    text = " ".join(run("evaluate", bundle, "data").stdout.split())
    assert "66.7% of the images, 50.0% of them correctly; no label: 1 unsure" in text
    assert "33.3% of the 90% prediction sets contain the true class; 0.67 classes" in text


@pytest.mark.parametrize(
    "parts",
    [
        {"unsure": {**UNSURE, "threshold": "high"}},
        {"unsure": {**UNSURE, "threshold": float("nan")}},
        {"unknown": {"threshold": [1]}},
    ],
)
def test_a_damaged_threshold_is_refused(tmp_path, parts):
    with pytest.raises(BundleError, match=r"bundle.json is invalid: 'threshold' must be"):
        Predictor(bundle_with(tmp_path / "b", **parts))


def test_damaged_parts_are_refused_where_they_are_needed(tmp_path):
    folder = bundle_with(
        tmp_path / "b", unsure={**UNSURE, "curve": [[2, 2, 2]]}, sets={**SETS, "scores": [[3]]}
    )
    Predictor(folder)
    with pytest.raises(BundleError, match="curve"):
        Predictor(folder, target_accuracy=0.9)
    with pytest.raises(BundleError, match="scores"):
        Predictor(folder, sets=0.9)
    # Parts that are no objects are as good as none.
    bare = bundle_with(tmp_path / "c", unsure=[1], sets="x", unknown=None)
    assert load_bundle(bare).uncertainty == {}
    with pytest.raises(SettingsError, match="no held-out predictions"):
        Predictor(bare, sets=0.9)


def test_unknown_takes_precedence_over_unsure():
    rules = Decisions(threshold=0.8, unknown=4.0)

    def decided(confidence: float, score: float | None) -> Prediction:
        values = np.array([confidence, 1 - confidence], np.float32)
        return rules.decide(Prediction("a", ("x", "y"), values, values, ood_score=score))

    assert decided(0.6, 5.0).reason == "unknown" and decided(0.99, 5.0).reason == "unknown"
    assert decided(0.6, 3.0).reason == "unsure" and decided(0.6, None).reason == "unsure"
    assert decided(0.99, 4.0).label == "x" and decided(0.99, None).label == "x"
    unknown = decided(0.99, 5.0)
    assert unknown.label is None and unknown.best == "x" and unknown.top(1)[0][0] == "x"
