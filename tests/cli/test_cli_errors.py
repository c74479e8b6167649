from __future__ import annotations

import contextlib
import errno
import re
import signal

import pytest
import typer

from kindsight.cli.terminal.command import Command
from kindsight.cli.terminal.options import as_typed
from kindsight.cli.terminal.progress import watching
from kindsight.errors import (
    BundleError,
    CacheError,
    DatasetError,
    ImageError,
    KindsightError,
    MissingExtraError,
    ParityError,
    SettingsError,
    UsageError,
    WeightsError,
)
from kindsight.files import FileHeldError


@pytest.fixture
def fails(runner):
    """Return a function that runs a command that raises what it is given."""

    def call(error: BaseException, *options: str):
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command(cls=Command)
        def command(debug: bool = False) -> None:
            raise error

        return runner.invoke(app, list(options))

    return call


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("x"), 2),
        (SettingsError("x"), 2),
        (DatasetError("x"), 2),
        (MissingExtraError("x", "demo"), 2),
        (KindsightError("x"), 1),
        (ImageError("empty", "x"), 1),
        (WeightsError("x"), 1),
        (BundleError("x"), 1),
        (CacheError("x"), 1),
        (ParityError("x"), 1),
    ],
)
def test_each_error_has_its_exit_code_and_is_said_in_one_line(fails, error, code):
    result = fails(error)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr == f"kindsight: {error}\n"


def test_each_of_several_lines_is_marked(fails):
    result = fails(SettingsError('`size` must be 1.\n`freeze="all"` is missing.'))
    assert result.stderr == "kindsight: --size must be 1.\nkindsight: --freeze all is missing.\n"


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ('`columns={"label": "NAME"}`', "--column label=NAME"),
        ("`phases` and `group_near_duplicates`", "--phase and --group-near-duplicates"),
        ('`label_from="^([a-z]+)"` finds', "--label-from '^([a-z]+)' finds"),
        ("`data` must", "DATA must"),
        ("`rotation` and `cache` in Python", "`rotation` and `cache` in Python"),
        ("`debug` and `other`", "--debug and `other`"),
    ],
)
def test_options_are_named_as_they_are_typed(text, typed):
    def command(data: str, debug: bool = False) -> None: ...

    app = typer.Typer()
    app.command()(command)
    assert as_typed(text, typer.main.get_command(app).params) == typed


@pytest.mark.parametrize(
    "words",
    [
        "--validation 3.5 --head strait --size 0 --l2 7",
        "--epochs 0 --freeze none --test-data other --test 0.1",
        "--fold 9/2 --split-by date --label-from (",
        "--model small-cnn --freeze all --tta-flips 2 --size 5",
        "--phase freeze=all --cut mixed7 --head linear",
        "--budget soon --fine-tune off",
        "--weights none.h5 --pixel-shape 3 --label-names a,a",
    ],
)
def test_no_error_of_a_training_names_a_parameter(run, words):
    from kindsight.options import OPTIONS

    result = run("train", "photos", *words.split())
    assert result.exit_code in (1, 2)
    for line in result.stderr.splitlines():
        assert line.startswith("kindsight: ") and "`" not in line
        assert not [n for n in OPTIONS if "_" in n and re.search(rf"\b{n}\b", line)], line


def test_debug_shows_the_traceback_before_the_line(fails):
    result = fails(BundleError("the bundle is damaged"), "--debug")
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("\nkindsight: the bundle is damaged\n")


def test_a_bug_asks_for_a_report_and_shows_no_traceback(fails):
    result = fails(ZeroDivisionError("division by zero"))
    assert result.exit_code == 1
    assert result.stderr.startswith("kindsight: unexpected ZeroDivisionError: division by zero\n")
    assert "--debug" in result.stderr and "kindsight info" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_full_disk_is_no_bug(fails):
    result = fails(OSError(errno.ENOSPC, "No space left on device", "/runs/a"))
    assert result.exit_code == 1
    assert result.stderr == (
        "kindsight: No space left on device: /runs/a. Free some space, or choose a folder on "
        "another disk.\n"
    )


def test_a_folder_that_cannot_be_written_is_no_bug(fails):
    result = fails(PermissionError(errno.EACCES, "Permission denied", "/runs/a"))
    assert result.stderr == (
        "kindsight: Permission denied: /runs/a. Check its permissions, or choose another folder.\n"
    )
    held = FileHeldError(errno.EACCES, "Another program has a file open. Close it", "a.csv")
    assert "permissions" not in fails(held).stderr


def test_too_little_memory_is_no_bug(fails):
    result = fails(MemoryError())
    assert (result.exit_code, "bug" in result.stderr) == (1, False)


def test_ctrl_c_exits_with_130(fails):
    result = fails(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "kindsight: stopped.\n")


def test_a_reader_that_left_is_no_error(fails):
    result = fails(BrokenPipeError())
    assert (result.exit_code, result.stderr) == (0, "")


def test_an_exit_code_of_the_command_itself_stands(fails):
    assert fails(typer.Exit(7)).exit_code == 7


def test_nothing_that_a_terminal_would_obey_reaches_it(fails):
    result = fails(BundleError("a\x1b[2Jb\udcffc\nsecond line"))
    assert result.stderr == "kindsight: a\\x1b[2Jb\\xffc\nkindsight: second line\n"


def test_every_command_has_an_example_debug_and_the_exit_code_2_for_misuse(run):
    commands = ("train", "predict", "evaluate", "info", "demo", "cache show", "cache clear")
    for command in (*commands, "cache prune", "backbones"):
        words = command.split()
        result = run(*words, "--help")
        assert result.exit_code == 0
        assert "Example: " in result.stdout and f"kindsight {command}" in result.stdout
        assert "--debug" in result.stdout and "--json" in result.stdout
        assert run(*words, "--no-such-option").exit_code == 2


def test_the_help_of_the_whole_names_every_command(run):
    text = run("--help").stdout
    for name in ("train", "predict", "evaluate", "backbones", "info", "demo", "cache"):
        assert f"\n  {name} " in text


def test_the_version(run):
    import kindsight

    assert run("--version").stdout == f"kindsight {kindsight.__version__}\n"


@pytest.fixture
def swallows(runner):
    """Return a function that runs a command in which a library swallows Ctrl-C."""

    def call(then):
        app = typer.Typer(pretty_exceptions_enable=False)

        @app.command(cls=Command)
        def command(debug: bool = False) -> None:
            with contextlib.suppress(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
            then()

        return runner.invoke(app, [])

    return call


def test_a_ctrl_c_that_a_library_swallowed_is_raised_at_the_next_progress(swallows):
    after = []

    def go_on() -> None:
        with watching(True) as progress:
            progress("images", 1, 2)
            after.append("not reached")

    result = swallows(go_on)
    assert (result.exit_code, after) == (130, [])
    assert result.stderr == "kindsight: stopped.\n"


def test_a_ctrl_c_that_a_library_made_another_error_is_still_one(swallows):
    def fail() -> None:
        raise ImportError("KeyboardInterrupt")

    result = swallows(fail)
    assert (result.exit_code, result.stderr) == (130, "kindsight: stopped.\n")


def test_a_command_finished_before_ctrl_c_was_handled_succeeds(swallows):
    assert swallows(lambda: None).exit_code == 0
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_ctrl_c_of_an_earlier_command_is_forgotten(swallows, fails):
    swallows(lambda: None)
    assert fails(BundleError("x")).exit_code == 1
