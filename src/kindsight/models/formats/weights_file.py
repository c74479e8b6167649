"""Open a weights file that a user names, without trusting it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kindsight.errors import WeightsError

__all__ = ["open_weights"]


@contextmanager
def open_weights(path: Path, max_bytes: int) -> Iterator[tuple[BinaryIO, int]]:
    """Yield the open file and its size in bytes.

    WeightsError for a file that is missing, not an ordinary file, or larger than `max_bytes`.
    """
    try:
        # Checked before opening: opening a named pipe would wait for ever.
        if not stat.S_ISREG(path.stat().st_mode):
            raise WeightsError("A weights file must be an ordinary file.")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size > max_bytes:
                raise WeightsError(
                    f"A weights file may have at most {max_bytes:,} bytes; got {size:,}."
                )
            yield file, size
    except OSError as error:
        raise WeightsError(f"The file cannot be read: {error.strerror or error}.") from None
