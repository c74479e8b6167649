"""The decoder behind every format but PPM: Pillow, kept silent and with its errors translated.

For ordinary JPEGs :mod:`.jpeg` takes its place. Why not OpenCV: its JPEG and PNG libraries print
to the process's standard error when a file is damaged, which no setting prevents and no thread
can redirect for itself alone. Pillow's decoders are silent, raise on a cut file, and read every
mode.

The file classes are called directly, not through ``PIL.Image.open``: that function swallows the
reason why a file was refused, and imports all plugins, some of which run other programs.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

from kindsight.errors import ImageError
from kindsight.images.formats.structure import check_size, corrupt, truncated

__all__ = ["load", "open_image", "open_low_bytes", "orientation_of", "reduce_jpeg", "translating"]

_CLASSES = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
    "JPEG 2000": ("Jpeg2KImagePlugin", "Jpeg2KImageFile"),
    "ICO": ("IcoImagePlugin", "IcoImageFile"),
}

_TURNED_BY_EXIF = ("JPEG", "PNG", "WebP", "AVIF")  # TIFF is turned by its own class
_ORIENTATION = 0x0112

# What decoders say of a file that ends too early, and of one that they do not know how to read.
_CUT = ("truncat", "end of file", "unexpected end", "not enough", "incomplete", "buffer is empty")
_UNREAD = ("unsupported", "not supported", "unknown pixel mode", "unknown data organization")

_MODULES = r"PIL\."

# For 16-bit colour Pillow keeps only the upper byte of each sample. Asked for the other byte
# order, it keeps the lower one. Grey with alpha has no such twin, but as four bytes a pixel it is
# also RGBA: the lower bytes are then the second and the fourth.
_LOW_BYTES = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}
_WIDE_COLOURS = ("RGB", "RGBA", "RGBX")

# Pillow reports some damage as log records; without a handler Python would print them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def translating(name: str) -> Iterator[None]:
    """Let nothing but :class:`ImageError` out of a block that handles a file of format `name`."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise _translated(error, name) from error


