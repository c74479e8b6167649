"""The display of a training: its numbers, at several widths, and lines for pipes."""

from __future__ import annotations

import io
import signal

import pytest

from kindsight.cli.terminal import command as interrupts
from kindsight.cli.terminal import live
from kindsight.cli.terminal.epoch_table import EpochLines, TrainingState
from kindsight.cli.terminal.live import Screen, watching_training
from kindsight.cli.terminal.progress import make_bars
from kindsight.training.engine.history import EpochRow


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def row(epoch: int, val_accuracy: float | None = 0.8, phase="train", seconds=10.0) -> EpochRow:
    val_loss = None if val_accuracy is None else 0.5
    return EpochRow(epoch, phase, seconds, 1e-3, 0.4321, 0.75, val_loss, val_accuracy)


def step(state: TrainingState, epoch: int, done: int, phase="train") -> None:
    state.on_step(phase, epoch, done, 100, 0.6, 0.7, 812.4)


@pytest.fixture
def clocked():
    clock = Clock()
    return clock, TrainingState(clock)


def test_time_left_goes_by_the_latest_epochs_of_the_phase(clocked):
    clock, state = clocked
    assert state.seconds_left() is None
    state.on_start(10, 0)
    clock.now += 5
    assert state.seconds_left() is None
    step(state, 1, 25)
    # 5 s for a quarter: 20 s an epoch, 10 epochs, 5 s of them are over
    assert state.seconds_left() == pytest.approx(195)
    for epoch, seconds in enumerate((40.0, 10.0, 20.0, 30.0), 1):
        state.on_epoch(row(epoch, seconds=seconds))
    # the last three took 20 s on average; six are left
    assert state.seconds_left() == pytest.approx(120)
    clock.now += 7
    assert state.seconds_left() == pytest.approx(113)
    # another phase has another speed: 7 s for a tenth
    step(state, 5, 10, "all")
    assert state.seconds_left() == pytest.approx(6 * 70 - 7)


def test_a_continued_training_knows_its_speed_at_once(clocked):
    _, state = clocked
    state.on_start(4, 2)
    for epoch in (1, 2):
        state.on_epoch(row(epoch, 0.9 - epoch / 10))
        assert state.replaying
    assert state.seconds_left() == 20
    assert state.best_epoch == 1
    state.on_monitor("loss")
    state.on_epoch(row(3))
    assert not state.replaying


def test_a_line_an_epoch():
    written: list[str] = []
    clock = Clock()
    lines = EpochLines(written.append, clock)
    lines.on_start(4, 1)
    lines.on_epoch(row(1))
    step(lines, 2, 50)
    lines.on_epoch(row(2, 0.7))
    lines.on_epoch(row(3, 0.9, phase="odd\u2028phase"[:3]))
    lines.on_epoch(row(4, 0.9))
    assert written == [
        "Training: 1 of 4 epochs were trained before",
        "train: epoch 2 of 4: loss 0.4321, accuracy 75.0%; validation loss 0.5000, accuracy 70.0% "
        "(10.0 s, 0:20 left)",
        "odd: epoch 3 of 4: loss 0.4321, accuracy 75.0%; validation loss 0.5000, accuracy 90.0%, "
        "best so far (10.0 s, 0:10 left)",
        "train: epoch 4 of 4: loss 0.4321, accuracy 75.0%; validation loss 0.5000, accuracy 90.0% "
        "(10.0 s)",
    ]


def test_lines_without_validation():
    written: list[str] = []
    lines = EpochLines(written.append, Clock())
    lines.on_start(1, 0)
    lines.on_epoch(row(1, None))
    assert written == ["train: epoch 1 of 1: loss 0.4321, accuracy 75.0% (10.0 s)"]


def shown(screen: Screen, width: int, height: int = 24, encoding: str = "utf-8") -> list[str]:
    from rich.console import Console

    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    console = Console(file=stream, width=width, height=height, force_terminal=True,
                      color_system=None)  # fmt: skip
    lines = console.render_lines(screen, pad=False)
    return ["".join(segment.text for segment in line).rstrip() for line in lines]


@pytest.fixture
def screen():
    from rich.console import Console

    return Screen(make_bars(Console(file=io.StringIO(), width=80)), Clock())


