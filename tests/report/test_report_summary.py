"""The sentences of a report."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pytest

from kindsight.evaluation import evaluate
from kindsight.report.data import Predictions, SplitResult
from kindsight.report.summary import (
    describe_calibration,
    describe_results,
    describe_training,
    top_confusions,
)


def result(probabilities, targets, classes) -> SplitResult:
    probabilities, targets = np.array(probabilities), np.array(targets)
    paths = tuple(str(i) for i in range(len(targets)))
    evaluation = evaluate(probabilities, targets, classes)
    return SplitResult("validation", evaluation, Predictions(paths, targets, probabilities))


def test_errors_and_uncertain_predictions():
    found = result(
        [[0.9, 0.1], [0.7, 0.3], [0.6, 0.4], [0.95, 0.05], [0.1, 0.9], [0.2, 0.8]],
        [0, 0, 1, 1, 1, 1],
        ["cat", "dog"],
    )
    assert describe_results(found) == [
        "2 of 6 images misclassified, most often dog predicted as cat "
        "(2 times, 50.0% of the class).",
        "Confidence is below 80% for 2 images: accuracy 50.0% on these, 75.0% on the other 4.",
    ]


def test_a_single_error():
    found = result([[0.9, 0.1], [0.6, 0.4]], [0, 1], ["cat", "dog"])
    assert describe_results(found) == [
        "1 of 2 images misclassified: dog predicted as cat.",
        "Confidence is below 80% for 1 image: accuracy 0% on it, 100% on the other 1.",
    ]


def test_class_with_the_lowest_recall():
    eye = np.eye(3) * 0.94 + 0.02
    found = result(eye[[0, 0, 1, 2, 0, 1]], [0, 0, 1, 2, 2, 2], ["a", "b", "c"])
    # Wilson's interval of 1 of 3 is 6.1% to 79.2%.
    assert describe_results(found) == [
        "2 of 6 images misclassified, each pair of classes once; for example, c predicted as a.",
        "Lowest recall: c, 33.3% of 3 images (95% CI 6.1\u201379.2%).",
        "Confidence is at least 80% for every image.",
    ]


def test_results_without_predictions():
    found = result([[0.9, 0.1]], [0], ["a", "b"])._replace(predictions=None)
    assert len(describe_results(found)) == 1
    assert describe_calibration(found) == ""


def test_calibration():
    wrong = result([[0.9, 0.1]] * 40, [0, 1] * 20, ["a", "b"])
    assert describe_calibration(wrong) == (
        "Mean confidence is 90.0% and accuracy 50.0%: "
        "the classifier is overconfident by 40.0 percentage points."
    )
    assert describe_calibration(result([[0.9, 0.1]] * 2, [0, 1], ["a", "b"])).endswith(
        "with 2 images, a difference of 40.0 percentage points is not statistically significant."
    )
    assert "underconfident by 10.0" in describe_calibration(
        result([[0.9, 0.1]] * 60, [0] * 60, ["a", "b"])
    )
    assert "well calibrated" in describe_calibration(result([[0.995, 0.005]], [0], ["a", "b"]))


def test_top_confusions():
    found = result(np.eye(3)[[1, 1, 2, 0, 0, 1]], [0, 0, 0, 1, 1, 1], ["a", "b", "c"]).evaluation
    assert top_confusions(found, 2) == [
        ("a", "b", 2, pytest.approx(2 / 3)),
        ("b", "a", 2, pytest.approx(2 / 3)),
    ]
    assert len(top_confusions(found, 20)) == 3


class Row(NamedTuple):
    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    phase: str = "train"
    seconds: float = 1.0
    learning_rate: float = 1e-3


ROWS = [
    Row(1, 0.75, 0.5, 0.7, 0.6, "head"),
    Row(2, 0.5, 0.75, 0.6, 0.8, "head"),
    Row(3, 0.25, 1.0, 0.65, 0.7, "all"),
]


@pytest.mark.parametrize(
    ("rows", "best", "expected"),
    [
        (
            ROWS,
            2,
            ["Best epoch: 2 of 3, with 80.0% validation accuracy and 75.0% training accuracy."],
        ),
        (
            [Row(1, 0.6, 0.7, 0.5, 0.8), Row(2, 0.2, 0.9, 0.6, 0.8), Row(3, 0.1, 0.9, 0.7, 0.8)],
            1,
            ["Best epoch: 1 of 3"],
        ),
        ([Row(1, 0.6, 0.7, 0.5, 0.8)], 1, ["After one epoch, with 80.0% validation accuracy"]),
        (
            [Row(1, 0.6, 0.7)],
            1,
            ["After one epoch by training loss, with 70.0%", "overfitting cannot be detected"],
        ),
        ([Row(1, math.nan, 0.5, math.nan, 0.5)], 1, ["After one epoch", "Training diverged"]),
        (
            [
                Row(1, 0.6, 0.7, 0.5, 0.8),
                Row(2, 0.5, 0.7, math.inf, 0.7),
                Row(3, 0.5, 0.7, math.nan, 0.7),
            ],
            1,
            ["Best epoch: 1 of 3", "Training diverged"],
        ),
        ([Row(1, 0.6, 0.7, 0.5, 0.8)], None, ["Trained for 1 epoch."]),
    ],
)
def test_training_sentences(rows, best, expected):
    sentences = describe_training(rows, best)
    assert len(sentences) == len(expected)
    for sentence, phrase in zip(sentences, expected, strict=True):
        assert phrase in sentence
