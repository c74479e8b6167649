"""TensorBoard's event files, written without TensorFlow.

A file is a chain of records: the length of the data (uint64), a checksum of that, the data, a
checksum of those (uint32 each, all little-endian; CRC-32C, rotated and shifted as TensorFlow's
``record_writer`` does it). The data is a protocol buffer, ``tensorflow.Event``: wall time, step,
and either the version of the file (its first record) or a summary of tagged numbers. Of the two
messages only these few fields are needed, so they are put together by hand.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable, Mapping

__all__ = ["first_event", "read_records", "record", "scalar_event", "without_time"]

# Longer than any record that is written here.
MAX_RECORD = 1 << 16

_TIME = struct.Struct("<Bd")


def record(data: bytes) -> bytes:
    """Frame the data of one record."""
    length = struct.pack("<Q", len(data))
    return length + _checksum(length) + data + _checksum(data)


def read_records(content: bytes) -> list[bytes]:
    """Take apart the whole records at the start of a file's content; a torn one ends them."""
    found, place = [], 0
    while len(content) - place >= 16:
        length = content[place : place + 8]
        size = struct.unpack("<Q", length)[0]
        end = place + 12 + size
        if size > MAX_RECORD or content[place + 8 : place + 12] != _checksum(length):
            break
        data = content[place + 12 : end]
        if len(data) != size or content[end : end + 4] != _checksum(data):
            break
        found.append(data)
        place = end + 4
    return found


def first_event(wall_time: float, writer: str) -> bytes:
    """Return the data of a file's first record: the format's version, and who wrote it.

    Parameters
    ----------
    wall_time : float
        Seconds since 1970.
    writer : str
        Anything.
    """
    source = _text(1, writer)
    return _time(wall_time) + _text(3, "brain.Event:2") + _message(10, source)


def scalar_event(wall_time: float, step: int, values: Mapping[str, float]) -> bytes:
    """Return the data of a record that holds numbers of one step.

    Parameters
    ----------
    wall_time : float
        Seconds since 1970.
    step : int
        0 or more.
    values : mapping of str to float
        Tag to number; kept as float32.
    """
    summary = b"".join(
        _message(1, _text(1, tag) + b"\x15" + _float32(value)) for tag, value in values.items()
    )
    return _time(wall_time) + b"\x10" + _varint(step) + _message(5, summary)


def without_time(data: bytes) -> bytes:
    """Return an event without its wall time."""
    return data[_TIME.size :]


def _time(seconds: float) -> bytes:
    return _TIME.pack(0x09, seconds)


def _float32(value: float) -> bytes:
    try:
        return struct.pack("<f", value)
    except OverflowError:
        return struct.pack("<f", float("inf") if value > 0 else float("-inf"))


def _text(field: int, text: str) -> bytes:
    return _message(field, text.encode("utf-8", "replace"))


def _message(field: int, data: bytes) -> bytes:
    """Write a field of bytes: its number with wire type 2, its length, itself."""
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """Write a number in groups of seven bits, the lowest first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


@functools.cache
def _table() -> tuple[int, ...]:
    """Return the remainders of CRC-32C (polynomial 0x1EDC6F41, bits reversed) of each byte."""
    remainders: list[int] = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)  # noqa: PLW2901
        remainders.append(value)
    return tuple(remainders)


def crc32c(data: Iterable[int]) -> int:
    """Return the CRC-32C of bytes."""
    table, remainder = _table(), 0xFFFFFFFF
    for byte in data:
        remainder = table[(remainder ^ byte) & 0xFF] ^ remainder >> 8
    return remainder ^ 0xFFFFFFFF


def _checksum(data: bytes) -> bytes:
    """Return TensorFlow's masked checksum of bytes."""
    value = crc32c(data)
    return struct.pack("<I", ((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF)
