"""Read rows of pixels in text tables fast, a block of lines at a time, as arrays of bytes.

The cells of a block are found by their separators, and up to three digits of all cells are combined
at once. Other cells (quotation marks, blanks, decimal points, invalid values) are parsed one by
one.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.loaders.arrays import MAX_PIXEL_BYTES
from kindsight.dataset.loaders.table_files import MAX_LINE_BYTES, CsvTable
from kindsight.dataset.loaders.values import Faults
from kindsight.dataset.names import quoted
from kindsight.encoding import invalid_line
from kindsight.errors import DatasetError

__all__ = ["PixelRows", "read_pixel_rows"]

_BLOCK = 1 << 18  # bytes; arrays of a block fit into the processor's cache


def _blocks(table: CsvTable, *, heading: bool) -> Iterator[bytes]:
    """Yield the lines of a table in blocks, each line ended by a single line feed."""
    with table.open_utf8() as file:
        if heading:
            file.readline(MAX_LINE_BYTES)
        for block in _lines(file, table.where):
            yield _unpacked(block, table.separator) if table.packed else block


def _lines(file: BinaryIO, where: str) -> Iterator[bytes]:
    rest = b""
    while chunk := file.read(_BLOCK):
        cut = chunk.rfind(b"\n") + 1
        if cut:
            lines = rest + chunk[:cut]
            # Searching for one byte is much faster than searching for two.
            yield lines.replace(b"\r\n", b"\n") if b"\r" in lines else lines
            rest = chunk[cut:]
        else:
            rest += chunk
        if len(rest) > MAX_LINE_BYTES:
            raise DatasetError(
                f"{where} has a line longer than {MAX_LINE_BYTES:,} bytes, the limit."
            )
    if rest.strip():
        yield rest.rstrip(b"\r\n") + b"\n"


def _unpacked(block: bytes, separator: str) -> bytes:
    """Replace the blanks between the pixels of one cell by separators."""
    mark = separator.encode()
    plain = re.sub(rb" +", b" ", block.replace(b'"', b"")).lstrip(b" ")
    for end in (mark, b"\n"):
        plain = plain.replace(b" " + end, end).replace(end + b" ", end)
    return plain.replace(b" ", mark)


_ZERO = ord("0")


def _whole_numbers(
    data: NDArray[np.uint8], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Parse cells of one to three digits: uint16 values, and bool whether each is valid, 0-255."""
    # Other characters become 10 or more; characters before a cell become 0.
    units = data[ends - 1] - np.uint8(_ZERO)
    tens = (data[ends - 2] - np.uint8(_ZERO)) * (lengths > 1)
    hundreds = (data[ends - 3] - np.uint8(_ZERO)) * (lengths > 2)
    digits = np.maximum(np.maximum(units, tens), hundreds) < 10
    values = units + tens * np.uint16(10) + hundreds * np.uint16(100)
    return values, digits & (lengths >= 1) & (lengths <= 3) & (values <= 255)


