"""From a JPEG's bytes to pixels and facts, by the quickest of three ways that give the same.

An ordinary file needs no Pillow: its header is read in :mod:`._jpeg_header`, its pixels by
:mod:`.jpeg`. Where the header is out of the ordinary, Pillow reads that and the second decoder the
pixels; where that one refuses the pixels, Pillow decides.
"""

from __future__ import annotations

import functools
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from kindsight.images.convert import to_rgb, turn
from kindsight.images.formats.jpeg_header import JpegHeader, plain_header, reduction
from kindsight.images.metadata import FactsGatherer
from kindsight.images.pillow_decoder import load, open_image, orientation_of, reduce_jpeg

__all__ = [
    "decode_jpeg",
    "read_jpeg",
]

# SECTION: A second decoder for ordinary JPEGs: libjpeg-turbo through simplejpeg, straight into RGB.
#
# It gives the pixels that Pillow gives, to the bit, in less than half the time: Pillow decodes into
# four bytes a pixel, which have to be copied and converted before anything can be done with them.
# It refuses whatever its library so much as warns of. Then Pillow decides, so that what is read of
# a damaged file, and what is said of it, does not depend on this module.

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
        before saves a third of the time; the next image overwrites it.

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


def read_jpeg(
    data: bytes,
    target: tuple[int, int] | None,
    background: tuple[int, int, int],
    max_pixels: int,
    gatherer: FactsGatherer | None = None,
) -> NDArray[np.uint8]:
    """Decode a JPEG whose structure was checked, within :func:`._pillow.translating`.

    Parameters
    ----------
    data : bytes
        The whole file.
    target, background, max_pixels
        As for :func:`kindsight.images.read_image`.
    gatherer : FactsGatherer, optional
        Who takes down what the file says.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        RGB, turned upright.
    """
    header = plain_header(data)
    image = None if header is None else _decode_plain(header, data, target)
    if header is not None and image is not None:
        if gatherer is not None:
            gatherer.jpeg(header)
        return turn(image, header.orientation)
    opened = open_image("JPEG", data, max_pixels)
    if gatherer is not None:
        gatherer.opened("JPEG", opened)
    full = keep = (opened.height, opened.width)
    if target is not None:
        keep = reduce_jpeg(opened, target)
    if header is None:  # otherwise it was asked already
        image = decode_jpeg(data, opened.mode, full, (opened.height, opened.width))
    if image is None:
        image = to_rgb(load(opened, "JPEG", max_pixels), background)
    orientation = orientation_of(opened, "JPEG")
    if gatherer is not None:
        gatherer.decoded(data, opened, orientation)
    return turn(image[: keep[0], : keep[1]], orientation)


def _decode_plain(
    header: JpegHeader, data: bytes, target: tuple[int, int] | None
) -> NDArray[np.uint8] | None:
    """Decode the pixels of an ordinary JPEG; None where they are damaged."""
    full = keep = reduced = (header.height, header.width)
    if target is not None:
        height, width = target
        wanted = (width, height) if header.orientation >= 5 else (height, width)
        keep, reduced = reduction(full, wanted)
    image = decode_jpeg(data, header.mode, full, reduced)
    return None if image is None else image[: keep[0], : keep[1]]
