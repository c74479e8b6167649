"""The measurements of all images of a dataset: a table of NumPy columns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.measure import NUMERIC, TEXT

__all__ = ["SINGLE_TONE", "Measurements"]

SINGLE_TONE = 0.98
"""Value of `plain` from which an image is a single tone; images of cats-dogs reach 0.58."""


@dataclass(frozen=True, eq=False)
class Measurements:
    """What was measured of each image; one row a row of the dataset, in its order.

    Columns are attributes: ``measurements.brightness`` is an array of one number a row. Floats of
    images that cannot be read, and what does not apply, are NaN; integers are 0, texts empty.

    ========================= ======= ==============================================================
    column                    dtype   meaning
    ========================= ======= ==============================================================
    readable                  bool    whether it is an image that can be read
    code, reason              str     otherwise why, as in :class:`kindsight.errors.ImageError`
    bytes                     int64   of the file
    format                    str     told from the content: ``JPEG``, ``PNG``, ...
    mode                      str     as stored: ``RGB``, ``L``, ``CMYK``, ``I;16``, ``P+alpha`` ...
    frames                    int32   images in the file
    height, width             int32   of the image as it is seen, turned upright
    stored_height, -_width    int32   as stored, before turning
    orientation               int8    EXIF's, 1 to 8; 1 is upright
    quality                   float32 of a JPEG, estimated, 1 to 100
    subsampling               str     of a JPEG's colours: ``4:2:0`` ...
    progressive               bool    whether a JPEG is
    encoder                   str     of a JPEG: the same for the same program and settings
    camera, software          str     what EXIF says
    taken                     float64 seconds since 1970 by the camera's clock, from EXIF
    transparency              float32 0 to 1 on average, where the mode allows any
    thumbnail                 float32 how EXIF's thumbnail differs from the image, 0 to 2
    brightness                float32 mean grey level, 0-255 (as all that follow)
    red, green, blue          float32 mean of each channel
    p01, p05, p50, p95, p99   float32 percentiles of the grey level
    contrast                  float32 standard deviation of the grey level
    entropy                   float32 of the grey levels, 0 to 8 bits
    plain                     float32 share of pixels in the commonest nine levels, 0 to 1
    sharpness                 float32 variance of the Laplacian at 224 x 224 pixels' area
    softness                  float32 share of the Laplacian's energy that a slight blur leaves
    smear                     float32 Crete's blur metric, 0 (sharp) to 1
    colourfulness             float32 Hasler and Suesstrunk's, 0 for grey, above 80 very colourful
    chroma                    float32 99th percentile of the greatest minus the least channel
    hash                      uint64  (n, 4): see :mod:`kindsight.images.hashes`
    ========================= ======= ==============================================================

    Parameters
    ----------
    numbers : array
        Records of :data:`kindsight.checks.measure.NUMERIC`, (n,).
    words : mapping of str to object array
        The texts, each (n,).
    small : callable
        From row numbers, int64 (m,), to the images in small and grey, uint8 (m, 64, 64).
    """

    numbers: NDArray[np.void]
    words: Mapping[str, NDArray[np.object_]]
    small: Callable[[NDArray[np.int64]], NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getattr__(self, name: str) -> NDArray[Any]:
        if name in (NUMERIC.names or ()):
            column: NDArray[Any] = self.numbers[name]
            return column
        if name in TEXT:
            return self.words[name]
        raise AttributeError(f"there is no measurement {name!r}")

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Whether each row is an image that can be read."""
        return np.asarray(self.words["code"] == "", np.bool_)
