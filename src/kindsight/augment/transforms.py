"""Geometry: all of it in one matrix an image, and one warp."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.augment.sampling import Draws
from kindsight.errors import UsageError
from kindsight.random_stream import uniforms

__all__ = [
    "LUMA",
    "NOISE_VALUES",
    "Colour",
    "Effects",
    "Warp",
    "colour_matrices",
    "inverse_matrices",
    "noise_table",
]

_BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
    "constant": cv2.BORDER_CONSTANT,
}
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_COPY, _FLIP, _AFFINE, _PERSPECTIVE = range(4)
# OpenCV's names of top to bottom, left to right, and both.
_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}


class Warp:
    """The geometry that was drawn for the images of a batch.

    Parameters
    ----------
    draws : Draws
        Of n images.
    size : (height, width)
        Of all of them, in pixels.
    policy : Augment
        What is seen beyond the edges.
    """

    def __init__(self, draws: Draws, size: tuple[int, int], policy: Augment) -> None:
        self._size = size[::-1]
        self._border = _BORDERS[policy.fill]
        self._value: Any = policy.fill_value
        self._kinds = _kinds(draws).tolist()
        self._flips = draws.flip.tolist()
        self._matrices = (
            inverse_matrices(draws, size) if max(self._kinds, default=0) >= _AFFINE else None
        )

    def __call__(self, i: int, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write image i, (height, width, 3), into `out`, as it was drawn."""
        kind = self._kinds[i]
        if kind == _COPY or self._matrices is None:
            if kind == _FLIP:
                cv2.flip(image, _FLIPS[tuple(self._flips[i])], dst=out)
            else:
                np.copyto(out, image)
            return
        warp, matrix = (
            (cv2.warpAffine, self._matrices[i, :2])
            if kind != _PERSPECTIVE
            else (cv2.warpPerspective, self._matrices[i])
        )
        warp(
            image,
            matrix,
            self._size,
            dst=out,
            flags=_FLAGS,
            borderMode=self._border,
            borderValue=self._value,
        )


def inverse_matrices(draws: Draws, size: tuple[int, int]) -> NDArray[np.float64]:
    """Compose what was drawn into matrices that take a pixel's place to where it comes from.

    Parameters
    ----------
    draws : Draws
        Of n images: flip, scale and aspect, shear, rotation and shift about the middle, then
        perspective.
    size : (height, width)
        In pixels. Pixel centres have whole coordinates; the image reaches from -0.5 to
        ``width - 0.5``.

    Returns
    -------
    float64 array (n, 3, 3)
        To be multiplied by (x, y, 1) of the result, x to the right and y down.
    """
    height, width = size
    angle, (rise, lean) = np.radians(draws.rotation), np.tan(np.radians(draws.shear)).T
    cos, sin = np.cos(angle), np.sin(angle)
    # Each step undone, the last one first. Rotation back, y being down:
    turned = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    upright = np.stack(
        [np.stack([np.ones_like(lean), lean], -1), np.stack([rise, 1 + rise * lean], -1)], 1
    )
    signs = np.where(draws.flip, -1.0, 1.0) / draws.size
    linear = signs[:, ::-1, None] * (upright @ turned)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = centre + draws.shift[:, ::-1] * (width, height)
    matrices = np.zeros((len(draws), 3, 3))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = centre - (linear @ moved[..., None])[..., 0]
    matrices[:, 2, 2] = 1.0
    if draws.corners.any():
        matrices = matrices @ _perspectives(draws.corners, size)
    return matrices


