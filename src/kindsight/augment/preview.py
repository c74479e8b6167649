"""Preview of an augmentation: a contact sheet of images and their augmented copies."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from kindsight.augment.apply import apply_transforms
from kindsight.augment.policy import Augment
from kindsight.augment.sampling import describe_transforms, sample_transforms, transforms_to_dict
from kindsight.dataset import ImageDataset, open_dataset, with_value_range
from kindsight.errors import DatasetError, ImageError, SettingsError
from kindsight.files import replacing
from kindsight.images import InputSpec, read_loaded, resize_image
from kindsight.random_stream import permutation

__all__ = [
    "FORMATS", "MAX_SHEET_PIXELS", "Preview", "PreviewRow", "SheetRow", "contact_sheet",
    "make_preview", "sheet_pixels", "write_sheet",
]  # fmt: skip

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""Formats of a sheet by the ending of its file name."""

_MARGIN, _GAP = 28, 14
_TEXT, _HEADING, _TITLE = 12, 13, 22
_LINE = 16
# Smaller images are enlarged by an integer factor, so that their pixels are visible.
_MIN_TILE = 128
_PAPER, _INK, _FAINT, _RULE = (255, 255, 255), (28, 32, 36), (105, 113, 121), (222, 226, 230)

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class SheetRow:
    """One row of a contact sheet."""

    images: NDArray[np.uint8]  # RGB; the same k and size in all rows
    # Phrases below each image; lines are broken between phrases if possible.
    captions: Sequence[Sequence[str]]


def sheet_pixels(rows: int, columns: int, size: tuple[int, int]) -> int:
    """Return an estimate of the pixels of a sheet."""
    height, width = (side * _multiple(size) for side in size)
    return rows * (height + 6 * _LINE + _GAP) * columns * (width + _GAP)


