"""What comes after geometry and colour: sharpness, blur, noise, JPEG, erasing."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.draw import Draws
from kindsight.chance import uniforms
from kindsight.errors import UsageError

__all__ = ["NOISE_VALUES", "Effects", "noise_table"]

NOISE_VALUES = 1 << 19
"""How many normal numbers there are from which noise is cut."""

# A smoothed picture and the picture itself are mixed, as Pillow's ImageEnhance.Sharpness does.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
_ITSELF = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


class Effects:
    """The effects that were drawn for the pictures of a batch.

    Parameters
    ----------
    draws : Draws
        Of n pictures.
    """

    def __init__(self, draws: Draws) -> None:
        drawn = (
            (draws.sharpness != 1)
            | (draws.blur > 0)
            | (draws.noise > 0)
            | (draws.jpeg_quality > 0)
            | (draws.erased[:, 2] > 0)
        )
        self._drawn = drawn.tolist()
        self._draws = draws

    def __call__(self, i: int, picture: NDArray[np.uint8]) -> None:
        """Change picture i, (height, width, 3), in place, as it was drawn."""
        if not self._drawn[i]:
            return
        draws = self._draws
        if draws.sharpness[i] != 1:
            kernel = _SMOOTH + draws.sharpness[i] * (_ITSELF - _SMOOTH)
            cv2.filter2D(picture, -1, kernel, dst=picture, borderType=cv2.BORDER_REPLICATE)
        if draws.blur[i] > 0:
            spread = float(draws.blur[i])
            cv2.GaussianBlur(picture, (0, 0), spread, dst=picture, borderType=cv2.BORDER_REPLICATE)
        if draws.noise[i] > 0:
            noise = _noise(float(draws.noise_place[i]), picture.size) * np.float32(draws.noise[i])
            cv2.add(picture, noise.reshape(picture.shape), dst=picture, dtype=cv2.CV_8U)
        if draws.jpeg_quality[i]:
            _compress(picture, int(draws.jpeg_quality[i]))
        if draws.erased[i, 2] > 0:
            _erase(picture, draws.erased[i], draws.paint[i])


@cache
def noise_table() -> NDArray[np.float32]:
    """Return the normal numbers of which every noise is a part, always the same.

    Drawn anew for each pixel they would take longer than all the rest. By Box & Muller 1958,
    *A note on the generation of random normal deviates*.
    """
    first, second = uniforms(0, "noise table", 0, np.arange(NOISE_VALUES // 4), 4).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
    numbers = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32)
    numbers.setflags(write=False)
    return numbers


def _noise(place: float, count: int) -> NDArray[np.float32]:
    """Cut `count` numbers from the table, beginning where `place` in [0, 1) says."""
    table = noise_table()
    start = int(place * len(table))
    if start + count <= len(table):
        return table[start : start + count]
    return table.take(np.arange(start, start + count), mode="wrap")


def _compress(picture: NDArray[np.uint8], quality: int) -> None:
    """Compress as JPEG, and decompress."""
    flipped = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    made, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not made:
        raise UsageError(f"A picture must be writable as JPEG. Received: shape {picture.shape}.")
    back: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    cv2.cvtColor(back, cv2.COLOR_BGR2RGB, dst=picture)


def _erase(picture: NDArray[np.uint8], box: NDArray[np.float64], paint: NDArray[np.int64]) -> None:
    """Paint a rectangle, at least a pixel."""
    height, width = picture.shape[:2]
    top, left = int(box[0] * height), int(box[1] * width)
    bottom = min(height, top + max(1, round(box[2] * height)))
    right = min(width, left + max(1, round(box[3] * width)))
    picture[top:bottom, left:right] = paint
