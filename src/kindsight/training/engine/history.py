"""What a training went through, epoch by epoch: a small immutable table, kept as CSV.

The CSV holds every number as Python writes it (``repr``), which reads back to the same bits: a
training that was killed and goes on from its file ends with the history of an undisturbed one.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import BundleError, UsageError
from kindsight.files import write_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "COLUMNS",
    "HISTORY_FILE",
    "EpochRow",
    "History",
    "load_history",
]

# SECTION: One epoch of a training in numbers: a row of its history.

MAX_EPOCHS = 100_000
MAX_PHASE = 80


@dataclass(frozen=True, eq=False)
class EpochRow:
    """One epoch of a training.

    Parameters
    ----------
    epoch : int
        From 1, counted through all phases.
    phase : str
        The phase that it belongs to; 1 to 80 characters that can be printed.
    seconds : float
        How long it took, validation included.
    learning_rate : float
        Of its last step.
    loss : float
        Mean over the training images as they came by, in nats; not finite where it diverged.
    accuracy : float
        Share of the training images right as they came by, 0-1.
    val_loss, val_accuracy : float or None
        The same on the validation images at the end of the epoch; both None where there are none.

    Raises
    ------
    UsageError
        For a value outside of these.

    Notes
    -----
    Two rows are equal where all their numbers are the same to the bit; NaN equals itself.
    """

    epoch: int
    phase: str
    seconds: float
    learning_rate: float
    loss: float
    accuracy: float
    val_loss: float | None = None
    val_accuracy: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "epoch", int(self.epoch))
        for name in COLUMNS[2:]:
            value = getattr(self, name)
            # NumPy's numbers would be written in their own way.
            object.__setattr__(self, name, None if value is None else float(value))
        if fault := _fault(self):
            raise UsageError(f"An epoch's {fault}")

    @property
    def validated(self) -> bool:
        """Whether there were validation images."""
        return self.val_loss is not None

    def cells(self) -> tuple[str, ...]:
        """Return the row as the CSV has it: each number in full, "" for None."""
        values = (getattr(self, name) for name in COLUMNS)
        return tuple(
            value if isinstance(value, str) else "" if value is None else repr(value)
            for value in values
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpochRow) and self.cells() == other.cells()

    def __hash__(self) -> int:
        return hash(self.cells())


COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow))
"""The columns of a history, in the order of the CSV."""


def _fault(row: EpochRow) -> str | None:
    """Say which value of a row cannot be."""
    if not 1 <= row.epoch <= MAX_EPOCHS:
        return f"epoch must be a number from 1 to {MAX_EPOCHS:,}. Received: {row.epoch}."
    if not (
        isinstance(row.phase, str) and 1 <= len(row.phase) <= MAX_PHASE and row.phase.isprintable()
    ):
        return (
            f"phase must be 1 to {MAX_PHASE} characters that can be printed. "
            f"Received: {str(row.phase)[: MAX_PHASE + 1]!r}."
        )
    for name in ("seconds", "learning_rate"):
        value = getattr(row, name)
        if not 0 <= value < math.inf:
            return f"{name} must be a finite number, 0 or more. Received: {value}."
    for name in ("accuracy", "val_accuracy"):
        value = getattr(row, name)
        if value is not None and not 0 <= value <= 1:
            return f"{name} must be a share from 0 to 1. Received: {value}."
    if (row.val_loss is None) is not (row.val_accuracy is None):
        return (
            "val_loss and val_accuracy must both be there, or neither. Received: "
            f"{row.val_loss} and {row.val_accuracy}."
        )
    return None


HISTORY_FILE = "history.csv"
"""Its name in a run folder."""

# Bounds on what is read: a run folder may come from anywhere.
MAX_CSV_BYTES = 16 * 2**20

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|-?inf")


@dataclass(frozen=True, init=False, repr=False)
class History:
    """The epochs of a training, in order; immutable.

    Parameters
    ----------
    rows : iterable of EpochRow
        Epochs 1, 2, 3 and so on; all with validation, or none.
    monitor : str
        ``"accuracy"`` or ``"loss"``: by what of the validation images an epoch is the best.

    Raises
    ------
    UsageError
        Where an epoch is missing or comes twice, or only some have validation.
    """

    _rows: tuple[EpochRow, ...]
    monitor: str

    def __init__(self, rows: Iterable[EpochRow] = (), monitor: str = "accuracy") -> None:
        found = tuple(rows)
        for place, row in enumerate(found, 1):
            if row.epoch != place:
                raise UsageError(
                    f"The epochs of a history must be 1, 2, 3 and so on. Received: {row.epoch} "
                    f"where {place} should be."
                )
            if row.validated != found[0].validated:
                raise UsageError(
                    "All epochs of a history must have validation, or none. Received: epoch "
                    f"{place} {'with' if row.validated else 'without'}, unlike the first."
                )
        object.__setattr__(self, "_rows", found)
        object.__setattr__(self, "monitor", monitor)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[EpochRow]:
        return iter(self._rows)

    def __repr__(self) -> str:
        best = f", the best is {self.best_epoch}" if self._rows else ""
        return f"History({len(self)} epochs{best})"

    def rows(self) -> tuple[EpochRow, ...]:
        """Return the epochs, in order."""
        return self._rows

    def with_row(self, row: EpochRow) -> History:
        """Return the history with one more epoch.

        Raises
        ------
        UsageError
            Where `row` is not the next epoch.
        """
        return History((*self._rows, row), self.monitor)

    @property
    def validated(self) -> bool:
        """Whether there were validation images."""
        return bool(self._rows) and self._rows[0].validated

    @property
    def phases(self) -> tuple[str, ...]:
        """The phases, in the order in which they began."""
        return tuple(dict.fromkeys(row.phase for row in self._rows))

    @property
    def best_epoch(self) -> int | None:
        """The epoch of the best weights; None where there is no epoch yet.

        The one of highest `val_accuracy`, among equals that of lowest `val_loss`, among equals
        the first; of a fine-tuning that of lowest `val_loss`; without validation that of lowest
        `loss`. An epoch whose `loss` is not finite is worse than any other: its weights are no
        numbers.
        """
        rank = _rank_by_loss if self.monitor == "loss" else _rank
        best = min(self._rows, key=rank, default=None)
        return None if best is None else best.epoch

    def column(self, name: str) -> NDArray[Any]:
        """Return one column.

        Returns
        -------
        array
            int64 for ``"epoch"``, str for ``"phase"``, else float64 with NaN for None.

        Raises
        ------
        UsageError
            For a name that is no column.
        """
        if name not in COLUMNS:
            raise UsageError(f"A column must be one of {', '.join(COLUMNS)}. Received: {name!r}.")
        kind = {"epoch": np.int64, "phase": np.str_}.get(name, np.float64)
        return np.array([getattr(row, name) for row in self._rows], dtype=kind)

    def frame(self) -> dict[str, NDArray[Any]]:
        """Return all columns by name, ready for ``pandas.DataFrame``; see :meth:`column`."""
        return {name: self.column(name) for name in COLUMNS}

    def plot(self) -> Figure:
        """Draw accuracy and loss of both parts over the epochs, the best epoch marked.

        Returns
        -------
        matplotlib.figure.Figure
            Shown by notebooks as it is; ``history.plot().savefig("history.png")`` keeps it.

        Raises
        ------
        UsageError
            Where there is no epoch yet.
        """
        from kindsight.training.engine.plots import history_figure

        return history_figure(self)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the history as CSV, whole or not at all, in place of a file that is there."""
        write_csv(path, COLUMNS, (row.cells() for row in self._rows))

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], monitor: str = "accuracy") -> History:
        """Read what :meth:`write_csv` wrote, to the same bits.

        Raises
        ------
        BundleError
            For a file that cannot be read, is too large, or holds anything but a history.
        """
        source = Path(path)
        lines = csv.reader(io.StringIO(_text(source), newline=""), strict=True)
        try:
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise UsageError(
                    f"Its first line must be {','.join(COLUMNS)}. Received: "
                    f"{','.join(header)[:200]!r}."
                )
            return cls(_read_rows(lines), monitor)
        except (csv.Error, UsageError) as error:
            raise BundleError(f"{source} must hold the history of a training. {error}") from error


