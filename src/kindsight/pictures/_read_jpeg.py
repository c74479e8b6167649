"""From a JPEG's bytes to pixels and facts, by the quickest of three ways that give the same.

An ordinary file needs no Pillow: its header is read in :mod:`._jpeg_header`, its pixels by
:mod:`.jpeg`. Where the header is out of the ordinary, Pillow reads that and the second decoder the
pixels; where that one refuses the pixels, Pillow decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.pictures._convert import to_rgb, turn
from kindsight.pictures._jpeg_header import JpegHeader, plain_header, reduction
from kindsight.pictures._pillow import load, open_image, orientation_of, reduce_jpeg
from kindsight.pictures.facts import FactsGatherer
from kindsight.pictures.jpeg import decode_jpeg

__all__ = ["read_jpeg"]


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
        As for :func:`kindsight.pictures.read_picture`.
    gatherer : FactsGatherer, optional
        Who takes down what the file says.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        RGB, turned upright.
    """
    header = plain_header(data)
    picture = None if header is None else _decode_plain(header, data, target)
    if header is not None and picture is not None:
        if gatherer is not None:
            gatherer.jpeg(header)
        return turn(picture, header.orientation)
    opened = open_image("JPEG", data, max_pixels)
    if gatherer is not None:
        gatherer.opened("JPEG", opened)
    full = keep = (opened.height, opened.width)
    if target is not None:
        keep = reduce_jpeg(opened, target)
    if header is None:  # otherwise it was asked already
        picture = decode_jpeg(data, opened.mode, full, (opened.height, opened.width))
    if picture is None:
        picture = to_rgb(load(opened, "JPEG", max_pixels), background)
    orientation = orientation_of(opened, "JPEG")
    if gatherer is not None:
        gatherer.decoded(data, opened, orientation)
    return turn(picture[: keep[0], : keep[1]], orientation)


def _decode_plain(
    header: JpegHeader, data: bytes, target: tuple[int, int] | None
) -> NDArray[np.uint8] | None:
    """Decode the pixels of an ordinary JPEG; None where they are damaged."""
    full = keep = reduced = (header.height, header.width)
    if target is not None:
        height, width = target
        wanted = (width, height) if header.orientation >= 5 else (height, width)
        keep, reduced = reduction(full, wanted)
    picture = decode_jpeg(data, header.mode, full, reduced)
    return None if picture is None else picture[: keep[0], : keep[1]]
