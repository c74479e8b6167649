"""EXIF data (CIPA DC-008, 4.6): when and with what a photo was taken, and its thumbnail.

Six tags are needed. Pillow's reader of all tags takes a millisecond, longer than many photos take
to decode.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass

from kindsight.images.formats.tiff import ASCII, LONG, SHORT, Tiff

__all__ = ["ExifData", "read_exif"]

MAX_TEXT = 64
"""Limit of characters of a camera's or a program's name."""

MAX_ENTRIES = 500
"""Limit of entries read from one directory; cameras write fewer than a hundred."""

_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN = 271, 272, 305, 34665, 36867
_THUMBNAIL, _THUMBNAIL_LENGTH = 513, 514
_TAGS = {_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN, _THUMBNAIL, _THUMBNAIL_LENGTH}
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)")

Values = dict[int, "bytes | int"]


@dataclass(frozen=True)
class ExifData:
    """The EXIF data of an image file."""

    # Maker and model of the camera, and the program that wrote the file; empty if not stated.
    camera: str = ""
    software: str = ""
    # Seconds since 1970, if the camera's clock is UTC; NaN if not stated.
    taken: float = float("nan")
    thumbnail: bytes = b""  # a small JPEG; empty if there is none


def read_exif(data: bytes) -> ExifData:
    """Return the EXIF data of a block; invalid values count as not stated.

    The block may have the six bytes before it in a JPEG, or be a TIFF file.
    """
    tiff = Tiff.parse(data.removeprefix(b"Exif\0\0"))
    if tiff is None:
        return ExifData()
    first, following = _read_directory(tiff, tiff.first)
    details, _ = _read_directory(tiff, _number(first.get(_EXIF)))
    second, _ = _read_directory(tiff, following)
    make, model = _text(first.get(_MAKE)), _text(first.get(_MODEL))
    return ExifData(
        camera=" ".join(filter(None, (make, model))),
        software=_text(first.get(_SOFTWARE)),
        taken=_seconds(_text(details.get(_TAKEN))),
        thumbnail=_thumbnail(tiff.data, second),
    )


def _read_directory(tiff: Tiff, offset: int) -> tuple[Values, int]:
    """Return the texts and single numbers of a directory, and the offset of the next one."""
    values: Values = {}
    directory = tiff.directory(offset) if offset >= 8 else None
    if directory is None:
        return values, 0
    for entry in tiff.entries(directory, MAX_ENTRIES):
        if entry.tag not in _TAGS:
            continue
        if entry.kind == ASCII:
            start = entry.field if entry.values > 4 else entry.position
            values[entry.tag] = tiff.data[start : start + min(entry.values, 4 * MAX_TEXT)]
        elif entry.values == 1 and entry.kind == LONG:
            values[entry.tag] = entry.field
        elif entry.values == 1 and entry.kind == SHORT:
            values[entry.tag] = tiff.short(entry)
    return values, directory.following


def _number(value: bytes | int | None) -> int:
    return value if isinstance(value, int) else 0


def _text(value: bytes | int | None) -> str:
    if not isinstance(value, bytes):
        return ""
    text = value.split(b"\0")[0].decode("utf-8", "replace").strip()
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text[:MAX_TEXT]


def _seconds(text: str) -> float:
    match = _DATE.match(text)
    if match is None:
        return float("nan")
    year, month, day, hour, minute, second = map(int, match.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and year >= 1800):
        return float("nan")
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _thumbnail(data: bytes, values: Values) -> bytes:
    start, length = _number(values.get(_THUMBNAIL)), _number(values.get(_THUMBNAIL_LENGTH))
    thumbnail = data[start : start + length]
    return thumbnail if start >= 8 and thumbnail.startswith(b"\xff\xd8\xff") else b""
