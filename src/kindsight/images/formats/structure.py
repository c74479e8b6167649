"""Checks of a file's structure before any decoder reads it.

Decoders are lenient where a dataset needs strictness: most fill the rest of a truncated file with
grey, silently or with a line on the terminal. They also spend memory or time on what a hostile
header states. These checks read headers and chunk lengths alone and take microseconds.
"""

from __future__ import annotations

import zlib

from kindsight.images.formats.file_errors import check_size, corrupt, truncated
from kindsight.images.formats.tiff import check_tiff

__all__ = ["check_structure"]

MAX_CHUNKS = 200_000
"""Limit of chunks in a PNG; 512 MiB in the usual chunks of 8 KiB are 65,536."""

_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_TEXTS_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def check_structure(name: str, data: bytes, max_pixels: int) -> bytes:
    """Check a PNG, WebP or TIFF file without decoding it; return the data for the decoder.

    A PNG is returned without the chunks that its first image does not need. Raises ImageError:
    ``truncated``, ``corrupt`` or ``too-large``. JPEGs are checked by
    :func:`~kindsight.images.formats.jpeg.check_jpeg`, PPMs while they are read.
    """
    if name == "PNG":
        return _checked_png(data, max_pixels)
    if name == "WebP":
        _check_webp(data, max_pixels)
    elif name == "TIFF":
        check_tiff(data)
    return data


def _checked_png(data: bytes, max_pixels: int) -> bytes:
    """Check chunk lengths and the checksums of pixel chunks; return the needed chunks."""
    view = memoryview(data)
    needed = [view[:8]]
    position = 8
    for index in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise truncated("PNG")
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        body, end = position + 8, position + 12 + length
        if index == 0:
            if kind != b"IHDR" or length != 13:
                raise corrupt("PNG", "it does not begin with its header")
            width = int.from_bytes(view[body : body + 4], "big")
            height = int.from_bytes(view[body + 4 : body + 8], "big")
            check_size(height, width, max_pixels)
        if end > len(data):
            raise truncated("PNG")
        if kind in _PIXEL_CHUNKS:
            expected = int.from_bytes(view[end - 4 : end], "big")
            if zlib.crc32(view[position + 4 : end - 4]) != expected:
                raise corrupt("PNG", f"the checksum of its {kind.decode()} chunk is wrong")
        if (
            kind in _PIXEL_CHUNKS
            or kind in (b"eXIf", b"IEND")
            or (kind in _TEXT_CHUNKS and data.startswith(_TEXTS_WITH_ORIENTATION, body))
        ):
            needed.append(view[position:end])
        if kind == b"IEND":
            return data if sum(map(len, needed)) == end else b"".join(needed)
        position = end
    raise corrupt("PNG", "it has too many chunks")


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Check the file's length and the canvas, for which a decoder allocates memory on opening."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise truncated("WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    else:
        raise corrupt("WebP", "it does not begin with an image")
    check_size(height, width, max_pixels)
