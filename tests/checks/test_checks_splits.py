"""KS501 to KS505: planted leakage, missing classes, predictable sources."""

from __future__ import annotations

import numpy as np
import pytest
from check_images import file_of, run, scene
from fake_context import context

from kindsight.checks.source_classifier import one_hot_bins, predict_source


@pytest.mark.parametrize("code", ["KS501", "KS502", "KS503", "KS504"])
def test_without_splits_not_applicable(code):
    result = run(code, context(["a", "b"] * 30))
    assert (result.state, result.reason) == ("not applicable", "The data do not define splits.")


def test_identical_files_across_splits():
    split = ["train", "test", "train", "validation", "test", "train"]
    result = run("KS501", context(["a"] * 6, split=split, digest=list("xxyxyz")))
    assert [(f.rows, f.message) for f in result.findings] == [
        ((0, 1, 3), "The same file is in train, validation and test."),
        ((2, 4), "The same file is in train and test."),
    ]
    assert run("KS501", context(["a"] * 2, split=["train", "test"])).state == "passed"


def test_duplicates_across_splits(make_context):
    files = {f"train/cat/{n}.jpg": scene(n, 200, 260) for n in range(10, 18)}
    files |= {f"train/dog/{n}.jpg": scene(n, 200, 260) for n in range(18, 26)}
    a, b = scene(1, 200, 260), scene(2, 200, 260)
    files |= {
        "train/cat/a.jpg": a,
        "test/cat/a.png": a,
        "train/dog/b.jpg": b,
        "test/dog/b.jpg": b[::-1],
        "train/dog/c.jpg": file_of(scene(3)),
        "test/dog/c.jpg": file_of(scene(3)),
        "train/dog/b again.jpg": file_of(b, quality=40),
    }
    result = run("KS502", make_context(files))
    assert [(set(f.paths), f.severity) for f in result.findings] == [
        ({"test/cat/a.png", "train/cat/a.jpg"}, "error"),
        ({"test/dog/b.jpg", "train/dog/b again.jpg", "train/dog/b.jpg"}, "error"),
    ]
    assert result.findings[0].message == "Re-encoded copies of an image are in train and test."
    assert result.findings[1].message.startswith("Rotated or mirrored copies")


def test_classes_missing_from_a_split():
    labels = ["cat", "dog", "Cat ", "dog", "owl"]
    split = ["train", "train", "test", "test", "train"]
    result = run("KS503", context(labels, split=split))
    found = [(f.severity, f.paths, f.suggestion, f.message) for f in result.findings]
    assert found == [
        (
            "error",
            ("Cat ",),
            "cat",
            "The train split has no image of 'Cat ', unlike the test split. Is it the class 'cat'?",
        ),
        (
            "warning",
            ("cat",),
            "Cat ",
            "The test split has no image of 'cat', unlike the train split. Is it the class 'Cat '?",
        ),
        (
            "warning",
            ("owl",),
            None,
            "The test split has no image of 'owl', unlike the train split.",
        ),
    ]
    assert run("KS503", context(["a", "a"], split=["train", "test"])).state == "passed"


# Predicting the source.


def test_bins_by_hand():
    """Cuts at the seven inner eighths of 0 to 8; NaN has a bin of its own."""
    hot = one_hot_bins(np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, np.nan]))
    assert hot.argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert (hot.sum(axis=1) == 1).all()
    words = one_hot_bins(np.array(["x", "y", "x", "x", "y", "z"], object))
    assert words.argmax(axis=1).tolist() == [0, 1, 0, 0, 1, 2]


