"""Log accuracy and loss by epoch to TensorBoard, without TensorFlow, under Keras's names.

At the end the run's settings, final metrics and report are added, also where there are no epochs.

An event file is a sequence of records: length of the data (uint64), its checksum, the data, its
checksum (uint32, little-endian, masked CRC-32C). The data is a protocol buffer
``tensorflow.Event``: wall time, step, and either the file version (first record) or a summary of
tagged numbers or texts. These few fields are encoded here by hand.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from kindsight.encoding import valid_text
from kindsight.errors import UsageError
from kindsight.files import replacing
from kindsight.training.engine.history import EpochRow

__all__ = ["TensorBoardLog", "read_records", "record", "scalar_event", "text_event"]

MAX_RECORD = 1 << 16  # bytes

_TIME = struct.Struct("<Bd")


def record(data: bytes) -> bytes:
    """Return a record with its length and checksums."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def read_records(content: bytes) -> list[bytes]:
    """Return the data of the complete records at the start of a file's content."""
    found, offset = [], 0
    while len(content) - offset >= 16:
        length = content[offset : offset + 8]
        size = struct.unpack("<Q", length)[0]
        end = offset + 12 + size
        if size > MAX_RECORD or content[offset + 8 : offset + 12] != _checksum(length):
            break
        data = content[offset + 12 : end]
        if len(data) != size or content[end : end + 4] != _checksum(data):
            break
        found.append(data)
        offset = end + 4
    return found


def first_event(wall_time: float, writer: str) -> bytes:
    """Return the data of a file's first record: the format version and the writer's name."""
    return _time(wall_time) + _text(3, "brain.Event:2") + _message(10, _text(1, writer))


def scalar_event(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return the data of a record of float32 values by tag, at a step and a Unix time."""
    summary = b"".join(
        _message(1, _text(1, tag) + b"\x15" + _float32(value)) for tag, value in values.items()
    )
    return _time(wall_time) + b"\x10" + _varint(step) + _message(5, summary)


def text_event(wall_time: float, tag: str, markdown: str) -> bytes:
    """Return the data of a record of a text, which TensorBoard shows as Markdown."""
    # tensorflow.TensorProto: the type (7, string), the shape (one dimension of size 1), the text.
    shape = _message(2, b"\x08" + _varint(1))
    tensor = b"\x08" + _varint(7) + _message(2, shape) + _text(8, markdown)
    # SummaryMetadata: the plugin "text", and that the data is a tensor (2).
    metadata = _message(1, _text(1, "text")) + b"\x20" + _varint(2)
    value = _text(1, tag) + _message(8, tensor) + _message(9, metadata)
    return _time(wall_time) + _message(5, _message(1, value))


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
    return _message(field, valid_text(text).encode())


def _message(field: int, data: bytes) -> bytes:
    """Encode a field of bytes: number with wire type 2, length, bytes."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Encode a number in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@functools.cache
def _table() -> tuple[int, ...]:
    """Return the CRC-32C of each byte (polynomial 0x1EDC6F41, bits reversed)."""
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
    """Return TensorFlow's masked CRC-32C of bytes."""
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)


EVENT_FILE = "events.out.tfevents.kindsight"
"""TensorBoard reads all files with ``tfevents`` in their name."""

MAX_BYTES = 64 * 2**20

MAX_VALUE = 250
"""Maximum characters of a setting's value."""

RESULT = "result"
"""The subfolder of the final metrics and the settings."""


