"""Predictions as rows: a table for people, JSON lines or CSV for programs; each as it is made."""

from __future__ import annotations

import csv
import io
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.text import Paint, cells, pad, printable, to_json
from kindsight.report.format import percent

if TYPE_CHECKING:
    from kindsight.predictor import Prediction

__all__ = ["FORMATS", "CsvRows", "JsonRows", "Rows", "TableRows"]

UNSURE = 0.8
"""Answers below this confidence are shown in yellow."""

_WIDEST = 32
_GAP = "  "


class Rows(ABC):
    """One way to write predictions.

    Parameters
    ----------
    classes : sequence of str
        The classifier's.
    top : int, optional
        Probabilities of the `top` most probable classes only.
    paint : Paint
        Colours, for people only.
    """

    for_people = False

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        self.classes = tuple(classes)
        self.top = None if top is None else min(top, len(self.classes))
        self.paint = paint

    @abstractmethod
    def header(self) -> str:
        """Return the line above all rows, with its line feed; ``""`` where there is none."""

    @abstractmethod
    def row(self, answer: Prediction) -> str:
        """Return the line of one image, with its line feed."""

    def _shares(self, answer: Prediction) -> list[tuple[str, float]]:
        """Return the classes to be written with their probabilities."""
        if answer.probabilities is None:
            return []
        if self.top is not None:
            return [(name, short(share)) for name, share in answer.top(self.top)]
        numbers = answer.probabilities.tolist()
        return [(name, short(share)) for name, share in zip(self.classes, numbers, strict=True)]


def short(share: float) -> float:
    """Return a float32 with the nine digits that tell it from any other float32, and no more."""
    return float(f"{share:.9g}")


class JsonRows(Rows):
    """One object a line: path, label, confidence, probabilities, error."""

    def header(self) -> str:
        """Return nothing: JSON lines have no header."""
        return ""

    def row(self, answer: Prediction) -> str:
        """Return one object; label, confidence and probabilities are null where error is not."""
        error, sure = answer.error, answer.confidence
        value: dict[str, Any] = {
            "path": answer.path,
            "label": answer.label,
            "confidence": None if sure is None else short(sure),
            "probabilities": dict(self._shares(answer)) if error is None else None,
            "error": None if error is None else {"code": error.code, "message": error.reason},
        }
        return to_json(value) + "\n"


class CsvRows(Rows):
    """path, label, confidence, error, message, and a column ``p_<class>`` for each class.

    Cells of classes that ``--top`` leaves out are empty. A spreadsheet must not take a name for
    a formula: a path that starts like one gets ``./`` before it, which names the same file, and
    a label an apostrophe.
    """

    def header(self) -> str:
        """Return the columns' names."""
        names = (f"p_{name}" for name in self.classes)
        return _csv_line(["path", "label", "confidence", "error", "message", *names])

    def row(self, answer: Prediction) -> str:
        """Return one line, quoted where needed."""
        path, label, error = answer.path, answer.label or "", answer.error
        if _like_a_formula(path):
            path = os.path.join(os.curdir, path)  # noqa: PTH118 (Path would drop the dot)
        if _like_a_formula(label):
            label = f"'{label}"
        sure = "" if answer.confidence is None else short(answer.confidence)
        said = ("", "") if error is None else (error.code, error.reason)
        shares = dict(self._shares(answer))
        return _csv_line([path, label, sure, *said, *(shares.get(c, "") for c in self.classes)])


class TableRows(Rows):
    """Lines of fixed columns; the path comes last and is never cut."""

    for_people = True

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        super().__init__(classes, top or 1, paint)
        longest = max(cells(printable(name)) for name in classes)
        self._width = max(len("label"), min(_WIDEST, longest))

    def header(self) -> str:
        """Return the columns' names: label and confidence once for each class shown."""
        columns = [f"{pad('label', self._width)}{_GAP}confidence"]
        columns += [f"{pad('next', self._width)}{_GAP}      "] * ((self.top or 1) - 1)
        return self.paint(_GAP.join([*columns, "image"]), "dim") + "\n"

    def row(self, answer: Prediction) -> str:
        """Return one line; an image that cannot be read has its reason behind its path."""
        path = printable(answer.path)
        if answer.error is not None:
            blank = self._columns([("not read", None)] + [("", None)] * ((self.top or 1) - 1))
            reason = printable(answer.error.reason)
            return self.paint(f"{blank}{_GAP}{path}  ({reason})", "red") + "\n"
        shares = self._shares(answer)
        columns = self._columns([*shares])
        if shares[0][1] < UNSURE:
            columns = self.paint(columns, "yellow")
        return f"{columns}{_GAP}{path}\n"

    def _columns(self, shares: Sequence[tuple[str, float | None]]) -> str:
        parts = []
        for place, (name, share) in enumerate(shares):
            number = "" if share is None else percent(share)
            width = len("confidence") if place == 0 else len("100.0%")
            parts += [pad(_cut(printable(name)), self._width), pad(number, width, right=True)]
        return _GAP.join(parts)


FORMATS: dict[str, type[Rows]] = {"table": TableRows, "jsonl": JsonRows, "csv": CsvRows}
"""The formats by their names on the command line."""


def _csv_line(values: Sequence[object]) -> str:
    buffer = io.StringIO(newline="")
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()


def _like_a_formula(text: str) -> bool:
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _cut(name: str) -> str:
    if cells(name) <= _WIDEST:
        return name
    kept = ""
    for character in name:
        if cells(kept + character) >= _WIDEST:
            break
        kept += character
    return kept + "\N{HORIZONTAL ELLIPSIS}"
