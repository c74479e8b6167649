"""Training curves: axes, tables and drawings against values computed by hand."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import pytest
import test_report_style
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from kindsight.report.drawing.charts import decimals, linear_axis, log_axis, thinned, whole_axis
from kindsight.report.drawing.curves import (
    DARK,
    LIGHT,
    Phase,
    Point,
    Rate,
    curve_table,
    draw_curve,
    draw_rate,
    phase_table,
    rate_table,
    svg_file,
)


class Row(NamedTuple):
    epoch: int
    loss: float
    accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None
    phase: str = "train"
    seconds: float = 1.0
    learning_rate: float = 1e-3


def test_linear_axis_ends_at_round_values():
    assert linear_axis(0.62, 1.0, 0, 1, ceiling=1.0).ticks == (0.6, 0.7, 0.8, 0.9, 1.0)
    assert linear_axis(0.0, 0.66, 0, 1).ticks == (0.0, 0.2, 0.4, 0.6, 0.8)
    assert linear_axis(0.0, 37.0, 0, 1).ticks == (0.0, 10.0, 20.0, 30.0, 40.0)
    # a single value gets a span, and a fraction no more than 100%
    assert linear_axis(1.0, 1.0, 0, 1, ceiling=1.0).ticks == (0.8, 1.0)
    assert linear_axis(0.0, 0.0, 0, 1).ticks[0] == 0.0


def test_coordinates_are_proportional_and_clipped():
    axis = linear_axis(0.0, 1.0, 100.0, 0.0)
    assert [axis.coordinate(v) for v in (0.0, 0.25, 1.0, 2.0, -1.0)] == [
        100.0,
        75.0,
        0.0,
        0.0,
        100.0,
    ]
    across = log_axis(1e-4, 1.0, 0.0, 40.0)
    assert [across.coordinate(v) for v in (1e-4, 1e-3, 1.0)] == pytest.approx([0.0, 10.0, 40.0])
    assert across.ticks == pytest.approx((1e-4, 1e-3, 1e-2, 1e-1, 1.0))


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (1, 1, (1,)),
        (1, 2, (1, 2)),
        (1, 5, (1, 2, 3, 4, 5)),
        (1, 15, (1, 4, 6, 8, 10, 12, 15)),
        (1, 30, (1, 5, 10, 15, 20, 25, 30)),
        (1, 1000, (1, 200, 400, 600, 800, 1000)),
    ],
)
def test_whole_axis_ticks(low, high, ticks):
    assert whole_axis(low, high, 0, 1).ticks == ticks


@settings(max_examples=30)
@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_linear_axis_contains_its_values(one, other):
    low, high = sorted((one, other))
    axis = linear_axis(low, high, 0.0, 1.0)
    assert axis.low <= low * (1 + 1e-6) + 1e-12
    assert axis.high >= high * (1 - 1e-6)
    assert 2 <= len(axis.ticks) <= 8
    assert 0 <= axis.coordinate(low) <= axis.coordinate(high) <= 1


def test_decimals_and_thinning():
    assert decimals((0.0, 0.25, 0.5)) == 2
    assert decimals((0.6, 0.7), 100) == 0
    assert decimals((0.95, 0.975), 100) == 1
    assert thinned(list(range(5)), 5, lambda item: False) == [0, 1, 2, 3, 4]
    # three evenly spaced, and the required one
    assert thinned(list(range(101)), 4, lambda item: item == 30) == [0, 30, 50, 100]
    assert len(thinned(list(range(9999)), 300, lambda item: item == 77)) == 300


ROWS = [
    Row(1, 0.75, 0.5, 0.7, 0.6, "head"),
    Row(2, 0.5, 0.75, 0.6, 0.8, "head"),
    Row(3, 0.25, 1.0, 0.65, 0.7, "all"),
]


def test_tables():
    assert curve_table(ROWS, 2, "accuracy") == [
        Point(1, 0, 0.5, 0.6, False),
        Point(2, 0, 0.75, 0.8, True),
        Point(3, 1, 1.0, 0.7, False),
    ]
    assert curve_table(ROWS, None, "loss")[2] == Point(3, 1, 0.25, 0.65, False)
    assert phase_table(ROWS) == [Phase("head", 1, 2), Phase("all", 3, 3)]
    assert rate_table([1e-3, 1e-2, 1e-1], [0.7, math.nan, 0.5], 0.05) == [
        Rate(1e-3, 0.7, False),
        Rate(1e-1, 0.5, True),
    ]


def test_long_history_is_thinned_to_300_points():
    rows = [Row(i, 0.5, 0.5, 0.5, 0.5) for i in range(1, 5001)]
    table = curve_table(rows, 1234, "loss")
    assert len(table) == 300
    assert (table[0].epoch, table[-1].epoch) == (1, 5000)
    assert [point.epoch for point in table if point.best] == [1234]
    assert len(draw_curve(table, "loss")) < 60_000


def test_drawing_coordinates():
    drawn = draw_curve(curve_table(ROWS, 2, "accuracy"), "accuracy")
    # epochs 1, 2, 3 at x = 50, 198, 346; accuracy from 50% at y = 250 to 100% at y = 36
    assert '<path class="training line" d="M50.0 250.0L198.0 143.0L346.0 36.0"/>' in drawn
    assert '<path class="validation line" d="M50.0 207.2L198.0 121.6L346.0 164.4"/>' in drawn
    assert '<circle class="ring" cx="198.0" cy="121.6" r="5"/>' in drawn
    assert '<line class="best" x1="198.0" x2="198.0" y1="36" y2="250"/>' in drawn
    assert "best: 2</text>" in drawn
    # the phase begins between epochs 2 and 3, at x = 272
    assert '<rect class="band" x="272.0" y="36" width="74.0" height="214"/>' in drawn
    assert ">50%</text>" in drawn and ">100%</text>" in drawn
    assert "<g><title>epoch 2: training 75.0%, validation 80.0%</title>" in drawn
    assert "head" not in drawn
    assert (
        'aria-label="Accuracy by epoch: training and validation; 70.0% in the last epoch (3); '
        '80.0% in the best (2)"'
    ) in drawn


def test_without_validation_the_training_line_has_the_strong_style():
    drawn = draw_curve(curve_table([Row(1, 0.5, 0.5), Row(2, 0.0, 1.0)], 2, "loss"), "loss")
    # loss from 0 at y = 250 to 0.5 at y = 36
    assert '<path class="validation line" d="M50.0 36.0L346.0 250.0"/>' in drawn
    assert "validation</text>" not in drawn
    assert ">training</text>" in drawn


def test_line_is_interrupted_at_values_that_are_not_finite():
    rows = [Row(1, 0.5, 0.5), Row(2, math.nan, 0.5), Row(3, 0.25, 0.5), Row(4, math.inf, 0.5)]
    drawn = draw_curve(curve_table(rows, None, "loss"), "loss")
    (path,) = re.findall(r'class="validation line" d="(M5[^"]*)"', drawn)
    assert path.count("M") == 2
    assert "NaN" not in path and "nan" not in path and "inf" not in path
    only = draw_curve(curve_table([Row(1, math.nan, 0.5)], 1, "loss"), "loss")
    assert only.count("ring") == 1  # that of the legend


def test_a_diverged_start_does_not_flatten_the_rest():
    rows = [Row(1, 1e6, 0.5), Row(2, 0.4, 0.5), Row(3, 0.3, 0.5)]
    drawn = draw_curve(curve_table(rows, 3, "loss"), "loss")
    # eight times the middle value of 0.4 is 3.2; the scale ends at 4
    assert ">4</text>" in drawn
    assert 'd="M50.0 36.0L' in drawn
    # What is cut has an arrow at the top, and its value above the plot.
    assert '<path class="cut" d="M50.0 36l-4.5 8h9z"/>' in drawn
    assert cut_labels(drawn) == ["1e+06"]


def cut_labels(drawn):
    return re.findall(r'class="middle cut"[^>]*>([^<]*)<', drawn)


def test_every_value_above_the_axis_is_marked():
    losses = [0.4, 0.5, 45.25, 0.4, 0.3, math.inf, 0.3, 0.3, math.nan]
    rows = [Row(k, 0.3, 0.5, loss, 0.5) for k, loss in enumerate(losses, 1)]
    drawn = draw_curve(curve_table(rows, 5, "loss"), "loss")
    # epochs 3 and 6 of 1 to 9, from x = 50 to 346
    assert [found[:5] for found in re.findall(r'class="cut" d="M([^"]*)"', drawn)] == [
        "235.0", "124.0"
    ]  # fmt: skip
    assert sorted(cut_labels(drawn)) == ["45.2", "NaN", "infinite"]
    calm = draw_curve(curve_table(ROWS, 2, "loss"), "loss")
    assert "cut" not in calm and "cut" not in draw_curve(
        curve_table(rows, 5, "accuracy"), "accuracy"
    )
    rates = draw_rate(
        [Rate(10.0**-k, 0.5, False) for k in range(6, 1, -1)] + [Rate(0.1, 99.0, False)]
    )
    assert cut_labels(rates) == ["99"]


def test_long_labels_do_not_overlap():
    # 17 epochs are 18.5 apart; labels of eight characters are 56 wide, those of nine 63.
    for number in (1.25e10, 1.25e200):
        losses = [0.5] * 17
        losses[4] = losses[7] = number
        losses[11] = losses[14] = number
        rows = [Row(k, 0.3, 0.5, loss, 0.5) for k, loss in enumerate(losses, 1)]
        drawn = draw_curve(curve_table(rows, 1, "loss"), "loss")
        labels = re.findall(r'<text class="middle cut" x="([\d.]+)" y="32">([^<]*)<', drawn)
        ends = sorted(
            (float(x) - 3.5 * len(text), float(x) + 3.5 * len(text)) for x, text in labels
        )
        assert len(ends) >= 2
        assert all(one[1] <= two[0] for one, two in itertools.pairwise(ends))


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 3), st.one_of(st.floats(0, 3), st.floats(3, 1e30), st.just(math.nan))
        ),
        min_size=1,
        max_size=60,
    ),
    st.integers(1, 60),
)
def test_labels_overlap_neither_curve_nor_each_other(losses, best):
    rows = [Row(k, a, 0.5, b, 0.5) for k, (a, b) in enumerate(losses, 1)]
    drawn = draw_curve(curve_table(rows, min(best, len(rows)), "loss"), "loss")
    boxes = []
    for kind, x, y, text in re.findall(
        r'<text(?: class="([^"]*)")? x="([\d.]+)" y="([\d.]+)"(?: class="[^"]*")?>([^<]*)<', drawn
    ):
        if kind == "middle cut" or (kind or "").split()[:1] in (["note"], ["title"]):
            wide = 7.0 * len(text)
            left = float(x) - (wide / 2 if kind == "middle cut" else 0)
            boxes.append((left, left + wide, float(y) - 9, float(y) + 2, text))
    assert any(text.startswith("best: ") for *_, text in boxes)
    for number, (left, right, top, bottom, text) in enumerate(boxes):
        assert bottom <= 36, text  # above the plot, where no curve is
        assert left >= 0 and right <= 360.5
        for other in boxes[:number]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top


def test_tiny_and_huge_losses_have_a_readable_scale():
    drawn = draw_curve(curve_table([Row(1, 0.0, 1.0), Row(2, 1e-300, 1.0)], 1, "loss"), "loss")
    assert ">0.0010</text>" in drawn
    assert 'd="M50.0 250.0L346.0 250.0"' in drawn
    drawn = draw_curve(curve_table([Row(1, 1.7e308, 1.0), Row(2, 1e308, 1.0)], 1, "loss"), "loss")
    assert ">1e+300</text>" in drawn
    assert "nan" not in drawn and "inf" not in drawn


def test_learning_rates_are_drawn_on_a_log_axis():
    drawn = draw_rate([Rate(1e-4, 1.0, False), Rate(1e-3, 0.5, True), Rate(1e-2, 0.0, False)])
    assert '<path class="validation line" d="M50.0 36.0L198.0 143.0L346.0 250.0"/>' in drawn
    assert '<circle class="ring" cx="198.0" cy="143.0" r="5"/>' in drawn
    assert "suggested: 0.001</text>" in drawn
    assert "suggested" not in draw_rate([Rate(1e-4, 1.0, False), Rate(1e-3, 0.5, False)])


def test_svg_file_is_self_contained():
    drawing = draw_curve(curve_table(ROWS, 2, "loss"), "loss")
    text = svg_file([drawing, drawing], "<script>\x00 & \u202e")
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{*}title").text == "<script>\ufffd & \ufffd"
    inner = root.findall("{*}svg")
    assert [float(svg.get("x")) for svg in inner] == [10.0, 394.0]
    assert {element.tag.split("}")[1] for element in root.iter()} <= {
        "svg", "title", "style", "rect", "line", "path", "circle", "text", "g"
    }  # fmt: skip
    assert "url(" not in text and "href" not in text and "@import" not in text
    assert LIGHT["right"] in text and DARK["right"] in text


def test_svg_file_has_the_colours_of_the_style_sheet():
    palettes = test_report_style.palettes()
    for theme, colours in (("light", LIGHT), ("dark", DARK)):
        assert colours == {name: palettes[theme][name] for name in colours}


def test_drawings_are_markup():
    assert isinstance(draw_curve(curve_table(ROWS, 2, "loss"), "loss"), Markup)
