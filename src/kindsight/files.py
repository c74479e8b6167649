"""Atomic writing of files (JSON, CSV, text), deleting files, and reading of TOML settings."""

from __future__ import annotations

import csv
import io
import itertools
import json
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kindsight.encoding import escape_name, valid_json, valid_text
from kindsight.errors import SettingsError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "FileHeldError", "check_writable", "clear_leftovers", "copy_file", "delete_file", "read_json",
    "read_toml", "replace_file", "replacing", "standard_error_hidden", "write_csv", "write_json",
    "write_text",
]  # fmt: skip

# A list of numbers over several lines. In a text, a line feed would be escaped.
_NUMBERS = re.compile(r"\[\n([-+.\deE, \n]+)\]")

_JSON_PARTS = 4096
"""Tokens of JSON (brackets, names, values) that are joined before they are written."""

MAX_TOML_BYTES = 2**20
"""Limit of the size of a TOML file."""

# Windows's error codes for a file that another program has open or mapped into memory: access
# denied, sharing violation, lock violation, user-mapped section open.
HELD_CODES = (5, 32, 33, 1224)
# Virus scanners, indexers and viewers mostly hold a new file for less than a second.
HELD_SECONDS = 2.0
RETRY_SECONDS = 0.05


ROWS_AT_ONCE = 4096
"""Rows of a CSV table in memory."""


class FileHeldError(PermissionError):
    """Another program has a file open, so that Windows does not replace or delete it."""


def _retry_while_held(action: Callable[[], object], path: Path) -> None:
    end = time.monotonic() + HELD_SECONDS
    while True:
        try:
            action()
            return
        except OSError as error:
            if getattr(error, "winerror", None) not in HELD_CODES:
                raise
            if time.monotonic() > end:
                raise FileHeldError(
                    error.errno,
                    "Another program has a file open. Close it there, and run the same command "
                    "again",
                    str(path),
                ) from error
            time.sleep(RETRY_SECONDS)


def replace_file(source: Path, target: Path) -> None:
    """Rename a file, replacing `target`.

    Waits up to two seconds for another program that has one of them open, then raises
    FileHeldError.
    """
    _retry_while_held(lambda: source.replace(target), target)


def delete_file(path: Path) -> None:
    """Delete a file if it exists; wait and raise FileHeldError as :func:`replace_file` does."""
    _retry_while_held(lambda: path.unlink(missing_ok=True), path)


@contextmanager
def standard_error_hidden() -> Iterator[None]:
    """Hide what C++ libraries write to descriptor 2 during the block."""
    try:
        stderr = os.dup(2)
    except OSError:  # a program without a standard error
        yield
        return
    try:
        with open(os.devnull, "wb") as null:  # noqa: PTH123 - devnull is not a path on Windows
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to `path` if the block ends without an error.

    The temporary path has the same folder and ending, and does not exist yet. An existing file is
    replaced atomically: a reader sees the old content or the new content, never a mixture.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        prefix=f".{target.stem}-", suffix=f".part{target.suffix}", dir=target.parent
    )
    os.close(handle)
    temporary = Path(name)
    delete_file(temporary)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        replace_file(temporary, target)
    finally:
        with suppress(OSError):  # It would hide the error that matters.
            delete_file(temporary)


def copy_file(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Copy a file; the copy is whole or absent."""
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)


def clear_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete temporary files of :func:`replacing` in a killed process; no other may be writing."""
    for path in Path(folder).glob(".*.part*"):
        delete_file(path)


def check_writable(folder: str | os.PathLike[str], what: str) -> None:
    """Raise SettingsError if no file can be written to a folder; `what` is the option to change."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            f"No file can be written to the folder {os.fspath(folder)} ({error.strerror}). Choose "
            f"another {what}, or change the permissions of the folder."
        ) from error


def read_toml(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """Return the settings of a TOML file of at most 1 MB; `what` begins the error message.

    Raises SettingsError if the file is unreadable, too large, or not valid TOML in UTF-8.
    """
    source = Path(path)
    try:
        with source.open("rb") as file:
            data = file.read(MAX_TOML_BYTES + 1)
        if len(data) > MAX_TOML_BYTES:
            raise SettingsError(f"{source} is larger than 1 MB, the limit for settings.")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise SettingsError(
            f"{what} must be a readable file; got {source} ({error.strerror})."
        ) from error
    except SettingsError:
        raise
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{source} must be valid TOML: {error}.") from error


def read_json(path: str | os.PathLike[str], max_bytes: int) -> dict[str, Any]:
    """Return the object in a JSON file of at most `max_bytes`.

    Raises OSError if the file is unreadable, ValueError if it is too large or no JSON object.
    """
    with Path(path).open("rb") as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it is larger than {max_bytes // 2**20} MB")
    try:
        data = json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict):
        raise ValueError("it is not a JSON object")
    return data


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as UTF-8; bytes of file names that are not UTF-8 are escaped."""
    with replacing(path) as temporary:
        temporary.write_bytes(valid_text(text).encode())


def write_json(path: str | os.PathLike[str], value: Mapping[str, Any]) -> None:
    """Write `value` as indented JSON, with each list of numbers on one line.

    NaN and infinities, which JSON lacks, raise ValueError.
    """
    encoder = json.JSONEncoder(indent=2, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        parts: list[str] = []
        # Written in parts that end before an object, so that no list of numbers is split.
        for part in encoder.iterencode(valid_json(value)):
            if part == "{" and len(parts) > _JSON_PARTS:
                file.write(_in_lines("".join(parts)))
                parts = []
            parts.append(part)
        file.write(_in_lines("".join(parts)) + "\n")


def _in_lines(text: str) -> str:
    """Return JSON text with each list of numbers on one line, and without lone surrogates."""
    return valid_text(_NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text))


def _needs_quotes(cell: object) -> bool:
    """Return whether a cell needs quotes that the csv module does not write.

    Readers take a CR for a line end, and many skip leading spaces.
    """
    text = str(cell)
    return "\r" in text or text[:1] == " "


def write_csv(
    path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
    """Write a CSV table with a header, quotes where needed, and LF line ends.

    A column ``path`` contains paths as :func:`kindsight.encoding.escape_name` writes them.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        for text in _csv_parts(header, rows):
            file.write(valid_text(text).encode())


def _csv_parts(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Yield the text of a table in parts of a few thousand rows."""
    buffer = io.StringIO(newline="")
    plain = csv.writer(buffer, lineterminator="\n")
    quoted = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_ALL)
    paths = [column for column, name in enumerate(header) if name == "path"]
    for number, values in enumerate(itertools.chain([header], rows)):
        row = list(values)
        for column in paths:
            row[column] = escape_name(row[column])
        writer = quoted if any(map(_needs_quotes, row)) else plain
        writer.writerow(row)
        if number % ROWS_AT_ONCE == 0:
            yield buffer.getvalue()
            buffer.seek(0)
            buffer.truncate()
    yield buffer.getvalue()
