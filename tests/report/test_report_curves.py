"""The curves of a training: axes and tables by hand, drawings where the numbers say."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from typing import NamedTuple

import pytest
import test_report_style
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from kindsight.report import curves as svgfile
from kindsight.report.axes import decimals, linear_axis, log_axis, thinned, whole_axis
from kindsight.report.curves import draw_curve, draw_rate
from kindsight.report.epochs import Point, Rate, Span, curve_table, phase_table, rate_table
from kindsight.report.page import sentences


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
    # one value gets room all the same, and a share no more than 100%
    assert linear_axis(1.0, 1.0, 0, 1, ceiling=1.0).ticks == (0.8, 1.0)
    assert linear_axis(0.0, 0.0, 0, 1).ticks[0] == 0.0


def test_places_are_in_proportion_and_stay_on_the_axis():
    axis = linear_axis(0.0, 1.0, 100.0, 0.0)
    assert [axis.place(v) for v in (0.0, 0.25, 1.0, 2.0, -1.0)] == [100.0, 75.0, 0.0, 0.0, 100.0]
    across = log_axis(1e-4, 1.0, 0.0, 40.0)
    assert [across.place(v) for v in (1e-4, 1e-3, 1.0)] == pytest.approx([0.0, 10.0, 40.0])
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
def test_epochs_are_whole_and_their_labels_apart(low, high, ticks):
    assert whole_axis(low, high, 0, 1).ticks == ticks


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_any_axis_holds_its_values(one, other):
    low, high = sorted((one, other))
    axis = linear_axis(low, high, 0.0, 1.0)
    assert axis.low <= low * (1 + 1e-6) + 1e-12
    assert axis.high >= high * (1 - 1e-6)
    assert 2 <= len(axis.ticks) <= 8
    assert 0 <= axis.place(low) <= axis.place(high) <= 1


def test_decimals_and_thinning():
    assert decimals((0.0, 0.25, 0.5)) == 2
    assert decimals((0.6, 0.7), 100) == 0
    assert decimals((0.95, 0.975), 100) == 1
    assert thinned(list(range(5)), 5, lambda item: False) == [0, 1, 2, 3, 4]
    # three evenly, and the one that must be there
    assert thinned(list(range(101)), 4, lambda item: item == 30) == [0, 30, 50, 100]
    assert len(thinned(list(range(9999)), 300, lambda item: item == 77)) == 300


ROWS = [
    Row(1, 0.75, 0.5, 0.7, 0.6, "head"),
    Row(2, 0.5, 0.75, 0.6, 0.8, "head"),
    Row(3, 0.25, 1.0, 0.65, 0.7, "all"),
]


def test_tables_are_the_numbers():
    assert curve_table(ROWS, 2, "accuracy") == [
        Point(1, 0, 0.5, 0.6, False),
        Point(2, 0, 0.75, 0.8, True),
        Point(3, 1, 1.0, 0.7, False),
    ]
    assert curve_table(ROWS, None, "loss")[2] == Point(3, 1, 0.25, 0.65, False)
    assert phase_table(ROWS) == [Span("head", 1, 2), Span("all", 3, 3)]
    assert rate_table([1e-3, 1e-2, 1e-1], [0.7, math.nan, 0.5], 0.05) == [
        Rate(1e-3, 0.7, False),
        Rate(1e-1, 0.5, True),
    ]


def test_a_long_history_is_drawn_in_three_hundred_points():
    rows = [Row(i, 0.5, 0.5, 0.5, 0.5) for i in range(1, 5001)]
    table = curve_table(rows, 1234, "loss")
    assert len(table) == 300
    assert (table[0].epoch, table[-1].epoch) == (1, 5000)
    assert [point.epoch for point in table if point.best] == [1234]
    assert len(draw_curve(table, "loss")) < 60_000


def test_the_drawing_stands_where_the_numbers_say():
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
        'aria-label="Accuracy by epoch: training and validation; 70.0% at the last epoch, 3; '
        '80.0% at the best, 2"'
    ) in drawn


def test_without_validation_the_training_line_is_the_strong_one():
    drawn = draw_curve(curve_table([Row(1, 0.5, 0.5), Row(2, 0.0, 1.0)], 2, "loss"), "loss")
    # loss from 0 at y = 250 to 0.5 at y = 36
    assert '<path class="validation line" d="M50.0 36.0L346.0 250.0"/>' in drawn
    assert "validation</text>" not in drawn
    assert ">training</text>" in drawn


def test_a_line_breaks_where_there_is_no_number():
    rows = [Row(1, 0.5, 0.5), Row(2, math.nan, 0.5), Row(3, 0.25, 0.5), Row(4, math.inf, 0.5)]
    drawn = draw_curve(curve_table(rows, None, "loss"), "loss")
    (path,) = re.findall(r'class="validation line" d="(M5[^"]*)"', drawn)
    assert path.count("M") == 2
    assert "NaN" not in path and "nan" not in path and "inf" not in path
    only = draw_curve(curve_table([Row(1, math.nan, 0.5)], 1, "loss"), "loss")
    assert "ring" not in only


def test_a_diverged_start_does_not_flatten_the_rest():
    rows = [Row(1, 1e6, 0.5), Row(2, 0.4, 0.5), Row(3, 0.3, 0.5)]
    drawn = draw_curve(curve_table(rows, 3, "loss"), "loss")
    # eight times the middle value of 0.4 is 3.2; the scale ends at 4
    assert ">4</text>" in drawn
    assert 'd="M50.0 36.0L' in drawn


def test_losses_next_to_nothing_keep_a_scale_that_can_be_read():
    drawn = draw_curve(curve_table([Row(1, 0.0, 1.0), Row(2, 1e-300, 1.0)], 1, "loss"), "loss")
    assert ">0.0010</text>" in drawn
    assert 'd="M50.0 250.0L346.0 250.0"' in drawn
    drawn = draw_curve(curve_table([Row(1, 1.7e308, 1.0), Row(2, 1e308, 1.0)], 1, "loss"), "loss")
    assert ">1e+300</text>" in drawn
    assert "nan" not in drawn and "inf" not in drawn


def test_learning_rates_are_drawn_by_their_powers():
    drawn = draw_rate([Rate(1e-4, 1.0, False), Rate(1e-3, 0.5, True), Rate(1e-2, 0.0, False)])
    assert '<path class="validation line" d="M50.0 36.0L198.0 143.0L346.0 250.0"/>' in drawn
    assert '<circle class="ring" cx="198.0" cy="143.0" r="5"/>' in drawn
    assert "suggested: 0.001</text>" in drawn
    assert "suggested" not in draw_rate([Rate(1e-4, 1.0, False), Rate(1e-3, 0.5, False)])


@pytest.mark.parametrize(
    ("rows", "best", "parts"),
    [
        (
            ROWS,
            2,
            ["The best of 3 epochs was epoch 2: 80.0% of the validation images right"],
        ),
        (
            [Row(1, 0.6, 0.7, 0.5, 0.8), Row(2, 0.2, 0.9, 0.6, 0.8), Row(3, 0.1, 0.9, 0.7, 0.8)],
            1,
            ["best of 3 epochs", "After epoch 1 the validation loss rose, from 0.500 to 0.700"],
        ),
        # one epoch that is worse may be chance, and so may a hundredth of a nat
        (
            [Row(1, 0.6, 0.7, 0.5, 0.8), Row(2, 0.2, 0.9, 0.4, 0.7), Row(3, 0.1, 0.9, 0.7, 0.8)],
            1,
            ["best of 3 epochs"],
        ),
        (
            [Row(1, 0.3, 0.9, 0.01, 1.0), Row(2, 0.2, 0.9, 0.019, 1.0), Row(3, 0.1, 1, 0.019, 1.0)],
            1,
            ["best of 3 epochs"],
        ),
        # the training loss rose as well: that is something else
        (
            [Row(1, 0.6, 0.7, 0.5, 0.8), Row(2, 0.7, 0.7, 0.7, 0.7), Row(3, 0.8, 0.6, 0.8, 0.6)],
            1,
            ["best of 3 epochs"],
        ),
        (
            [Row(1, 0.6, 0.7, 0.5, 0.8), Row(2, 0.5, 0.9, 0.4, 0.9)],
            2,
            ["best of 2 epochs", "still getting better"],
        ),
        ([Row(1, 0.6, 0.7, 0.5, 0.8)], 1, ["After one epoch: 80.0% of the validation"]),
        ([Row(1, 0.6, 0.7)], 1, ["After one epoch, by the training loss: 70.0%", "by heart"]),
        ([Row(1, math.nan, 0.5, math.nan, 0.5)], 1, ["After one epoch", "it diverged"]),
        (
            [
                Row(1, 0.6, 0.7, 0.5, 0.8),
                Row(2, 0.5, 0.7, math.inf, 0.7),
                Row(3, 0.5, 0.7, math.nan, 0.7),
            ],
            1,
            ["best of 3 epochs", "rose, from 0.500 to nan"],
        ),
        ([Row(1, 0.6, 0.7, 0.5, 0.8)], None, ["The training took 1 epoch."]),
    ],
)
def test_sentences_say_how_it_went(rows, best, parts):
    said = sentences(rows, best, 4)
    assert len(said) == len(parts)
    for sentence, part in zip(said, parts, strict=True):
        assert part in sentence


def test_a_network_that_learned_nothing_is_told():
    # guessing one of two has a loss of ln 2 = 0.693, of three ln 3 = 1.099
    rows = [Row(1, 0.7, 0.5, 0.69, 0.5), Row(2, 0.69, 0.5, 0.68, 0.6)]
    assert "the loss is still that of guessing, 0.693" in sentences(rows, 2, 2)[1]
    assert "still getting better" in sentences(rows, 2, 3)[1]
    assert "that of guessing, 1.099" in sentences([Row(1, 1.09, 0.3)], 1, 3)[1]


def test_the_file_is_a_document_of_its_own():
    drawing = draw_curve(curve_table(ROWS, 2, "loss"), "loss")
    text = svgfile.svg_file([drawing, drawing], "<script>\x00 & \u202e")
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.find("{*}title").text == "<script>\ufffd & \ufffd"
    inner = root.findall("{*}svg")
    assert [float(part.get("x")) for part in inner] == [10.0, 394.0]
    assert {part.tag.split("}")[1] for part in root.iter()} <= {
        "svg", "title", "style", "rect", "line", "path", "circle", "text", "g"
    }  # fmt: skip
    assert "url(" not in text and "href" not in text and "@import" not in text
    assert svgfile.LIGHT["right"] in text and svgfile.DARK["right"] in text


def test_the_file_has_the_colours_of_the_page():
    palettes = test_report_style.palettes()
    for theme, colours in (("light", svgfile.LIGHT), ("dark", svgfile.DARK)):
        assert colours == {name: palettes[theme][name] for name in colours}


def test_drawings_are_safe_for_the_page():
    assert isinstance(draw_curve(curve_table(ROWS, 2, "loss"), "loss"), Markup)
