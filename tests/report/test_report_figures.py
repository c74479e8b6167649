"""Figures: tables and small drawings against values computed by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from kindsight.evaluation import Evaluation, evaluate, wilson_interval
from kindsight.report.data import HeadCandidateRow, Predictions, Reference, SplitResult
from kindsight.report.drawing.figures import (
    Bin,
    ConfusionCell,
    IntervalRow,
    Stage,
    class_table,
    comparison_table,
    confusion_table,
    draw_confusion,
    draw_interval,
    draw_reliability,
    draw_stage,
    head_table,
    heat_level,
    reliability_table,
    scale_start,
    time_table,
)


def small_evaluation() -> tuple[Evaluation, Predictions]:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.4, 0.6]])
    targets = np.array([0, 0, 0, 1])
    predictions = Predictions(("a", "b", "c", "d"), targets, probabilities)
    return evaluate(probabilities, targets, ["x", "y"]), predictions


def test_confusion_table_omits_empty_cells():
    assert confusion_table(small_evaluation()[0]) == [
        ConfusionCell(0, 0, 2, pytest.approx(2 / 3)),
        ConfusionCell(0, 1, 1, pytest.approx(1 / 3)),
        ConfusionCell(1, 1, 1, 1.0),
    ]


def test_confusion_drawing():
    drawn = draw_confusion(confusion_table(small_evaluation()[0]), ["a", "b"])
    assert drawn == (
        '<svg class="map" viewBox="0 0 2 2" role="img" '
        'aria-label="Heat map of the confusion matrix: label by row, prediction by column">'
        '<rect class="ground" width="2" height="2"/>'
        '<path class="wrong level2" d="M1 0h1v1h-1z"/>'
        '<path class="right level4" d="M0 0h1v1h-1z"/>'
        '<path class="right level5" d="M1 1h1v1h-1z"/></svg>'
    )


def test_squares_with_images_are_links():
    drawn = draw_confusion(
        confusion_table(small_evaluation()[0]), ["<a>", "b"], {(0, 1): "cell-0-1"}
    )
    assert 'role="group"' in drawn
    assert drawn.count("<a ") == 1
    assert '<a href="#cell-0-1" tabindex="-1" aria-label="&lt;a&gt; predicted as b: 1 image">' in (
        drawn
    )


def test_confusion_drawing_is_bounded():
    table = [ConfusionCell(i, j, 1, 1 / 150) for i in range(150) for j in range(150)]
    assert draw_confusion(table, ["a"] * 150).count("h1v1h-1z") == 10_000


@pytest.mark.parametrize(
    ("fraction", "level"), [(0.0, 0), (1e-4, 1), (0.2, 1), (0.21, 2), (0.6, 3), (0.99, 5), (1.0, 5)]
)
def test_heat_levels(fraction, level):
    assert heat_level(fraction) == level


def test_reliability_table():
    # fifteenths: 0.6 = 9/15 in (8/15, 9/15], 0.7 in (10/15, 11/15], 0.8 = 12/15 in
    # (11/15, 12/15], 0.9 in (13/15, 14/15]
    table = reliability_table(small_evaluation()[1])
    assert [(row.images, row.confidence, row.accuracy) for row in table] == [
        (1, pytest.approx(0.6), 1.0),
        (1, pytest.approx(0.7), 0.0),
        (1, pytest.approx(0.8), 1.0),
        (1, pytest.approx(0.9), 1.0),
    ]
    assert [row.start for row in table] == pytest.approx([8 / 15, 10 / 15, 11 / 15, 13 / 15])
    assert (table[1].low, table[1].high) == wilson_interval(0, 1)


def test_reliability_drawing():
    drawn = draw_reliability([Bin(0.4, 0.6, 4, 0.5, 0.75, 0.5, 1.0), Bin(0.8, 1.0, 8, 1, 1, 1, 1)])
    # x = 54 + 288 value; y = 8 + 250 (1 - value); the most images make a bar of 48 units
    assert (
        '<line class="range" x1="198.0" x2="198.0" y1="133.0" y2="8.0"/>'
        '<circle class="dot" cx="198.0" cy="70.5" r="4.5"/>'
    ) in drawn
    assert '<circle class="dot" cx="342.0" cy="8.0" r="4.5"/>' in drawn
    assert re.findall(r'class="count"[^>]* height="([\d.]+)"', drawn) == ["24.0", "48.0"]
    assert "confidence 40% to 60%: 4 images, accuracy 75.0%" in drawn
    assert drawn.startswith("<svg")
    assert drawn.endswith("</svg>")


def test_class_table_is_recall_with_its_interval():
    assert class_table(small_evaluation()[0]) == [
        IntervalRow("x", pytest.approx(2 / 3), *wilson_interval(2, 3)),
        IntervalRow("y", 1.0, *wilson_interval(1, 1)),
    ]


def test_comparison_is_best_first():
    evaluation, predictions = small_evaluation()
    result = SplitResult("test", evaluation, predictions)
    table = comparison_table(result, [Reference("a", 0.9, "p"), Reference("b", 0.6, "q")])
    assert [row.name for row in table] == ["a", "this classifier", "b"]
    assert table[1] == IntervalRow("this classifier", 0.75, *wilson_interval(3, 4), "test images")
    assert table[0] == IntervalRow("a", 0.9, 0.9, 0.9, "p")


def test_head_table_has_one_standard_deviation():
    table = head_table(
        [HeadCandidateRow("a", 0.99, 0.02, 0.1), HeadCandidateRow("b", 0.5, None, 0.7)]
    )
    assert table == [IntervalRow("a", 0.99, 0.97, 1.0), IntervalRow("b", 0.5, 0.5, 0.5)]


@pytest.mark.parametrize(
    ("lows", "start"),
    [([0.97, 0.96], 0.95), ([0.97, 0.91], 0.9), ([0.85], 0.8), ([0.5], 0.5), ([0.4], 0.0), ([], 0)],
)
def test_scale_start(lows, start):
    assert scale_start([IntervalRow("x", 1.0, low, 1.0) for low in lows]) == start


def test_classes_without_images_do_not_affect_the_scale():
    assert (
        scale_start([IntervalRow("x", math.nan, 0.0, 1.0), IntervalRow("y", 1.0, 0.96, 1.0)])
        == 0.95
    )
    assert "no images" in draw_interval(IntervalRow("x", math.nan, 0.0, 1.0))


def test_interval_drawing():
    # x = 6 + 108 (value - start) / (1 - start)
    assert draw_interval(IntervalRow("x", 0.75, 0.5, 1.0), 0.5) == (
        '<svg class="interval" viewBox="0 0 120 16" width="120" height="16" role="img" '
        'aria-label="75.0%, between 50.0% and 100%">'
        '<line class="track" x1="6" x2="114" y1="8" y2="8"/>'
        '<line class="range" x1="6.0" x2="114.0" y1="8" y2="8"/>'
        '<circle class="dot" cx="60.0" cy="8" r="4"/></svg>'
    )
    assert 'aria-label="75.0%"' in draw_interval(IntervalRow("x", 0.75, 0.75, 0.75))


def test_consecutive_stages():
    table = time_table({"read": 1.0, "fit": 2.0, "total": 4.0})
    assert table == [
        Stage("read", 1.0, 0.0, 0.25),
        Stage("fit", 2.0, 0.25, 0.5),
        Stage("other", 1.0, 0.75, 0.25),
    ]
    assert 'x="50.0" width="100.0"' in draw_stage(table[1])


def test_overlapping_stages_start_at_zero():
    table = time_table({"read": 3.0, "features": 4.0, "total": 5.0})
    assert [(row.start, row.fraction) for row in table] == [(0.0, 0.6), (0.0, 0.8)]


def test_stages_without_a_total_or_without_time():
    assert [row.fraction for row in time_table({"a": 1.0, "b": 3.0})] == [0.25, 0.75]
    assert [row.fraction for row in time_table({"a": 0.0})] == [0.0]
    assert time_table({}) == []
    assert time_table({"total": 3.0}) == [Stage("other", 3.0, 0.0, 1.0)]
