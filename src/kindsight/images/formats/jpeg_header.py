"""The header of an ordinary JPEG, read here: a tenth of the time of opening it with Pillow.

Of a small photograph the opening takes longer than the pixels do, most of it for what nobody wants
to know. Only what is plain is read: each segment at the end of the one before, one frame of one or
three colours of 8 bits, tables of the usual form, EXIF data whose entries lie within it. Whatever
else there is, Pillow opens the file, so what is made of it does not depend on this module.
"""

from __future__ import annotations

import re
import struct
from functools import lru_cache
from typing import NamedTuple

__all__ = ["JpegHeader", "plain_header", "reduction", "unpacked_tables"]

_MODES = {1: "L", 3: "RGB"}
_PLAIN_FRAMES = (0xC0, 0xC1, 0xC2)
_PROGRESSIVE, _HUFFMAN, _SCAN, _TABLES, _RESTART, _COMMENT = 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xFE

MAX_SEGMENTS = 200
"""Segments of a plain header; there are a dozen, and one more for every 64 KiB of a profile."""

# ITU T.81, figure 5: the place of each coefficient on the way from corner to corner.
_ZIGZAG = sorted(
    range(64),
    key=lambda at: (at // 8 + at % 8, at // 8 if (at // 8 + at % 8) % 2 else at % 8),
)
_PLACES = tuple(_ZIGZAG.index(at) for at in range(64))

# Bytes of a value of each type of a TIFF directory.
_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
_ORIENTATION, _SHORT = 274, 3
_XMP = b"http://ns.adobe.com/xap/1.0/\0"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation")


class JpegHeader(NamedTuple):
    """What stands before the first scan of a JPEG.

    Attributes
    ----------
    height, width : int
        As stored, before the image is turned.
    mode : str
        ``RGB``, or ``L`` for grey.
    orientation : int
        EXIF's, 1 to 8; 1 is upright.
    progressive : bool
        Whether it is stored in several passes.
    layers : tuple of (int, int)
        The samplings of each colour, across and down.
    tables : tuple of bytes
        The segments of quantisation tables.
    segments : tuple of str
        The names of the application's segments and of comments, in order.
    exif, mp : bytes
        The EXIF data, and the index of a file of several images; empty where there are none.
    """

    height: int
    width: int
    mode: str
    orientation: int
    progressive: bool
    layers: tuple[tuple[int, int], ...]
    tables: tuple[bytes, ...]
    segments: tuple[str, ...]
    exif: bytes
    mp: bytes


def plain_header(data: bytes) -> JpegHeader | None:
    """Read the header of a JPEG whose structure was checked.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    JpegHeader or None
        None where anything is out of the ordinary: then Pillow has to open it.
    """
    frames: list[tuple[int, bytes]] = []
    tables: list[bytes] = []
    applications: list[tuple[int, bytes]] = []
    position = 2
    for _ in range(MAX_SEGMENTS):
        if data[position : position + 1] != b"\xff" or len(data) < position + 4:
            return None
        marker = data[position + 1]
        end = position + 2 + (data[position + 2] << 8 | data[position + 3])
        if marker == _SCAN:
            return _header(frames, tables, applications)
        body = data[position + 4 : end]
        if marker in _PLAIN_FRAMES:
            frames.append((marker, body))
        elif marker == _TABLES:
            tables.append(body)
        elif marker & 0xF0 == 0xE0 or marker == _COMMENT:
            applications.append((marker, body))
        elif marker not in (_HUFFMAN, _RESTART):
            return None
        position = end
    return None


def _header(
    frames: list[tuple[int, bytes]], tables: list[bytes], applications: list[tuple[int, bytes]]
) -> JpegHeader | None:
    if len(frames) != 1 or not all(map(_is_plain_table, tables)):
        return None
    marker, frame = frames[0]
    count = frame[5] if len(frame) > 5 else 0
    if count not in _MODES or len(frame) != 6 + 3 * count:
        return None
    said = _applications(applications)
    if said is None:
        return None
    orientation, exif, mp = said
    return JpegHeader(
        frame[1] << 8 | frame[2],
        frame[3] << 8 | frame[4],
        _MODES[count],
        orientation,
        marker == _PROGRESSIVE,
        tuple((frame[at] >> 4, frame[at] & 15) for at in range(7, len(frame), 3)),
        tuple(tables),
        tuple("COM" if kind == _COMMENT else f"APP{kind & 15}" for kind, _ in applications),
        exif,
        mp,
    )


def _applications(segments: list[tuple[int, bytes]]) -> tuple[int, bytes, bytes] | None:
    """Return the orientation, the EXIF data and the index of images; None if not plain."""
    exif, xmp, mp = b"", b"", b""
    for marker, body in segments:
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            if exif:  # in several parts
                return None
            exif = body
        elif marker == 0xE1 and body.startswith(_XMP):
            xmp = body
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            mp = body[4:]
        elif body.startswith((b"JFIF", b"Adobe")) and len(body) < 12:
            return None
    orientation = _orientation(exif) if exif else 0
    if orientation is None or (not orientation and _XMP_ORIENTATION.search(xmp)):
        return None
    return orientation if 1 <= orientation <= 8 else 1, exif, mp


def _orientation(exif: bytes) -> int | None:
    """Return the orientation that EXIF data state, 0 if they state none, None if not plain."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[6:10], "")
    start = 6 + struct.unpack_from(order + "I", exif, 10)[0] if order and len(exif) >= 16 else 0
    if not 14 <= start <= len(exif) - 2:
        return None
    (entries,) = struct.unpack_from(order + "H", exif, start)
    table = exif[start + 2 : start + 2 + 12 * entries]
    if len(table) < 12 * entries:
        return None
    found = 0
    for tag, kind, count, where in struct.iter_unpack(order + "HHII", table):
        size = _SIZES[kind] * count if kind < len(_SIZES) else 0
        value = where >> 16 if order == ">" else where & 0xFFFF
        odd = found or kind != _SHORT or count != 1 or not value
        # Entries that lie outside make Pillow stop before those that follow.
        if (tag == _ORIENTATION and odd) or (size > 4 and 6 + where + size > len(exif)):
            return None
        found = value if tag == _ORIENTATION else found
    return found


def _is_plain_table(body: bytes) -> bool:
    """Whether a segment holds whole tables of 8 bits."""
    return len(body) % 65 == 0 and not any(number & 0xF0 for number in body[::65])


@lru_cache(maxsize=256)
def unpacked_tables(segments: tuple[bytes, ...]) -> dict[int, list[int]]:
    """Return the quantisation tables of a plain header by number, each row by row: 64 numbers.

    To be read only: files of one program have the same tables, which are remembered.
    """
    return {
        body[at]: [body[at + 1 + place] for place in _PLACES]
        for body in segments
        for at in range(0, len(body), 65)
    }


def reduction(
    full: tuple[int, int], target: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Divide a JPEG by 8, 4, 2 or 1, so that it is nowhere smaller than a target.

    Parameters
    ----------
    full, target : (height, width)

    Returns
    -------
    keep : (height, width)
        How much of the decoded image to keep: see
        :func:`kindsight.images.pillow_decoder.reduce_jpeg`.
    reduced : (height, width)
        The size at which it is decoded.
    """
    most = min(full[0] // target[0], full[1] // target[1])
    by = next((factor for factor in (8, 4, 2) if most >= factor), 1)
    keep = (full[0] + by // 2) // by, (full[1] + by // 2) // by
    return keep, ((full[0] + by - 1) // by, (full[1] + by - 1) // by)
