"""Pillow, the decoder of all formats but PPM and ordinary JPEGs: silent, with typed errors.

OpenCV is not used for decoding: its JPEG and PNG libraries print to the process's standard error
when a file is damaged, which no setting prevents and no thread can redirect for itself alone.
Pillow's decoders are silent, raise on a truncated file, and read every mode.

The file classes are called directly, not through ``PIL.Image.open``: that function hides the reason
why a file was refused, and imports all plugins, some of which run other programs.
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
from kindsight.images.formats import check_size, corrupt, heif_module, truncated

__all__ = [
    "exif_orientation", "load", "open_image", "open_low_bytes", "raw_mode", "reduce_jpeg",
    "translated_errors",
]  # fmt: skip

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

_ORIENTATION = 0x0112

# Words in decoders' messages about files that end too early, and about variants they cannot read.
_TRUNCATED = (
    *("truncat", "end of file", "unexpected end", "not enough", "incomplete"),
    "buffer is empty",
)
_UNSUPPORTED = ("unsupported", "not supported", "unknown pixel mode", "unknown data organization")

_MODULES = r"PIL\."

# Pillow reads only the upper byte of each 16-bit sample in colour images. With the other byte order
# it reads the lower one. Grey with alpha has no such raw mode, but as four bytes per pixel it is
# also RGBA: the lower bytes are then the second and the fourth channel.
_LOW_BYTES = {
    ";16B": ";16L",
    ";16L": ";16B",
    ";16N": ";16B" if sys.byteorder == "little" else ";16L",
}
_WIDE_COLOURS = ("RGB", "RGBA", "RGBX")

# Pillow logs some kinds of damage; without a handler Python would print the records.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def translated_errors(name: str) -> Iterator[None]:
    """Turn every exception in the block, which reads a file of format `name`, into ImageError."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        raise _translated(error, name) from error


def open_image(name: str, data: bytes, max_pixels: int) -> ImageFile.ImageFile:
    """Open an image without decoding it, within :func:`translated_errors`."""
    _silence_warnings()
    if name == "TIFF":
        _silence_libtiff()
    module, class_name = _CLASSES.get(name, ("", "HeifImageFile"))
    module = f"PIL.{module}" if module else heif_module() or ""
    # Imported on first use, for a fast start; the import system's lock makes it thread-safe.
    opener = getattr(importlib.import_module(module), class_name)
    image: ImageFile.ImageFile = opener(io.BytesIO(data))
    check_size(image.height, image.width, max_pixels)
    return image


def load(image: ImageFile.ImageFile, name: str, max_pixels: int) -> Image.Image:
    """Decode the first frame, and correct what Pillow gets wrong."""
    mode = raw_mode(image)
    image.load()
    # The images of an icon can differ from its directory, which alone was checked so far.
    check_size(image.height, image.width, max_pixels)
    key = image.info.get("transparency")
    if name == "PNG" and mode in ("L;2", "L;4") and isinstance(key, int):
        # The transparent grey is stored in 2 or 4 bits, the decoded pixels have 8.
        image.info["transparency"] = key * (85 if mode == "L;2" else 17)
    if name == "BMP" and image.mode == "RGBA" and image.getchannel("A").getextrema() == (0, 0):
        # Most programs write zero into the fourth byte, which means no transparency.
        return image.convert("RGB")
    return image


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how Pillow reads the samples of an opened image, such as ``RGB;16B``; may be empty."""
    return _tile_mode(image.tile[0]) if image.tile else ""


def open_low_bytes(
    name: str, data: bytes, image: ImageFile.ImageFile
) -> tuple[ImageFile.ImageFile, tuple[int, ...]] | None:
    """Open a 16-bit colour image a second time, for the lower bytes of its samples.

    Returns the second image, not decoded, and its channels to use; None if the first loses nothing.
    """
    modes = {_tile_mode(tile) for tile in image.tile}
    if len(modes) != 1:
        return None
    mode = modes.pop()
    kind, depth = mode[:-4], mode[-4:]
    channels: tuple[int, ...]
    if mode == "LA;16B" and image.mode == "RGBA":
        replacement, channels = "RGBA", (1, 1, 1, 3)
    elif depth in _LOW_BYTES and kind in _WIDE_COLOURS and image.mode in _WIDE_COLOURS:
        replacement, channels = kind + _LOW_BYTES[depth], (0, 1, 2, 3)[: len(image.getbands())]
    else:
        return None
    twin = open_image(name, data, sys.maxsize)
    twin.tile = [_with_mode(tile, replacement) for tile in twin.tile]
    return twin, channels


def _tile_mode(tile: ImageFile._Tile) -> str:
    first = tile.args[0] if isinstance(tile.args, (tuple, list)) and tile.args else tile.args
    return first if isinstance(first, str) else ""


def _with_mode(tile: ImageFile._Tile, mode: str) -> ImageFile._Tile:
    if isinstance(tile.args, str):
        return tile._replace(args=mode)
    return tile._replace(args=(mode, *(tile.args or ())[1:]))


def reduce_jpeg(image: ImageFile.ImageFile, target: tuple[int, int]) -> tuple[int, int]:
    """Make Pillow decode at the smallest of 1/1, 1/2, 1/4 and 1/8 that is at least `target`.

    Returns the (height, width) to use. A side that the factor does not divide is rounded up, and
    its last row or column covers as little as an eighth: used, it would shift the image by most of
    a pixel. It is used only if it covers half a pixel or more.
    """
    full = image.height, image.width
    height, width = target
    if exif_orientation(image) >= 5:
        height, width = width, height
    image.draft(None, (width, height))
    factor = image.decoderconfig[0] if image.decoderconfig else 1
    return (full[0] + factor // 2) // factor, (full[1] + factor // 2) // factor


def exif_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if it is missing or invalid."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # invalid metadata do not make the pixels unusable
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _silence_warnings() -> None:
    """Hide Pillow's warnings about odd files."""
    first = next(iter(warnings.filters), None)
    if first is None or getattr(first[3], "pattern", first[3]) != _MODULES:
        warnings.filterwarnings("ignore", module=_MODULES)


@functools.cache
def _silence_libtiff() -> None:
    """Remove the handlers with which libtiff prints errors and warnings on standard error."""
    try:
        library = ctypes.CDLL(importlib.import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            setter = getattr(library, name)
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)
    except (AttributeError, OSError):
        return


def _translated(error: Exception, name: str) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError("too-large", "There is not enough memory for the image.")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError("too-large", "A frame of the image exceeds the limit of pixels.")
    text = str(error).lower()
    if isinstance(error, EOFError) or any(word in text for word in _TRUNCATED):
        return truncated(name)
    if isinstance(error, NotImplementedError) or any(word in text for word in _UNSUPPORTED):
        return ImageError(
            "unsupported",
            f"This variant of {name} is not supported: save the image as JPEG or PNG.",
        )
    return corrupt(name, "it cannot be decoded")
