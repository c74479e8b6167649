"""Files that are whole or absent: written to a temporary name, then renamed."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kindsight.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["clear_leftovers", "read_toml", "replacing", "write_csv", "write_json", "write_text"]

MAX_TOML_BYTES = 2**20


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it there when the block ends without an error.

    Parameters
    ----------
    path : path
        Where the file will stand. A file that is there already is replaced in one step, so a
        reader sees the old content or the new, never a part.

    Yields
    ------
    pathlib.Path
        A path in the same folder, with the same ending, that does not exist yet.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=f".part{target.suffix}", dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    temporary.unlink()
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete what a process that was killed left of :func:`replacing`; nobody may be writing."""
    for path in Path(folder).glob(".*.part*"):
        path.unlink(missing_ok=True)


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Read a TOML file of settings.

    Parameters
    ----------
    path : path
        At most 1 MB. Names in it need not be UTF-8: they are read byte for byte.
    what : str
        What it holds, as the start of a sentence, for the error.

    Raises
    ------
    SettingsError
        For a file that cannot be read, is larger, or no TOML.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            data = file.read(MAX_TOML_BYTES + 1)
        if len(data) > MAX_TOML_BYTES:
            raise SettingsError(f"{source} must not be larger than 1 MB.")
        return tomllib.loads(data.decode("utf-8", "surrogateescape"))
    except OSError as error:
        raise SettingsError(
            f"{what} must be a file that can be read. Received: {source} ({error.strerror})."
        ) from error
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{source} must be valid TOML. It is not: {error}.") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; names that are not valid Unicode keep their bytes."""
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # Windows has names of half characters, which stand for no bytes.
        content = text.encode("utf-8", "surrogatepass")
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON; NaN and infinities are refused, JSON has none."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _needs_quotes(cell: object) -> bool:
    """Say whether a reader could mistake a cell that the writer leaves without quotation marks.

    A CR ends a line for every reader, but the writer quotes its own line end only; blanks before a
    cell are passed over by many.
    """
    text = str(cell)
    return "\r" in text or text[:1] == " "


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a table with a heading line, quoted where needed, lines ended by a single LF."""
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in itertools.chain([header], rows):
        writer = quoted if any(map(_needs_quotes, row)) else plain
        writer.writerow(row)
    write_text(path, buffer.getvalue())
