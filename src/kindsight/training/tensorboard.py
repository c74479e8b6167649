"""A log that TensorBoard shows: accuracy and loss of both parts, epoch by epoch.

The names are Keras's own: a folder ``train`` and a folder ``validation``, ``epoch_loss`` and
``epoch_accuracy`` in each, so that TensorBoard lays the two curves over each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from kindsight.errors import UsageError
from kindsight.training.epoch import EpochRow
from kindsight.training.events import (
    first_event,
    read_records,
    record,
    scalar_event,
    without_time,
)

__all__ = ["TensorBoardLog"]

EVENT_FILE = "events.out.tfevents.kindsight"
"""TensorBoard reads every file with ``tfevents`` in its name."""

MAX_BYTES = 64 * 2**20


class TensorBoardLog:
    """A :class:`~.listener.TrainingListener` that writes TensorBoard's event files.

    A training that goes on after it was stopped goes on in the same files: what they hold of the
    epochs that count stays as it is, what is missing is added, the rest is cut off. So each epoch
    is there once, and a TensorBoard that is open meanwhile reads on.

    Parameters
    ----------
    folder : path
        This run's own; ``train`` and ``validation`` are made in it.
    run : str
        Stands in the files, so that no other run's are written to: the same whenever this run
        goes on.
    clock : callable, optional
        Gives seconds since 1970.

    Raises
    ------
    UsageError
        If there are files of another run, or the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: str,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._run, self._clock = Path(folder), run, clock
        self._done = 0
        self._rows: list[EpochRow] = []
        # Before anything is trained: whose the files are, and that they can be written.
        for part in ("train", "validation"):
            path = self._path(part)
            if part == "train" or path.exists():
                self._begin(path)

    def on_start(self, epochs: int, done: int) -> None:
        """Begin; `done` epochs are told of next."""
        self._done, self._rows = done, []
        if not done:
            self._rewrite()

    def on_step(
        self,
        phase: str,
        epoch: int,
        step: int,
        steps: int,
        loss: float,
        accuracy: float,
        pictures_per_second: float,
    ) -> None:
        """Leave steps out."""

    def on_epoch(self, row: EpochRow) -> None:
        """Write an epoch; those that were trained before together, once all are known."""
        self._rows.append(row)
        if len(self._rows) == self._done:
            self._rewrite()
        elif len(self._rows) > self._done:
            for part, values in _values(row).items():
                path = self._path(part)
                if not path.exists():
                    self._begin(path)
                with path.open("ab") as file:
                    file.write(record(scalar_event(self._clock(), row.epoch, values)))

    def _rewrite(self) -> None:
        """Bring the files to the epochs that are known."""
        now = self._clock()
        events: dict[str, list[bytes]] = {"train": [], "validation": []}
        later = sum(row.seconds for row in self._rows)
        for row in self._rows:
            later -= row.seconds
            for part, values in _values(row).items():
                events[part].append(scalar_event(now - later, row.epoch, values))
        for part, wanted in events.items():
            path = self._path(part)
            if wanted or path.exists():
                first, *found = self._begin(path)
                same = _in_common(found, wanted)
                kept = sum(len(record(data)) for data in (first, *found[:same]))
                with path.open("r+b") as file:
                    file.truncate(kept)
                    file.seek(kept)
                    file.write(b"".join(map(record, wanted[same:])))

    def _path(self, part: str) -> Path:
        return self._folder / part / EVENT_FILE

    def _begin(self, path: Path) -> list[bytes]:
        """Make sure that a file is there and ours, and return the whole records in it."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or not path.stat().st_size:
                path.write_bytes(record(first_event(self._clock(), self._run)))
            with path.open("rb") as file:
                found = read_records(file.read(MAX_BYTES))
        except OSError as error:
            raise UsageError(
                f"The folder for TensorBoard must be one that can be written. Received: "
                f"{self._folder} ({error.strerror})."
            ) from error
        if not found or without_time(found[0]) != without_time(first_event(0.0, self._run)):
            raise UsageError(
                f"TensorBoard's log of another training is never written to. Received: {path}. "
                "Give another folder, or move that one away."
            )
        return found


def _values(row: EpochRow) -> dict[str, dict[str, float]]:
    """Return what is logged of an epoch, for each part."""
    values = {
        "train": {
            "epoch_loss": row.loss,
            "epoch_accuracy": row.accuracy,
            "epoch_learning_rate": row.learning_rate,
        }
    }
    if row.val_loss is not None and row.val_accuracy is not None:
        values["validation"] = {"epoch_loss": row.val_loss, "epoch_accuracy": row.val_accuracy}
    return values


def _in_common(found: list[bytes], wanted: list[bytes]) -> int:
    """Count the events at the start that are the same, apart from when they were written."""
    pairs = zip(found, wanted, strict=False)
    differ = (k for k, (a, b) in enumerate(pairs) if without_time(a) != without_time(b))
    return next(differ, min(len(found), len(wanted)))
