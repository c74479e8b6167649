"""By which ending of its name a file is taken to hold many pictures."""

from __future__ import annotations

import os

__all__ = ["ARRAY_ENDINGS", "PARQUET_ENDINGS", "TEXT_ENDINGS", "is_file_of_pictures"]

TEXT_ENDINGS = (".csv", ".tsv")
PARQUET_ENDINGS = (".parquet", ".pq")
ARRAY_ENDINGS = (".npz", ".npy")


def is_file_of_pictures(path: str | os.PathLike[str]) -> bool:
    """Say whether a path is that of a table or of arrays, by its ending."""
    return os.fspath(path).lower().endswith(TEXT_ENDINGS + PARQUET_ENDINGS + ARRAY_ENDINGS)
