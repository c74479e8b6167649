from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.cli.terminal import progress
from kindsight.cli.terminal.live import JsonEpochs, watching_training
from kindsight.cli.terminal.progress import (
    BarProgress,
    JsonProgress,
    LineProgress,
    clock_time,
    counting,
    progress_text,
    watching,
)
from kindsight.training.engine.history import EpochRow


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines():
    written: list[str] = []
    clock = Clock()
    return written, clock, LineProgress(written.append, clock)


def test_a_line_when_a_stage_begins_and_then_every_ten_seconds_at_most(lines):
    written, clock, tell = lines
    tell("backbone", 0, 0)
    for second in range(1, 26):
        clock.now = 100.0 + second
        tell("images", 10 * second, 1000)
    # started at 1 s with 10; reported at 11 s (100 more in 10 s: 10/s, 890 left) and at 21 s
    assert written == [
        "Building backbone",
        "Decoding images: 10 of 1,000",
        "Decoding images: 110 of 1,000 (10/s, 1:29 left)",
        "Decoding images: 210 of 1,000 (10/s, 1:19 left)",
    ]


def test_the_end_of_a_stage_writes_no_line(lines):
    written, clock, tell = lines
    tell("images", 0, 5)
    clock.now += 60
    tell("images", 5, 5)
    assert written == ["Decoding images: 0 of 5"]


def test_a_stage_that_does_not_advance_repeats_no_line(lines):
    written, clock, tell = lines
    for _ in range(4):
        tell("rates", 0, 90)
        tell("backbone", 0, 0)
        clock.now += 60
    tell("rates", 30, 90)
    assert written == [
        "Trying learning rates: 0 of 90",
        "Building backbone",
        "Trying learning rates: 30 of 90 (0.1/s, 8:00 left)",  # 30 in 240 s
    ]


def test_the_first_results_of_starting_workers_are_no_speed(lines):
    written, clock, tell = lines
    tell("features", 0, 800)
    for seconds, done in ((25, 1), (10, 81)):
        clock.now += seconds
        tell("features", done, 800)
    assert written == [
        "Computing features: 0 of 800",
        "Computing features: 1 of 800",
        "Computing features: 81 of 800 (2.3/s, 5:11 left)",  # 81 in 35 s
    ]


def test_a_stage_without_a_name_of_its_own_is_called_as_it_is(lines):
    written, _, tell = lines
    tell("odd\x1bstage", 0, 0)
    assert written == ["odd\\x1bstage"]


@pytest.mark.parametrize(
    ("news", "text"),
    [
        ((50, 100, 50, 10.0), "50 of 100 (5.0/s, 0:10 left)"),
        ((1500, 0, 1500, 10.0), "1,500 (150/s)"),
        ((0, 100, 0, 10.0), "0 of 100"),
        ((90, 100, 0, 0.0), "90 of 100"),
    ],
)
def test_progress_text(news, text):
    assert progress_text(*news) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (7.4, "0:07"), (59.6, "1:00"), (3661, "1:01:01")]
)
def test_time_as_a_clock_has_it(seconds, text):
    assert clock_time(seconds) == text


def test_a_stage_that_is_repeated_has_no_negative_speed(lines):
    # With a budget: 900 cached images, then another pass over 1,000 that are not.
    written, clock, tell = lines
    tell("features", 900, 1000)
    clock.now += 10
    tell("features", 1000, 1000)
    tell("features", 0, 1000)
    clock.now += 10
    tell("features", 50, 1000)
    clock.now += 10
    tell("features", 30, 60)  # a third one, over fewer images
    clock.now += 10
    tell("features", 40, 60)
    assert written == [
        "Computing features: 900 of 1,000",
        "Computing features: 0 of 1,000",
        "Computing features: 50 of 1,000 (5.0/s, 3:10 left)",
        "Computing features: 30 of 60",
        "Computing features: 40 of 60 (1.0/s, 0:20 left)",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["images", "features"]),
            st.integers(0, 50),
            st.integers(0, 40),
            st.integers(0, 30),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_order_of_progress_gives_negative_numbers(news):
    from rich.console import Console

    written, clock = [], Clock()
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    bars = progress.make_bars(console)
    tell, draw = LineProgress(written.append, clock), BarProgress(bars)
    for stage, done, total, seconds in news:
        clock.now += seconds
        tell(stage, done, total)
        draw(stage, done, total)
        written.extend(progress._numbers(task) for task in bars.tasks)
    assert not [line for line in written if "-" in line]


