"""Choosing pictures of the data, and showing what a policy makes of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.augment.apply import apply_draws
from kindsight.augment.draw import draw
from kindsight.augment.policy import Augment
from kindsight.augment.sheet import SheetRow, contact_sheet, sheet_pixels
from kindsight.augment.words import draw_record, draw_words
from kindsight.catalog import Catalog, open_catalog
from kindsight.chance import permutation
from kindsight.errors import CatalogError, PictureError, SettingsError
from kindsight.pictures import InputSpec, read_picture, resize_picture

__all__ = ["MAX_SHEET_PIXELS", "Preview", "PreviewRow", "make_preview"]

MAX_SHEET_PIXELS = 100_000_000
"""The most pixels of a sheet: what takes 300 MB of memory."""


@dataclass(frozen=True)
class PreviewRow:
    """One picture and what was drawn for it.

    Attributes
    ----------
    path : str
        As the catalog has it.
    index : int
        Its row in the catalog of all pictures; what the draws are keyed by.
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
        How many pictures there are.
    rows : tuple of PreviewRow
    problems : tuple of str
        A sentence for each picture that was chosen and could not be read.
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
            "pictures": [
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
    data: str | Path | Catalog,
    policy: Augment,
    *,
    name: str = "augmentation",
    spec: InputSpec | None = None,
    pictures: int = 6,
    views: int = 5,
    seed: int = 0,
    epoch: int = 1,
) -> Preview:
    """Show what a policy makes of some of the pictures.

    Parameters
    ----------
    data : path or Catalog
        What :func:`kindsight.catalog.open_catalog` takes: a folder of pictures at any depth, a
        table, arrays in a file. They are only read.
    policy : Augment
        What is shown.
    name : str
        What it is called on the sheet.
    spec : InputSpec, optional
        The size at which pictures are augmented and shown; 224 x 224, cropped, if omitted.
    pictures : int
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
    CatalogError
        If there is no picture that can be read.
    SettingsError
        If the sheet would be too large.
    """
    spec = spec or InputSpec(224, 224, fit="crop")
    if sheet_pixels(pictures, views + 1, spec.size) > MAX_SHEET_PIXELS:
        raise SettingsError(
            f"A sheet has at most {MAX_SHEET_PIXELS // 10**6} million pixels. Received: {pictures} "
            f"pictures, {views} views and a size of {spec.height} x {spec.width}, which are more. "
            "Give fewer, or a smaller size."
        )
    catalog = data if isinstance(data, Catalog) else open_catalog(data, labelled=False)
    problems: list[str] = []
    chosen = _readable(catalog, spec, seed, pictures, problems)
    if not chosen:
        raise CatalogError(
            f"There must be a picture that can be read. Received: {len(catalog):,}, of which none "
            f"can: {problems[0]}"
        )
    made = [_row(catalog, i, picture, policy, seed, epoch, views) for i, picture in chosen]
    headings = ["the picture", *(f"epoch {epoch + view}" for view in range(views))]
    about = [*str(policy).split(", "), f"seed {seed}"]
    sheet = contact_sheet(name, about, headings, [row for _, row in made])
    rows = tuple(row for row, _ in made)
    return Preview(sheet, name, policy, seed, epoch, views, len(catalog), rows, tuple(problems))


def _row(
    catalog: Catalog,
    i: int,
    picture: NDArray[np.uint8],
    policy: Augment,
    seed: int,
    epoch: int,
    views: int,
) -> tuple[PreviewRow, SheetRow]:
    """Augment one picture anew for each epoch."""
    shown, drawn, captions = [picture], [], [[catalog.path[i]]]
    for view in range(views):
        draws = draw(policy, seed=seed, epoch=epoch + view, index=np.array([i]))
        shown.append(apply_draws(picture[None], draws, policy, 1)[0])
        drawn.append(draw_record(draws, 0))
        captions.append(draw_words(draws, 0) or ["as it is"])
    return PreviewRow(catalog.path[i], i, tuple(drawn)), SheetRow(np.stack(shown), captions)


def _readable(
    catalog: Catalog, spec: InputSpec, seed: int, count: int, problems: list[str]
) -> list[tuple[int, NDArray[np.uint8]]]:
    """Read pictures in the order of chance until there are enough."""
    found: list[tuple[int, NDArray[np.uint8]]] = []
    for i in _in_turn(catalog, seed):
        if len(found) == count:
            break
        try:
            loaded = catalog.load(i)
            picture = (
                read_picture(loaded, target=spec.size) if isinstance(loaded, bytes) else loaded
            )
        except PictureError as error:
            problems.append(str(error if error.path else error.at(catalog.path[i])))
            continue
        found.append((i, resize_picture(picture, spec)))
    return found


def _in_turn(catalog: Catalog, seed: int) -> Iterator[int]:
    """Yield all rows by chance: one of each folder, then a second of each, and so on."""
    folders: dict[str, list[int]] = {}
    for i in permutation(seed, "preview", 0, len(catalog)).tolist():
        folders.setdefault(catalog.path[i].rpartition("/")[0], []).append(i)
    queues = list(folders.values())
    for turn in range(max(map(len, queues), default=0)):
        yield from (queue[turn] for queue in queues if turn < len(queue))
