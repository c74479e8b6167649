"""A log that TensorBoard shows: accuracy and loss of both parts, epoch by epoch.

The names are Keras's own: a folder ``train`` and a folder ``validation``, ``epoch_loss`` and
``epoch_accuracy`` in each, so that TensorBoard lays the two curves over each other.
"""

from __future__ import annotations

import functools
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from kindsight.errors import UsageError
from kindsight.training.engine.history import EpochRow

__all__ = [
    "TensorBoardLog",
    "first_event",
    "read_records",
    "record",
    "scalar_event",
    "without_time",
]

# SECTION: TensorBoard's event files, written without TensorFlow.
#
# A file is a chain of records: the length of the data (uint64), a checksum of that, the data, a
# checksum of those (uint32 each, all little-endian; CRC-32C, rotated and shifted as TensorFlow's
# ``record_writer`` does it). The data is a protocol buffer, ``tensorflow.Event``: wall time, step,
# and either the version of the file (its first record) or a summary of tagged numbers. Of the two
# messages only these few fields are needed, so they are put together by hand.

# Longer than any record that is written here.
MAX_RECORD = 1 << 16

_TIME = struct.Struct("<Bd")


def record(data: bytes) -> bytes:
    """Frame the data of one record."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def read_records(content: bytes) -> list[bytes]:
    """Take apart the whole records at the start of a file's content; a torn one ends them."""
    found, place = [], 0
    while len(content) - place >= 16:
        length = content[place : place + 8]
        size = struct.unpack("<Q", length)[0]
        end = place + 12 + size
        if size > MAX_RECORD or content[place + 8 : place + 12] != _checksum(length):
            break
        data = content[place + 12 : end]
        if len(data) != size or content[end : end + 4] != _checksum(data):
            break
        found.append(data)
        place = end + 4
    return found


def first_event(wall_time: float, writer: str) -> bytes:
    """Return the data of a file's first record: the format's version, and who wrote it.

    Parameters
    ----------
    wall_time : float
        Seconds since 1970.
    writer : str
        Anything.
    """
    source = _text(1, writer)
    return _time(wall_time) + _text(3, "brain.Event:2") + _message(10, source)


def scalar_event(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return the data of a record that holds numbers of one step.

    Parameters
    ----------
    wall_time : float
        Seconds since 1970.
    step : int
        0 or more.
    values : mapping of str to float
        Tag to number; kept as float32.
    """
    summary = b"".join(
        _message(1, _text(1, tag) + b"\x15" + _float32(value)) for tag, value in values.items()
    )
    return _time(wall_time) + b"\x10" + _varint(step) + _message(5, summary)


def without_time(data: bytes) -> bytes:
    """Return an event without its wall time."""
    return data[_TIME.size :]


def _time(seconds: float) -> bytes:
    return _TIME.pack(0x09, seconds)


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _message(field: int, data: bytes) -> bytes:
    """Write a field of bytes: its number with wire type 2, its length, itself."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@functools.cache
def _table() -> tuple[int, ...]:
    """Return the remainders of CRC-32C (polynomial 0x1EDC6F41, bits reversed) of each byte."""
    remainders: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        remainders.append(value)
    return tuple(remainders)


def crc32c(data: Iterable[int]) -> int:
    """Return the CRC-32C of bytes."""
    table, remainder = _table(), 0xFFFFFFFF
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ remainder >> 8
    return remainder ^ 0xFFFFFFFF


def _checksum(data: bytes) -> bytes:
    """Return TensorFlow's masked checksum of bytes."""
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


EVENT_FILE = "events.out.tfevents.kindsight"
"""TensorBoard reads every file with ``tfevents`` in its name."""

MAX_BYTES = 64 * 2**20


class TensorBoardLog:
    """A :class:`~.callback.TrainingCallback` that writes TensorBoard's event files.

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
        images_per_second: float,
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
