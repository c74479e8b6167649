"""From a file to an array of pixels: the only way in."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError, SettingsError
from kindsight.images.convert import LowBytes, to_rgb, turn
from kindsight.images.formats.detect import detect_format
from kindsight.images.formats.jpeg import read_jpeg
from kindsight.images.formats.netpbm import read_netpbm
from kindsight.images.formats.structure import check_structure
from kindsight.images.metadata import FactsGatherer, ImageFacts
from kindsight.images.pillow_decoder import (
    load,
    open_image,
    open_low_bytes,
    orientation_of,
    translating,
)

__all__ = ["MAX_BYTES", "MAX_PIXELS", "read_bytes", "read_image", "read_with_facts"]

MAX_PIXELS = 178_956_970
"""The most pixels (height times width) of an image: what Pillow, too, takes for a bomb."""

MAX_BYTES = 512 * 2**20
"""The most bytes of a file: 512 MiB."""


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a whole file, within bounds.

    Parameters
    ----------
    path : str or os.PathLike
        An ordinary file. Pipes and devices, which may never end, are refused.
    max_bytes : int, default=512 MiB
        The most bytes that are read.

    Returns
    -------
    bytes
        The file; never empty.

    Raises
    ------
    ImageError
        ``missing``, ``no-permission``, ``not-an-image`` (a folder, a pipe), ``empty``,
        ``too-large``, or ``corrupt`` when the disk fails.
    """
    name = os.fspath(path)
    try:
        found = os.stat(name)  # noqa: PTH116 (called once an image; Path is slower)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError("not-an-image", "This is not a file but a folder or device.", name)
        if found.st_size > max_bytes:
            raise ImageError(
                "too-large",
                f"The file has {found.st_size:,} bytes, more than the limit of {max_bytes:,}.",
                name,
            )
        with Path(name).open("rb") as file:
            data = file.read(found.st_size)
    except PermissionError:
        raise ImageError("no-permission", "The file may not be read.", name) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ImageError("missing", "There is no such file.", name) from None
    except OSError as error:
        raise ImageError("corrupt", "The disk did not give the file.", name) from error
    if not data:
        raise ImageError("empty", "The file is empty.", name)
    return data


def read_image(
    source: str | os.PathLike[str] | bytes,
    *,
    target: tuple[int, int] | None = None,
    background: tuple[int, int, int] = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
) -> NDArray[np.uint8]:
    """Read one image, whatever its format, as RGB.

    The format is told from the first bytes, never from the name: JPEG (also CMYK, progressive),
    PNG, GIF, WebP, BMP, TIFF, PBM / PGM / PPM, AVIF, JPEG 2000 and ICO. Of an animation or a file
    of several images the first is taken. The EXIF orientation is applied. Embedded colour
    profiles are not.

    Safe to call from many threads at once; decoding itself runs without the interpreter's lock.

    Parameters
    ----------
    source : str, os.PathLike or bytes
        A path, or the content of a file.
    target : (height, width), optional
        The size to which the image will be resized. A JPEG much larger is decoded at 1/2, 1/4 or
        1/8 of its size, the smallest that is nowhere below `target`, which is faster.
    background : (red, green, blue), default=(255, 255, 255)
        The colour on which transparent pixels are laid.
    max_pixels : int, default=178_956_970
        Images with more pixels (height times width) are refused before they are decoded.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        RGB, 0-255, C-contiguous and writeable. 16-bit samples become ``round(value / 257)``.
        32-bit integers and floats, whose white is not stated, go by the range the image uses:
        floats within 0-1 are multiplied by 255, numbers within 0-255 rounded, within 0-65535
        divided by 257, and otherwise the least becomes 0 and the greatest 255.

    Raises
    ------
    ImageError
        With a code: ``missing``, ``no-permission``, ``empty``, ``not-an-image``, ``unsupported``,
        ``truncated``, ``corrupt`` or ``too-large``, and a reason. Nothing else is raised for a
        file, however it is made, and nothing is printed.
    SettingsError
        If an option has an impossible value.

    Notes
    -----
    A cut JPEG or PNG is always refused, and so is a PNG whose checksums disagree. A JPEG has no
    checksum: where bytes inside its scans were changed, the decoder goes on with what it makes of
    them, and the image is given with that damage.
    """
    _check_settings(target, background, max_pixels)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _decode(bytes(source), target, background, max_pixels)
    data = read_bytes(source)
    try:
        return _decode(data, target, background, max_pixels)
    except ImageError as error:
        raise error.at(os.fspath(source)) from error


def read_with_facts(
    data: bytes, *, target: tuple[int, int] | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], ImageFacts]:
    """Read one image as :func:`read_image` does, and what its file says beside the pixels.

    Parameters
    ----------
    data : bytes
        The content of a file.
    target, max_pixels
        As in :func:`read_image`.

    Returns
    -------
    image : uint8 array of shape (height, width, 3)
        RGB.
    facts : ImageFacts

    Raises
    ------
    ImageError
        As :func:`read_image`.
    """
    gatherer = FactsGatherer()
    image = _decode(data, target, (255, 255, 255), max_pixels, gatherer)
    return image, gatherer.facts


def _decode(
    whole: bytes,
    target: tuple[int, int] | None,
    background: tuple[int, int, int],
    max_pixels: int,
    gatherer: FactsGatherer | None = None,
) -> NDArray[np.uint8]:
    name = detect_format(whole)
    data = check_structure(name, whole, max_pixels)
    with translating(name):
        if name == "PPM":
            if gatherer is not None:
                gatherer.netpbm(data)
            return read_netpbm(data, max_pixels)
        if name == "JPEG":
            return read_jpeg(data, target, background, max_pixels, gatherer)
        opened = open_image(name, data, max_pixels)
        if gatherer is not None:
            gatherer.opened(name, opened)
        twin = open_low_bytes(name, data, opened)
        image = load(opened, name, max_pixels)
        low = LowBytes(load(twin[0], name, max_pixels), twin[1]) if twin else None
        pixels = to_rgb(image, background, low)
        orientation = orientation_of(opened, name)
        if gatherer is not None:
            gatherer.decoded(whole, opened, orientation)
        return turn(pixels, orientation)


def _check_settings(
    target: tuple[int, int] | None, background: tuple[int, int, int], max_pixels: int
) -> None:
    if target is not None and (len(target) != 2 or min(target) < 1):
        raise SettingsError(
            f"target must be (height, width), both at least 1. Received: target={target!r}"
        )
    if len(background) != 3 or not all(0 <= value <= 255 for value in background):
        raise SettingsError(
            "background must be three numbers from 0 to 255 (red, green, blue). "
            f"Received: background={background!r}"
        )
    if max_pixels < 1:
        raise SettingsError(f"max_pixels must be at least 1. Received: max_pixels={max_pixels!r}")