def load_history(folder: str | os.PathLike[str], monitor: str = "accuracy") -> History | None:
    """Read the history in a run folder; None where there is none, as of a frozen backbone's.

    Raises
    ------
    BundleError
        For a damaged one.
    """
    path = Path(folder, HISTORY_FILE)
    return History.read_csv(path, monitor) if os.path.lexists(path) else None


def _rank(row: EpochRow) -> tuple[bool, float, float]:
    loss = row.loss if row.val_loss is None else row.val_loss
    worst = math.inf if math.isnan(loss) else loss
    accuracy = 0.0 if row.val_accuracy is None else row.val_accuracy
    return not math.isfinite(row.loss), -accuracy, worst


def _rank_by_loss(row: EpochRow) -> tuple[bool, float]:
    broken, _, loss = _rank(row)
    return broken, loss


def _text(source: Path) -> str:
    try:
        with source.open("rb") as file:
            content = file.read(MAX_CSV_BYTES + 1)
        if len(content) > MAX_CSV_BYTES:
            raise BundleError(f"{source} must not be larger than {MAX_CSV_BYTES // 2**20} MB.")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise BundleError(
            f"{source} must be a file that can be read. Received: {error.strerror}."
        ) from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{source} must be UTF-8. It is not: {error}.") from error


def _read_rows(lines: Iterable[list[str]]) -> Iterator[EpochRow]:
    for place, cells in enumerate(lines, 1):
        if len(cells) != len(COLUMNS):
            raise UsageError(
                f"Every line must have {len(COLUMNS)} cells. Received: {len(cells)} in epoch "
                f"{place}."
            )
        values = dict(zip(COLUMNS, cells, strict=True))
        epoch, phase = values.pop("epoch"), values.pop("phase")
        if epoch != str(place):
            raise UsageError(
                f"The epochs must be 1, 2, 3 and so on. Received: {epoch[:20]!r} where {place} "
                "should be."
            )
        yield EpochRow(place, phase, **{k: _number(k, v, place) for k, v in values.items()})  # type: ignore[arg-type]


def _number(name: str, text: str, epoch: int) -> float | None:
    if not text and name.startswith("val_"):
        return None
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{name} of epoch {epoch} must be a number. Received: {text[:40]!r}.")
    return float(text)
