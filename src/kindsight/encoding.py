r"""Text in files: their encoding, and file names that are not text.

Text files are UTF-8 with or without a byte order mark, or UTF-16 with one; other encodings must be
named.

File names may have bytes that are not UTF-8, which Python represents as lone surrogates and no
UTF-8 file may contain. kindsight writes such a byte, for example E9, as ``\xe9``. To make this
reversible, a backslash that could be read as the start of such an escape is written as ``\x5c``. On
Windows, all names are Unicode, and a backslash separates folders.
"""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from kindsight.errors import DatasetError

__all__ = [
    "decode_text", "escape_name", "invalid_line", "is_text_encoding", "not_decoded", "printable",
    "short", "text_encoding", "unescape_name", "valid_json", "valid_text",
]  # fmt: skip

_ESCAPE = re.compile(r"\\(?:x([89a-f][0-9a-f]|5c)|u(d[89a-f][0-9a-f]{2}))", re.I)
_SURROGATE = re.compile("[\ud800-\udfff]")
_FIRST_BYTE, _LAST_BYTE = 0xDC80, 0xDCFF


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code - 0xDC00:02x}" if _FIRST_BYTE <= code <= _LAST_BYTE else f"\\u{code:04x}"


def _character(match: re.Match[str]) -> str:
    if match[2]:
        return chr(int(match[2], 16))
    code = int(match[1], 16)
    return chr(code) if code < 0x80 else chr(0xDC00 + code)


def valid_text(text: str) -> str:
    """Return a text with every lone surrogate escaped, so that it can be encoded as UTF-8."""
    return text if text.isascii() else _SURROGATE.sub(_escaped, text)


def printable(text: str) -> str:
    """Return text with control characters and other unprintable characters escaped.

    Names on disk may contain line ends, escape sequences, or bytes that are not UTF-8.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _printable_character(c) for c in text)


def _printable_character(character: str) -> str:
    if _SURROGATE.match(character):
        return valid_text(character)
    return character.encode("unicode_escape").decode("ascii")


def escape_name(name: str) -> str:
    """Return a file name or path as valid text; :func:`unescape_name` returns the same name."""
    if "\\" in name and os.name != "nt":
        name = _ESCAPE.sub(lambda match: "\\x5c" + match[0][1:], name)
    return valid_text(name)


def unescape_name(text: str) -> str:
    """Return the file name that :func:`escape_name` escaped as this text."""
    return _ESCAPE.sub(_character, text) if "\\" in text and os.name != "nt" else text


def valid_json(value: Any, *, names: bool = False) -> Any:
    """Return JSON data as valid text: ``"path"`` and ``"paths"`` are escaped as file names."""
    if isinstance(value, str):
        return escape_name(value) if names else valid_text(value)
    if isinstance(value, Mapping):
        return {
            valid_json(key): valid_json(item, names=key in ("path", "paths"))
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [valid_json(item, names=names) for item in value]
    return value


def short(value: float) -> float:
    """Return a float32 rounded to nine digits, which identify it."""
    return float(f"{value:.9g}")


def is_text_encoding(name: str) -> bool:
    """Return whether Python can decode text of this encoding."""
    try:
        b"a".decode(name)
    except UnicodeError:
        return True
    except (LookupError, ValueError):
        return False
    return True


def text_encoding(start: bytes, given: str | None) -> str | None:
    """Return the encoding of a text file, as Python names it; None if it is unknown.

    - `start`: the first line of the file.
    - `given`: the encoding that the user named.
    """
    if given is not None:
        name = codecs.lookup(given).name
        return "utf-8-sig" if name == "utf-8" else name
    if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return None
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    return None if b"\0" in start else "utf-8-sig"


def not_decoded(line: int, where: str, given: str | None, start: bytes = b"") -> DatasetError:
    """Return the error for a line that is not in the expected encoding.

    - `given`: the encoding that the user named; ``""`` where none can be named.
    - `start`: the first line, which suggests an encoding.
    """
    cure = "Save it as UTF-8."
    if given:
        cure = "Give another `encoding`, or save it as UTF-8."
    elif given is None:
        likely = "cp1252"
        if start.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
            likely = "utf-32"
        elif b"\0" in start:
            likely = "utf-16-be" if start[:1] == b"\0" else "utf-16-le"
        cure = f'Give its encoding, such as `encoding="{likely}"`, or save it as UTF-8.'
    return DatasetError(f"Line {line:,} of {where} is not {given or 'UTF-8'}. {cure}")


def decode_text(data: bytes, encoding: str) -> tuple[str, int]:
    """Return the text of a file, without a byte order mark, and the first line that is invalid.

    The line is counted from 1, and 0 if all are valid. `encoding` is that of :func:`text_encoding`.
    """
    try:
        return data.decode(encoding).removeprefix("\ufeff"), 0
    except UnicodeDecodeError as error:
        before = data[: error.start].decode(encoding, "replace")
    except UnicodeError:  # UTF-16 that ends in its mark
        before = ""
    return "", before.count("\n") + 1


def invalid_line(lines: Iterable[bytes]) -> int:
    """Return the number of the first line that is not UTF-8, from 1; 0 if there is none."""
    for number, line in enumerate(lines, 1):
        try:
            line.decode()
        except UnicodeDecodeError as error:
            # Some programs end lines with a carriage return alone.
            before = line[: error.start].replace(b"\r\n", b"\n")
            return number + before.count(b"\r")
    return 0
