"""Predictions as rows: a table, JSON lines or CSV."""

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

LOW_CONFIDENCE = 0.8
"""Predictions below this confidence are yellow in the table."""

_WIDEST = 32
_GAP = "  "


class Rows(ABC):
    """A format for predictions.

    Parameters
    ----------
    classes : sequence of str
        Class names of the classifier.
    top : int, optional
        Number of most probable classes per row.
    paint : Paint
        Colors of the table.
    """

    for_people = False

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        self.classes = tuple(classes)
        self.top = None if top is None else min(top, len(self.classes))
        self.paint = paint

    @abstractmethod
    def header(self) -> str:
        """Return the header line with its line feed; ``""`` for none."""

    @abstractmethod
    def row(self, prediction: Prediction) -> str:
        """Return the line of one image, with its line feed."""

    def _probabilities(self, prediction: Prediction) -> list[tuple[str, float]]:
        """Return the classes of a row with their probabilities."""
        if prediction.probabilities is None:
            return []
        if self.top is not None:
            return [(name, short(share)) for name, share in prediction.top(self.top)]
        numbers = prediction.probabilities.tolist()
        return [(name, short(share)) for name, share in zip(self.classes, numbers, strict=True)]


def short(value: float) -> float:
    """Return a float32 rounded to nine digits, which identify it."""
    return float(f"{value:.9g}")


class JsonRows(Rows):
    """One JSON object per line: path, label, confidence, probabilities, error."""

    def header(self) -> str:
        """Return an empty string: JSON lines have no header."""
        return ""

    def row(self, prediction: Prediction) -> str:
        """Return one object; with an error, label, confidence and probabilities are null."""
        error, confidence = prediction.error, prediction.confidence
        value: dict[str, Any] = {
            "path": prediction.path,
            "label": prediction.label,
            "confidence": None if confidence is None else short(confidence),
            "probabilities": dict(self._probabilities(prediction)) if error is None else None,
            "error": None if error is None else {"code": error.code, "message": error.reason},
        }
        return to_json(value) + "\n"


class CsvRows(Rows):
    """path, label, confidence, error, message, and a column ``p_<class>`` for each class.

    Cells of classes beyond ``--top`` are empty. Spreadsheets would run a name that looks like a
    formula: such a path is prefixed with ``./``, such a label with an apostrophe.
    """

    def header(self) -> str:
        """Return the columns' names."""
        names = (f"p_{name}" for name in self.classes)
        return _csv_line(["path", "label", "confidence", "error", "message", *names])

    def row(self, prediction: Prediction) -> str:
        """Return one line, quoted where needed."""
        path, label, error = prediction.path, prediction.label or "", prediction.error
        if _like_a_formula(path):
            path = os.path.join(os.curdir, path)  # noqa: PTH118 (Path would drop the dot)
        if _like_a_formula(label):
            label = f"'{label}"
        confidence = "" if prediction.confidence is None else short(prediction.confidence)
        problem = ("", "") if error is None else (error.code, error.reason)
        probabilities = dict(self._probabilities(prediction))
        return _csv_line(
            [path, label, confidence, *problem, *(probabilities.get(c, "") for c in self.classes)]
        )


class TableRows(Rows):
    """A table with fixed columns; the path comes last and is never shortened."""

    for_people = True

    def __init__(self, classes: Sequence[str], top: int | None, paint: Paint) -> None:
        super().__init__(classes, top or 1, paint)
        longest = max(cells(printable(name)) for name in classes)
        self._width = max(len("label"), min(_WIDEST, longest))

    def header(self) -> str:
        """Return the column names: label and confidence for each class shown."""
        columns = [f"{pad('label', self._width)}{_GAP}confidence"]
        columns += [f"{pad('next', self._width)}{_GAP}      "] * ((self.top or 1) - 1)
        return self.paint(_GAP.join([*columns, "image"]), "dim") + "\n"

    def row(self, prediction: Prediction) -> str:
        """Return one line; for an unreadable image with the reason after the path."""
        path = printable(prediction.path)
        if prediction.error is not None:
            blank = self._columns([("unreadable", None)] + [("", None)] * ((self.top or 1) - 1))
            reason = printable(prediction.error.reason)
            return self.paint(f"{blank}{_GAP}{path}  ({reason})", "red") + "\n"
        probabilities = self._probabilities(prediction)
        columns = self._columns([*probabilities])
        if probabilities[0][1] < LOW_CONFIDENCE:
            columns = self.paint(columns, "yellow")
        return f"{columns}{_GAP}{path}\n"

    def _columns(self, probabilities: Sequence[tuple[str, float | None]]) -> str:
        parts = []
        for column, (name, share) in enumerate(probabilities):
            number = "" if share is None else percent(share)
            width = len("confidence") if column == 0 else len("100.0%")
            parts += [pad(_shortened(printable(name)), self._width), pad(number, width, right=True)]
        return _GAP.join(parts)


FORMATS: dict[str, type[Rows]] = {"table": TableRows, "jsonl": JsonRows, "csv": CsvRows}
"""The formats of ``--format``."""


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


def _shortened(name: str) -> str:
    if cells(name) <= _WIDEST:
        return name
    shortened = ""
    for character in name:
        if cells(shortened + character) >= _WIDEST:
            break
        shortened += character
    return shortened + "\N{HORIZONTAL ELLIPSIS}"
