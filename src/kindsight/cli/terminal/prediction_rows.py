"""Rows of ``kindsight predict``: the columns of tables, declared once, and the printed formats."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kindsight.cli.terminal.text import Paint, cells, csv_line, pad, printable, to_json
from kindsight.encoding import escape_name, short
from kindsight.report.format import percent

if TYPE_CHECKING:
    from kindsight.predictor import Prediction

__all__ = ["COLUMNS", "FORMATS", "Counts", "CsvRows", "JsonRows", "Rows", "TableRows", "types_of"]

COLUMNS: dict[str, type[str] | type[float]] = {
    "path": str, "label": str, "confidence": float, "error": str, "message": str, "reason": str,
    "best": str, "ood_score": float, "prediction_set": str,
}  # fmt: skip
"""The columns of every table before the probabilities, and the type of their values."""


def types_of(header: Sequence[str]) -> list[type[str] | type[float]]:
    """Return the type of each column: those of :data:`COLUMNS`, then probabilities."""
    return [*COLUMNS.values(), *[float] * (len(header) - len(COLUMNS))]


@dataclass
class Counts:
    """Numbers of images that were labelled, not labelled, unreadable, and clipped."""

    images: int = 0
    failed: int = 0
    clipped: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    def add(self, prediction: Prediction) -> None:
        """Count an image."""
        self.images += 1
        self.failed += prediction.error is not None
        self.clipped += prediction.is_clipped
        if prediction.reason:
            self.reasons[prediction.reason] += 1

    def merge(self, other: Counts) -> None:
        """Add the numbers of other images."""
        self.images += other.images
        self.failed += other.failed
        self.clipped += other.clipped
        self.reasons.update(other.reasons)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        return {
            "images": self.images, "unreadable": self.failed, "clipped": self.clipped,
            "reasons": dict(sorted(self.reasons.items())),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Counts:
        """Return the numbers of :meth:`to_dict`; KeyError, TypeError or ValueError if invalid."""
        reasons = Counter({str(name): int(n) for name, n in data["reasons"].items()})
        return cls(int(data["images"]), int(data["unreadable"]), int(data["clipped"]), reasons)


LOW_CONFIDENCE = 0.8
"""Predictions below this confidence are yellow in the table."""

_WIDEST = 32
_GAP = "  "


_LABEL, _BEST = list(COLUMNS).index("label"), list(COLUMNS).index("best")


class Rows(ABC):
    """A format for predictions.

    Parameters
    ----------
    classes : sequence of str
        Class names of the classifier.
    top : int, optional
        Number of most probable classes per row.
    paint : Paint, optional
        Colours of the table.
    withholds : bool
        Whether a row may have a reason in place of a label.
    """

    for_people = False

    def __init__(
        self,
        classes: Sequence[str],
        top: int | None,
        paint: Paint | None = None,
        withholds: bool = False,
    ) -> None:
        self.classes = tuple(classes)
        self.top = None if top is None else min(top, len(self.classes))
        self.paint = paint or Paint.none()

    @abstractmethod
    def header(self) -> str:
        """Return the header line with its line feed; ``""`` if there is none."""

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


class JsonRows(Rows):
    """One JSON object per line: path, label, confidence and more; null where there is no value."""

    def header(self) -> str:
        """Return an empty string: JSON lines have no header."""
        return ""

    def row(self, prediction: Prediction) -> str:
        """Return one object; if it has no label, reason or error explains it."""
        return to_json(prediction.to_dict(self.top)) + "\n"


class CsvRows(Rows):
    """path, label, confidence, ..., and a column ``p_<class>`` for each class.

    ``prediction_set`` is a JSON list of class names. Cells of classes beyond ``--top`` are empty.
    Spreadsheets would run a name that looks like a formula: such a path is prefixed with ``./``,
    such a label with an apostrophe.
    """

    def header(self) -> str:
        """Return the line of the columns' names."""
        return csv_line(self.names())

    def row(self, prediction: Prediction) -> str:
        """Return one line, quoted where needed."""
        return csv_line(self.safe_cells(prediction))

    def names(self) -> list[str]:
        """Return the columns' names."""
        return [*COLUMNS, *(f"p_{name}" for name in self.classes)]

    def cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells; None where there is no value."""
        error, confidence = prediction.error, prediction.confidence
        problem = (None, None) if error is None else (error.code, error.reason)
        score, found = prediction.ood_score, prediction.prediction_set
        probabilities = dict(self._probabilities(prediction))
        return [
            escape_name(prediction.path),
            prediction.label,
            None if confidence is None else short(confidence),
            *problem,
            prediction.reason or None,
            prediction.best,
            None if score is None else short(score),
            None if found is None else to_json(list(found)),
            *map(probabilities.get, self.classes),
        ]

    def safe_cells(self, prediction: Prediction) -> list[str | float | None]:
        """Return the cells, with names changed that a spreadsheet would run as formulas."""
        cells = self.cells(prediction)
        path = cells[0]
        if isinstance(path, str) and _like_a_formula(path):
            cells[0] = os.path.join(os.curdir, path)  # noqa: PTH118 (Path would drop the dot)
        for column in (_LABEL, _BEST):
            name = cells[column]
            if isinstance(name, str) and _like_a_formula(name):
                cells[column] = f"'{name}"
        return cells


class TableRows(Rows):
    """A table with fixed columns; the path comes last and is never shortened."""

    for_people = True

    def __init__(
        self,
        classes: Sequence[str],
        top: int | None,
        paint: Paint | None = None,
        withholds: bool = False,
    ) -> None:
        super().__init__(classes, top or 1, paint, withholds)
        longest = max(cells(printable(name)) for name in classes)
        self._width = max(len("unknown" if withholds else "label"), min(_WIDEST, longest))

    def header(self) -> str:
        """Return the column names: label and confidence for each class shown."""
        columns = [f"{pad('label', self._width)}{_GAP}confidence"]
        columns += [f"{pad('next', self._width)}{_GAP}      "] * ((self.top or 1) - 1)
        return self.paint(_GAP.join([*columns, "image"]), "dim") + "\n"

    def row(self, prediction: Prediction) -> str:
        """Return one line; without a label, with the reason or the error after the path."""
        path = printable(prediction.path)
        if prediction.error is not None:
            blank = self._columns([("unreadable", None)] + [("", None)] * ((self.top or 1) - 1))
            reason = printable(prediction.error.reason)
            return self.paint(f"{blank}{_GAP}{path}  ({reason})", "red") + "\n"
        probabilities: list[tuple[str, float | None]] = [*self._probabilities(prediction)]
        after = ""
        if prediction.reason:
            best = printable(str(prediction.best))
            after = f"  (most probable: {best})"
            probabilities[0] = (prediction.reason, prediction.confidence)
        if prediction.prediction_set is not None:
            after += f"  {{{', '.join(map(printable, prediction.prediction_set))}}}"
        columns = self._columns(probabilities)
        confidence = prediction.confidence
        if prediction.reason or (confidence is not None and confidence < LOW_CONFIDENCE):
            columns = self.paint(columns, "yellow")
        return f"{columns}{_GAP}{path}{after}\n"

    def _columns(self, probabilities: Sequence[tuple[str, float | None]]) -> str:
        parts = []
        for column, (name, share) in enumerate(probabilities):
            number = "" if share is None else percent(share)
            width = len("confidence") if column == 0 else len("100.0%")
            parts += [pad(_shortened(printable(name)), self._width), pad(number, width, right=True)]
        return _GAP.join(parts)


FORMATS: dict[str, type[Rows]] = {"table": TableRows, "jsonl": JsonRows, "csv": CsvRows}
"""The formats of ``--format``."""


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
