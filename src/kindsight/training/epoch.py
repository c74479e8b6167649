"""One epoch of a training in numbers: a row of its history."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from kindsight.errors import UsageError

__all__ = ["COLUMNS", "EpochRow"]

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
        Mean over the training pictures as they came by, in nats; not finite where it diverged.
    accuracy : float
        Share of the training pictures right as they came by, 0-1.
    val_loss, val_accuracy : float or None
        The same on the validation pictures at the end of the epoch; both None where there are none.

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
        """Whether there were validation pictures."""
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
