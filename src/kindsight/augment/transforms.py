"""Application of sampled transforms to images: geometry, then colour, then effects.

All geometry of an image is one matrix and one warp; brightness, contrast, saturation and hue are
one matrix and one pass.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.augment.sampling import Transforms
from kindsight.errors import UsageError
from kindsight.random_stream import uniforms

__all__ = [
    "LUMA", "NOISE_VALUES", "ColourChanges", "Effects", "Warp", "colour_matrices",
    "inverse_matrices", "noise_table",
]  # fmt: skip

_BORDERS = {
    "nearest": cv2.BORDER_REPLICATE,
    "reflect": cv2.BORDER_REFLECT,
    "wrap": cv2.BORDER_WRAP,
    "constant": cv2.BORDER_CONSTANT,
}
_FLAGS = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
_COPY, _FLIP, _AFFINE, _PERSPECTIVE = range(4)
# OpenCV's codes of a vertical flip, a horizontal flip, and both.
_FLIPS = {(True, False): 0, (False, True): 1, (True, True): -1}

LUMA = np.array([0.299, 0.587, 0.114])
"""Weights of red, green and blue in the luma (ITU-R BT.601)."""

# NTSC's YIQ: luma and two colour axes, which are zero for every grey.
_TO_YIQ = np.array([LUMA, [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]])
_FROM_YIQ = np.linalg.inv(_TO_YIQ)

_VALUES = np.arange(256)

NOISE_VALUES = 1 << 19
"""Size of the table of normal numbers from which noise is taken."""

# Sharpness blends a smoothed image with the image, like Pillow's ImageEnhance.Sharpness.
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
_IDENTITY = np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])


class Warp:
    """The geometric changes of a batch of images of one size (height, width)."""

    def __init__(self, transforms: Transforms, size: tuple[int, int], policy: Augment) -> None:
        self._size = size[::-1]
        self._border = _BORDERS[policy.fill]
        self._value: Any = policy.fill_value
        self._kinds = _kinds(transforms).tolist()
        self._flips = transforms.flip.tolist()
        self._matrices = (
            inverse_matrices(transforms, size) if max(self._kinds, default=0) >= _AFFINE else None
        )

    def __call__(self, i: int, image: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write the warped image i, (height, width, 3), into `out`."""
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
            image, matrix, self._size, dst=out, flags=_FLAGS, borderMode=self._border,
            borderValue=self._value,
        )  # fmt: skip


def inverse_matrices(transforms: Transforms, size: tuple[int, int]) -> NDArray[np.float64]:
    """Return matrices (n, 3, 3) from coordinates (x, y, 1) of the result to those of the image.

    The changes are, in order, flip, scale and aspect, shear, rotation and shift about the centre,
    and perspective. Pixel centres have integer coordinates, x to the right and y down; the image
    reaches from -0.5 to ``width - 0.5``.
    """
    height, width = size
    angle, (rise, lean) = np.radians(transforms.rotation), np.tan(np.radians(transforms.shear)).T
    cos, sin = np.cos(angle), np.sin(angle)
    # The inverse of each step, the last one first. The rotation, with y down:
    turned = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], 1)
    upright = np.stack(
        [np.stack([np.ones_like(lean), lean], -1), np.stack([rise, 1 + rise * lean], -1)], 1
    )
    signs = np.where(transforms.flip, -1.0, 1.0) / transforms.size
    linear = signs[:, ::-1, None] * (upright @ turned)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    moved = centre + transforms.shift[:, ::-1] * (width, height)
    matrices = np.zeros((len(transforms), 3, 3))
    matrices[:, :2, :2] = linear
    matrices[:, :2, 2] = centre - (linear @ moved[..., None])[..., 0]
    matrices[:, 2, 2] = 1.0
    if transforms.corners.any():
        matrices = matrices @ _perspectives(transforms.corners, size)
    return matrices


def _perspectives(corners: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float64]:
    """Return the perspective maps that move the corners."""
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


def _kinds(transforms: Transforms) -> NDArray[np.int64]:
    """Return the fastest operation that suffices for each image."""
    moved = (
        (transforms.rotation != 0)
        | (transforms.shift != 0).any(1)
        | (transforms.size != 1).any(1)
        | (transforms.shear != 0).any(1)
    )
    kinds = np.where(moved, _AFFINE, np.where(transforms.flip.any(1), _FLIP, _COPY))
    return np.where((transforms.corners != 0).any((1, 2)), _PERSPECTIVE, kinds)


class ColourChanges:
    """The colour changes of a batch of images."""

    def __init__(self, transforms: Transforms) -> None:
        linear = [transforms.brightness, transforms.contrast, transforms.saturation]
        changed = np.any([factor != 1 for factor in linear], axis=0) | (transforms.hue != 0)
        self._changed = changed.tolist()
        self._matrices = np.zeros((len(transforms), 3, 4), np.float32)
        self._matrices[..., :3] = colour_matrices(transforms)
        # Contrast is relative to the image's own mean grey, which is only known later.
        self._pivots = ((1 - transforms.contrast) * transforms.brightness).tolist()
        stepped = (transforms.posterize < 8) | (transforms.solarize < 256)
        self._tables = {int(i): _table(transforms, i) for i in np.flatnonzero(stepped)}
        self._autocontrast, self._equalize = (
            transforms.autocontrast.tolist(),
            transforms.equalize.tolist(),
        )

    def __call__(self, i: int, image: NDArray[np.uint8]) -> None:
        """Change image i, (height, width, 3), in place."""
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


