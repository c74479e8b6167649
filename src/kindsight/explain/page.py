"""The page of a network's layers: what each makes of one image, as small images."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.report.templating import clean, environment
from kindsight.report.thumbnails import thumbnail_uri

__all__ = ["LayerView", "LayersData", "render_layers", "sheet_png"]

MAX_SIDE = 72
"""Pixels of a map's longer side on the page; larger maps are made smaller."""

# From dark blue over green to a light yellow, evenly brighter, so that it reads in grey as well.
_ANCHORS = ((16, 13, 52), (47, 43, 120), (31, 98, 141), (29, 148, 131), (120, 194, 86),
            (249, 236, 142))  # fmt: skip


class LayerView(NamedTuple):
    """A layer as the page shows it.

    Attributes
    ----------
    name, kind : str
        The layer's name, and its class in Keras.
    size : (int, int)
        (height, width) of a map.
    channels : int
        How many maps it has.
    shown : sequence of int
        Which of them are on the page, from 0.
    maps : uint8 array (n, height, width)
        Those, 0-255 from dark to bright.
    low, high : float
        The smallest and largest value of all its maps.
    silent : int
        How many of all its maps are the same everywhere.
    """

    name: str
    kind: str
    size: tuple[int, int]
    channels: int
    shown: Sequence[int]
    maps: NDArray[np.uint8]
    low: float
    high: float
    silent: int


@dataclass(frozen=True, eq=False)
class LayersData:
    """Everything that the page says; names and paths may hold anything.

    Attributes
    ----------
    path : str
        The image.
    image : uint8 array (height, width, 3)
        As the network sees it.
    run : str
        The classifier.
    answers : sequence of (str, float)
        The most probable classes with their probabilities, the first first.
    layers : sequence of LayerView
        In the order in which the image goes through them.
    left_out : sequence of str
        Layers that have maps and are not shown.
    within : bool
        Whether they are of a network within the one that answers.
    """

    path: str
    image: NDArray[np.uint8]
    run: str
    answers: Sequence[tuple[str, float]]
    layers: Sequence[LayerView]
    left_out: Sequence[str] = ()
    within: bool = False


class Tile(NamedTuple):
    """One map on a sheet: its number, and where it is, in percent as CSS counts."""

    number: int
    x: str
    y: str


def render_layers(data: LayersData) -> str:
    """Make the page.

    Returns
    -------
    str
        One HTML page that fetches nothing and runs no script, encodable as UTF-8.
    """
    page = (
        environment()
        .get_template("layers.html.j2")
        .render(
            data=data,
            image=thumbnail_uri(data.image, 320),
            layers=[_layer(view) for view in data.layers],
        )
    )
    return clean(page)


def _layer(view: LayerView) -> dict[str, Any]:
    columns = max(1, math.ceil(math.sqrt(len(view.shown))))
    rows = max(1, math.ceil(len(view.shown) / columns))
    png = base64.b64encode(sheet_png(view.maps, columns)).decode("ascii")
    return {
        "view": view,
        "columns": columns,
        "rows": rows,
        "image": f"data:image/png;base64,{png}",
        "tiles": [
            Tile(number, _place(place % columns, columns), _place(place // columns, rows))
            for place, number in enumerate(view.shown)
        ],
    }


def sheet_png(maps: NDArray[np.uint8], columns: int) -> bytes:
    """Draw maps side by side on one sheet.

    Parameters
    ----------
    maps : uint8 array (n, height, width)
    columns : int
        How many stand in a row.

    Returns
    -------
    bytes
        A PNG of 256 colours from dark to bright; `MAX_SIDE` pixels a map at most.
    """
    from PIL import Image

    small = [_small(each) for each in maps]
    height, width = small[0].shape
    rows = math.ceil(len(small) / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for place, each in enumerate(small):
        top, left = place // columns * height, place % columns * width
        sheet[top : top + height, left : left + width] = each
    image = Image.fromarray(sheet).convert("P")
    image.putpalette(_palette().tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def _small(values: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = values.shape
    scale = MAX_SIDE / max(height, width)
    if scale >= 1:
        return values
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.uint8)


def _palette() -> NDArray[np.uint8]:
    """Return 256 colours, straight between the anchors: uint8 (256, 3)."""
    steps = np.linspace(0, len(_ANCHORS) - 1, 256)
    columns = [np.interp(steps, range(len(_ANCHORS)), part) for part in zip(*_ANCHORS, strict=True)]
    palette: NDArray[np.uint8] = np.rint(np.stack(columns, axis=1)).astype(np.uint8)
    return palette


def _place(place: int, count: int) -> str:
    """Say where a tile is as CSS counts: 0% the first, 100% the last."""
    return f"{100 * place / (count - 1):.4g}%" if count > 1 else "0%"
