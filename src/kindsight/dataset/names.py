"""File names: which are images, which are ignored, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "IMAGE_EXTENSIONS",
    "UNREAD_EXTENSIONS",
    "n_images",
    "quoted",
    "quoted_list",
    "why_file_is_ignored",
    "why_folder_is_ignored",
]

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"}
    | {"ppm", "pgm", "pbm", "pnm", "avif", "jp2"}
)
"""Extensions of image files, in lower case, without the dot."""

UNREAD_EXTENSIONS = frozenset(
    {"heic", "heif", "jxl", "svg", "psd", "raw", "dng", "cr2", "cr3", "nef", "arw", "orf"}
    | {"raf", "rw2", "eps", "tga", "exr", "hdr"}
)
"""Extensions of unsupported image formats; counted separately from other files."""

_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)


def why_file_is_ignored(name: str) -> str | None:
    """Return why a file of this name is ignored, as counted in ``ImageDataset.ignored``.

    None if its extension is that of an image. `name` is the last component of the path.
    """
    if name.startswith("."):
        return "hidden file"
    _, dot, extension = name.rpartition(".")
    extension = extension.lower() if dot else ""
    if extension in IMAGE_EXTENSIONS:
        return None
    if name.lower() in _SYSTEM_FILES:
        return "system file"
    if extension in UNREAD_EXTENSIONS:
        return f"unsupported image format (.{extension})"
    return "no image extension"


def why_folder_is_ignored(name: str) -> str | None:
    """Return why a folder of this name is ignored, with all its contents; None if it is not."""
    if name.startswith("."):
        return "hidden folder"
    if name.lower() in _SYSTEM_FOLDERS:
        return "system folder"
    return None


def quoted(name: str) -> str:
    """Return a name in quotes, safe to print: unprintable characters are escaped.

    File names can contain line ends, escape sequences, or bytes that are not UTF-8 (in Python, lone
    surrogates).
    """
    return "'" + "".join(c if c.isprintable() else _escaped(c) for c in name) + "'"


def quoted_list(names: Sequence[str], limit: int = 8) -> str:
    """Return the first `limit` names in quotes, with commas, and how many more there are."""
    text = ", ".join(quoted(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more:,} more" if more > 0 else text


def n_images(n: int) -> str:
    """Return a count of images: ``1 image``, ``2,000 images``."""
    return f"{n:,} image{'' if n == 1 else 's'}"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "backslashreplace").decode("ascii")
