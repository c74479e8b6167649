"""JPEG: structure, header, and the pixels of ordinary files by libjpeg-turbo.

The segments before the first scan are walked once (ITU T.81, annex B). Of an ordinary file they
give the header in a tenth of the time that Pillow needs to open it, which for a small photo is
longer than decoding. Files with anything unusual in the header are left to Pillow.
"""

from __future__ import annotations

import functools
import re
from types import ModuleType
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ImageError
from kindsight.images.formats import check_size, corrupt, truncated
from kindsight.images.tiff import SHORT, Tiff

__all__ = [
    "JpegHeader", "check_jpeg", "decode_jpeg", "plain_header", "reduced_size", "simplejpeg_module",
    "unpack_tables",
]  # fmt: skip

MAX_SEGMENTS = 20_000
"""Limit of segments before the first scan; the largest colour profile takes 255."""

MAX_PLAIN_SEGMENTS = 200
"""Limit of segments in an ordinary header; there are a dozen, and one per 64 KiB of profile."""

MAX_STRAY = 65_536
"""Limit of stray bytes that are skipped between two segments."""

MAX_SCANNED = 250_000_000
"""Limit of pixels times scans in a progressive JPEG with more than USUAL_SCANS."""

USUAL_SCANS = 20
"""Scans that encoders write at most."""

_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_DECODABLE_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))
_PROGRESSIVE_FRAMES = (0xC2, 0xCA)
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
_STANDALONE = frozenset((0x00, 0x01, *range(0xD0, 0xD8)))
_HUFFMAN, _END, _SCAN, _TABLES, _RESTART, _COMMENT = 0xC4, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE

_MODES = {1: "L", 3: "RGB"}
_ORIENTATION = 274
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation")

# ITU T.81, figure 5: the index in zigzag order of each coefficient, row by row.
_ZIGZAG = sorted(
    range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8)
)
_ZIGZAG_INDEX = tuple(_ZIGZAG.index(i) for i in range(64))


class Segments(NamedTuple):
    """The segments up to the first scan: (marker, start of the body, end), and their regularity."""

    every: list[tuple[int, int, int]]
    adjacent: bool  # each begins where the one before ends


class JpegHeader(NamedTuple):
    """Header of an ordinary JPEG."""

    height: int  # as stored, before the orientation is applied
    width: int
    mode: str  # ``RGB``, or ``L`` for grey
    orientation: int  # EXIF orientation, 1 to 8; 1 is upright
    progressive: bool
    # Horizontal and vertical sampling factors of each channel.
    sampling: tuple[tuple[int, int], ...]
    tables: tuple[bytes, ...]  # the segments of quantisation tables
    segments: tuple[str, ...]  # names of the application and comment segments, in order
    exif: bytes  # the EXIF data; empty if absent
    mp: bytes  # the MPF index of a file of several images; empty if absent


def check_jpeg(data: bytes, max_pixels: int) -> JpegHeader | None:
    """Check a JPEG without decoding it; return its header, or None if it has anything unusual.

    Raises ImageError: ``truncated``, ``corrupt``, ``unsupported`` or ``too-large``.
    """
    segments = _walk_segments(data)
    scan = segments.every[-1][2]
    frames = [s for s in segments.every if s[0] in _FRAMES and s[2] - s[1] >= 6]
    if not frames:
        raise corrupt("JPEG", "its first scan comes before its size")
    marker, body, _ = frames[-1]
    height, width = _short(data, body + 1), _short(data, body + 3)
    if marker not in _DECODABLE_FRAMES or data[body] != 8:
        raise ImageError(
            "unsupported",
            "The JPEG is of a rare kind (12 bits, lossless or hierarchical): save it as PNG.",
        )
    check_size(height, width, max_pixels)
    # In a scan each 0xFF byte of data is followed by 0x00, so these two bytes are no data. Searched
    # from the back, the marker is found at once in a whole file, also if other bytes follow it.
    if data.rfind(b"\xff\xd9", scan) < 0:
        raise truncated("JPEG")
    if marker in _PROGRESSIVE_FRAMES:
        # Each scan of a progressive JPEG visits all pixels, however few bytes it has: a small file
        # of many empty scans would keep a decoder busy for minutes.
        scans = 1 + data.count(b"\xff\xda", scan)
        if scans > USUAL_SCANS and scans * height * width > MAX_SCANNED:
            raise ImageError(
                "too-large", f"The JPEG has {scans:,} scans of {height} x {width} pixels."
            )
    return _plain_header(data, segments)