def colour_matrices(transforms: Transforms) -> NDArray[np.float64]:
    """Return brightness, contrast, saturation and hue as matrices (n, 3, 3) of (red, green, blue).

    Saturation scales the distance from the grey of the same luma; hue rotates the colour plane
    about the axis of greys, which preserves the luma. Greys stay grey: the rows of a matrix have
    the same sum, brightness times contrast. Values are clipped to 0-255 once, at the end.
    """
    angle = np.radians(transforms.hue)
    turns = np.zeros((len(transforms), 3, 3))
    turns[:, 0, 0] = 1.0
    turns[:, 1, 1] = turns[:, 2, 2] = np.cos(angle)
    turns[:, 2, 1] = np.sin(angle)
    turns[:, 1, 2] = -turns[:, 2, 1]
    hues = _FROM_YIQ @ turns @ _TO_YIQ
    saturation = transforms.saturation[:, None, None]
    saturations = saturation * np.eye(3) + (1 - saturation) * LUMA
    matrices: NDArray[np.float64] = (
        (transforms.contrast * transforms.brightness)[:, None, None] * saturations @ hues
    )
    return matrices


def _table(transforms: Transforms, i: np.intp) -> NDArray[np.uint8]:
    """Return the lookup table of posterize and solarize."""
    dropped = 8 - transforms.posterize[i]
    values = _VALUES >> dropped << dropped
    table: NDArray[np.uint8] = np.where(
        values < transforms.solarize[i], values, 255 - values
    ).astype(np.uint8)
    return table


def _stretching(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return tables (1, 256, 3) that stretch each channel, except one of a single value."""
    columns = image.max(axis=0), image.min(axis=0)
    high, low = columns[0].max(axis=0).astype(float), columns[1].min(axis=0).astype(float)
    span = np.where(high > low, high - low, 255.0)
    low = np.where(high > low, low, 0.0)
    tables = np.rint((_VALUES[:, None] - low) * 255 / span).clip(0, 255)
    stretching: NDArray[np.uint8] = tables.astype(np.uint8)[None]
    return stretching


class Effects:
    """Sharpness, blur, noise, JPEG compression and erasing of a batch of images."""

    def __init__(self, transforms: Transforms) -> None:
        changed = (
            (transforms.sharpness != 1)
            | (transforms.blur > 0)
            | (transforms.noise > 0)
            | (transforms.jpeg_quality > 0)
            | (transforms.erased[:, 2] > 0)
        )
        self._changed = changed.tolist()
        self._draws = transforms

    def __call__(self, i: int, image: NDArray[np.uint8]) -> None:
        """Change image i, (height, width, 3), in place."""
        if not self._changed[i]:
            return
        transforms = self._draws
        if transforms.sharpness[i] != 1:
            kernel = _SMOOTH + transforms.sharpness[i] * (_IDENTITY - _SMOOTH)
            cv2.filter2D(image, -1, kernel, dst=image, borderType=cv2.BORDER_REPLICATE)
        if transforms.blur[i] > 0:
            spread = float(transforms.blur[i])
            cv2.GaussianBlur(image, (0, 0), spread, dst=image, borderType=cv2.BORDER_REPLICATE)
        if transforms.noise[i] > 0:
            noise = _noise(float(transforms.noise_offset[i]), image.size) * np.float32(
                transforms.noise[i]
            )
            cv2.add(image, noise.reshape(image.shape), dst=image, dtype=cv2.CV_8U)
        if transforms.jpeg_quality[i]:
            _compress(image, int(transforms.jpeg_quality[i]))
        if transforms.erased[i, 2] > 0:
            _erase(image, transforms.erased[i], transforms.erased_colour[i])


@cache
def noise_table() -> NDArray[np.float32]:
    """Return the fixed table of normal numbers from which all noise is taken.

    New numbers for each pixel would take longer than all other changes. Computed after Box & Muller
    1958, *A note on the generation of random normal deviates*.
    """
    first, second = uniforms(0, "noise table", 0, np.arange(NOISE_VALUES // 4), 4).reshape(2, -1)
    radius, angle = np.sqrt(-2 * np.log1p(-first)), 2 * np.pi * second
    numbers = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)]).astype(np.float32)
    numbers.setflags(write=False)
    return numbers


def _noise(offset: float, count: int) -> NDArray[np.float32]:
    """Return `count` numbers of the table, from a relative `offset` in [0, 1)."""
    table = noise_table()
    start = int(offset * len(table))
    if start + count <= len(table):
        return table[start : start + count]
    return table.take(np.arange(start, start + count), mode="wrap")


def _compress(image: NDArray[np.uint8], quality: int) -> None:
    """Compress as JPEG and decompress, in place."""
    flipped = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    made, data = cv2.imencode(".jpg", flipped, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not made:
        raise UsageError(f"Could not compress an image of shape {image.shape} as JPEG.")
    back: Any = cv2.imdecode(data, cv2.IMREAD_COLOR)
    cv2.cvtColor(back, cv2.COLOR_BGR2RGB, dst=image)


def _erase(image: NDArray[np.uint8], box: NDArray[np.float64], colour: NDArray[np.int64]) -> None:
    """Fill a rectangle of at least one pixel."""
    height, width = image.shape[:2]
    top, left = int(box[0] * height), int(box[1] * width)
    bottom = min(height, top + max(1, round(box[2] * height)))
    right = min(width, left + max(1, round(box[3] * width)))
    image[top:bottom, left:right] = colour
