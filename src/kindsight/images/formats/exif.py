"""What a photograph says of itself: when, with what, and the small image that it carries.

EXIF data are a TIFF file in small (CIPA DC-008, 4.6): directories of entries of twelve bytes. Of
its many entries six are wanted, so they are read here; the general reader takes a millisecond,
longer than the photograph takes to decode.
"""

from __future__ import annotations

import calendar
import re
import struct
from dataclasses import dataclass

__all__ = ["ExifFacts", "exif_facts"]

MAX_TEXT = 64
"""Characters kept of a camera's or a program's name."""

MAX_ENTRIES = 500
"""Entries of one directory that are looked at; cameras write fewer than a hundred."""

_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN = 271, 272, 305, 34665, 36867
_THUMBNAIL, _THUMBNAIL_LENGTH = 513, 514
_WANTED = {_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN, _THUMBNAIL, _THUMBNAIL_LENGTH}
_TEXT, _SHORT, _LONG = 2, 3, 4
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)")


@dataclass(frozen=True)
class ExifFacts:
    """What was found in a file's EXIF data.

    Parameters
    ----------
    camera, software : str
        Maker and model, and the program that wrote the file; empty where it does not say.
    taken : float
        When, in seconds since 1970, the camera's clock being taken for UTC; NaN where it does not
        say.
    thumbnail : bytes
        A small JPEG; empty where there is none.
    """

    camera: str = ""
    software: str = ""
    taken: float = float("nan")
    thumbnail: bytes = b""


def exif_facts(data: bytes) -> ExifFacts:
    """Read a block of EXIF data; what is absurd in it counts as absent.

    Parameters
    ----------
    data : bytes
        With or without the six bytes that come before it in a JPEG; or a whole TIFF file.
    """
    data = data.removeprefix(b"Exif\0\0")
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return ExifFacts()
    order = "<" if data[:2] == b"II" else ">"
    (start,) = struct.unpack_from(order + "I", data, 4) if len(data) >= 8 else (0,)
    first, second = _directory(data, start, order)
    inner, _ = _directory(data, _number(first.get(_EXIF)), order)
    small, _ = _directory(data, second, order)
    make, model = _text(first.get(_MAKE)), _text(first.get(_MODEL))
    return ExifFacts(
        camera=" ".join(filter(None, (make, model))),
        software=_text(first.get(_SOFTWARE)),
        taken=_seconds(_text(inner.get(_TAKEN))),
        thumbnail=_thumbnail(data, small),
    )


def _directory(data: bytes, start: int, order: str) -> tuple[dict[int, bytes | int], int]:
    """Read the texts and the single numbers of a directory, and where the next one is."""
    found: dict[int, bytes | int] = {}
    if not 8 <= start <= len(data) - 2:
        return found, 0
    (entries,) = struct.unpack_from(order + "H", data, start)
    end = start + 2 + 12 * entries
    whole = min(entries, (len(data) - start - 2) // 12, MAX_ENTRIES)
    table = data[start + 2 : start + 2 + 12 * whole]
    for at, (tag, kind, count, where) in enumerate(struct.iter_unpack(order + "HHII", table)):
        if tag not in _WANTED:
            continue
        if kind == _TEXT:
            place = where if count > 4 else start + 10 + 12 * at
            found[tag] = data[place : place + min(count, 4 * MAX_TEXT)]
        elif count == 1 and kind == _LONG:
            found[tag] = where
        elif count == 1 and kind == _SHORT:
            found[tag] = where >> 16 if order == ">" else where & 0xFFFF
    (following,) = struct.unpack_from(order + "I", data, end) if end <= len(data) - 4 else (0,)
    return found, following


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


def _thumbnail(data: bytes, small: dict[int, bytes | int]) -> bytes:
    start, length = _number(small.get(_THUMBNAIL)), _number(small.get(_THUMBNAIL_LENGTH))
    found = data[start : start + length]
    return found if start >= 8 and found.startswith(b"\xff\xd8\xff") else b""
