"""The image files of one folder; recognising images by their first bytes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from kindsight.dataset.names import NOT_AN_IMAGE, extension_of
from kindsight.errors import ImageError
from kindsight.images.formats import detect_format
from kindsight.images.netpbm import read_netpbm_header

__all__ = ["Listing", "reason_with_extension", "why_head"]

_SHORT_EXTENSION = re.compile(r"[a-z0-9_]{1,8}")


class Listing(NamedTuple):
    """The image files of one folder."""

    folder: str  # path relative to the walked folder, with ``/``; ``""`` for that folder itself
    # image files directly in this folder, sorted by name; sizes in bytes
    files: Sequence[tuple[str, int]]
    # drawings, documents and videos: files of known formats that are not read; they do not make a
    # folder a class of their own
    unsupported: Sequence[tuple[str, int]] = ()

    @property
    def all_files(self) -> Sequence[tuple[str, int]]:
        """The files of both kinds, sorted by name."""
        return sorted((*self.files, *self.unsupported)) if self.unsupported else self.files


def reason_with_extension(reason: str, name: str) -> str:
    """Return a reason with the extension of a file, if it is one: ``not an image (.txt)``."""
    extension = extension_of(name)
    return f"{reason} (.{extension})" if _SHORT_EXTENSION.fullmatch(extension) else reason


def why_head(head: bytes, name: str) -> str | None:
    """Return why a file is ignored, given its first bytes; ``""`` for an unsupported format."""
    try:
        if detect_format(head) == "PPM":
            # The signature alone, "P1" and a blank, can be the start of a text.
            read_netpbm_header(head)
        return None
    except ImageError as error:
        if error.code == "unsupported":
            return ""
    return reason_with_extension(NOT_AN_IMAGE, name)
