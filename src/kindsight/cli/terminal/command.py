"""What all commands have in common: errors become a line and an exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kindsight.cli.terminal.text import complain
from kindsight.errors import KindsightError, UsageError

__all__ = [
    "Command",
    "Commands",
    "ResumableCommand",
    "forgive_interrupt",
    "interrupted",
    "listening",
    "raise_if_interrupted",
]

# SECTION: Ctrl-C, also where it gets lost: some libraries swallow a KeyboardInterrupt while they
# load.
#
# Seen with LiteRT, whose extension module drops one that comes during the milliseconds of its
# import. So a Ctrl-C is remembered, and raised again at the next news of the command's progress.

_seen = threading.Event()


@contextmanager
def listening() -> Iterator[None]:
    """Remember Ctrl-C while the block runs; it raises KeyboardInterrupt as always."""
    _seen.clear()
    # Signals belong to the main thread; and whoever set a handler of his own wants that one.
    theirs = threading.current_thread() is not threading.main_thread()
    if theirs or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted() -> bool:
    """Whether there was a Ctrl-C since the last :func:`listening` began."""
    return _seen.is_set()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C that did not end the command."""
    if _seen.is_set():
        raise KeyboardInterrupt


def forgive_interrupt() -> None:
    """Forget a Ctrl-C that the command has answered by finishing early."""
    _seen.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt


FAILED, MISUSED, STOPPED = 1, 2, 130


class Command(TyperCommand):
    """A command of Typer's whose errors are said in one or two lines on standard error."""

    stopped = "stopped."
    """What is said on Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart."""
        _spare_conversions(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return what follows the command's name in its usage line; an argument by its name."""
        arguments = _arguments(self.get_params(ctx))
        return ["[OPTIONS]", *(name if needed else f"[{name}]" for name, _, needed in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of arguments and options, without the types that Typer would add."""
        params = self.get_params(ctx)
        if arguments := [(name, text) for name, text, _ in _arguments(params)]:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        sections: dict[str, list[Any]] = {"Options": []}
        for param in params:
            if param.param_type_name == "option" and (record := param.get_help_record(ctx)):
                panel = getattr(param, "rich_help_panel", None) or "Options"
                sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it raises becomes an exit code.

        Raises
        ------
        typer.Exit
            With 2 for :class:`~kindsight.errors.UsageError`, 130 for Ctrl-C, 0 where the reader
            of our output has had enough (``| head``), 1 for everything else.
        """
        for stream in (sys.stdout, sys.stderr):
            _accept_any_character(stream)
        try:
            with listening():
                result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except (typer.Exit, typer.Abort):
            raise
        except BrokenPipeError:
            _silence_stdout()
            raise typer.Exit(0) from None
        except KeyboardInterrupt:
            complain(self.stopped)
            raise typer.Exit(STOPPED) from None
        except Exception as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            if interrupted():  # Ctrl-C, made another error by a library
                complain(self.stopped)
                raise typer.Exit(STOPPED) from None
            complain(_explain(error))
            raise typer.Exit(MISUSED if isinstance(error, UsageError) else FAILED) from None


class ResumableCommand(Command):
    """A command that goes on where it was stopped when it is given again."""

    stopped = "stopped. What was computed is kept: the same command continues from here."


class Commands(TyperGroup):
    """A group of these commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the arguments apart."""
        _spare_conversions(self.get_params(ctx))
        return super().parse_args(ctx, args)


class _Text:
    """Takes text, and what was not given, as it is; leaves the rest to Typer's own conversion.

    Newer Typers convert every value through Pydantic, even text to text, and importing that takes
    a tenth of a second: a sixth of a whole prediction.
    """

    def __init__(self, param: Any) -> None:
        self._annotation = param.type_descriptor.annotation
        self._own = param.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value as the command takes it."""
        if value is None and param.nargs == 1:
            return [] if param.multiple else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, tuple):
            return list(value)
        return self._own().coerce(value, param=param, ctx=ctx)


def _spare_conversions(params: Iterable[Any]) -> None:
    for param in params:
        if hasattr(param, "get_runtime_param") and "get_runtime_param" not in vars(param):
            text = _Text(param)
            param.get_runtime_param = lambda text=text: text


def _arguments(params: Iterable[Any]) -> list[tuple[str, str, bool]]:
    """Return name, help and whether it must be given, of each argument."""
    return [
        (param.metavar or param.name.upper(), param.help or "", param.required)
        for param in params
        if param.param_type_name == "argument"
    ]


def _explain(error: Exception) -> str:
    """Say what went wrong; whatever was not raised on purpose is a bug of ours."""
    if isinstance(error, KindsightError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        place = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{place}"
    if isinstance(error, MemoryError):
        return "the memory of this machine does not suffice."
    return (
        f"unexpected {type(error).__name__}: {str(error)[:300]}\n"
        "This is a bug in kindsight. Please report it, with what the same command prints when "
        "--debug is added, and with what 'kindsight info' prints."
    )


def _accept_any_character(stream: Any) -> None:
    """Write what the terminal's encoding does not have as an escape, not as a crash."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Let what is still buffered run into nothing, or Python complains of it at its exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):  # no real file behind it
        pass
