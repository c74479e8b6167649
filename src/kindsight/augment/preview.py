"""Choosing images of the data, and showing what a policy makes of them."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kindsight.augment.apply import apply_draws
from kindsight.augment.policy import Augment
from kindsight.augment.sampling import draw
from kindsight.augment.words import draw_record, draw_words
from kindsight.dataset import ImageDataset, open_dataset
from kindsight.errors import DatasetError, ImageError, SettingsError
from kindsight.files import replacing
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.random_stream import permutation

__all__ = [
    "FORMATS",
    "MAX_SHEET_PIXELS",
    "Preview",
    "PreviewRow",
    "SheetRow",
    "contact_sheet",
    "make_preview",
    "sheet_pixels",
    "write_sheet",
]

# SECTION: A contact sheet: images and their views in rows, each with what was drawn below it.

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""The endings that a sheet's file may have."""

_MARGIN, _GAP = 28, 14
_TEXT, _HEADING, _TITLE = 12, 13, 22
_LINE = 16
# Smaller images are shown in whole multiples of their size, so that their pixels are seen.
_LEAST_TILE = 128
_PAPER, _INK, _FAINT, _RULE = (255, 255, 255), (28, 32, 36), (105, 113, 121), (222, 226, 230)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SheetRow:
    """One row.

    Parameters
    ----------
    images : uint8 array (k, height, width, 3)
        RGB; the same k and size in all rows.
    captions : sequence of k sequences of str
        What is said below each image; broken between, and where it must be within, these parts.
    """

    images: NDArray[np.uint8]
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
    multiple = _multiple(rows[0].images.shape[1:3])
    height, width = (side * multiple for side in rows[0].images.shape[1:3])
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
        for left, image, lines in zip(lefts, row.images, texts, strict=True):
            tile = image.repeat(multiple, axis=0).repeat(multiple, axis=1)
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


MAX_SHEET_PIXELS = 100_000_000
"""The most pixels of a sheet: what takes 300 MB of memory."""


@dataclass(frozen=True)
class PreviewRow:
    """One image and what was drawn for it.

    Attributes
    ----------
    path : str
        As the dataset has it.
    index : int
        Its row in the dataset of all images; what the draws are keyed by.
    drawn : tuple of dict
        For each view, as :func:`kindsight.augment.words.draw_record` gives it.
    """

    path: str
    index: int
    drawn: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Preview:
    """A contact sheet, and what is on it.

    Attributes
    ----------
    sheet : PIL.Image.Image
    name : str
        The policy's.
    policy : Augment
    seed, epoch, views : int
        `epoch` is that of the first view.
    found : int
        How many images there are.
    rows : tuple of PreviewRow
    problems : tuple of str
        A sentence for each image that was chosen and could not be read.
    """

    sheet: Image.Image
    name: str
    policy: Augment
    seed: int
    epoch: int
    views: int
    found: int
    rows: tuple[PreviewRow, ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the sheet, for JSON."""
        return {
            "name": self.name,
            "augment": self.policy.to_dict(),
            "seed": self.seed,
            "images": [
                {
                    "path": row.path,
                    "index": row.index,
                    "views": [
                        {"epoch": self.epoch + view, "drawn": drawn}
                        for view, drawn in enumerate(row.drawn)
                    ],
                }
                for row in self.rows
            ],
            "problems": list(self.problems),
        }


def make_preview(
    data: str | Path | ImageDataset,
    policy: Augment,
    *,
    name: str = "augmentation",
    spec: InputSpec | None = None,
    images: int = 6,
    views: int = 5,
    seed: int = 0,
    epoch: int = 1,
) -> Preview:
    """Show what a policy makes of some of the images.

    Parameters
    ----------
    data : path or ImageDataset
        What :func:`kindsight.dataset.open_dataset` takes: a folder of images at any depth, a
        table, arrays in a file. They are only read.
    policy : Augment
        What is shown.
    name : str
        What it is called on the sheet.
    spec : InputSpec, optional
        The size at which images are augmented and shown; 224 x 224, cropped, if omitted.
    images : int
        How many, if there are as many: chosen by the seed, from all folders in turn.
    views : int
        Of each, of as many epochs from `epoch` on.
    seed : int
        Any whole number.
    epoch : int
        That of the first view.

    Returns
    -------
    Preview

    Raises
    ------
    DatasetError
        If there is no image that can be read.
    SettingsError
        If the sheet would be too large.
    """
    spec = spec or InputSpec(224, 224, fit="crop")
    if sheet_pixels(images, views + 1, spec.size) > MAX_SHEET_PIXELS:
        raise SettingsError(
            f"A sheet has at most {MAX_SHEET_PIXELS // 10**6} million pixels. Received: {images} "
            f"images, {views} views and a size of {spec.height} x {spec.width}, which are more. "
            "Give fewer, or a smaller size."
        )
    dataset = data if isinstance(data, ImageDataset) else open_dataset(data, labelled=False)
    problems: list[str] = []
    chosen = _readable(dataset, spec, seed, images, problems)
    if not chosen:
        raise DatasetError(
            f"There must be an image that can be read. Received: {len(dataset):,}, of which none "
            f"can: {problems[0]}"
        )
    made = [_row(dataset, i, image, policy, seed, epoch, views) for i, image in chosen]
    headings = ["the image", *(f"epoch {epoch + view}" for view in range(views))]
    about = [*str(policy).split(", "), f"seed {seed}"]
    sheet = contact_sheet(name, about, headings, [row for _, row in made])
    rows = tuple(row for row, _ in made)
    return Preview(sheet, name, policy, seed, epoch, views, len(dataset), rows, tuple(problems))


def _row(
    dataset: ImageDataset,
    i: int,
    image: NDArray[np.uint8],
    policy: Augment,
    seed: int,
    epoch: int,
    views: int,
) -> tuple[PreviewRow, SheetRow]:
    """Augment one image anew for each epoch."""
    shown, drawn, captions = [image], [], [[dataset.path[i]]]
    for view in range(views):
        draws = draw(policy, seed=seed, epoch=epoch + view, index=np.array([i]))
        shown.append(apply_draws(image[None], draws, policy, 1)[0])
        drawn.append(draw_record(draws, 0))
        captions.append(draw_words(draws, 0) or ["as it is"])
    return PreviewRow(dataset.path[i], i, tuple(drawn)), SheetRow(np.stack(shown), captions)


def _readable(
    dataset: ImageDataset, spec: InputSpec, seed: int, count: int, problems: list[str]
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Read images in the order of chance until there are enough."""
    found: list[tuple[int, NDArray[np.uint8]]] = []
    for i in _in_turn(dataset, seed):
        if len(found) == count:
            break
        try:
            loaded = dataset.load(i)
            image = read_image(loaded, target=spec.size) if isinstance(loaded, bytes) else loaded
        except ImageError as error:
            problems.append(str(error if error.path else error.at(dataset.path[i])))
            continue
        found.append((i, resize_image(image, spec)))
    return found


def _in_turn(dataset: ImageDataset, seed: int) -> Iterator[int]:
    """Yield all rows by chance: one of each folder, then a second of each, and so on."""
    folders: dict[str, list[int]] = {}
    for i in permutation(seed, "preview", 0, len(dataset)).tolist():
        folders.setdefault(dataset.path[i].rpartition("/")[0], []).append(i)
    queues = list(folders.values())
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
