"""The history of a training: an immutable table of its epochs, stored as CSV.

Numbers are written with ``repr`` and read back to the same bits, so a training that is resumed
ends with the same history as an uninterrupted one.
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
    from kindsight.training.engine.plots import TrainingFigure

__all__ = ["COLUMNS", "HISTORY_FILE", "EpochRow", "History", "load_history"]

MAX_EPOCHS = 100_000
MAX_PHASE = 80  # characters


@dataclass(frozen=True, eq=False)
class EpochRow:
    """One epoch of a training; two are equal if all numbers are the same to the bit, NaN included.

    Parameters
    ----------
    epoch : int
        From 1, counted through all phases.
    phase : str
        Name of its phase: 1 to 80 printable characters.
    seconds : float
        Duration, validation included.
    learning_rate : float
        Of the last step.
    loss : float
        Mean over the training images during the epoch, in nats; not finite if it diverged.
    accuracy : float
        Of the training images during the epoch, 0-1.
    val_loss, val_accuracy : float or None
        Of the validation images at the end of the epoch; both None without validation.

    Raises
    ------
    UsageError
        For a value outside these ranges.
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
            # The repr of a NumPy number differs from that of a float.
            object.__setattr__(self, name, None if value is None else float(value))
        if fault := _fault(self):
            raise UsageError(f"An epoch's {fault}")

    @property
    def validated(self) -> bool:
        """Whether the epoch was validated."""
        return self.val_loss is not None

    @property
    def diverged(self) -> bool:
        """Whether the loss of the training or validation images is NaN or infinite."""
        return not all(math.isfinite(loss) for loss in (self.loss, self.val_loss or 0.0))

    def cells(self) -> tuple[str, ...]:
        """Return the row's CSV cells: each number with ``repr``, "" for None."""
        values = (getattr(self, name) for name in COLUMNS)
        return tuple(
            value if isinstance(value, str) else "" if value is None else repr(value)
            for value in values
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all values by name, ready for JSON: a number that is not finite becomes None."""
        values = {name: getattr(self, name) for name in COLUMNS}
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in values.items()
        }

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EpochRow) and self.cells() == other.cells()

    def __hash__(self) -> int:
        return hash(self.cells())


COLUMNS = tuple(field.name for field in dataclasses.fields(EpochRow))
"""The columns of a history, in the order of the CSV."""


def _fault(row: EpochRow) -> str | None:
    """Return a sentence on the first invalid value, or None."""
    if not 1 <= row.epoch <= MAX_EPOCHS:
        return f"epoch must be a number from 1 to {MAX_EPOCHS:,}; got {row.epoch}."
    if not (
        isinstance(row.phase, str) and 1 <= len(row.phase) <= MAX_PHASE and row.phase.isprintable()
    ):
        return (
            f"phase must be 1 to {MAX_PHASE} printable characters; "
            f"got {str(row.phase)[: MAX_PHASE + 1]!r}."
        )
    for name in ("seconds", "learning_rate"):
        value = getattr(row, name)
        if not 0 <= value < math.inf:
            return f"{name} must be a finite number, 0 or more; got {value}."
    for name in ("accuracy", "val_accuracy"):
        value = getattr(row, name)
        if value is not None and not 0 <= value <= 1:
            return f"{name} must be a number from 0 to 1; got {value}."
    if (row.val_loss is None) is not (row.val_accuracy is None):
        return (
            "val_loss and val_accuracy must both be given, or neither; got "
            f"{row.val_loss} and {row.val_accuracy}."
        )
    return None


HISTORY_FILE = "history.csv"
"""File name in a run folder."""

# A run folder is not trusted.
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
        ``"accuracy"`` or ``"loss"``: the validation metric that decides the best epoch.

    Raises
    ------
    UsageError
        If an epoch is missing or duplicated, or only some are validated.
    """

    _rows: tuple[EpochRow, ...]
    monitor: str

    def __init__(self, rows: Iterable[EpochRow] = (), monitor: str = "accuracy") -> None:
        found = tuple(rows)
        for epoch, row in enumerate(found, 1):
            if row.epoch != epoch:
                raise UsageError(
                    f"Epochs must be numbered 1, 2, 3, ...; got {row.epoch} in place of {epoch}."
                )
            if row.validated != found[0].validated:
                raise UsageError(
                    "All epochs of a history must have validation values, or none; "
                    f"epoch {epoch} is {'with' if row.validated else 'without'}, unlike the first."
                )
        object.__setattr__(self, "_rows", found)
        object.__setattr__(self, "monitor", monitor)

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[EpochRow]:
        return iter(self._rows)

    def __repr__(self) -> str:
        best = f", best epoch {self.best_epoch}" if self._rows else ""
        return f"History({len(self)} epochs{best})"

    def _repr_html_(self) -> str:
        from kindsight.notebook.values import history_html

        return history_html(self)

    def rows(self) -> tuple[EpochRow, ...]:
        """Return the epochs, in order."""
        return self._rows

    def with_row(self, row: EpochRow) -> History:
        """Return the history with one more epoch; UsageError if `row` is not the next one."""
        return History((*self._rows, row), self.monitor)

    @property
    def validated(self) -> bool:
        """Whether the epochs were validated."""
        return bool(self._rows) and self._rows[0].validated

    @property
    def phases(self) -> tuple[str, ...]:
        """The names of the phases, in order."""
        return tuple(dict.fromkeys(row.phase for row in self._rows))

    @property
    def best_epoch(self) -> int | None:
        """The best epoch; None without epochs.

        The one of highest `val_accuracy`, ties broken by `val_loss`, then the first; if `monitor`
        is ``"loss"``, the one of lowest `val_loss`; without validation, of lowest `loss`. An
        epoch that diverged is worse than all others.
        """
        rank = _rank_by_loss if self.monitor == "loss" else _rank
        best = min(self._rows, key=rank, default=None)
        return None if best is None else best.epoch

    def divergence(self) -> str | None:
        """Return a sentence on the epoch in which the training diverged; None if it did not."""
        row = next((row for row in self._rows if row.diverged), None)
        if row is None:
            return None
        finite = math.isfinite(row.loss)
        loss = row.val_loss if finite and row.val_loss is not None else row.loss
        value = "NaN" if math.isnan(loss) else "infinite"
        return (
            f"Training diverged: the {'validation ' if finite else ''}loss is {value} in epoch "
            f"{row.epoch}, at a learning rate of {row.learning_rate:g}. Lower `learning_rate`"
            + (f", or that of the phase {row.phase!r}." if len(self.phases) > 1 else ".")
        )

    def column(self, name: str) -> NDArray[Any]:
        """Return one column: int64 ``"epoch"``, str ``"phase"``, or float64 with NaN for None.

        UsageError for an unknown name.
        """
        if name not in COLUMNS:
            raise UsageError(f"A column must be one of {', '.join(COLUMNS)}; got {name!r}.")
        kind = {"epoch": np.int64, "phase": np.str_}.get(name, np.float64)
        return np.array([getattr(row, name) for row in self._rows], dtype=kind)

    def frame(self) -> dict[str, NDArray[Any]]:
        """Return all columns by name, ready for ``pandas.DataFrame``; see :meth:`column`."""
        return {name: self.column(name) for name in COLUMNS}

    def plot(self) -> TrainingFigure:
        """Draw accuracy and loss by epoch, training and validation, the best epoch marked.

        The figure is a ``matplotlib.figure.Figure`` of two axes, which notebooks display.
        UsageError if there is no epoch.
        """
        from kindsight.training.engine.plots import history_figure

        if self.best_epoch is None:
            raise UsageError("Cannot plot a history without epochs.")
        return history_figure(self.frame(), self.best_epoch)

    def write_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the history as CSV, replacing the file atomically."""
        write_csv(path, COLUMNS, (row.cells() for row in self._rows))

    @classmethod
    def read_csv(cls, path: str | os.PathLike[str], monitor: str = "accuracy") -> History:
        """Read a file written by :meth:`write_csv`, to the same bits.

        BundleError if the file is unreadable, larger than 16 MB, or not a history.
        """
        source = Path(path)
        lines = csv.reader(io.StringIO(_text(source), newline=""), strict=True)
        try:
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise UsageError(
                    f"The first line is {','.join(header)[:200]!r} instead of {','.join(COLUMNS)}."
                )
            return cls(_read_rows(lines), monitor)
        except (csv.Error, UsageError) as error:
            raise BundleError(f"{source} is not the history of a training. {error}") from error


def load_history(folder: str | os.PathLike[str], monitor: str = "accuracy") -> History | None:
    """Read the history of a run folder; None if it has none, as for a frozen backbone.

    BundleError if the file is damaged.
    """
    path = Path(folder, HISTORY_FILE)
    return History.read_csv(path, monitor) if os.path.lexists(path) else None


def _rank(row: EpochRow) -> tuple[bool, float, float]:
    loss = row.loss if row.val_loss is None else row.val_loss
    worst = math.inf if math.isnan(loss) else loss
    accuracy = 0.0 if row.val_accuracy is None else row.val_accuracy
    return row.diverged, -accuracy, worst


def _rank_by_loss(row: EpochRow) -> tuple[bool, float]:
    broken, _, loss = _rank(row)
    return broken, loss


def _text(source: Path) -> str:
    try:
        with source.open("rb") as file:
            content = file.read(MAX_CSV_BYTES + 1)
        if len(content) > MAX_CSV_BYTES:
            raise BundleError(
                f"{source} is larger than {MAX_CSV_BYTES // 2**20} MB: it is not a history."
            )
        return content.decode("utf-8-sig")
    except OSError as error:
        raise BundleError(f"Cannot read {source}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BundleError(f"{source} is not UTF-8 text: {error}.") from error


def _read_rows(lines: Iterable[list[str]]) -> Iterator[EpochRow]:
    for number, cells in enumerate(lines, 1):
        if len(cells) != len(COLUMNS):
            raise UsageError(f"Epoch {number} has {len(cells)} cells instead of {len(COLUMNS)}.")
        values = dict(zip(COLUMNS, cells, strict=True))
        epoch, phase = values.pop("epoch"), values.pop("phase")
        if epoch != str(number):
            raise UsageError(f"The epoch is {epoch[:20]!r} where {number} is expected.")
        yield EpochRow(number, phase, **{k: _number(k, v, number) for k, v in values.items()})  # type: ignore[arg-type]


def _number(name: str, text: str, epoch: int) -> float | None:
    if not text and name.startswith("val_"):
        return None
    if not _NUMBER.fullmatch(text):
        raise UsageError(f"{name} of epoch {epoch} is not a number: {text[:40]!r}.")
    return float(text)