def _perspectives(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the maps of pixels' places that take the corners to where they were drawn.

    The map from a square to a quadrilateral in closed form (Heckbert 1989, *Fundamentals of texture
    mapping and image warping*, section 2.2.3).
    """
    square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
    points = square + corners
    x, y = points[..., 1].T, points[..., 0].T
    fold_x, fold_y = x[0] - x[1] + x[2] - x[3], y[0] - y[1] + y[2] - y[3]
    right_x, right_y, below_x, below_y = x[1] - x[2], y[1] - y[2], x[3] - x[2], y[3] - y[2]
    area = right_x * below_y - below_x * right_y
    g = (fold_x * below_y - below_x * fold_y) / area
    h = (right_x * fold_y - fold_x * right_y) / area
    rows = [
        [x[1] - x[0] + g * x[1], x[3] - x[0] + h * x[3], x[0]],
        [y[1] - y[0] + g * y[1], y[3] - y[0] + h * y[3], y[0]],
        [g, h, np.ones_like(g)],
    ]
    maps = np.stack([np.stack(row, -1) for row in rows], 1)
    height, width = size
    to_unit = np.array([[1 / width, 0, 0.5 / width], [0, 1 / height, 0.5 / height], [0, 0, 1]])
    to_pixels = np.array([[width, 0, -0.5], [0, height, -0.5], [0, 0, 1.0]])
    matrices: NDArray[np.float64] = to_pixels @ maps @ to_unit
    return matrices


def _kinds(draws: Draws) -> NDArray[np.int64]:
    """Say which is the cheapest way to each image."""
    moved = (
        (draws.rotation != 0)
        | (draws.shift != 0).any(1)
        | (draws.size != 1).any(1)
        | (draws.shear != 0).any(1)
    )
    kinds = np.where(moved, _AFFINE, np.where(draws.flip.any(1), _FLIP, _COPY))
    return np.where((draws.corners != 0).any((1, 2)), _PERSPECTIVE, kinds)


# SECTION: Colour: brightness, contrast, saturation and hue as one matrix an image, in one pass.

LUMA = np.array([0.299, 0.587, 0.114])
"""The weights of red, green and blue in a grey (ITU-R BT.601)."""

# NTSC's YIQ: luma and two axes of colour, which are zero for every grey.
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

_VALUES = np.arange(256)


class Colour:
    """The colour changes that were drawn for the images of a batch.

    Parameters
    ----------
    draws : Draws
        Of n images.
    """

    def __init__(self, draws: Draws) -> None:
        linear = [draws.brightness, draws.contrast, draws.saturation]
        changed = np.any([factor != 1 for factor in linear], axis=0) | (draws.hue != 0)
        self._changed = changed.tolist()
        self._matrices = np.zeros((len(draws), 3, 4), np.float32)
        self._matrices[..., :3] = colour_matrices(draws)
        # Contrast is a distance from the image's own mean grey, which is not known before.
        self._pivots = ((1 - draws.contrast) * draws.brightness).tolist()
        stepped = (draws.posterize < 8) | (draws.solarize < 256)
        self._tables = {int(i): _table(draws, i) for i in np.flatnonzero(stepped)}
        self._autocontrast, self._equalize = draws.autocontrast.tolist(), draws.equalize.tolist()

    def __call__(self, i: int, image: NDArray[np.uint8]) -> None:
        """Change image i, (height, width, 3), in place, as it was drawn."""
        if self._changed[i]:
            matrix = self._matrices[i]
            if self._pivots[i]:
                red, green, blue, _ = cv2.mean(image)
                grey = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue
                matrix[:, 3] = self._pivots[i] * grey
            cv2.transform(image, matrix, dst=image)
        if i in self._tables:
            cv2.LUT(image, self._tables[i], dst=image)
        if self._autocontrast[i]:
            cv2.LUT(image, _stretching(image), dst=image)
        if self._equalize[i]:
            channels: Any = [cv2.equalizeHist(channel) for channel in cv2.split(image)]
            cv2.merge(channels, dst=image)


def colour_matrices(draws: Draws) -> NDArray[np.float64]:
    """Compose brightness, contrast, saturation and hue.

    All are linear in red, green and blue. Saturation is the distance from the grey of the same
    luma; hue turns the plane of colours about the axis of greys, which keeps the luma. What leaves
    0-255 is cut off once, at the end.

    Parameters
    ----------
    draws : Draws
        Of n images.

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


def _stretching(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the tables (1, 256, 3) that take each channel's least value to 0, its greatest to 255.

    A channel of one value is left as it is.
    """
    columns = image.max(axis=0), image.min(axis=0)
    high, low = columns[0].max(axis=0).astype(float), columns[1].min(axis=0).astype(float)
    span = np.where(high > low, high - low, 255.0)
    low = np.where(high > low, low, 0.0)
    tables = np.rint((_VALUES[:, None] - low) * 255 / span).clip(0, 255)
    stretching: NDArray[np.uint8] = tables.astype(np.uint8)[None]
    return stretching


# SECTION: What comes after geometry and colour: sharpness, blur, noise, JPEG, erasing.

NOISE_VALUES = 1 << 19
"""How many normal numbers there are from which noise is cut."""

# A smoothed image and the image itself are mixed, as Pillow's ImageEnhance.Sharpness does.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
_ITSELF = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


class Effects:
    """The effects that were drawn for the images of a batch.

    Parameters
    ----------
    draws : Draws
        Of n images.
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

    def __call__(self, i: int, image: NDArray[np.uint8]) -> None:
        """Change image i, (height, width, 3), in place, as it was drawn."""
        if not self._drawn[i]:
            return
        draws = self._draws
        if draws.sharpness[i] != 1:
            kernel = _SMOOTH + draws.sharpness[i] * (_ITSELF - _SMOOTH)
            cv2.filter2D(image, -1, kernel, dst=image, borderType=cv2.BORDER_REPLICATE)
        if draws.blur[i] > 0:
            spread = float(draws.blur[i])
            cv2.GaussianBlur(image, (0, 0), spread, dst=image, borderType=cv2.BORDER_REPLICATE)
        if draws.noise[i] > 0:
            noise = _noise(float(draws.noise_place[i]), image.size) * np.float32(draws.noise[i])
            cv2.add(image, noise.reshape(image.shape), dst=image, dtype=cv2.CV_8U)
        if draws.jpeg_quality[i]:
            _compress(image, int(draws.jpeg_quality[i]))
        if draws.erased[i, 2] > 0:
            _erase(image, draws.erased[i], draws.paint[i])


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


def _compress(image: NDArray[np.uint8], quality: int) -> None:
    """Compress as JPEG, and decompress."""
    flipped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    made, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not made:
        raise UsageError(f"An image must be writable as JPEG. Received: shape {image.shape}.")
    back: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    cv2.cvtColor(back, cv2.COLOR_BGR2RGB, dst=image)


def _erase(image: NDArray[np.uint8], box: NDArray[np.float64], paint: NDArray[np.int64]) -> None:
    """Paint a rectangle, at least a pixel."""
    height, width = image.shape[:2]
    top, left = int(box[0] * height), int(box[1] * width)
    bottom = min(height, top + max(1, round(box[2] * height)))
    right = min(width, left + max(1, round(box[3] * width)))
    image[top:bottom, left:right] = paint