def plain_header(data: bytes) -> JpegHeader | None:
    """Return the header of an ordinary JPEG; None for any other file."""
    try:
        return _plain_header(data, _walk_segments(data))
    except ImageError:
        return None


def _walk_segments(data: bytes) -> Segments:
    """Return the segments up to and including the first scan's header."""
    every: list[tuple[int, int, int]] = []
    adjacent, position = True, 2
    for _ in range(MAX_SEGMENTS):
        start = data.find(b"\xff", position)
        if start < 0 or start + 4 > len(data):
            raise truncated("JPEG")
        if start - position > MAX_STRAY:
            raise corrupt("JPEG", "there is no segment where one should begin")
        adjacent = adjacent and start == position
        marker = data[start + 1]
        if marker == 0xFF or marker in _STANDALONE:
            adjacent = False
            position = start + (1 if marker == 0xFF else 2)  # 0xFF is a fill byte
            continue
        if marker == _END:
            raise truncated("JPEG")
        length = _short(data, start + 2)
        position = start + 2 + length
        if length < 2:
            raise corrupt("JPEG", "a segment has an impossible length")
        if position > len(data):
            raise truncated("JPEG")
        every.append((marker, start + 4, position))
        if marker == _SCAN:
            return Segments(every, adjacent)
    raise corrupt("JPEG", "it has too many segments before its first scan")


def _short(data: bytes, offset: int) -> int:
    return data[offset] << 8 | data[offset + 1]


def _plain_header(data: bytes, segments: Segments) -> JpegHeader | None:
    if not segments.adjacent or len(segments.every) > MAX_PLAIN_SEGMENTS:
        return None
    frames: list[tuple[int, bytes]] = []
    tables: list[bytes] = []
    applications: list[tuple[int, bytes]] = []
    for marker, start, end in segments.every[:-1]:
        if marker in _PLAIN_FRAMES:
            frames.append((marker, data[start:end]))
        elif marker == _TABLES:
            tables.append(data[start:end])
        elif marker & 0xF0 == 0xE0 or marker == _COMMENT:
            applications.append((marker, data[start:end]))
        elif marker not in (_HUFFMAN, _RESTART):
            return None
    if len(frames) != 1 or not all(map(_is_plain_table, tables)):
        return None
    marker, frame = frames[0]
    channels = frame[5] if len(frame) > 5 else 0
    if channels not in _MODES or len(frame) != 6 + 3 * channels:
        return None
    metadata = _application_data(applications)
    if metadata is None:
        return None
    orientation, exif, mp = metadata
    return JpegHeader(
        _short(frame, 1), _short(frame, 3), _MODES[channels], orientation,
        marker in _PROGRESSIVE_FRAMES,
        tuple((frame[i] >> 4, frame[i] & 15) for i in range(7, len(frame), 3)), tuple(tables),
        tuple("COM" if kind == _COMMENT else f"APP{kind & 15}" for kind, _ in applications), exif,
        mp,
    )  # fmt: skip


def _application_data(segments: list[tuple[int, bytes]]) -> tuple[int, bytes, bytes] | None:
    """Return the orientation, the EXIF data and the MPF index; None if unusual."""
    exif, xmp, mp = b"", b"", b""
    for marker, body in segments:
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            if exif:  # split over several segments
                return None
            exif = body
        elif marker == 0xE1 and body.startswith(_XMP):
            xmp = body
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            mp = body[4:]
        elif body.startswith((b"JFIF", b"Adobe")) and len(body) < 12:
            return None
    orientation = _exif_orientation(exif[6:]) if exif else 0
    if orientation is None or (not orientation and _XMP_ORIENTATION.search(xmp)):
        return None
    return orientation if 1 <= orientation <= 8 else 1, exif, mp