def _texts_of(block: bytes, ends: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[str]:
    """Return cells as texts, given their ends and lengths in bytes."""
    pairs = zip((ends - lengths).tolist(), ends.tolist(), strict=True)
    return [block[start:end].decode().strip() for start, end in pairs]


def _number_of(text: str) -> float | None:
    """Return a number from 0 to 255; None for other texts."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= 255 and "_" not in text else None


def _scaled(block: NDArray[Any]) -> NDArray[np.uint8]:
    """Return floats from 0 to 1 as 0 to 255."""
    return np.asarray(np.round(block.astype(np.float64) * 255), np.uint8)


_NEWLINE = ord("\n")


@dataclass
class PixelRows:
    """The rows of a table of pixels."""

    # uint8 (rows, pixels), one for each block of lines
    pixels: list[NDArray[Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)  # line number of each row, from 1
    cells: list[list[str]] = field(default_factory=list)  # the other requested columns
    # whether the pixels were floats from 0 to 1 and were multiplied by 255
    fractions: bool = False


def read_pixel_rows(
    table: CsvTable, pixels: Sequence[int], others: Sequence[int], *, heading: bool
) -> PixelRows:
    """Read a table of pixels.

    - `pixels`: indices of the pixels' columns, in the order of the pixels.
    - `others`: indices of other columns to read, as text.
    - `heading`: whether the first line is a header.

    Returns
    -------
    PixelRows

    Raises
    ------
    DatasetError
        For lines with another number of cells, or invalid pixels; the message names them.
    """
    parser = _Parser(table, pixels, others)
    number = 1 + heading
    for block in _blocks(table, heading=heading):
        number += parser.add(block, number)
    return parser.finish()


class _Parser:
    """Parses blocks of lines and collects their rows."""

    def __init__(self, table: CsvTable, pixels: Sequence[int], others: Sequence[int]) -> None:
        self.faults = Faults(table.unit)
        self.found = PixelRows(cells=[[] for _ in others])
        self._table, self._where, self._separator = table, table.where, table.separator
        self._width, self._columns, self._others = len(table.header), list(pixels), list(others)
        first, last = pixels[0], pixels[-1] + 1
        # A slice does not copy the cells; a list of indices does.
        in_order = self._columns == list(range(first, last))
        self._pixels: Any = slice(first, last) if in_order else self._columns
        self._room = MAX_PIXEL_BYTES // len(pixels)
        self._fractions: list[int] = []  # lines
        self._above_one = 0  # the first line that has such a number

    def add(self, block: bytes, first_line: int) -> int:
        """Parse a block whose first line has this number; return its number of lines."""
        if not block.isascii() and (line := invalid_line(block.split(b"\n"))):
            raise self._table.not_utf8(first_line + line - 1)
        data = np.frombuffer(block, np.uint8)
        ends = np.flatnonzero((data == ord(self._separator)) | (data == _NEWLINE))
        line_ends = np.flatnonzero(data[ends] == _NEWLINE)
        if b'"' in block:
            self._add_quoted(block, first_line)
            return len(line_ends)
        lengths = np.diff(ends, prepend=-1) - 1
        widths = np.diff(line_ends, prepend=-1)
        blank = (widths == 1) & (lengths[line_ends] == 0)
        good = widths == self._width
        for row in np.flatnonzero(~(good | blank)).tolist():
            self._width_fault(first_line + row, int(widths[row]))
        if not good.all():
            kept = np.repeat(good, widths)
            ends, lengths = ends[kept], lengths[kept]
        stops, sizes = ends.reshape(-1, self._width), lengths.reshape(-1, self._width)
        values, plain = _whole_numbers(data, stops[:, self._pixels], sizes[:, self._pixels])
        lines = (np.flatnonzero(good) + first_line).tolist()
        texts = [_texts_of(block, stops[:, k], sizes[:, k]) for k in self._others]
        careful = {}
        for row in np.flatnonzero(~plain.all(axis=1)).tolist():
            start = int(stops[row, 0] - sizes[row, 0])
            text = block[start : int(stops[row, -1])].decode()
            cells = [cell.strip() for cell in text.split(self._separator)]
            careful[row] = self._numbers(cells, lines[row])
            for column, index in zip(texts, self._others, strict=True):
                column[row] = cells[index]
        self._add_rows(values.astype(np.uint8), careful, lines, texts)
        return len(line_ends)

    def _add_quoted(self, block: bytes, first_line: int) -> None:
        """Parse a block with quotation marks."""
        lines: list[int] = []
        careful = {}
        texts: list[list[str]] = [[] for _ in self._others]
        for line, text in enumerate(block.split(b"\n")[:-1], first_line):
            cells = self._split(text, line)
            if not any(cells):
                continue
            if len(cells) != self._width:
                self._width_fault(line, len(cells))
                continue
            careful[len(lines)] = self._numbers(cells, line)
            lines.append(line)
            for column, index in zip(texts, self._others, strict=True):
                column.append(cells[index])
        values = np.zeros((len(lines), len(self._columns)), np.uint8)
        self._add_rows(values, careful, lines, texts)

    def _split(self, text: bytes, line: int) -> list[str]:
        """Return the cells of a line with quotation marks; an empty list if it is invalid."""
        reader = csv.reader([text.decode()], delimiter=self._separator, skipinitialspace=True)
        try:
            return [cell.strip() for cell in next(reader, [])]
        except csv.Error as error:
            self.faults.add(f"Every line of {self._where} must have plain cells.", line, str(error))
            return []

    def _numbers(self, cells: list[str], line: int) -> NDArray[np.float32]:
        """Parse a row's pixels one by one."""
        numbers = np.zeros(len(self._columns), np.float32)
        for k, index in enumerate(self._columns):
            number = _number_of(cells[index]) if cells else 0.0
            if number is None or (number > 1 and number != int(number)):
                rule = f"Pixels in {self._where} must be whole numbers from 0 to 255."
                column = index + 1
                self.faults.add(rule, line, f"{quoted(cells[index][:20])} in column {column:,}")
                break
            numbers[k] = number
        return numbers

    def _width_fault(self, line: int, width: int) -> None:
        rule = f"Every line of {self._where} must have {self._width:,} values, like the first line."
        self.faults.add(rule, line, f"{width:,} values")

    def _add_rows(
        self,
        values: NDArray[np.uint8],
        careful: dict[int, NDArray[np.float32]],
        lines: list[int],
        texts: list[list[str]],
    ) -> None:
        """Add rows; `careful` replaces rows of `values`."""
        block: NDArray[Any] = values
        fractions = [row for row, numbers in careful.items() if (numbers % 1).any()]
        if fractions:
            block = values.astype(np.float32)
            self._fractions.extend(lines[row] for row in fractions)
        for row, numbers in careful.items():
            block[row] = numbers
        if not self._above_one and len(lines):
            above = np.flatnonzero((block > 1).any(axis=1))
            self._above_one = lines[int(above[0])] if len(above) else 0
        self.found.pixels.append(block)
        self.found.lines.extend(lines)
        for column, cells in zip(self.found.cells, texts, strict=True):
            column.extend(cells)
        if len(self.found.lines) > self._room:
            raise DatasetError(
                f"{self._where} has more than {MAX_PIXEL_BYTES:,} bytes of pixels, the limit. "
                "Split it into several tables, or write the images as files."
            )

    def finish(self) -> PixelRows:
        """Return the rows on one scale; DatasetError if rows are invalid."""
        if self._fractions and self._above_one:
            rule = (
                f"Pixels in {self._where} must be whole numbers from 0 to 255, or all of them "
                "floats from 0 to 1."
            )
            cure = f"Line {self._above_one:,} has numbers above 1."
            for line in self._fractions:
                self.faults.add(rule, line, "fractions", cure)
        self.faults.check()
        if self._fractions:
            self.found.fractions = True
            self.found.pixels = [_scaled(block) for block in self.found.pixels]
        return self.found