def test_a_bar_that_is_repeated_begins_anew(bars):
    tell = BarProgress(bars)
    tell("features", 90, 100)
    tell("features", 100, 100)
    tell("features", 5, 100)
    (task,) = bars.tasks
    assert task.completed == 5 and not task.finished and not task.speed


@pytest.fixture
def bars():
    from rich.console import Console
    from rich.progress import Progress

    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    return Progress(console=console, auto_refresh=False)


def test_a_stage_of_unknown_length_ends_where_the_next_begins(bars):
    tell = BarProgress(bars)
    tell("backbone", 0, 0)
    assert not bars.tasks[0].finished
    tell("images", 3, 10)
    assert [task.finished for task in bars.tasks] == [True, False]
    assert (bars.tasks[1].completed, bars.tasks[1].total) == (3, 10)
    tell("images", 10, 10)
    tell("head", 0, 0)
    tell.close()
    assert all(task.finished for task in bars.tasks)


def test_a_stage_of_known_length_is_not_ended_by_another(bars):
    tell = BarProgress(bars)
    tell("images", 3, 10)
    tell("backbone", 0, 0)
    assert not bars.tasks[0].finished


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bars_keep_to_one_line_each(width):
    from rich.console import Console

    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with progress.make_bars(console) as bars:
        tell = BarProgress(bars)
        tell("backbone", 0, 0)
        tell("images", 0, 100_000)
        tell("images", 12_345, 100_000)
        shown = bars.get_renderable()
        text = Console(file=io.StringIO(), width=width).render_lines(shown)
    assert len(text) == 2


def test_quiet_and_quick_commands_show_nothing(capsys):
    with progress.watching(True) as tell:
        tell("images", 0, 10)
    with counting(False) as tell:
        tell("predict", 1, 0)
    assert capsys.readouterr().err == ""


def test_a_slow_prediction_is_shown_after_a_while(monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    with counting(False) as tell:
        tell("predict", 1, 0)
        clock.now += 5
        tell("predict", 900, 0)
    assert capsys.readouterr().err == "Predicting\n"


def test_every_stage_that_a_training_names_has_words():
    for stage in ("backbone", "images", "head", "check", "report", "demo", "evaluate", "predict"):
        assert progress.STAGES[stage] != stage


def test_lines_of_json_at_the_ends_of_a_stage_and_four_times_a_second():
    written: list[str] = []
    clock = Clock()
    show = JsonProgress(written.append, clock)
    show("backbone", 0, 0)
    for done in range(101):
        clock.now = 100.0 + done / 100
        show("images", done, 100)
    show("images", 100, 100)
    found = [json.loads(line) for line in written]
    assert found[0] == {"stage": "backbone", "title": "Building backbone", "done": 0, "total": 0}
    assert [line["done"] for line in found[1:]] == [0, 25, 50, 75, 100]
    assert {line["title"] for line in found[1:]} == {"Decoding images"}


def test_every_epoch_is_a_line_of_json():
    written: list[str] = []
    lines = JsonEpochs(JsonProgress(written.append, Clock()))
    lines.on_start(2, 1)
    lines.on_epoch(EpochRow(1, "all", 0.5, 0.1, 0.7, 0.5, 0.6, 0.75))
    lines.on_step("all", 2, 1, 4, 0.5, 0.5, 100.0)
    lines.on_epoch(EpochRow(2, "all", 0.5, 0.1, float("nan"), 0.5, 0.6, 0.75))
    first, step, second = map(json.loads, written)
    assert first["epoch"]["epoch"] == 1
    assert first["epoch"]["val_accuracy"] == 0.75
    assert step == {"stage": "epoch", "title": "all: epoch 2 of 2", "done": 1, "total": 4}
    assert second["epoch"]["loss"] is None


def test_the_environment_asks_for_json(monkeypatch, capsys):
    monkeypatch.setenv("KINDSIGHT_PROGRESS", "json")
    with watching(False) as show:
        show("images", 0, 5)
    with watching_training(False) as watch:
        watch.progress("head", 0, 0)
    with watching(True) as show:
        show("images", 0, 5)
    errors = capsys.readouterr().err.splitlines()
    assert [json.loads(line)["stage"] for line in errors] == ["images", "head"]