def _exif_orientation(exif: bytes) -> int | None:
    """Return the stated orientation, 0 if not stated, None if the EXIF data are unusual."""
    tiff = Tiff.parse(exif)
    directory = tiff.directory(tiff.first) if tiff is not None and tiff.first >= 8 else None
    if tiff is None or directory is None or not directory.complete:
        return None
    orientation = 0
    for entry in tiff.entries(directory):
        # At an entry outside the data Pillow stops, before those that follow.
        if tiff.is_outside(entry):
            return None
        if entry.tag == _ORIENTATION:
            value = tiff.short(entry)
            if orientation or entry.kind != SHORT or entry.values != 1 or not value:
                return None
            orientation = value
    return orientation


def _is_plain_table(body: bytes) -> bool:
    """Return whether a segment holds whole quantisation tables of 8 bits."""
    return len(body) % 65 == 0 and not any(number & 0xF0 for number in body[::65])


@functools.lru_cache(maxsize=256)
def unpack_tables(segments: tuple[bytes, ...]) -> dict[int, list[int]]:
    """Return the quantisation tables of an ordinary header by number: 64 values, row by row.

    Cached, since files of one program share their tables; do not change the result.
    """
    return {
        body[start]: [body[start + 1 + index] for index in _ZIGZAG_INDEX]
        for body in segments
        for start in range(0, len(body), 65)
    }


def reduced_size(
    full: tuple[int, int], target: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return sizes (height, width) at 1/8, 1/4, 1/2 or 1/1, the smallest nowhere below a target.

    The first is the part to use (see :func:`kindsight.images.pillow_decoder.reduce_jpeg`), the
    second the size that the decoder returns.
    """
    ratio = min(full[0] // target[0], full[1] // target[1])
    factor = next((factor for factor in (8, 4, 2) if ratio >= factor), 1)
    used = (full[0] + factor // 2) // factor, (full[1] + factor // 2) // factor
    return used, ((full[0] + factor - 1) // factor, (full[1] + factor - 1) // factor)


def decode_jpeg(
    data: bytes,
    mode: str,
    full: tuple[int, int],
    decoded: tuple[int, int],
    buffer: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8] | None:
    """Decode an ordinary JPEG with libjpeg-turbo (simplejpeg); None if Pillow has to decode it.

    The pixels are exactly Pillow's, in less than half the time: Pillow decodes into four bytes per
    pixel, which then have to be copied. Files that cause even a warning are left to Pillow, so
    that the result and the error for a damaged file do not depend on this decoder. So are other
    modes than RGB and L (grey, repeated in three channels), since Pillow knows Adobe's CMYK.

    - `full`, `decoded`: (height, width); the size stated in the file, and the same or its size
      reduced by 2, 4 or 8.
    - `buffer`: uint8 array of one dimension; memory to decode into, if large enough. Reused memory
      saves a third of the time; the next image overwrites it.
    """
    library = simplejpeg_module()
    if library is None or mode not in _MODES.values():
        return None
    # The decoder takes the smallest of its factors that reaches a minimum: exactly Pillow's factor,
    # as the minimum is Pillow's size. Without one it does not search.
    least = (0, 0) if decoded == full else decoded
    fits = buffer is not None and buffer.size >= 3 * decoded[0] * decoded[1]
    try:
        pixels: NDArray[np.uint8] = library.decode_jpeg(
            data, "RGB", min_height=least[0], min_width=least[1], strict=True,
            buffer=buffer if fits else None,
        )  # fmt: skip
    except ValueError:
        return None
    return pixels if pixels.shape == (*decoded, 3) else None


@functools.cache
def simplejpeg_module() -> ModuleType | None:
    """Return the module simplejpeg; None on machines for which it has no wheel."""
    try:
        import simplejpeg
    except ImportError:
        return None
    module: ModuleType = simplejpeg
    return module
