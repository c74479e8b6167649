"""How a measurement differs between parts or classes, in words."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.names import shown

__all__ = ["difference"]

_WORDS = {
    "size": ("the size", "{:.0f} pixels on average a side"),
    "proportion": ("the proportion of width to height", "{:.2f}"),
    "density": ("how strongly files are compressed", "{:.1f} bits a pixel"),
    "quality": ("the JPEG quality", "{:.0f}"),
    "brightness": ("the brightness", "{:.0f} of 255"),
    "contrast": ("the contrast", "{:.0f} grey levels"),
    "sharpness": ("the sharpness", "{:.0f}"),
    "colourfulness": ("the colourfulness", "{:.0f}"),
    "tint": ("the tint", "red minus blue {:+.0f}"),
    "format": ("the format", "{}"),
    "mode": ("how pixels are stored", "{}"),
    "encoder": ("the program that encoded the JPEGs", "{}"),
    "camera": ("the camera", "{}"),
}


def difference(
    name: str, column: NDArray[Any], kinds: NDArray[np.int64], names: tuple[str, ...]
) -> str:
    """Say what a measurement is in the two kinds that differ most in it.

    Parameters
    ----------
    name : str
        Of the measurement.
    column : array (n,)
        Numbers, or texts.
    kinds : int64 array (n,)
        0 to k - 1.
    names : tuple of str
        Of the kinds.

    Returns
    -------
    str
        ``the size (median 'cat' 400 pixels on average a side, 'dog' 500 ...)``.
    """
    what, form = _WORDS[name]
    if column.dtype.kind in "OU":
        return f"{what} ({_texts(column, kinds, names, form)})"
    medians = [_median(column[kinds == kind]) for kind in range(len(names))]
    known = [kind for kind, value in enumerate(medians) if np.isfinite(value)]
    if len(known) < 2:
        return f"{what}, which not all have"
    low, high = min(known, key=medians.__getitem__), max(known, key=medians.__getitem__)
    first, last = sorted((low, high))
    return (
        f"{what} (median {shown(names[first])} {form.format(medians[first])}, "
        f"{shown(names[last])} {form.format(medians[last])})"
    )


def _median(values: NDArray[Any]) -> float:
    there = values[np.isfinite(values)]
    return float(np.median(there)) if len(there) else float("nan")


def _texts(
    column: NDArray[Any], kinds: NDArray[np.int64], names: tuple[str, ...], form: str
) -> str:
    """Name the text whose share differs most, and the kinds with the least and the most of it."""
    best = (-1.0, "", 0, 0, 0.0, 0.0)
    for text in sorted(set(column.tolist())):
        shares = [float((column[kinds == kind] == text).mean()) for kind in range(len(names))]
        low, high = int(np.argmin(shares)), int(np.argmax(shares))
        if shares[high] - shares[low] > best[0]:
            best = (shares[high] - shares[low], text, low, high, shares[low], shares[high])
    _, text, low, high, least, most = best
    named = form.format(shown(text)) if text else "none stated"
    return f"{named} for {most:.0%} of {shown(names[high])} and {least:.0%} of {shown(names[low])}"
