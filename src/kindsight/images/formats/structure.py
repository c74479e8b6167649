"""Checks of a file's structure, made before any decoder sees it.

Decoders are lenient where a data set should be strict: most fill the rest of a cut JPEG with grey
and say nothing, or say it on the terminal. They also spend memory or time on what a hostile header
promises. These checks read only headers and chunk lengths, and cost microseconds.
"""

from __future__ import annotations

import struct
import zlib

from kindsight.errors import ImageError

__all__ = ["check_size", "check_structure", "corrupt", "truncated"]

MAX_SEGMENTS = 20_000
"""Segments before a JPEG's first scan. The largest colour profile takes 255 of them."""

MAX_CHUNKS = 200_000
"""Chunks of a PNG. A 512 MiB file written in the usual 8 KiB chunks has 65,536."""

MAX_STRAY = 65_536
"""Bytes of rubbish that are passed over between two JPEG segments."""

MAX_SCANNED = 250_000_000
"""Pixels times scans of a progressive JPEG with more scans than any encoder writes (see below)."""

USUAL_SCANS = 20

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODABLE = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_STANDALONE = frozenset((0x01, *range(0xD0, 0xD8)))
_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_TEXTS_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


# Bytes of a value of each type, and the tags without which nothing can be decoded: bits, and where
# strips and tiles are and how long.
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 16: 8, 17: 8, 18: 8}
_TIFF_NEEDED = frozenset((258, 273, 279, 324, 325))


def truncated(name: str) -> ImageError:
    """Return the error for a file that ends too early."""
    return ImageError("truncated", f"The {name} file ends before the image is complete.")