def test_predictable_and_unpredictable_sources():
    random = np.random.default_rng(0)
    targets = np.repeat([0, 1], [300, 60])
    size = random.normal(400, 50, 360) + 150 * targets
    noise = random.normal(size=360)
    groups = np.arange(360)
    result = predict_source({"size": size, "noise": noise}, targets, groups)
    # Two normal distributions three deviations apart: Phi(1.5) = 0.933 of each correct.
    assert result.accuracy == pytest.approx(0.933, abs=0.05)
    assert result.low < result.accuracy < result.high and result.random == 0.5
    guess = predict_source({"noise": noise}, targets, groups)
    assert guess.low < 0.5 < guess.high + 0.03 and guess.skill < 0.1


def test_rows_of_one_group_are_in_one_fold():
    """A property of single patients predicts nothing for other patients."""
    targets = np.repeat([0, 1], 100)
    patient = np.repeat(np.arange(10), 20)  # five per target, each with a camera of their own
    camera = np.array([f"camera {p}" for p in patient], object)
    assert predict_source({"camera": camera}, targets, np.arange(200)).accuracy == 1.0
    assert predict_source({"camera": camera}, targets, patient).accuracy <= 0.6


def test_classes_confounded_with_their_source():
    random = np.random.default_rng(2)
    labels = ["ill"] * 80 + ["well"] * 120
    width = np.where(np.arange(200) < 80, 1024, 800) + random.integers(0, 9, 200)
    result = run("KS505", context(labels, width=width, height=600))
    (finding,) = result.findings
    assert finding.paths == ("ill", "well") and finding.value == 1.0
    assert finding.message.startswith(
        "The class can be predicted from file properties with 100% balanced accuracy"
    )
    assert "image side (median 786 pixels for 'ill', 695 pixels for 'well')" in finding.message


def test_the_encoder_predicts_the_class():
    programs = np.array(["0a"] * 70 + ["0b"] * 130, object)
    programs[::9] = "0c"
    result = run("KS505", context(["ill"] * 80 + ["well"] * 120, encoder=programs))
    assert "JPEG encoder ('0a' for" in result.findings[0].message


def test_one_class_of_ten_from_another_source():
    """The mean over ten classes is low, although one class is predicted without an error."""
    labels = [str(k) for k in range(10) for _ in range(30)]
    formats = np.array(["PNG"] * 30 + ["JPEG"] * 270, object)
    quality = np.array([np.nan] * 30 + [96.0] * 270)
    result = run("KS505", context(labels, format=formats, quality=quality))
    (finding,) = result.findings
    assert finding.paths == ("0",) and finding.value == 1.0
    assert finding.message.startswith(
        "The class '0' can be distinguished from all others from file properties with 100%"
    )
    assert "file format ('JPEG' for 100% of '1', 0% of '0')" in finding.message
    assert "JPEG quality (missing for '0')" in finding.message
    mixed = np.array((["PNG"] + ["JPEG"] * 9) * 30, object)
    assert run("KS505", context(labels, format=mixed)).state == "passed"


def test_classes_may_differ_in_appearance():
    """One class may be brighter; splits must not differ in brightness."""
    bright = np.repeat([90.0, 180.0], 50) + np.arange(100) % 7
    assert run("KS505", context(["a"] * 50 + ["b"] * 50, brightness=bright)).state == "passed"
    split = ["train"] * 50 + ["test"] * 50
    result = run("KS504", context(["a"] * 100, split=split, brightness=bright))
    assert (
        "brightness (median 93 of 255 for 'train', 183 of 255 for 'test')"
        in result.findings[0].message
    )
    assert result.findings[0].paths == ("train", "test")


def test_splits_and_classes_from_one_source():
    random = np.random.default_rng(3)
    sides = {"width": random.integers(300, 900, 400), "height": random.integers(300, 900, 400)}
    labels, split = random.choice(["a", "b", "c"], 400), random.choice(["train", "test"], 400)
    made = context(labels.tolist(), split=split.tolist(), **sides)
    assert run("KS504", made).state == "passed" and run("KS505", made).state == "passed"
    assert run("KS505", context(["a"] * 30 + ["b"] * 3)).state == "not applicable"
    assert run("KS505", context(["a"] * 30)).state == "not applicable"
