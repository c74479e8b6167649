"""Checkpoints: the state from which a stopped training resumes with identical results.

A checkpoint is an uncompressed ``.npz`` file, replaced atomically: the weights, the optimizer's
state and the best weights so far as arrays, all other numbers as JSON in one more array. A thread
writes it during the training, at most as often as costs a twentieth of the time.
"""

from __future__ import annotations

import json
import threading
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.digest import content_digest
from kindsight.files import replacing

__all__ = ["CHECKPOINT_FILE", "Checkpoint", "CheckpointWriter", "key_of", "read_checkpoint"]

CHECKPOINT_FILE = "checkpoint.npz"
"""File name in the folder of an unfinished run."""

FORMAT = 1
JSON_MEMBER = "state"
MAX_BYTES = 16 * 2**30
MAX_JSON_BYTES = 64 * 2**20

# Least time between two checkpoints, in multiples of the time that writing the last one took.
MIN_INTERVAL = 20.0

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Checkpoint:
    """The state of a training between two steps.

    `key` identifies network, data and settings; `numbers` are JSON values, with floats restored to
    the bit; `arrays` are float32, by name.
    """

    key: str
    numbers: dict[str, Any]
    arrays: Arrays

    def write(self, path: Path) -> None:
        """Write the file, replacing an older one."""
        content = {"format": FORMAT, "key": self.key, "numbers": self.numbers}
        text = np.frombuffer(json.dumps(content).encode(), np.uint8)
        with replacing(path) as temporary:
            np.savez(temporary, allow_pickle=False, **{JSON_MEMBER: text}, **self.arrays)


def read_checkpoint(path: Path, key: str) -> Checkpoint | None:
    """Read a checkpoint, not trusted; None if it is missing, damaged or of another training."""
    try:
        _check_archive(path)
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        text = arrays.pop(JSON_MEMBER)
        if text.dtype != np.uint8 or text.nbytes > MAX_JSON_BYTES:
            return None
        content = json.loads(text.tobytes())
        if (content["format"], content["key"]) != (FORMAT, key):
            return None
        return Checkpoint(key, dict(content["numbers"]), arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, RecursionError, zipfile.BadZipFile):
        return None


def _check_archive(path: Path) -> None:
    """Raise ValueError for an archive that would take more memory than its size on disk."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = any(member.compress_type for member in members)
    if packed or max(size, sum(m.file_size for m in members)) > min(size, MAX_BYTES):
        raise ValueError("not a checkpoint")


class CheckpointWriter:
    """Writes checkpoints in a thread; a context manager that waits for the last one.

    Without a `path` it writes nothing. `seconds` is the least time between two checkpoints; 0 for
    no limit.
    """

    def __init__(self, path: Path | None, seconds: float) -> None:
        self._path, self._seconds = path, seconds
        self._last, self._took = time.monotonic(), 0.0
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._thread.join()

    @property
    def due(self) -> bool:
        """Whether it is time for the next checkpoint."""
        if self._path is None or (self._thread is not None and self._thread.is_alive()):
            return False
        wait = max(self._seconds, MIN_INTERVAL * self._took) if self._seconds else 0.0
        return time.monotonic() - self._last >= wait

    def write(self, checkpoint: Checkpoint, *, now: bool = False) -> None:
        """Write a checkpoint in a thread, or before returning if `now`.

        OSError if this or the last checkpoint could not be written.
        """
        if self._path is None:
            return
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        path, start = self._path, time.monotonic()
        self._last = start

        def work() -> None:
            try:
                checkpoint.write(path)
            except BaseException as error:
                self._error = error
            self._took = time.monotonic() - start

        self._thread = threading.Thread(target=work, name="checkpoint")
        self._thread.start()
        if now:
            self._thread.join()
            if self._error is not None:
                raise self._error

    def discard(self) -> None:
        """Delete the checkpoint of a training that cannot be continued."""
        if self._thread is not None:
            self._thread.join()
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def key_of(*values: Mapping[str, Any]) -> str:
    """Return a digest of JSON values, equal only for equal values."""
    return content_digest(json.dumps(values, sort_keys=True))
