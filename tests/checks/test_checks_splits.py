"""Checks of splits: planted leakage, absent classes, and sources that tell."""

from __future__ import annotations

import numpy as np
import pytest
from check_images import file_of, run, scene
from made_up import context

from kindsight.checks.rules.source_bias import binned, predict_source


@pytest.mark.parametrize("code", ["KS501", "KS502", "KS503", "KS504"])
def test_without_parts_nothing_leaks(code):
    result = run(code, context(["a", "b"] * 30))
    assert (result.state, result.reason) == ("not applicable", "The data state no parts.")


def test_the_same_image_in_several_parts():
    split = ["train", "test", "train", "validation", "test", "train"]
    result = run("KS501", context(["a"] * 6, split=split, digest=list("xxyxyz")))
    assert [(f.rows, f.message) for f in result.findings] == [
        ((0, 1, 3), "One image, byte for byte, is in train, validation and test."),
        ((2, 4), "One image, byte for byte, is in train and test."),
    ]
    assert run("KS501", context(["a"] * 2, split=["train", "test"])).state == "passed"


def test_copies_in_several_parts(look):
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
    result = run("KS502", look(files))
    assert [(set(f.paths), f.severity) for f in result.findings] == [
        ({"test/cat/a.png", "train/cat/a.jpg"}, "error"),
        ({"test/dog/b.jpg", "train/dog/b again.jpg", "train/dog/b.jpg"}, "error"),
    ]
    assert result.findings[0].message == "The same image, stored anew, is in train and test."
    assert result.findings[1].message.startswith("The same image, mirrored or turned")


def test_classes_missing_from_a_part():
    labels = ["cat", "dog", "Cat ", "dog", "owl"]
    split = ["train", "train", "test", "test", "train"]
    result = run("KS503", context(labels, split=split))
    found = [(f.severity, f.paths, f.suggestion, f.message) for f in result.findings]
    assert found == [
        (
            "error",
            ("Cat ",),
            "cat",
            "The train part has no image of 'Cat ', which the test part has. Is 'cat' in it meant?",
        ),
        (
            "warning",
            ("cat",),
            "Cat ",
            "The test part has no image of 'cat', which the train part has. Is 'Cat ' in it meant?",
        ),
        (
            "warning",
            ("owl",),
            None,
            "The test part has no image of 'owl', which the train part has.",
        ),
    ]
    assert run("KS503", context(["a", "a"], split=["train", "test"])).state == "passed"


# Telling by measurements.


def test_bins_by_hand():
    """Cut at the seven inner eighths of 0 to 8; NaN is a bin of its own."""
    hot = binned(np.array([0.0, 1, 2, 3, 4, 5, 6, 7, 8, np.nan]))
    assert hot.argmax(axis=1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 7, 8]
    assert (hot.sum(axis=1) == 1).all()
    words = binned(np.array(["x", "y", "x", "x", "y", "z"], object))
    assert words.argmax(axis=1).tolist() == [0, 1, 0, 0, 1, 2]


def test_what_differs_is_told_and_what_does_not_is_not():
    random = np.random.default_rng(0)
    kinds = np.repeat([0, 1], [300, 60])
    size = random.normal(400, 50, 360) + 150 * kinds
    noise = random.normal(size=360)
    units = np.arange(360)
    told = predict_source({"size": size, "noise": noise}, kinds, units)
    # Two normal distributions three deviations apart: Phi(1.5) = 0.933 of each are right.
    assert told.accuracy == pytest.approx(0.933, abs=0.05)
    assert told.low < told.accuracy < told.high and told.chance == 0.5
    guess = predict_source({"noise": noise}, kinds, units)
    assert guess.low < 0.5 < guess.high + 0.03 and guess.skill < 0.1


def test_rows_of_one_unit_are_held_out_together():
    """What only tells single images from each other tells nothing of unseen ones."""
    random = np.random.default_rng(1)
    kinds = np.repeat([0, 1], 100)
    patient = np.repeat(np.arange(10), 20)  # five patients a kind, each with his own camera
    camera = np.array([f"camera {p}" for p in patient], object)
    assert predict_source({"camera": camera}, kinds, np.arange(200)).accuracy == 1.0
    assert predict_source({"camera": camera}, kinds, patient).accuracy <= 0.6
    del random


def test_classes_of_different_sources():
    random = np.random.default_rng(2)
    labels = ["ill"] * 80 + ["well"] * 120
    width = np.where(np.arange(200) < 80, 1024, 800) + random.integers(0, 9, 200)
    result = run("KS505", context(labels, width=width, height=600))
    (finding,) = result.findings
    assert finding.paths == ("ill", "well") and finding.value == 1.0
    assert finding.message.startswith(
        "The classes can be told apart without looking at what they show: right for 100%"
    )
    assert "the size (median 'ill' 786 pixels on average a side, 'well' 695" in finding.message


def test_an_encoder_tells_too():
    programs = np.array(["0a"] * 70 + ["0b"] * 130, object)
    programs[::9] = "0c"
    result = run("KS505", context(["ill"] * 80 + ["well"] * 120, encoder=programs))
    assert "the program that encoded the JPEGs ('0a' for" in result.findings[0].message


def test_classes_may_look_different():
    """That one is brighter may be what it is; only parts must not differ in that."""
    bright = np.repeat([90.0, 180.0], 50) + np.arange(100) % 7
    assert run("KS505", context(["a"] * 50 + ["b"] * 50, brightness=bright)).state == "passed"
    split = ["train"] * 50 + ["test"] * 50
    result = run("KS504", context(["a"] * 100, split=split, brightness=bright))
    assert "the brightness (median 'train' 93 of 255, 'test' 183" in result.findings[0].message
    assert result.findings[0].paths == ("train", "test")


def test_sources_that_are_the_same():
    random = np.random.default_rng(3)
    sides = {"width": random.integers(300, 900, 400), "height": random.integers(300, 900, 400)}
    labels, split = random.choice(["a", "b", "c"], 400), random.choice(["train", "test"], 400)
    made = context(labels.tolist(), split=split.tolist(), **sides)
    assert run("KS504", made).state == "passed" and run("KS505", made).state == "passed"
    assert run("KS505", context(["a"] * 30 + ["b"] * 3)).state == "not applicable"
    assert run("KS505", context(["a"] * 30)).state == "not applicable"
