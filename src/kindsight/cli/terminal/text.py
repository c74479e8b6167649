"""Text on the terminal: safe characters, colours, columns, streams."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
import textwrap
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

import typer

from kindsight.encoding import printable, valid_json, valid_text

if TYPE_CHECKING:
    from kindsight.predictor import Predictor

__all__ = [
    "Paint", "cells", "clipping_note", "complain", "csv_line", "echo_error", "for_machines",
    "hanging", "line_width", "note", "pad", "print_json", "printable", "say", "table", "to_json",
    "wrapped",
]  # fmt: skip

PLAIN_WIDTH = 100
"""Width in columns of output that does not go to a terminal."""

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


class Paint:
    """Colours for one stream; none if it is not a terminal or the user has turned them off.

    Parameters
    ----------
    stream : text file
        The stream to which the text is written.
    """

    def __init__(self, stream: TextIO) -> None:
        wanted = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.on = wanted and stream.isatty()

    @classmethod
    def none(cls) -> Paint:
        """Return a paint without colours."""
        return cls(io.StringIO())

    def __call__(self, text: str, *styles: str) -> str:
        """Return `text` in the given styles: bold, dim, red, green, yellow, cyan."""
        if not self.on or not styles or not text:
            return text
        return f"\x1b[{';'.join(_CODES[style] for style in styles)}m{text}\x1b[0m"


def cells(text: str) -> int:
    """Return the width of a text in terminal columns; East Asian characters take two."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def pad(text: str, width: int, *, right: bool = False) -> str:
    """Pad a text with spaces to `width` columns; on its left if `right`."""
    space = " " * max(0, width - cells(text))
    return space + text if right else text + space


def line_width() -> int:
    """Return the width of standard output in columns."""
    if not sys.stdout.isatty():
        return PLAIN_WIDTH
    return max(40, shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns)


def hanging(name: str, text: str, *, indent: int, paint: Paint, width: int) -> list[str]:
    """Return lines with a name and, indented next to it, a wrapped text."""
    lines = wrapped(text, width - indent)
    first = f"  {paint(name, 'dim')}{' ' * max(1, indent - 2 - cells(name))}{lines[0]}"
    return [first, *(" " * indent + line for line in lines[1:])]


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, paint: Paint, left: int = 1
) -> list[str]:
    """Return rows as aligned lines, indented by two; the first `left` columns left-aligned."""
    body = [list(row) for row in rows]
    widths = [max(cells(row[k]) for row in [list(header), *body]) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = [pad(cell, widths[k], right=k >= left) for k, cell in enumerate(row)]
        return "  " + "  ".join(parts).rstrip()

    return [paint(line(header), "dim"), *map(line, body)]


def say(*lines: str) -> None:
    """Print lines of a result to standard output."""
    for line in lines:
        typer.echo(line)


def echo_error(line: str) -> None:
    """Write a line to standard error."""
    typer.echo(line, err=True)


def note(text: str) -> None:
    """Print a note to standard error, with a prefix on each line."""
    _stderr("note:", "yellow", text)


def complain(text: str) -> None:
    """Print an error to standard error, with a prefix on each line."""
    _stderr("kindsight:", "red", text)


def _stderr(start: str, colour: str, text: str) -> None:
    painted = Paint(sys.stderr)(start, colour, "bold")
    for line in text.splitlines() or [""]:
        clean = f"{start} {printable(line)}"
        if sys.stderr.isatty():
            clean = "\n".join(wrapped(clean, shutil.get_terminal_size().columns))
        typer.echo(painted + clean[len(start) :], err=True)


def wrapped(line: str, width: int, indent: int = 0) -> list[str]:
    """Wrap a line between words, all lines but the first indented; a long path is not broken."""
    return textwrap.wrap(
        line,
        max(20, width),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
    ) or [""]


def for_machines() -> TextIO:
    """Return standard output, set to UTF-8 with LF line endings on every system."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(encoding="utf-8", errors="backslashreplace", newline="\n")
    return sys.stdout


def to_json(value: object) -> str:
    """Return one object as one line of JSON.

    Raises
    ------
    ValueError
        For NaN and infinities, which JSON lacks.
    """
    return json.dumps(valid_json(value), ensure_ascii=False, allow_nan=False)


def print_json(value: Mapping[str, Any]) -> None:
    """Print one object on one line of standard output."""
    stream = for_machines()
    stream.write(to_json(value) + "\n")
    stream.flush()


def clipping_note(clipped: int, count: int, predictor: Predictor) -> str:
    """Return a note on images with values outside the training's range."""
    from kindsight.dataset.properties import describe_range

    value_range = predictor.bundle.spec.value_range
    images = f"{clipped:,} of {count:,} image{'s' * (count != 1)}"
    if value_range is None:
        return (
            f"{images} had more than 8 bits, and the classifier was trained on images of 8 bits. "
            "Values of 16 bits were scaled from 0-65,535, others from each image's own range: "
            "convert the images to 8 bits in the same way as the training images."
        )
    return (
        f"{images} had values outside {describe_range(value_range)}, the range of the training; "
        "they were clipped."
    )


def csv_line(values: Sequence[object]) -> str:
    """Return a line of CSV; None is an empty cell."""
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return valid_text(buffer.getvalue())
