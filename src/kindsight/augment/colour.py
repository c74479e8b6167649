"""Colour: brightness, contrast, saturation and hue as one matrix a picture, in one pass."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.draw import Draws

__all__ = ["LUMA", "Colour", "colour_matrices"]

LUMA = np.array([0.299, 0.587, 0.114])
"""The weights of red, green and blue in a grey (ITU-R BT.601)."""

# NTSC's YIQ: luma and two axes of colour, which are zero for every grey.
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

_VALUES = np.arange(256)


class Colour:
    """The colour changes that were drawn for the pictures of a batch.

    Parameters
    ----------
    draws : Draws
        Of n pictures.
    """

    def __init__(self, draws: Draws) -> None:
        linear = [draws.brightness, draws.contrast, draws.saturation]
        changed = np.any([factor != 1 for factor in linear], axis=0) | (draws.hue != 0)
        self._changed = changed.tolist()
        self._matrices = np.zeros((len(draws), 3, 4), np.float32)
        self._matrices[..., :3] = colour_matrices(draws)
        # Contrast is a distance from the picture's own mean grey, which is not known before.
        self._pivots = ((1 - draws.contrast) * draws.brightness).tolist()
        stepped = (draws.posterize < 8) | (draws.solarize < 256)
        self._tables = {int(i): _table(draws, i) for i in np.flatnonzero(stepped)}
        self._autocontrast, self._equalize = draws.autocontrast.tolist(), draws.equalize.tolist()

    def __call__(self, i: int, picture: NDArray[np.uint8]) -> None:
        """Change picture i, (height, width, 3), in place, as it was drawn."""
        if self._changed[i]:
            matrix = self._matrices[i]
            if self._pivots[i]:
                red, green, blue, _ = cv2.mean(picture)
                grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
                matrix[:, 3] = self._pivots[i] * grey
            cv2.transform(picture, matrix, dst=picture)
        if i in self._tables:
            cv2.LUT(picture, self._tables[i], dst=picture)
        if self._autocontrast[i]:
            cv2.LUT(picture, _stretching(picture), dst=picture)
        if self._equalize[i]:
            channels: Any = [cv2.equalizeHist(channel) for channel in cv2.split(picture)]
            cv2.merge(channels, dst=picture)


def colour_matrices(draws: Draws) -> NDArray[np.float64]:
    """Compose brightness, contrast, saturation and hue.

    All are linear in red, green and blue. Saturation is the distance from the grey of the same
    luma; hue turns the plane of colours about the axis of greys, which keeps the luma. What leaves
    0-255 is cut off once, at the end.

    Parameters
    ----------
    draws : Draws
        Of n pictures.

    Returns
    -------
    float64 array (n, 3, 3)
        To be multiplied by (red, green, blue). A grey stays grey: all rows of a matrix have the
        same sum, brightness times contrast.
    """
    angle = np.radians(draws.hue)
    turns = np.zeros((len(draws), 3, 3))
    turns[:, 0, 0] = 1.0
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(angle)
    turns[:, 2, 1] = np.sin(angle)
    turns[:, 1, 2] = -turns[:, 2, 1]
    hues = _FROM_YIQ @ turns @ _TO_YIQ
    saturation = draws.saturation[:, None, None]
    saturations = saturation * np.eye(3) + (1 - saturation) * LUMA
    matrices: NDArray[np.float64] = (
        (draws.contrast * draws.brightness)[:, None, None] * saturations @ hues
    )
    return matrices


def _table(draws: Draws, i: np.intp) -> NDArray[np.uint8]:
    """Return the 256 values that posterize and solarize make of 0 to 255."""
    kept = 8 - draws.posterize[i]
    values = _VALUES >> kept << kept
    table: NDArray[np.uint8] = np.where(values < draws.solarize[i], values, 255 - values).astype(
        np.uint8
    )
    return table


def _stretching(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the tables (1, 256, 3) that take each channel's least value to 0, its greatest to 255.

    A channel of one value is left as it is.
    """
    columns = picture.max(axis=0), picture.min(axis=0)
    high, low = columns[0].max(axis=0).astype(float), columns[1].min(axis=0).astype(float)
    span = np.where(high > low, high - low, 255.0)
    low = np.where(high > low, low, 0.0)
    tables = np.rint((_VALUES[:, None] - low) * 255 / span).clip(0, 255)
    stretching: NDArray[np.uint8] = tables.astype(np.uint8)[None]
    return stretching