def contact_sheet(
    title: str, about: Sequence[str], headings: Sequence[str], rows: Sequence[SheetRow]
) -> Image.Image:
    """Draw a contact sheet: title, phrases about it, headings of the columns, rows of images."""
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
    """Write a sheet atomically, in the format of the path's ending; SettingsError for others."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        raise SettingsError(
            f"The file of a contact sheet must end in {', '.join(FORMATS)}; got {os.fspath(path)}."
        )
    with replacing(path) as temporary:
        sheet.save(temporary, FORMATS[ending], quality=92)


def _multiple(size: Sequence[int]) -> int:
    return max(1, -(-_MIN_TILE // min(size)))


def _wrapped(parts: Sequence[str], width: int, font: Font) -> list[str]:
    """Join phrases with commas into lines; only a phrase longer than a line is broken."""
    lines: list[str] = []
    for number, part in enumerate(parts):
        # File names may contain line breaks and invalid characters.
        clean = "".join(c if c.isprintable() else "?" for c in part)
        for piece in _pieces(clean + "," * (number < len(parts) - 1), width, font):
            space = "" if lines and lines[-1].endswith("/") else " "
            if lines and font.getlength(lines[-1] + space + piece) <= width:
                lines[-1] += space + piece
            else:
                lines.append(piece)
    return lines


def _pieces(text: str, width: int, font: Font) -> list[str]:
    """Break a text at spaces, a path at slashes, or anywhere, until the pieces fit."""
    if font.getlength(text) <= width or len(text) < 2:
        return [text]
    parts = text.split(" ") if " " in text else re.findall(r"[^/]*/|[^/]+$", text)
    if len(parts) > 1:
        return [piece for part in parts for piece in _pieces(part, width, font)]
    fitting = next((k for k in range(len(text) - 1, 1, -1) if font.getlength(text[:k]) <= width), 1)
    return [text[:fitting], *_pieces(text[fitting:], width, font)]


@cache
def _font(size: int, bold: bool = False) -> Font:
    """Return DejaVu Sans from Matplotlib's files, or else Pillow's font."""
    found = importlib.util.find_spec("matplotlib")
    for folder in found.submodule_search_locations or () if found else ():
        name = f"DejaVuSans{'-Bold' if bold else ''}.ttf"
        file = Path(folder, "mpl-data", "fonts", "ttf", name)
        if file.is_file():
            return ImageFont.truetype(str(file), size)
    return ImageFont.load_default(size)


MAX_SHEET_PIXELS = 100_000_000
"""Limit of the pixels of a sheet, which take 300 MB of memory."""


@dataclass(frozen=True)
class PreviewRow:
    """One image of a preview and its sampled changes."""

    path: str  # as in the dataset
    index: int  # row in the dataset, on which the random changes depend
    # For each copy; see :func:`kindsight.augment.sampling.transforms_to_dict`.
    changes: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Preview:
    """A contact sheet and its content."""

    sheet: Image.Image
    name: str  # of the policy
    policy: Augment
    seed: int
    epoch: int  # of the first copy
    copies: int
    found: int  # number of images in the data
    rows: tuple[PreviewRow, ...]
    skipped: tuple[str, ...]  # a sentence for each chosen image that is unreadable

    def to_dict(self) -> dict[str, Any]:
        """Return everything except the sheet, for JSON."""
        return {
            "name": self.name,
            "augment": self.policy.to_dict(),
            "seed": self.seed,
            "images": [
                {
                    "path": row.path,
                    "index": row.index,
                    "copies": [
                        {"epoch": self.epoch + copy, "changes": changes}
                        for copy, changes in enumerate(row.changes)
                    ],
                }
                for row in self.rows
            ],
            "skipped": list(self.skipped),
        }


def make_preview(
    data: str | Path | ImageDataset, policy: Augment, *, name: str = "augmentation",
    spec: InputSpec | None = None, images: int = 6, copies: int = 5, seed: int = 0, epoch: int = 1,
) -> Preview:  # fmt: skip
    """Return a contact sheet of some images and their augmented copies.

    Parameters
    ----------
    data : path or ImageDataset
        Data for :func:`kindsight.dataset.open_dataset`: a folder of images at any depth, a table,
        or arrays in a file.
    policy : Augment
    name : str
        Title of the sheet.
    spec : InputSpec, optional
        Size of the images; 224 x 224, cropped, by default.
    images : int
        Images on the sheet, at most; chosen randomly, from all folders in turn.
    copies : int
        Augmented copies per image, of consecutive epochs.
    seed : int
    epoch : int
        Epoch of the first copy.

    Raises
    ------
    DatasetError
        If no image is readable.
    SettingsError
        If the sheet would be too large.
    """
    spec = spec or InputSpec(224, 224, fit="crop")
    if sheet_pixels(images, copies + 1, spec.size) > MAX_SHEET_PIXELS:
        raise SettingsError(
            f"A sheet may have at most {MAX_SHEET_PIXELS // 10**6} million pixels; {images} images "
            f"with {copies} copies of {spec.height} x {spec.width} pixels have more. Choose fewer, "
            "or a smaller size."
        )
    dataset = data if isinstance(data, ImageDataset) else open_dataset(data, labelled=False)
    dataset = with_value_range(dataset)
    spec = replace(spec, value_range=spec.value_range or dataset.value_range)
    skipped: list[str] = []
    chosen = _readable(dataset, spec, seed, images, skipped)
    if not chosen:
        raise DatasetError(
            f"None of the {len(dataset):,} images is readable. The first of them: {skipped[0]}"
        )
    made = [_row(dataset, i, image, policy, seed, epoch, copies) for i, image in chosen]
    headings = ["original", *(f"epoch {epoch + copy}" for copy in range(copies))]
    about = [*str(policy).split(", "), f"seed {seed}"]
    sheet = contact_sheet(name, about, headings, [row for _, row in made])
    rows = tuple(row for row, _ in made)
    return Preview(sheet, name, policy, seed, epoch, copies, len(dataset), rows, tuple(skipped))


def _row(
    dataset: ImageDataset, i: int, image: NDArray[np.uint8], policy: Augment, seed: int, epoch: int,
    copies: int,
) -> tuple[PreviewRow, SheetRow]:  # fmt: skip
    """Augment one image once for each epoch."""
    shown, changes, captions = [image], [], [[dataset.path[i]]]
    for copy in range(copies):
        transforms = sample_transforms(policy, seed=seed, epoch=epoch + copy, index=np.array([i]))
        shown.append(apply_transforms(image[None], transforms, policy, 1)[0])
        changes.append(transforms_to_dict(transforms, 0))
        captions.append(describe_transforms(transforms, 0) or ["unchanged"])
    return PreviewRow(dataset.path[i], i, tuple(changes)), SheetRow(np.stack(shown), captions)


def _readable(
    dataset: ImageDataset, spec: InputSpec, seed: int, count: int, skipped: list[str]
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Read images in random order until there are enough."""
    found: list[tuple[int, NDArray[np.uint8]]] = []
    for i in _random_rows(dataset, seed):
        if len(found) == count:
            break
        try:
            loaded = dataset.load(i)
            image = read_loaded(loaded, spec)
        except ImageError as error:
            skipped.append(str(error if error.path else error.at(dataset.path[i])))
            continue
        found.append((i, resize_image(image, spec)))
    return found


def _random_rows(dataset: ImageDataset, seed: int) -> Iterator[int]:
    """Yield all rows in random order: one of each folder, then a second of each, and so on."""
    folders: dict[str, list[int]] = {}
    for i in permutation(seed, "preview", 0, len(dataset)).tolist():
        folders.setdefault(dataset.path[i].rpartition("/")[0], []).append(i)
    queues = list(folders.values())
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
