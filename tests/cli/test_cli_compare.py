"""``kindsight compare``: matched images, what is left out, and the sentence."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import kindsight
from kindsight.errors import DatasetError, SettingsError, UsageError
from tiny_bundle import CLASSES, COLOURS, write_bundle, write_image


def write_run(
    folder: Path,
    split: dict[str, str],
    predictions: dict[str, dict[str, str]],
    *,
    labels: dict[str, str] | None = None,
    classes: tuple[str, ...] = CLASSES,
    digests: bool = True,
) -> str:
    """Write a run: its splits by image, and its predictions by split and image."""
    write_bundle(folder, classes)
    labels = labels or {}
    with (folder / "split.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "split", "digest"))
        for name, part in split.items():
            content = name.split("-")[0] if digests else ""  # "3-copy" is a copy of "3"
            rows.writerow((f"{name}.png", labels.get(name, classes[0]), part, content))
    for part, predicted in predictions.items():
        with (folder / f"{part}.csv").open("w", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("path", "label", "prediction", *(f"p_{name}" for name in classes)))
            for name, label in predicted.items():
                p = [0.8 if each == label else 0.2 / (len(classes) - 1) for each in classes]
                rows.writerow((f"{name}.png", labels.get(name, classes[0]), label, *p))
    return str(folder)


def names(count: int, first: int = 0) -> list[str]:
    return [str(number) for number in range(first, first + count)]


def predicted(images: list[str], wrong: int) -> dict[str, str]:
    """Return predictions of which the first `wrong` are wrong; all labels are "blue"."""
    return {name: "red" if i < wrong else "blue" for i, name in enumerate(images)}


def run_of(tmp_path: Path, name: str, wrong: int, **options) -> str:
    images = names(100)
    split = dict.fromkeys(images, "validation") | dict.fromkeys(names(50, 100), "train")
    return write_run(tmp_path / name, split, {"validation": predicted(images, wrong)}, **options)


def test_a_real_difference(run, tmp_path):
    first, second = run_of(tmp_path, "a", 20), run_of(tmp_path, "b", 8)
    result = run("compare", first, second, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["source"], found["left_out"]) == (100, "validation split", {})
    (pair,) = found["comparisons"]
    assert (pair["first_only"], pair["second_only"]) == (0, 12)
    assert pair["difference"] == pytest.approx(0.12)
    assert pair["p_value"] == pytest.approx(stats.binomtest(0, 12).pvalue)
    # 12 images lose ln(0.8) - ln(0.1) each
    assert pair["log_loss_difference"] == pytest.approx(-12 * np.log(8) / 100, rel=1e-5)
    assert pair["sentence"].startswith(
        f"The accuracy of {second} is higher than that of {first} by 12.0 points ("
    )
    assert pair["sentence"].endswith("); this difference is statistically significant (p < 0.001).")
    assert [row["accuracy"] for row in found["runs"]] == [0.8, 0.92]
    reverse = json.loads(run("compare", second, first, "--json").stdout)["comparisons"][0]
    assert reverse["sentence"].startswith(
        f"The accuracy of {second} is higher than that of {first} by 12.0 points ("
    )


def test_a_difference_that_could_be_chance(run, tmp_path):
    first, second = run_of(tmp_path, "a", 20), run_of(tmp_path, "b", 18)
    text = " ".join(run("compare", first, second).stdout.split())
    assert "100 images, validation split" in text
    assert "is higher than that of" in text and "by 2.0 points (" in text
    assert "which is not statistically significant (p = 0.5); about 400 images are needed" in text
    same = " ".join(run("compare", first, run_of(tmp_path, "c", 20)).stdout.split())
    assert "are equal on these images" in same


def test_several_runs_are_compared_with_the_first(tmp_path):
    found = kindsight.compare(
        run_of(tmp_path, "a", 20), run_of(tmp_path, "b", 13), run_of(tmp_path, "c", 20)
    )
    assert len(found.pairs) == len(found.sentences()) == 2
    # 0 against 7: p = 2 / 2^7, times two comparisons
    assert found.pairs[0].p_value == pytest.approx(2 * 2 / 2**7)
    assert found.pairs[1].p_value == 1


def test_images_that_a_run_was_trained_on_are_left_out(run, tmp_path):
    images = names(60)
    first = write_run(
        tmp_path / "a",
        dict.fromkeys(images, "validation"),
        {"validation": predicted(images, 5)},
    )
    # of these, 20 were trained on, 30 are shared, and 10 are in neither split
    split = dict.fromkeys(names(20), "train") | dict.fromkeys(names(30, 20), "validation")
    second = write_run(tmp_path / "b", split, {"validation": predicted(names(30, 20), 0)})
    found = json.loads(run("compare", first, second, "--json").stdout)
    assert found["images"] == 30
    assert found["left_out"] == {
        "trained on by another run": 20,
        "not held out by every run": 10,
    }
    assert "20 images left out: trained on by another run" in run("compare", first, second).stdout


def test_without_a_common_image_the_cure_is_named(run, tmp_path):
    first = run_of(tmp_path, "a", 3)
    second = write_run(
        tmp_path / "b",
        dict.fromkeys(names(100), "train") | dict.fromkeys(names(5, 200), "validation"),
        {"validation": predicted(names(5, 200), 1)},
    )
    result = run("compare", first, second)
    assert result.exit_code == 2
    text = " ".join(result.stderr.split())
    assert "no validation or test image in common. 100 images of one run were trained on" in text
    assert "Compare them on other images with --data" in text
    empty = write_run(tmp_path / "c", {}, {})
    with pytest.raises(DatasetError, match="no predictions of validation or test"):
        kindsight.compare(empty, write_run(tmp_path / "d", {}, {}))


def test_the_test_split_comes_first(tmp_path):
    images, others = names(40), names(60, 40)
    split = dict.fromkeys(images, "test") | dict.fromkeys(others, "validation")
    runs = [
        write_run(
            tmp_path / name,
            split,
            {"test": predicted(images, wrong), "validation": predicted(others, 0)},
        )
        for name, wrong in (("a", 8), ("b", 4))
    ]
    found = kindsight.compare(*runs)
    assert (found.images, found.source) == (40, "test split")
    # the test split of one run is the validation split of another
    third = write_run(
        tmp_path / "c",
        dict.fromkeys(images, "validation"),
        {"validation": predicted(images, 2)},
    )
    mixed = kindsight.compare(runs[0], third)
    assert (mixed.images, mixed.source) == (40, "validation and test splits")
    assert mixed.left_out == {"not held out by every run": 60}


def test_copies_count_once(tmp_path):
    images = [*names(20), *(f"{name}-copy" for name in names(20))]
    runs = [
        write_run(
            tmp_path / name,
            dict.fromkeys(images, "validation"),
            {"validation": predicted(images, wrong)},
        )
        for name, wrong in (("a", 4), ("b", 0))
    ]
    found = kindsight.compare(*runs)
    assert found.images == 20
    assert [run.accuracy for run in found.runs] == [0.8, 1.0]


def test_runs_with_other_labels_or_class_orders(tmp_path):
    images = names(30)
    split = dict.fromkeys(images, "validation")
    first = write_run(tmp_path / "a", split, {"validation": predicted(images, 0)})
    second = write_run(
        tmp_path / "b",
        split,
        {"validation": predicted(images, 0)},
        labels=dict.fromkeys(names(30), "blue") | {"0": "red"},
        classes=("red", "green", "blue"),
    )
    found = kindsight.compare(first, second)
    # image 0 is "blue" in one run and "red" in the other: two images, neither shared
    assert found.images == 29
    assert [run.accuracy for run in found.runs] == [1.0, 1.0]


def test_out_of_fold_predictions_are_held_out(tmp_path):
    images = names(40)
    folded = Path(write_run(tmp_path / "a", dict.fromkeys(images, "train"), {}))
    with (folded / "folds.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label", "fold", "prediction", *(f"p_{name}" for name in CLASSES)))
        for name in images:
            rows.writerow((f"{name}.png", "blue", 1, "blue", 0.8, 0.1, 0.1))
    other = write_run(
        tmp_path / "b", dict.fromkeys(images, "validation"), {"validation": predicted(images, 9)}
    )
    found = kindsight.compare(folded, other)
    assert found.images == 40 and found.pairs[0].difference == pytest.approx(-9 / 40)


def test_wrong_arguments(run, tmp_path):
    first, second = run_of(tmp_path, "a", 1), run_of(tmp_path, "b", 1)
    with pytest.raises(UsageError, match="two or more run folders; got 1"):
        kindsight.compare(first)
    with pytest.raises(UsageError, match="must be different"):
        kindsight.compare(first, first + "/")
    with pytest.raises(SettingsError, match="Give `data`"):
        kindsight.compare(first, second, split="test")
    result = run("compare", first)
    assert result.exit_code == 2 and "RUNS must be two or more" in result.stderr
    assert run("compare", first, str(tmp_path / "none")).exit_code == 1
    undigested = run_of(tmp_path, "c", 1, digests=False)
    with pytest.raises(DatasetError, match="does not record the content"):
        kindsight.compare(first, undigested)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve images, of which one bundle is right on all, and another on those of one class."""
    sides = iter(range(8, 40))
    for name in ("blue", "red"):
        for number in range(6):
            write_image(tmp_path / "data" / name / f"{number}.png", COLOURS[name], next(sides))
    return tmp_path / "data"


def test_other_images(run, tmp_path, tiny, data):
    swapped = str(write_bundle(tmp_path / "swapped", ("red", "green", "blue")))
    result = run("compare", tiny, swapped, "--data", str(data), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["images"], found["source"]) == (12, str(data))
    assert [row["accuracy"] for row in found["runs"]] == [1.0, 0.0]
    assert found["comparisons"][0]["p_value"] == pytest.approx(2 / 2**12)
    assert len(found["notes"]) == 2 and "does not record its training images" in found["notes"][0]
    narrow = str(write_bundle(tmp_path / "narrow", ("blue", "green")))
    found = json.loads(run("compare", tiny, narrow, "--data", str(data), "--json").stdout)
    assert found["images"] == 6
    assert found["left_out"] == {"of a class that not every run knows": 6}
    result = run("compare", tiny, swapped, "--data", str(data), "--split", "test")
    assert result.exit_code == 2 and "no test split" in result.stderr