class TensorBoardLog:
    """A :class:`~.callbacks.TrainingCallback` that writes TensorBoard's event files.

    A resumed training continues the same files: matching records are left untouched, missing ones
    appended and others cut off, so each epoch appears once, and an open TensorBoard continues.
    `folder` is the run's own; `run` identifies the run in the files; `clock` returns seconds since
    1970; `parameters` are the settings. UsageError if the folder holds another run, or is not
    writable.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        run: str,
        clock: Callable[[], float] = time.time,
        parameters: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder, self._run, self._clock = Path(folder), run, clock
        self._parameters = dict(parameters or {})
        self._done = 0
        self._rows: list[EpochRow] = []
        # Fail before the training. A file is written with its first epoch only, so that a failed
        # start does not take the name.
        for split in ("train", "validation", RESULT):
            path = self._path(split)
            existed = path.exists()
            if split == "train" or existed:
                self._begin(path)
            if not existed:
                path.unlink(missing_ok=True)

    def on_start(self, epochs: int, done: int) -> None:
        """Forget earlier epochs; they are reported again."""
        self._done, self._rows = done, []
        if not done:
            self._rewrite()

    def on_step(self, *_: Any, **__: Any) -> None:
        """Ignore steps."""

    def on_epoch(self, row: EpochRow) -> None:
        """Append an epoch; earlier ones are written at once when all are reported."""
        self._rows.append(row)
        if len(self._rows) == self._done:
            self._rewrite()
        elif len(self._rows) > self._done:
            for split, values in _values(row).items():
                path = self._path(split)
                if not path.exists():
                    self._begin(path)
                with path.open("ab") as file:
                    file.write(record(scalar_event(self._clock(), row.epoch, values)))

    def on_result(self, metrics: Mapping[str, float], report: Path) -> None:
        """Write the settings and the final metrics, and a copy of the report."""
        now, path = self._clock(), self._path(RESULT)
        rows = [f"| {_cell(k)} | {_cell(v)} |" for k, v in self._parameters.items()]
        settings = "\n".join(["| setting | value |", "|---|---|", *rows])
        events = [
            first_event(now, self._run),
            scalar_event(now, 0, metrics),
            text_event(now, "settings", settings[: MAX_RECORD // 4]),
        ]
        try:
            if path.exists():  # of a run that was killed here
                self._begin(path)
            with replacing(path) as temporary:
                temporary.write_bytes(b"".join(map(record, events)))
            with replacing(self._folder / report.name) as temporary:
                shutil.copyfile(report, temporary)
        except OSError as error:  # the training itself has succeeded
            warnings.warn(
                f"Could not write the final metrics and the report to {self._folder}: "
                f"{error.strerror}.",
                stacklevel=2,
            )

    def _rewrite(self) -> None:
        """Make the files hold exactly the epochs reported so far."""
        now = self._clock()
        events: dict[str, list[bytes]] = {"train": [], "validation": []}
        later = sum(row.seconds for row in self._rows)
        for row in self._rows:
            later -= row.seconds
            for split, values in _values(row).items():
                events[split].append(scalar_event(now - later, row.epoch, values))
        for split, wanted in events.items():
            path = self._path(split)
            if wanted or path.exists():
                first, *found = self._begin(path)
                same = _count_equal(found, wanted)
                size = sum(len(record(data)) for data in (first, *found[:same]))
                with path.open("r+b") as file:
                    file.truncate(size)
                    file.seek(size)
                    file.write(b"".join(map(record, wanted[same:])))

    def _path(self, split: str) -> Path:
        return self._folder / split / EVENT_FILE

    def _begin(self, path: Path) -> list[bytes]:
        """Create the file, or check that it is this run's; return its complete records."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or not path.stat().st_size:
                path.write_bytes(record(first_event(self._clock(), self._run)))
            with path.open("rb") as file:
                found = read_records(file.read(MAX_BYTES))
        except OSError as error:
            raise UsageError(
                f"Cannot write to the TensorBoard folder {self._folder}: {error.strerror}."
            ) from error
        if not found or without_time(found[0]) != without_time(first_event(0.0, self._run)):
            raise UsageError(
                f"{path} is the log of another training. Give another TensorBoard folder, or move "
                "that one away."
            )
        return found


def _cell(value: object) -> str:
    """Return a cell of a Markdown table."""
    text = " ".join(str(value)[:MAX_VALUE].split())
    return text.replace("\\", "\\\\").replace("|", "\\|")


def _values(row: EpochRow) -> dict[str, dict[str, float]]:
    """Return the values to log of an epoch, by split."""
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


def _count_equal(found: list[bytes], wanted: list[bytes]) -> int:
    """Return the number of leading events that are equal apart from their wall time."""
    pairs = zip(found, wanted, strict=False)
    differ = (k for k, (a, b) in enumerate(pairs) if without_time(a) != without_time(b))
    return next(differ, min(len(found), len(wanted)))
