"""From the numbers that were drawn to the matrices of the warps: Keras's, quirks and all.

A matrix takes (row, column, 1) of a pixel of the result to the place in the source that it comes
from. Keras composes it in coordinates that it calls x and y, about the centre (height/2 - 0.5,
width/2 - 0.5), and then swaps the two: so a shift "tx" that was drawn for the height moves along
the width, and pictures that are not square turn about a point beside their middle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["affine_matrices", "transform_matrix_offset_center"]

Floats = NDArray[np.float64]


def affine_matrices(
    affine: Floats, height: int, width: int, swap: bool = True
) -> tuple[Floats, NDArray[np.bool_]]:
    """Compose the warps of n pictures of one size.

    Parameters
    ----------
    affine : float64 array of shape (n, 6)
        Columns theta (degrees), tx, ty (pixels), shear (degrees), zx, zy (factors).
    height, width : int
        Of the pictures.
    swap : bool, default=True
        Whether the row axis comes before the column axis.

    Returns
    -------
    matrices : float64 array of shape (n, 2, 3)
        Source row and column of each row and column.
    still : bool array of shape (n,)
        Which of the pictures stay as they are, so that no warp is needed.
    """
    theta, tx, ty, shear, zx, zy = affine.T
    turn, lean = np.deg2rad(theta), np.deg2rad(shear)
    cos, sin = np.cos(turn), np.sin(turn)
    # In Keras's order, and multiplied as Keras does: where a pixel falls on an edge of the picture
    # to the last bit decides what it is filled with.
    product = _stack([[cos, -sin, 0], [sin, cos, 0]], len(affine))
    for part in (
        [[1, 0, tx], [0, 1, ty]],
        [[1, -np.sin(lean), 0], [0, np.cos(lean), 0]],
        [[zx, 0, 0], [0, zy, 0]],
    ):
        product = np.matmul(product, _stack(part, len(affine)))
    product = transform_matrix_offset_center(product, height, width)
    if swap:
        product = product[:, [1, 0, 2]][:, :, [1, 0, 2]]
    still = (affine == [0, 0, 0, 0, 1, 1]).all(axis=1)
    return np.ascontiguousarray(product[:, :2]), still


def transform_matrix_offset_center(matrix: Floats, x: float, y: float) -> Floats:
    """Let a transformation turn about the middle of `x` by `y` pixels in place of the first one.

    Parameters
    ----------
    matrix : float64 array of shape (..., 3, 3)
    x, y : float
        Height and width.
    """
    x, y = float(x) / 2 - 0.5, float(y) / 2 - 0.5
    there = np.array([[1, 0, x], [0, 1, y], [0, 0, 1]])
    back = np.array([[1, 0, -x], [0, 1, -y], [0, 0, 1]])
    centred: Floats = np.matmul(np.matmul(there, matrix), back)
    return centred


def _stack(rows: list[list[float | Floats]], count: int) -> Floats:
    """Make n matrices of shape (3, 3) whose first two rows are given."""
    stack = np.zeros((count, 3, 3))
    for place, row in enumerate(rows):
        for column, value in enumerate(row):
            stack[:, place, column] = value
    stack[:, 2, 2] = 1
    return stack
