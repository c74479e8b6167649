"""A contact sheet: pictures and their views in rows, each with what was drawn below it."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kindsight.errors import SettingsError
from kindsight.files import replacing

__all__ = ["FORMATS", "SheetRow", "contact_sheet", "sheet_pixels", "write_sheet"]

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The endings that a sheet's file may have."""

_MARGIN, _GAP = 28, 14
_TEXT, _HEADING, _TITLE = 12, 13, 22
_LINE = 16
# Smaller pictures are shown in whole multiples of their size, so that their pixels are seen.
_LEAST_TILE = 128
_PAPER, _INK, _FAINT, _RULE = (255, 255, 255), (28, 32, 36), (105, 113, 121), (222, 226, 230)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SheetRow:
    """One row.

    Parameters
    ----------
    pictures : uint8 array (k, height, width, 3)
        RGB; the same k and size in all rows.
    captions : sequence of k sequences of str
        What is said below each picture; broken between, and where it must be within, these parts.
    """

    pictures: NDArray[np.uint8]
    captions: Sequence[Sequence[str]]


def sheet_pixels(rows: int, columns: int, size: tuple[int, int]) -> int:
    """Return about how many pixels a sheet will have."""
    height, width = (side * _multiple(size) for side in size)
    return rows * (height + 6 * _LINE + _GAP) * columns * (width + _GAP)


def contact_sheet(
    title: str, about: Sequence[str], headings: Sequence[str], rows: Sequence[SheetRow]
) -> Image.Image:
    """Draw a contact sheet.

    Parameters
    ----------
    title : str
        A name.
    about : sequence of str
        What there is to say of it, broken into lines between these parts.
    headings : sequence of k str
        Above the columns.
    rows : sequence of SheetRow
        One or more.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    multiple = _multiple(rows[0].pictures.shape[1:3])
    height, width = (side * multiple for side in rows[0].pictures.shape[1:3])
    columns = len(headings)
    total = 2 * _MARGIN + columns * width + (columns - 1) * _GAP
    introduction = _wrapped(about, total - 2 * _MARGIN, _font(_HEADING))
    captions = [[_wrapped(parts, width, _font(_TEXT)) for parts in row.captions] for row in rows]
    heights = [height + 8 + _LINE * max(map(len, texts)) + _GAP for texts in captions]
    top = _MARGIN + 34 + (_LINE + 2) * len(introduction) + 14
    sheet = Image.new("RGB", (total, top + 26 + sum(heights) + _MARGIN - _GAP), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN - 4), title, _INK, _font(_TITLE, bold=True))
    for number, line in enumerate(introduction):
        draw.text((_MARGIN, _MARGIN + 32 + number * (_LINE + 2)), line, _FAINT, _font(_HEADING))
    lefts = [_MARGIN + column * (width + _GAP) for column in range(columns)]
    draw.line([(_MARGIN, top - 8), (total - _MARGIN, top - 8)], _RULE)
    for left, heading in zip(lefts, headings, strict=True):
        draw.text((left, top), heading, _INK, _font(_HEADING, bold=True))
    top += 26
    for row, texts, row_height in zip(rows, captions, heights, strict=True):
        for left, picture, lines in zip(lefts, row.pictures, texts, strict=True):
            tile = picture.repeat(multiple, axis=0).repeat(multiple, axis=1)
            sheet.paste(Image.fromarray(tile), (left, top))
            for number, line in enumerate(lines):
                draw.text((left, top + height + 5 + number * _LINE), line, _FAINT, _font(_TEXT))
        top += row_height
    return sheet


def write_sheet(path: str | os.PathLike[str], sheet: Image.Image) -> None:
    """Write a sheet in the format that the path's ending names, whole or not at all.

    Raises
    ------
    SettingsError
        If the ending is none of :data:`FORMATS`.
    """
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise SettingsError(
            f"A contact sheet is written as {', '.join(FORMATS)}. Received: {os.fspath(path)}."
        )
    with replacing(path) as temporary:
        sheet.save(temporary, FORMATS[ending], quality=92)


def _multiple(size: Sequence[int]) -> int:
    return max(1, -(-_LEAST_TILE // min(size)))


def _wrapped(parts: Sequence[str], width: int, font: Font) -> list[str]:
    """Put parts into lines, commas between them; only a part longer than a line is broken."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        # Names on disk may hold line ends and halves of characters.
        clean = "".join(c if c.isprintable() else "?" for c in part)
        for piece in _pieces(clean + "," * (number < len(parts) - 1), width, font):
            space = "" if lines and lines[-1].endswith("/") else " "
            if lines and font.getlength(lines[-1] + space + piece) <= width:
                lines[-1] += space + piece
            else:
                lines.append(piece)
    return lines


def _pieces(text: str, width: int, font: Font) -> list[str]:
    """Break a text that does not fit at its spaces, or a path at its slashes, or else anywhere."""
    if font.getlength(text) <= width or len(text) < 2:
        return [text]
    parts = text.split(" ") if " " in text else re.findall(r"[^/]*/|[^/]+$", text)
    if len(parts) > 1:
        return [piece for part in parts for piece in _pieces(part, width, font)]
    fitting = next((k for k in range(len(text) - 1, 1, -1) if font.getlength(text[:k]) <= width), 1)
    return [text[:fitting], *_pieces(text[fitting:], width, font)]


@cache
def _font(size: int, bold: bool = False) -> Font:
    """Return DejaVu Sans as it comes with Matplotlib, or else the font within Pillow.

    Pillow's has hardly more than ASCII, and file names do. Matplotlib itself is not imported.
    """
    found = importlib.util.find_spec("matplotlib")
    for place in found.submodule_search_locations or () if found else ():
        name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
        file = Path(place, "mpl-data", "fonts", "ttf", name)
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)
