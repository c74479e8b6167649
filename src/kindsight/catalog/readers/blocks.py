"""The lines of a large text table, a block at a time; none of them without bounds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import BinaryIO

from kindsight.catalog.readers.csv_table import MAX_LINE_BYTES, CsvTable, opened
from kindsight.errors import CatalogError

__all__ = ["blocks"]

_BLOCK = 1 << 18  # bytes read in one go: what is made of them stays in the processor's cache


def blocks(table: CsvTable, *, heading: bool) -> Iterator[bytes]:
    """Yield the lines of a table, a block of them at a time, each ended by a single line feed.

    Parameters
    ----------
    table : CsvTable
        Which file.
    heading : bool
        Whether the first line holds names, and is left out.

    Raises
    ------
    CatalogError
        For a line that does not end.
    """
    with opened(table.path) as file:
        file.seek(len(file.readline(MAX_LINE_BYTES)) if heading else _mark(file))
        for block in _lines(file, table.where):
            yield _unpacked(block, table.separator) if table.packed else block


def _mark(file: BinaryIO) -> int:
    """Return how many bytes the mark of UTF-8 takes at the start."""
    return 3 if file.read(3) == b"\xef\xbb\xbf" else 0


def _lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read(_BLOCK):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            lines = rest + chunk[:cut]
            # Looking for a single byte is much faster than looking for two.
            yield lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines
            rest = chunk[cut:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            raise CatalogError(
                f"A line of a table must be shorter than {MAX_LINE_BYTES:,} bytes. Received: a "
                f"longer one in {where}."
            )
    if rest.strip():
        yield rest.rstrip(b"\r\n") + b"\n"


def _unpacked(block: bytes, separator: str) -> bytes:
    """Make the blanks between the pixels of one cell separators."""
    mark = separator.encode()
    plain = re.sub(rb" *([\n" + re.escape(mark) + rb"]) *", rb"\1", block.replace(b'"', b""))
    return re.sub(rb" +", mark, plain)
