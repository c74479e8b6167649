"""The commands' common behaviour: errors and Ctrl-C become a message and an exit code.

Some libraries swallow a KeyboardInterrupt while they are imported: LiteRT's extension module drops
one that arrives within some milliseconds. A Ctrl-C is therefore remembered, and raised again at the
next progress update.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from kindsight.cli.terminal.options import as_typed
from kindsight.cli.terminal.text import complain
from kindsight.errors import KindsightError, UsageError
from kindsight.files import FileHeldError

__all__ = [
    "Command", "Commands", "ResumableCommand", "forgive_interrupt", "interrupted",
    "raise_if_interrupted", "remembering_interrupts",
]  # fmt: skip

FAILED, MISUSED = 1, 2
"""Exit codes: a failure at run time, wrong usage, Ctrl-C."""


class Command(TyperCommand):
    """A Typer command that reports errors in one or two lines on standard error."""

    stopped = "stopped."
    """The message after Ctrl-C."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        _convert_without_pydantic(self.get_params(ctx))
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the usage line after the command's name, with arguments by name."""
        arguments = _arguments(self.get_params(ctx))
        return ["[OPTIONS]", *(name if needed else f"[{name}]" for name, _, needed in arguments)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the help of arguments and of options by panel, without Typer's type hints."""
        params = self.get_params(ctx)
        if arguments := [(name, text) for name, text, _ in _arguments(params)]:
            with formatter.section("Arguments"):
                formatter.write_dl(arguments)
        records = [
            (getattr(param, "rich_help_panel", None), record)
            for param in params
            if param.param_type_name == "option" and (record := param.get_help_record(ctx))
        ]
        panels = list(dict.fromkeys(panel for panel, _ in records if panel)) or ["Options"]
        for title in panels:
            # --help has no panel; it belongs to the last one.
            own = [record for panel, record in records if (panel or panels[-1]) == title]
            with formatter.section(title):
                formatter.write_dl(own)

    def invoke(self, ctx: Any) -> Any:
        """Run the command and turn exceptions into exit codes.

        Raises
        ------
        typer.Exit
            With 2 for :class:`~kindsight.errors.UsageError`, 130 for Ctrl-C, 143 for SIGTERM, 0
            if the reader of standard output closed it (``| head``), 1 for all other exceptions.
        """
        for stream in (sys.stdout, sys.stderr):
            _escape_unencodable(stream)
        try:
            with remembering_interrupts():
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
            raise typer.Exit(_stopped_code()) from None
        except Exception as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            if interrupted():  # a library turned Ctrl-C into another error
                complain(self.stopped)
                raise typer.Exit(_stopped_code()) from None
            params = self.get_params(ctx)
            complain(as_typed(_explain(error, [param.name for param in params]), params))
            raise typer.Exit(MISUSED if isinstance(error, UsageError) else FAILED) from None


class ResumableCommand(Command):
    """A command that continues where it was stopped when it is run again."""

    stopped = "stopped. Results so far are cached: run the same command again to continue."


class Commands(TyperGroup):
    """A group of such commands."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments."""
        _convert_without_pydantic(self.get_params(ctx))
        return super().parse_args(ctx, args)


class _TextConversion:
    """Return text and omitted values unchanged; leave other types to Typer's own conversion."""

    def __init__(self, param: Any) -> None:
        self._annotation = param.type_descriptor.annotation
        self._own = param.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value in the type of the command's parameter."""
        if value is None and param.nargs == 1:
            return [] if param.multiple else None
        if self._annotation is str and isinstance(value, str):
            return value
        if self._annotation == list[str] and isinstance(value, tuple):
            return list(value)
        return self._own().coerce(value, param=param, ctx=ctx)


def _convert_without_pydantic(params: Iterable[Any]) -> None:
    """Replace Typer's conversion of text; no other method of Typer is replaced.

    From version 0.26, Typer converts every value with pydantic, even text to text. Importing
    pydantic takes a tenth of a second, a sixth of the time of a prediction.
    """
    for param in params:
        if hasattr(param, "get_runtime_param") and "get_runtime_param" not in vars(param):
            conversion = _TextConversion(param)
            param.get_runtime_param = lambda conversion=conversion: conversion


def _arguments(params: Iterable[Any]) -> list[tuple[str, str, bool]]:
    """Return the name and help of each argument, and whether it is required."""
    return [
        (param.metavar or param.name.upper(), param.help or "", param.required)
        for param in params
        if param.param_type_name == "argument"
    ]


def _explain(error: Exception, options: Sequence[str] = ()) -> str:
    """Return the message for an error; any error not raised on purpose is a bug.

    `options` are the options of the command; no others are recommended.
    """
    if isinstance(error, KindsightError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        stated = isinstance(error, FileHeldError)  # it says what to do
        cure = "" if stated else _OS_ERROR_CURES.get(error.errno or 0, "")
        return f"{error.strerror}{name}{'. ' * bool(cure)}{cure}"
    if isinstance(error, MemoryError):
        cures = {"size": "a smaller", "batch_size": "a smaller", "workers": "fewer"}
        known = [f"{cure} `{name}`" for name, cure in cures.items() if name in options]
        return f"out of memory. Use {', or '.join(known) or 'fewer or smaller images'}."
    return (
        f"unexpected {type(error).__name__}: {str(error)[:300]}\n"
        "This is a bug in kindsight. Please report it with the output of the same command with "
        "--debug, and with the output of 'kindsight info'."
    )


# What to do after an error of a disk that no module expected.
_OS_ERROR_CURES = {
    errno.ENOENT: "Check the path.",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "Check its permissions, or choose another folder.",
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT) if hasattr(errno, "EDQUOT") else (errno.ENOSPC,),
        "Free some space, or choose a folder on another disk.",
    ),
}


def _escape_unencodable(stream: Any) -> None:
    """Write characters that the terminal's encoding lacks as escapes."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(errors="backslashreplace")


def _silence_stdout() -> None:
    """Discard buffered output; otherwise, Python reports the closed pipe at exit."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):  # not a real file
        pass


_signals: list[int] = []  # signals received since remembering_interrupts began


@contextmanager
def remembering_interrupts() -> Iterator[None]:
    """Remember Ctrl-C while the block runs; it still raises KeyboardInterrupt.

    SIGTERM, with which schedulers and service managers end a process, is handled in the same way.
    """
    _signals.clear()
    # Only the main thread can set handlers; a handler set by the caller stays.
    other = threading.current_thread() is not threading.main_thread()
    if other or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    ends = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if ends:
        signal.signal(signal.SIGTERM, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if ends:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _stopped_code() -> int:
    """Return the exit code of a command ended by a signal, as shells report it."""
    return 128 + (_signals[-1] if _signals else signal.SIGINT)


def interrupted() -> bool:
    """Return whether there was a Ctrl-C since :func:`remembering_interrupts` began."""
    return bool(_signals)


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C that did not end the command."""
    if _signals:
        raise KeyboardInterrupt


def forgive_interrupt() -> None:
    """Forget a Ctrl-C that the command handled by finishing early."""
    _signals.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    _signals.append(number)
    raise KeyboardInterrupt