def corrupt(name: str, detail: str) -> ImageError:
    """Return the error for a file that contradicts its own format."""
    return ImageError("corrupt", f"The {name} file is damaged: {detail}.")


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raise ``too-large`` when an image has more pixels than is allowed, ``corrupt`` when none."""
    if height < 1 or width < 1:
        raise ImageError("corrupt", "The file's header gives an image without pixels.")
    if height * width > max_pixels:
        raise ImageError(
            "too-large",
            f"The image is {height} x {width} pixels (height x width), "
            f"more than the limit of {max_pixels:,} pixels in all.",
        )


def check_structure(name: str, data: bytes, max_pixels: int) -> bytes:
    """Check what can be checked of a file without decoding it.

    Parameters
    ----------
    name : str
        The format, as :func:`kindsight.images.formats.detect.detect_format` gives it.
    data : bytes
        The whole file.
    max_pixels : int
        The most pixels (height times width) that are allowed.

    Returns
    -------
    bytes
        The file for the decoder: `data`, or a PNG without what has no part in its first image.

    Raises
    ------
    ImageError
        ``truncated``, ``corrupt``, ``unsupported`` or ``too-large``.
    """
    if name == "JPEG":
        _check_jpeg(data, max_pixels)
    elif name == "PNG":
        return _checked_png(data, max_pixels)
    elif name == "WebP":
        _check_webp(data, max_pixels)
    elif name == "TIFF":
        _check_tiff(data)
    return data


def _check_jpeg(data: bytes, max_pixels: int) -> None:
    """Walk the segments up to the first scan, then look for the end-of-image marker.

    ITU T.81, annex B. Within a scan every 0xFF byte of data is followed by 0x00, so the two bytes
    of the end marker cannot be data there; looking from the back finds it at once in a whole file,
    and also when other bytes follow it.
    """
    frame, scan = _first_scan(data)
    if frame is None:
        raise corrupt("JPEG", "its first scan comes before its size")
    marker, precision, height, width = frame
    if marker not in _DECODABLE or precision != 8:
        raise ImageError(
            "unsupported",
            "The JPEG is of a rare kind (12 bits, lossless or hierarchical): save it as PNG.",
        )
    check_size(height, width, max_pixels)
    if data.rfind(b"\xff\xd9", scan) < 0:
        raise truncated("JPEG")
    if marker in (0xC2, 0xCA):
        # Every scan of a progressive JPEG passes over all pixels, however few bytes it has, so a
        # small file of many empty scans would keep a decoder busy for minutes.
        scans = 1 + data.count(b"\xff\xda", scan)
        if scans > USUAL_SCANS and scans * height * width > MAX_SCANNED:
            raise ImageError(
                "too-large", f"The JPEG passes {scans:,} times over {height} x {width} pixels."
            )


def _first_scan(data: bytes) -> tuple[tuple[int, int, int, int] | None, int]:
    """Return (marker, precision, height, width) of the frame and where the first scan begins."""
    frame = None
    position = 2
    for _ in range(MAX_SEGMENTS):
        start = data.find(b"\xff", position)
        if start < 0 or start + 4 > len(data):
            raise truncated("JPEG")
        if start - position > MAX_STRAY:
            raise corrupt("JPEG", "there is no segment where one should begin")
        marker = data[start + 1]
        if marker == 0xFF:  # a fill byte
            position = start + 1
        elif marker == 0 or marker in _STANDALONE:
            position = start + 2
        elif marker == 0xD9:
            raise truncated("JPEG")
        else:
            length = int.from_bytes(data[start + 2 : start + 4], "big")
            end = start + 2 + length
            if length < 2:
                raise corrupt("JPEG", "a segment has an impossible length")
            if end > len(data):
                raise truncated("JPEG")
            if marker in _FRAMES and length >= 8:
                size = data[start + 5 : start + 9]
                height, width = int.from_bytes(size[:2], "big"), int.from_bytes(size[2:], "big")
                frame = (marker, data[start + 4], height, width)
            if marker == 0xDA:
                return frame, end
            position = end
    raise corrupt("JPEG", "it has too many segments before its first scan")


def _checked_png(data: bytes, max_pixels: int) -> bytes:
    """Walk the chunks to the last, check the sums of those with pixels, and keep what is needed.

    W3C PNG specification, section 5. The sums find damage that decompression alone passes over.
    Colour profiles, texts and the further frames of an animation are left out: they cannot change
    the first image, and faults in them (or bombs) must not cost it.
    """
    view = memoryview(data)
    kept = [view[:8]]
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
                raise corrupt("PNG", f"the checksum of its {kind.decode()} chunk does not agree")
        if (
            kind in _PIXEL_CHUNKS
            or kind in (b"eXIf", b"IEND")
            or (kind in _TEXT_CHUNKS and data.startswith(_TEXTS_WITH_ORIENTATION, body))
        ):
            kept.append(view[position:end])
        if kind == b"IEND":
            return data if sum(map(len, kept)) == end else b"".join(kept)
        position = end
    raise corrupt("PNG", "it has too many chunks")


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Check the file's length and the canvas, which a decoder sets aside as soon as it opens.

    WebP container specification and RFC 6386, section 9.1.
    """
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


def _check_tiff(data: bytes) -> None:
    """Check that the first directory, which many writers put last, is there; TIFF 6.0, section 2.

    A decoder would call a file without it damaged or unknown, when it has only been cut.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    # BigTIFF has the same entries with counts and offsets of twice the size.
    offset, count, entry = ("Q", "Q", "HHQQ") if big else ("I", "H", "HHII")
    try:
        (start,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        (entries,) = struct.unpack_from(order + count, data, start)
        position = start + struct.calcsize(order + count)
        table = data[position : position + entries * struct.calcsize(order + entry)]
        if len(table) < entries * struct.calcsize(order + entry):
            raise truncated("TIFF")
        for tag, kind, number, where in struct.iter_unpack(order + entry, table):
            size = number * _TIFF_SIZES.get(kind, 0)
            elsewhere = size > struct.calcsize(order + offset)  # else `where` is the value itself
            if tag in _TIFF_NEEDED and elsewhere and where + size > len(data):
                raise truncated("TIFF")
    except (struct.error, OverflowError):
        raise truncated("TIFF") from None
