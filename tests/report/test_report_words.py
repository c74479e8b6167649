"""How the report writes numbers, and its sentences."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kindsight.evaluation import evaluate
from kindsight.report.data import Part, Predictions
from kindsight.report.words import (
    amount,
    doubts,
    duration,
    elide,
    interval,
    leaning,
    listing,
    percent,
    top_confusions,
)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.98912, "98.9%"),
        (1.0, "100%"),
        (0.0, "0%"),
        (0.99999, "99.9%"),
        (0.00001, "0.1%"),
        (math.nan, "\u2013"),
        (None, "\u2013"),
    ],
)
def test_percent(share, text):
    assert percent(share) == text


def test_percent_digits():
    assert percent(0.88421, 2) == "88.42%"
    assert percent(0.8, 0) == "80%"


def test_interval():
    assert interval((0.969, 0.9961)) == "96.9\u201399.6%"
    assert interval((0.9, 1.0)) == "90.0\u2013100%"


def test_amount():
    assert amount(1, "image") == "1 image"
    assert amount(1120, "image") == "1,120 images"
    assert amount(2, "class", "classes") == "2 classes"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.414, "0.41 s"),
        (12.34, "12.3 s"),
        (99.94, "99.9 s"),
        (185.2, "3 min 05 s"),
        (3599.6, "1 h 00 min"),
        (7800, "2 h 10 min"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_elide_keeps_both_ends():
    text = "folder/" + "x" * 200 + "/name.jpg"
    short = elide(text, 30)
    assert len(short) == 30
    assert short.startswith("folder/")
    assert short.endswith("/name.jpg")
    assert elide("short", 30) == "short"


def test_listing():
    assert listing([]) == ""
    assert listing(["a"]) == "a"
    assert listing(["a", "b"]) == "a and b"
    assert listing(["a", "b", "c"]) == "a, b and c"
    assert listing(list("abcdefg"), 3) == "a, b, …, g"


def part(probabilities, targets, classes) -> Part:
    probabilities, targets = np.array(probabilities), np.array(targets)
    paths = tuple(str(i) for i in range(len(targets)))
    evaluation = evaluate(probabilities, targets, classes)
    return Part("validation", evaluation, Predictions(paths, targets, probabilities))


def test_doubts_by_hand():
    found = part(
        [[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.95, 0.05], [0.1, 0.9], [0.2, 0.8]],
        [0, 0, 1, 1, 1, 1],
        ["cat", "dog"],
    )
    assert doubts(found) == [
        "2 were wrong, most often dog taken for cat (2 times, 50.0% of that class).",
        "It was less than 80% sure of 2 images, and right on 1 of these; "
        "of the other 4, 75.0% were right.",
    ]


def test_doubts_about_a_single_image():
    found = part([[0.9, 0.1], [0.6, 0.4]], [0, 1], ["cat", "dog"])
    assert doubts(found) == [
        "1 was wrong: dog taken for cat.",
        "It was less than 80% sure of 1 image, and wrong on it; the other one was right.",
    ]


def test_doubts_name_the_weakest_class():
    eye = np.eye(3) * 0.94 + 0.02
    found = part(eye[[0, 0, 1, 2, 0, 1]], [0, 0, 1, 2, 2, 2], ["a", "b", "c"])
    # 1 of 3 right: Wilson 6.1 to 79.2%
    assert doubts(found) == [
        "2 were wrong, no two in the same way; one is c taken for a.",
        "The weakest class is c: 33.3% of its 3 images right (6.1\u201379.2%).",
        "It was at least 80% sure of every image.",
    ]


def test_doubts_without_predictions():
    found = part([[0.9, 0.1]], [0], ["a", "b"])._replace(predictions=None)
    assert len(doubts(found)) == 1


def test_leaning():
    sure = part([[0.9, 0.1], [0.9, 0.1]], [0, 1], ["a", "b"])
    assert leaning(sure) == (
        "Its confidence averages 90.0%, and 50.0% were right: "
        "all in all it is surer than it should be."
    )
    assert "less sure than" in leaning(part([[0.9, 0.1]], [0], ["a", "b"]))
    assert "as sure as" in leaning(part([[0.995, 0.005]], [0], ["a", "b"]))
    assert leaning(sure._replace(predictions=None)) == ""


def test_top_confusions():
    found = part(np.eye(3)[[1, 1, 2, 0, 0, 1]], [0, 0, 0, 1, 1, 1], ["a", "b", "c"]).evaluation
    assert top_confusions(found, 2) == [
        ("a", "b", 2, pytest.approx(2 / 3)),
        ("b", "a", 2, pytest.approx(2 / 3)),
    ]
    assert len(top_confusions(found, 20)) == 3
