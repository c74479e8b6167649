"""A second decoder for ordinary JPEGs: libjpeg-turbo through simplejpeg, straight into RGB.

It gives the pixels that Pillow gives, to the bit, in less than half the time: Pillow decodes into
four bytes a pixel, which have to be copied and converted before anything can be done with them.
It refuses whatever its library so much as warns of. Then Pillow decides, so that what is read of
a damaged file, and what is said of it, does not depend on this module.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

__all__ = ["decode_jpeg"]

# Grey files are doubled into three channels by the decoder. CMYK is left to Pillow, which knows
# Adobe's inverted form.
_MODES = ("RGB", "L")


def decode_jpeg(
    data: bytes,
    mode: str,
    full: tuple[int, int],
    reduced: tuple[int, int],
    room: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8] | None:
    """Decode a JPEG.

    Parameters
    ----------
    data : bytes
        The whole file.
    mode : str
        In which Pillow opens it.
    full : (height, width)
        The size that the file states.
    reduced : (height, width)
        The same, or what Pillow makes of it with a reduction by 2, 4 or 8.
    room : array, optional
        uint8, of one dimension: where to decode to, if it is large enough. Memory that was used
        before saves a third of the time; the next picture overwrites it.

    Returns
    -------
    uint8 array of shape (*reduced, 3), or None
        RGB, 0-255, C-contiguous; None where Pillow has to decide.
    """
    library = _simplejpeg()
    if library is None or mode not in _MODES:
        return None
    # Asked for a size, the decoder takes the smallest of its factors that reaches it: exactly
    # Pillow's, for that gives the size itself. Not asked, it has nothing to look for.
    least = (0, 0) if reduced == full else reduced
    fits = room is not None and room.size >= 3 * reduced[0] * reduced[1]
    try:
        pixels: NDArray[np.uint8] = library.decode_jpeg(
            data,
            "RGB",
            min_height=least[0],
            min_width=least[1],
            strict=True,
            buffer=room if fits else None,
        )
    except ValueError:
        return None
    return pixels if pixels.shape == (*reduced, 3) else None


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:  # no wheel for this machine: Pillow does all
        return None
    module: ModuleType = simplejpeg
    return module
