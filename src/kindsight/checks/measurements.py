"""The measurements of all images of a dataset as NumPy columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.measure import NUMERIC, TEXT

__all__ = ["SINGLE_TONE", "Measurements"]

SINGLE_TONE = 0.98
"""Uniformity from which an image counts as a single tone; images of cats-dogs reach 0.58."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """Measurements of each image, one row per row of the dataset, in its order.

    Columns are attributes: ``measurements.brightness`` is an array (n,). Floats that do not apply,
    or of unreadable images, are NaN; integers are 0 and texts empty.

    ========================= ======= ==============================================================
    column                    dtype   meaning
    ========================= ======= ==============================================================
    readable                  bool    whether the image can be read
    code, reason              str     why not, as in :class:`kindsight.errors.ImageError`
    bytes                     int64   size of the file
    format                    str     detected from the content: ``JPEG``, ``PNG``, ...
    mode                      str     as stored: ``RGB``, ``L``, ``CMYK``, ``I;16``, ``P+alpha`` ...
    frames                    int32   images in the file
    height, width             int32   pixels, after the EXIF rotation
    stored_height, -_width    int32   pixels as stored, before the EXIF rotation
    orientation               int8    EXIF orientation, 1 to 8; 1 is upright
    quality                   float32 estimated JPEG quality, 1 to 100
    subsampling               str     JPEG chroma subsampling: ``4:2:0``, ...
    progressive               bool    whether the JPEG is progressive
    encoder                   str     fingerprint of the JPEG encoder
    camera, software          str     from EXIF
    taken                     float64 capture time in seconds since 1970 by the camera's clock
    transparency              float32 mean transparency, 0 to 1
    thumbnail_difference      float32 1 - correlation of EXIF thumbnail and image, 0 to 2
    brightness                float32 mean grey level, 0 to 255 (as all grey levels below)
    red, green, blue          float32 mean of each channel
    p01, p05, p50, p95, p99   float32 percentiles of the grey levels
    contrast                  float32 standard deviation of the grey levels
    entropy                   float32 entropy of the grey levels, 0 to 8 bits
    uniformity                float32 largest fraction of pixels in nine adjacent grey levels
    sharpness                 float32 variance of the Laplacian at the area of 224 x 224 pixels
    softness                  float32 fraction of the Laplacian's energy left by a slight blur
    blur                      float32 blur metric of Crete et al., 0 (sharp) to 1
    colourfulness             float32 of Hasler and Suesstrunk, 0 for grey, above 80 very colourful
    chroma                    float32 99th percentile of the largest minus the smallest channel
    hash                      uint64  (n, 4), see :mod:`kindsight.images.hashes`
    ========================= ======= ==============================================================

    Parameters
    ----------
    numeric : array
        Records of :data:`kindsight.checks.measure.NUMERIC`, (n,).
    text : mapping of str to object array
        Text columns, each (n,).
    small_images : callable
        From rows, int64 (m,), to small grey images, uint8 (m, 64, 64).
    """

    numeric: NDArray[np.void]
    text: Mapping[str, NDArray[np.object_]]
    small_images: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.numeric)

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in (NUMERIC.names or ()):
            column: NDArray[Any] = self.numeric[name]
            return column
        if name in TEXT:
            return self.text[name]
        raise AttributeError(f"{type(self).__name__!r} has no column {name!r}")

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each image can be read, bool (n,)."""
        return np.asarray(self.text["code"] == "", np.bool_)
