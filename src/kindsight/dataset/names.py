"""What a name says: whether a file is an image by its name, and which names are passed over.

Only names are looked at here; whether a file really holds an image is found out when it is read.
"""

from __future__ import annotations

__all__ = [
    "IMAGE_EXTENSIONS",
    "UNREAD_EXTENSIONS",
    "file_is_passed_over",
    "folder_is_passed_over",
    "images",
    "shown",
    "shown_list",
]

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"}
    | {"ppm", "pgm", "pbm", "pnm", "avif", "jp2"}
)
"""Extensions, in lower case and without the dot, that make a file an image by its name."""

UNREAD_EXTENSIONS = frozenset(
    {"heic", "heif", "jxl", "svg", "psd", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf"}
    | {"raf", "rw2", "eps", "tga", "exr", "hdr"}
)
"""Extensions of image formats that are not read: counted apart, so that nobody misses them."""

_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)


def file_is_passed_over(name: str) -> str | None:
    """Say why a file of this name is passed over.

    Parameters
    ----------
    name : str
        The last part of the file's path.

    Returns
    -------
    str or None
        The reason, as it is counted in ``ImageDataset.ignored``; None where the file is an
        image
        by its name.
    """
    if name.startswith("."):
        return "hidden file"
    _, dot, extension = name.rpartition(".")
    extension = extension.lower() if dot else ""
    if extension in IMAGE_EXTENSIONS:
        return None
    if name.lower() in _SYSTEM_FILES:
        return "file of the operating system"
    if extension in UNREAD_EXTENSIONS:
        return f"image format that is not read (.{extension})"
    return "not an image by its name"


def folder_is_passed_over(name: str) -> str | None:
    """Say why a folder of this name is not entered, or None where it is.

    A folder that is passed over counts once, whatever it holds.
    """
    if name.startswith("."):
        return "hidden folder"
    if name.lower() in _SYSTEM_FOLDERS:
        return "folder of the operating system"
    return None


def shown(name: str) -> str:
    """Return a name in quotes, safe to print: what a terminal cannot show is escaped.

    Names on disk may hold line ends, escape sequences, or bytes that are not UTF-8 (which Python
    keeps as lone surrogates); none of these may reach a terminal or a log as they are.
    """
    return "'" + "".join(c if c.isprintable() else _escaped(c) for c in name) + "'"


def shown_list(names: list[str] | tuple[str, ...], limit: int = 8) -> str:
    """Return names in quotes with commas, the first `limit` of them and how many more."""
    text = ", ".join(shown(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more:,} more" if more > 0 else text


def images(n: int) -> str:
    """Return a number of images in words: ``1 image``, ``2,000 images``."""
    return f"{n:,} image{'' if n == 1 else 's'}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