def test_before_the_training_there_are_only_the_bars(screen):
    assert shown(screen, 80) == []
    screen.progress("images", 5, 10)
    (line,) = shown(screen, 80)
    assert "Decoding images" in line


def test_a_training_under_way(screen):
    screen.progress("files", 0, 0)
    screen.on_start(12, 0)
    assert "training, epoch 1 of 12" in shown(screen, 80)[1]
    for epoch in range(1, 11):
        screen.on_epoch(row(epoch, 0.5 + epoch / 40))
    step(screen, 11, 25)
    lines = shown(screen, 80)
    assert lines[0].startswith("\u2713 Writing files")
    assert lines[1].startswith("train, epoch 11 of 12 \u2501")
    assert lines[1].endswith("25 of 100  812 images/s  0:20 left")
    assert lines[2].split() == ["epoch", "loss", "accuracy", "val", "loss", "val", "accuracy",
                                "time"]  # fmt: skip
    assert [line.split()[0] for line in lines[3:12]] == [str(k) for k in range(3, 12)]
    assert lines[10].split() == ["10", "0.4321", "75.0%", "0.5000", "75.0%", "10.0", "s", "best"]
    assert lines[11].split() == ["11", "0.6000", "70.0%"]
    assert lines[12:] == ["best validation accuracy 75.0% in epoch 10"]


@pytest.mark.parametrize(("width", "height"), [(40, 16), (50, 24), (80, 24), (200, 60)])
def test_nothing_is_wider_or_higher_than_the_terminal(screen, width, height):
    screen.progress("images", 10, 10)
    screen.on_start(1500, 1000)
    for epoch in range(1, 1001):
        screen.on_epoch(row(epoch, phase="a phase of a long name and more"))
    step(screen, 1001, 50, "a phase of a long name and more")
    lines = shown(screen, width, height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= height
    assert "1,001" in lines[1]
    assert lines[1].endswith("1:23:20 left")


def test_stages_after_the_training_stand_below_it_and_end_its_headline(screen):
    screen.on_start(9, 0)
    screen.on_epoch(row(1))
    screen.on_epoch(row(2))
    assert "epoch 3 of 9" in shown(screen, 80)[0]
    screen.progress("check", 0, 0)
    lines = shown(screen, 80)
    assert "epoch 2 of 9" in lines[0]
    assert "left" not in lines[0]
    assert "Verifying exports" in lines[-1]


def test_without_validation(screen):
    screen.on_start(3, 0)
    screen.on_epoch(row(1, None))
    screen.on_epoch(row(2, None))
    assert shown(screen, 80)[1].split() == ["epoch", "loss", "accuracy", "time"]
    assert shown(screen, 80)[-1] == "best training accuracy 75.0% in epoch 1"


def test_quiet_shows_nothing(capsys):
    with watching_training(True) as watch:
        watch.progress("images", 0, 5)
        watch.callback.on_start(1, 0)
        step(watch.callback, 1, 5)
        watch.callback.on_epoch(row(1))
    assert capsys.readouterr() == ("", "")


def test_a_pipe_gets_lines(capsys):
    with watching_training(False) as watch:
        watch.progress("images", 0, 5)
        watch.callback.on_start(1, 0)
        step(watch.callback, 1, 5)
        watch.callback.on_epoch(row(1, None))
    assert capsys.readouterr() == (
        "",
        "Decoding images: 0 of 5\n"
        "train: epoch 1 of 1: loss 0.4321, accuracy 75.0% (10.0 s)\n",
    )  # fmt: skip


def test_a_terminal_gets_the_screen(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(live.sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with watching_training(False) as watch:
        watch.callback.on_start(2, 0)
        watch.callback.on_epoch(row(1))
        watch.progress("check", 0, 0)
    assert "epoch 1 of 2" in stream.getvalue()
    assert "best" in stream.getvalue()


def test_a_swallowed_ctrl_c_ends_the_training(monkeypatch):
    monkeypatch.setattr(interrupts, "_signals", [signal.SIGINT])
    with watching_training(True) as watch:
        for callback in (
            lambda: watch.callback.on_start(1, 0),
            lambda: step(watch.callback, 1, 1),
            lambda: watch.callback.on_epoch(row(1)),
            lambda: watch.progress("images", 1, 2),
        ):
            with pytest.raises(KeyboardInterrupt):
                callback()