def open_image(name: str, data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image without decoding it; to be called, like all below, within `translating`.

    Parameters
    ----------
    name : str
        The format, as :func:`kindsight.images.formats.detect.detect_format` gives it.
    data : bytes
        The whole file.
    max_pixels : int
        The most pixels that are allowed.

    Returns
    -------
    PIL.ImageFile.ImageFile
        Opened: size, mode and tiles are known, pixels are not.
    """
    _silence_warnings()
    if name == "TIFF":
        _silence_libtiff()
    module, kind = _CLASSES[name]
    # Loaded when first needed, for start-up; the import system's own lock covers threads.
    opener = getattr(importlib.import_module(f"PIL.{module}"), kind)
    image: ImageFile.ImageFile = opener(io.BytesIO(data))
    check_size(image.height, image.width, max_pixels)
    return image


def load(image: ImageFile.ImageFile, name: str, max_pixels: int) -> Image.Image:
    """Decode the first frame, and set right what Pillow leaves askew."""
    raw_mode = _raw_mode(image.tile[0]) if image.tile else ""
    image.load()
    # An icon's directory and its images may disagree, and only the directory is checked yet.
    check_size(image.height, image.width, max_pixels)
    key = image.info.get("transparency")
    if name == "PNG" and raw_mode in ("L;2", "L;4") and isinstance(key, int):
        # The grey that is transparent is in the file's own 2 or 4 bits, the pixels are in 8.
        image.info["transparency"] = key * (85 if raw_mode == "L;2" else 17)
    if name == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Most programs leave the fourth byte of a bitmap at zero and mean nothing by it.
        return image.convert("RGB")
    return image


def open_low_bytes(
    name: str, data: bytes, image: ImageFile.ImageFile
) -> tuple[ImageFile.ImageFile, tuple[int, ...]] | None:
    """Open a 16-bit colour image a second time, for the lower bytes of its samples.

    Parameters
    ----------
    name, data
        As for :func:`open_image`.
    image : PIL.ImageFile.ImageFile
        The same image, opened and not yet decoded.

    Returns
    -------
    (image, channels) or None
        The image to decode and which of its channels are wanted; None if `image` loses nothing.
    """
    raw_modes = {_raw_mode(tile) for tile in image.tile}
    if len(raw_modes) != 1:
        return None
    raw_mode = raw_modes.pop()
    kind, depth = raw_mode[:-4], raw_mode[-4:]
    channels: tuple[int, ...]
    if raw_mode == "LA;16B" and image.mode == "RGBA":
        replacement, channels = "RGBA", (1, 1, 1, 3)
    elif depth in _LOW_BYTES and kind in _WIDE_COLOURS and image.mode in _WIDE_COLOURS:
        replacement, channels = kind + _LOW_BYTES[depth], (0, 1, 2, 3)[: len(image.getbands())]
    else:
        return None
    twin = open_image(name, data, sys.maxsize)
    twin.tile = [_with_raw_mode(tile, replacement) for tile in twin.tile]
    return twin, channels


def _raw_mode(tile: ImageFile._Tile) -> str:
    first = tile.args[0] if isinstance(tile.args, (tuple, list)) and tile.args else tile.args
    return first if isinstance(first, str) else ""


def _with_raw_mode(tile: ImageFile._Tile, raw_mode: str) -> ImageFile._Tile:
    if isinstance(tile.args, str):
        return tile._replace(args=raw_mode)
    return tile._replace(args=(raw_mode, *(tile.args or ())[1:]))


def reduce_jpeg(image: ImageFile.ImageFile, target: tuple[int, int]) -> tuple[int, int]:
    """Ask for the smallest of 1/1, 1/2, 1/4, 1/8 that is at least ``target`` (height, width).

    Returns
    -------
    (height, width)
        How much of the decoded image to keep. A side that the factor does not divide is rounded
        up, and its last row or column stands for as little as one of eight: kept, it would move
        the image by most of a pixel. It is kept only if it stands for half or more.
    """
    full = image.height, image.width
    height, width = target
    if orientation_of(image, "JPEG") >= 5:
        height, width = width, height
    image.draft(None, (width, height))
    factor = image.decoderconfig[0] if image.decoderconfig else 1
    return (full[0] + factor // 2) // factor, (full[1] + factor // 2) // factor


def orientation_of(image: Image.Image, name: str) -> int:
    """Return the EXIF orientation, 1 to 8, of a decoded image; 1 where it is absent or absurd."""
    if name not in _TURNED_BY_EXIF:
        return 1
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # metadata may be anything, and the pixels are still good
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _silence_warnings() -> None:
    """Keep Pillow's warnings about odd files off the terminal.

    ``warnings.catch_warnings`` saves and restores the process's filters, so threads that use it
    at once undo each other's work. One filter that stays has no such race. It is kept in front,
    because a filter that turns warnings into errors would change which images are read.
    """
    first = next(iter(warnings.filters), None)
    if first is None or getattr(first[3], "pattern", first[3]) != _MODULES:
        warnings.filterwarnings("ignore", module=_MODULES)


@functools.cache
def _silence_libtiff() -> None:
    """Take away the handlers with which libtiff prints errors and warnings on standard error.

    Pillow leaves them in place. They belong to the copy of libtiff that Pillow was linked with, so
    nothing else in the process is changed. Where that copy cannot be reached (Pillow's Windows
    wheels hide it), damaged TIFF files still raise, but libtiff prints its own line as well.
    """
    try:
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (AttributeError, OSError):
        return


def _translated(error: Exception, name: str) -> ImageError:
    """Turn whatever a decoder raised into a code and a sentence."""
    if isinstance(error, MemoryError):
        return ImageError("too-large", "The image needs more memory than there is.")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too-large", "A frame of the image is larger than is allowed.")
    text = str(error).lower()
    if isinstance(error, EOFError) or any(word in text for word in _CUT):
        return truncated(name)
    if isinstance(error, NotImplementedError) or any(word in text for word in _UNREAD):
        return ImageError(
            "unsupported",
            f"The {name} file is of a variant that is not read: save it as JPEG or PNG.",
        )
    return corrupt(name, "it cannot be decoded")
