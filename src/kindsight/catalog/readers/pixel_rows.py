"""Rows of pixels as text, read fast: a block of lines at a time, as arrays of bytes.

The cells of a block are found by their separators, and up to three digits of all cells are put
together at once. What is not that plain (quotation marks, blanks, decimal points, a value that is
no pixel) is looked at cell by cell.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.names import shown
from kindsight.catalog.readers.blocks import blocks
from kindsight.catalog.readers.csv_table import CsvTable
from kindsight.catalog.readers.digits import number_of, scaled, texts_of, whole_numbers
from kindsight.catalog.readers.faults import Faults
from kindsight.catalog.readers.pixels import MAX_PIXEL_BYTES
from kindsight.errors import CatalogError

__all__ = ["PixelRows", "read_pixel_rows"]

_NEWLINE = ord("\n")


@dataclass
class PixelRows:
    """What the rows of a file hold.

    Attributes
    ----------
    pixels : list of arrays
        uint8 (rows, pixels) each; their rows are those of the file, one block after the other.
    lines : list of int
        The number of each row's line in the file, counted from 1.
    cells : list of list of str
        The other columns that were asked for.
    fractions : bool
        Whether the pixels were fractions from 0 to 1, which were multiplied by 255.
    """

    pixels: list[NDArray[Any]] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    cells: list[list[str]] = field(default_factory=list)
    fractions: bool = False


def read_pixel_rows(
    table: CsvTable, pixels: Sequence[int], others: Sequence[int], *, heading: bool
) -> PixelRows:
    """Read a table of which most columns are pixels.

    Parameters
    ----------
    table : CsvTable
        Which file.
    pixels : sequence of int
        The places of the pixels' columns, in the order of the pixels.
    others : sequence of int
        The places of other columns that are wanted, as text.
    heading : bool
        Whether the first line holds names.

    Returns
    -------
    PixelRows

    Raises
    ------
    CatalogError
        Naming the lines that have another number of cells, or cells that are no pixels.
    """
    parser = _Parser(table, pixels, others)
    number = 1 + heading
    for block in blocks(table, heading=heading):
        number += parser.add(block, number)
    return parser.finish()


class _Parser:
    """Takes blocks of lines and gathers what they hold."""

    def __init__(self, table: CsvTable, pixels: Sequence[int], others: Sequence[int]) -> None:
        self.faults = Faults(table.unit)
        self.found = PixelRows(cells=[[] for _ in others])
        self._where, self._separator = table.where, table.separator
        self._width, self._places, self._others = len(table.header), list(pixels), list(others)
        first, last = pixels[0], pixels[-1] + 1
        # A slice looks at the cells where they are; a list of places copies them first.
        in_order = self._places == list(range(first, last))
        self._pixels: Any = slice(first, last) if in_order else self._places
        self._room = MAX_PIXEL_BYTES // len(pixels)
        self._fractions: list[int] = []  # lines
        self._above_one = 0  # the first line that has such a number

    def add(self, block: bytes, first_line: int) -> int:
        """Take a block whose first line has this number; return how many lines it has."""
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
        values, plain = whole_numbers(data, stops[:, self._pixels], sizes[:, self._pixels])
        lines = (np.flatnonzero(good) + first_line).tolist()
        texts = [texts_of(block, stops[:, k], sizes[:, k]) for k in self._others]
        careful = {}
        for row in np.flatnonzero(~plain.all(axis=1)).tolist():
            start = int(stops[row, 0] - sizes[row, 0])
            text = block[start : int(stops[row, -1])].decode("utf-8", "surrogateescape")
            cells = [cell.strip() for cell in text.split(self._separator)]
            careful[row] = self._numbers(cells, lines[row])
            for column, place in zip(texts, self._others, strict=True):
                column[row] = cells[place]
        self._keep(values.astype(np.uint8), careful, lines, texts)
        return len(line_ends)

    def _add_quoted(self, block: bytes, first_line: int) -> None:
        """Take a block with quotation marks in it."""
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
            for column, place in zip(texts, self._others, strict=True):
                column.append(cells[place])
        values = np.zeros((len(lines), len(self._places)), np.uint8)
        self._keep(values, careful, lines, texts)

    def _split(self, text: bytes, line: int) -> list[str]:
        """Part a line with quotation marks into its cells; none where that cannot be."""
        decoded = text.decode("utf-8", "surrogateescape")
        reader = csv.reader([decoded], delimiter=self._separator, skipinitialspace=True)
        try:
            return [cell.strip() for cell in next(reader, [])]
        except csv.Error as error:
            self.faults.add(f"Every line of {self._where} must have plain cells.", line, str(error))
            return []

    def _numbers(self, cells: list[str], line: int) -> NDArray[np.float32]:
        """Read a row's pixels one by one."""
        numbers = np.zeros(len(self._places), np.float32)
        for k, place in enumerate(self._places):
            number = number_of(cells[place]) if cells else 0.0
            if number is None or (number > 1 and number != int(number)):
                rule = f"Pixels in {self._where} must be whole numbers from 0 to 255."
                column = place + 1
                self.faults.add(rule, line, f"{shown(cells[place][:20])} in column {column:,}")
                break
            numbers[k] = number
        return numbers

    def _width_fault(self, line: int, width: int) -> None:
        rule = f"Every line of {self._where} must have {self._width:,} values, as its first has."
        self.faults.add(rule, line, f"{width:,} values")

    def _keep(
        self,
        values: NDArray[np.uint8],
        careful: dict[int, NDArray[np.float32]],
        lines: list[int],
        texts: list[list[str]],
    ) -> None:
        """Add rows to what was found; `careful` holds those that are not in `values` yet."""
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
            raise CatalogError(
                f"A table of pixels may hold {MAX_PIXEL_BYTES:,} bytes of pictures. Received: more "
                f"in {self._where}. Part it, or write the pictures as files."
            )

    def finish(self) -> PixelRows:
        """Return what was found, on one scale; CatalogError where rows are faulty."""
        if self._fractions and self._above_one:
            rule = (
                f"Pixels in {self._where} must be whole numbers from 0 to 255, or all of them "
                "fractions from 0 to 1."
            )
            cure = f"Line {self._above_one:,} has numbers above 1."
            for line in self._fractions:
                self.faults.add(rule, line, "fractions", cure)
        self.faults.check()
        if self._fractions:
            self.found.fractions = True
            self.found.pixels = [scaled(block) for block in self.found.pixels]
        return self.found
