"""The page of feature maps: one sheet of small images for each layer."""

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

from kindsight.models.networks.feature_maps import LayerMaps, brightness
from kindsight.report.templating import clean, environment
from kindsight.report.thumbnails import thumbnail_uri

__all__ = ["FeatureMapsPage", "render_feature_maps", "sheet_png"]

MAX_SIDE = 72
"""Longer side of a feature map on the page, in pixels; larger maps are scaled down."""

# Dark blue over green to light yellow with evenly increasing luminance, so that the colours are
# ordered in greyscale, too.
_ANCHORS = ((16, 13, 52), (47, 43, 120), (31, 98, 141), (29, 148, 131), (120, 194, 86),
            (249, 236, 142))  # fmt: skip


@dataclass(frozen=True, eq=False)
class FeatureMapsPage:
    """The content of the page; names and paths may contain any text."""

    path: str
    image: NDArray[np.uint8]  # the network's input, RGB (height, width, 3)
    run: str  # name of the classifier
    top_classes: Sequence[tuple[str, float]]  # with probabilities, in descending order
    layers: Sequence[LayerMaps]  # in the order of the forward pass
    not_shown: Sequence[str] = ()  # names of further layers that have feature maps
    is_submodel: bool = False  # whether the layers belong to one network of an ensemble or of TTA


class Tile(NamedTuple):
    """A feature map on a sheet: its number and its CSS background position."""

    number: int
    x: str
    y: str


def render_feature_maps(data: FeatureMapsPage) -> str:
    """Return one HTML page without scripts or external resources."""
    page = (
        environment()
        .get_template("layers.html.j2")
        .render(
            data=data,
            image=thumbnail_uri(data.image, 320),
            layers=[_layer(layer) for layer in data.layers],
        )
    )
    return clean(page)


def _layer(layer: LayerMaps) -> dict[str, Any]:
    columns = max(1, math.ceil(math.sqrt(len(layer.shown))))
    rows = max(1, math.ceil(len(layer.shown) / columns))
    png = base64.b64encode(sheet_png(brightness(layer.maps), columns)).decode("ascii")
    return {
        "maps": layer,
        "columns": columns,
        "rows": rows,
        "image": f"data:image/png;base64,{png}",
        "tiles": [
            Tile(
                int(number), _position(index % columns, columns), _position(index // columns, rows)
            )
            for index, number in enumerate(layer.shown)
        ],
    }


def sheet_png(maps: NDArray[np.uint8], columns: int) -> bytes:
    """Return a PNG with feature maps side by side, `columns` in a row.

    - `maps`: uint8 array (n, height, width); 0-255 from dark to bright; scaled to at most
      `MAX_SIDE` pixels.
    """
    from PIL import Image

    small = [_small(each) for each in maps]
    height, width = small[0].shape
    rows = math.ceil(len(small) / columns)
    sheet = np.zeros((rows * height, columns * width), np.uint8)
    for index, each in enumerate(small):
        top, left = index // columns * height, index % columns * width
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
    """Return 256 colours, interpolated linearly between the anchors: uint8 (256, 3)."""
    steps = np.linspace(0, len(_ANCHORS) - 1, 256)
    channels = [np.interp(steps, range(len(_ANCHORS)), one) for one in zip(*_ANCHORS, strict=True)]
    palette: NDArray[np.uint8] = np.rint(np.stack(channels, axis=1)).astype(np.uint8)
    return palette


def _position(index: int, count: int) -> str:
    """Return the CSS background position of a tile: 0% is the first, 100% the last."""
    return f"{100 * index / (count - 1):.4g}%" if count > 1 else "0%"
