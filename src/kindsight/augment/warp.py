"""Geometry: all of it in one matrix a picture, and one warp."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.augment.draw import Draws
from kindsight.augment.policy import Augment

__all__ = ["Warp", "inverse_matrices"]

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
    """The geometry that was drawn for the pictures of a batch.

    Parameters
    ----------
    draws : Draws
        Of n pictures.
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

    def __call__(self, i: int, picture: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write picture i, (height, width, 3), into `out`, as it was drawn."""
        kind = self._kinds[i]
        if kind == _COPY or self._matrices is None:
            if kind == _FLIP:
                cv2.flip(picture, _FLIPS[tuple(self._flips[i])], dst=out)
            else:
                np.copyto(out, picture)
            return
        warp, matrix = (
            (cv2.warpAffine, self._matrices[i, :2])
            if kind != _PERSPECTIVE
            else (cv2.warpPerspective, self._matrices[i])
        )
        warp(
            picture,
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
        Of n pictures: flip, scale and aspect, shear, rotation and shift about the middle, then
        perspective.
    size : (height, width)
        In pixels. Pixel centres have whole coordinates; the picture reaches from -0.5 to
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
    """Say which is the cheapest way to each picture."""
    moved = (
        (draws.rotation != 0)
        | (draws.shift != 0).any(1)
        | (draws.size != 1).any(1)
        | (draws.shear != 0).any(1)
    )
    kinds = np.where(moved, _AFFINE, np.where(draws.flip.any(1), _FLIP, _COPY))
    return np.where((draws.corners != 0).any((1, 2)), _PERSPECTIVE, kinds)
