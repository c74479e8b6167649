"""``kindsight evaluate`` with slices and costs, and its output for few and many classes."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from kindsight.cli.terminal.evaluation import class_lines, confusion_lines, evaluation_lines
from kindsight.cli.terminal.text import Paint
from kindsight.evaluation import evaluate
from tiny_bundle import COLOURS, write_image


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sixty images; those of one site are mostly labelled wrongly, and larger."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for number in range(60):
        site = ("attic", "cellar")[number >= 40]
        label = "blue" if number % 2 else "red"
        wrong = site == "cellar" and number % 4 != 0
        shown = {"blue": "red", "red": "blue"}[label] if wrong else label
        side = (10 if site == "attic" else 80) + number
        write_image(tmp_path / "images" / site / label / f"{number}.png", COLOURS[shown], side)
        rows.append((f"images/{site}/{label}/{number}.png", label, site, number % 7, side))
    with (tmp_path / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label", "site", "day", "weight"))
        writer.writerows(rows)
    return tmp_path


def test_slices_of_a_column_of_the_table(run, tiny, data):
    result = run("evaluate", tiny, "table.csv", "--slice", "site", "--json")
    assert result.exit_code == 0, result.output
    slices = json.loads(result.stdout)["slices"]
    assert [(row["value"], row["images"], row["errors"]) for row in slices] == [
        ("cellar", 20, 15),
        ("attic", 40, 0),
    ]
    p = stats.fisher_exact([[15, 5], [0, 40]], alternative="greater")[1]
    assert slices[0]["p_value"] == pytest.approx(2 * p) and slices[0]["is_worse"]
    assert not slices[1]["is_worse"]
    text = run("evaluate", tiny, "table.csv", "--slice", "site").stdout
    assert "2 slices compared; accuracy is significantly lower on 1:" in text
    assert ["site", "attic", "40", "100%"] in [line.split()[:4] for line in text.splitlines()]


def test_numbers_of_a_table_are_cut_into_groups(run, tiny, data):
    result = run("evaluate", tiny, "table.csv", "--slice", "weight", "--slice", "day", "--json")
    slices = json.loads(result.stdout)["slices"]
    weights = [row for row in slices if row["column"] == "weight"]
    assert [row["images"] for row in weights] == [15] * 4
    assert weights[0]["value"] == "125 or more" and weights[0]["is_worse"]


def test_all_slices(run, tiny, data):
    result = run("evaluate", tiny, "table.csv", "--slices", "--json")
    slices = json.loads(result.stdout)["slices"]
    columns = {row["column"] for row in slices}
    # the folder has the images of the site: one test, not two
    assert {"size", "folder", "day"} <= columns and "site" not in columns
    assert "class" not in columns
    worse = [row for row in slices if row["is_worse"]]
    assert {"folder", "size"} <= {row["column"] for row in worse}
    shown = run("evaluate", tiny, "table.csv", "--slices").stdout
    assert "cellar" in shown and "attic" not in shown


def test_slices_of_a_folder_by_properties(run, tiny, data):
    result = run("evaluate", tiny, "images", "--label-from", "/([a-z]+)/[^/]*$", "--slice", "size",
                 "--slice", "folder", "--slice", "class", "--json")  # fmt: skip
    assert result.exit_code == 0, result.output
    slices = json.loads(result.stdout)["slices"]
    by_value = {row["value"]: row for row in slices}
    assert by_value["cellar"]["errors"] == 15 and by_value["red"]["images"] == 30
    assert "125 px or more" in by_value


def test_copies_count_once_in_slices_and_costs(run, tiny, data):
    for number in range(3):
        source = data / "images" / "cellar" / "blue" / "41.png"
        (data / "images" / "cellar" / "blue" / f"copy{number}.png").write_bytes(source.read_bytes())
    (data / "costs.csv").write_text(COSTS)
    result = run("evaluate", tiny, "images", "--label-from", "/([a-z]+)/[^/]*$", "--json",
                 "--slice", "folder", "--costs", "costs.csv")  # fmt: skip
    found = json.loads(result.stdout)
    assert found["copies"] == 3 and found["costs"]["images"] == 60
    assert sum(row["images"] for row in found["slices"]) == 60


def test_an_unknown_slice_is_refused_before_any_image_is_classified(run, tiny, data):
    result = run("evaluate", tiny, "table.csv", "--slice", "sight")
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert "--slice must be a property of images or a column of a table; got 'sight'" in text
    assert "'brightness'" in text and "Columns: 'site', 'day', 'weight'." in text


COSTS = "label,red,blue,green\nblue,2,0,1\nred,0,50,1\ngreen,1,1,0\n"


def test_costs_by_hand(run, tiny, data):
    (data / "costs.csv").write_text(COSTS)
    result = run("evaluate", tiny, "table.csv", "--costs", "costs.csv", "--json")
    assert result.exit_code == 0, result.output
    costs = json.loads(result.stdout)["costs"]
    # errors: blue images that are predicted as red cost 2, red as blue 50
    numbers = range(40, 60)
    expected = sum(2 if n % 2 else 50 for n in numbers if n % 4) / 60
    assert costs["mean"] == pytest.approx(expected)
    assert costs["interval"][0] < expected < costs["interval"][1]
    text = run("evaluate", tiny, "table.csv", "--costs", "costs.csv").stdout
    assert "most probable class" in text and "get a different class" in text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "columns: 'blue', 'green', 'red'; 'costs.csv' has no 'blue', 'green', 'red'"),
        ("x,red,blue\nblue,1,0\nred,0,1\n", "has no 'green'"),
        (COSTS.replace("green,1,1,0", "pink,1,1,0"), "as rows"),
        (COSTS + "red,1,1,1\n", "has a class twice"),
        (COSTS.replace("50", "much"), "got 'much' for 'red' predicted as 'blue'"),
        (COSTS.replace("50", "inf"), "got 'inf'"),
        (COSTS.replace("blue,2,0,1", "blue,2,0"), "has 2 of 3"),
        (COSTS.replace("x,red", "\xff"), ""),
    ],
)
def test_other_tables_of_costs_are_refused(run, tiny, data, table, message):
    (data / "costs.csv").write_text(table)
    result = run("evaluate", tiny, "table.csv", "--costs", "costs.csv")
    if not message:
        return
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert "--costs must" in text and message in text


def test_a_missing_table_of_costs(run, tiny, data):
    result = run("evaluate", tiny, "table.csv", "--costs", "none.csv")
    assert result.exit_code == 2 and "Could not read --costs, 'none.csv'" in result.stderr


def scores(classes: int, images: int):
    generator = np.random.default_rng(0)
    targets = generator.integers(0, classes, images)
    logits = generator.normal(size=(images, classes)) + 3 * np.eye(classes)[targets]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return evaluate(probabilities, targets, [f"species number {i}" for i in range(classes)])


@pytest.mark.parametrize("width", [80, 100, 120])
def test_tables_fit_the_terminal(width):
    for classes in (2, 7, 120):
        lines = [*class_lines(scores(classes, 600), Paint.none(), width)]
        lines += confusion_lines(scores(classes, 600), Paint.none(), width)
        assert max(map(len, lines)) <= width
    header = next(class_lines(scores(7, 600), Paint.none(), 120))
    assert header.split()[-2:] == ["avg.", "prec."]


def test_of_many_classes_the_worst_are_listed():
    found = scores(120, 2000)
    lines = list(class_lines(found, Paint.none(), 100))
    assert len(lines) == 1 + 40 + 1
    assert "the 40 of 120 classes with the lowest recall" in lines[-1]
    recalls = [float(line.split()[6].rstrip("%")) for line in lines[1:-1]]
    assert recalls == sorted(recalls)
    assert recalls[0] == pytest.approx(100 * min(each.recall for each in found.classes), abs=0.06)


def test_the_calibration_error_is_compared_with_noise():
    text = " ".join("\n".join(evaluation_lines(scores(5, 300), Paint.none())).split())
    assert "Noise alone gives an ECE of" in text and "the probabilities are miscalibrated" in text
    sharp = np.repeat([[0.5, 0.5]], 40, axis=0)
    even = evaluate(sharp, np.arange(40) % 2, ["a", "b"])
    assert "no evidence of miscalibration" in " ".join(
        "\n".join(evaluation_lines(even, Paint.none())).split()
    )
