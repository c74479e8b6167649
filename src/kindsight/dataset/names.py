"""File names: which are images, which are ignored, and how they are printed."""

from __future__ import annotations

from collections.abc import Sequence

from kindsight.encoding import printable

__all__ = [
    "IMAGE_EXTENSIONS",
    "UNREAD_EXTENSIONS",
    "extension_of",
    "is_hidden_clutter",
    "n_images",
    "quoted",
    "quoted_list",
    "why_folder_is_ignored",
    "why_name_is_ignored",
]

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"}
    | {"ppm", "pgm", "pbm", "pnm", "avif", "jp2"}
)
"""Extensions of image files, in lower case, without the dot."""

UNREAD_EXTENSIONS = frozenset(
    {"heic", "heif", "hif", "jxl", "tga", "raw", "dng", "cr2", "cr3", "nef", "nrw", "arw", "orf"}
    | {"raf", "rw2", "pef", "srw"}
)
"""Extensions of photos that mostly cannot be read. They count as images, so that a class of such
photos causes an error instead of being left out."""

_SYSTEM_FILES = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini"})
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "__pycache__", "@eadir", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
_HIDDEN_CLUTTER = frozenset(
    {".git", ".hg", ".svn", ".dvc", ".cache", ".venv", ".idea", ".vscode", ".ipynb_checkpoints"}
    | {".thumbnails", ".appledouble", ".fseventsd", ".spotlight-v100", ".temporaryitems"}
    | {".documentrevisions-v100"}
)


def why_name_is_ignored(name: str) -> str | None:
    """Return why a file is ignored for its name alone, as counted in ``ImageDataset.ignored``.

    None if it is not. `name` is the last component of the path.
    """
    if name.startswith("."):
        return "hidden file"
    return "system file" if name.lower() in _SYSTEM_FILES else None


def extension_of(name: str) -> str:
    """Return the extension of a file name in lower case, without the dot; empty if none."""
    _, dot, extension = name.rpartition(".")
    return extension.lower() if dot else ""


def why_folder_is_ignored(name: str) -> str | None:
    """Return why a folder of this name is ignored, with all its contents; None if it is not."""
    if name.startswith("."):
        return "hidden folder"
    if name.lower() in _SYSTEM_FOLDERS:
        return "system folder"
    return None


def is_hidden_clutter(name: str) -> bool:
    """Return whether a hidden folder belongs to a program, whose images are not the user's data."""
    return name.lower() in _HIDDEN_CLUTTER or name.lower().startswith(".trash")


def quoted(name: str) -> str:
    """Return a name in quotes, safe to print: see :func:`kindsight.encoding.printable`."""
    return f"'{printable(name)}'"


def quoted_list(names: Sequence[str], limit: int = 8) -> str:
    """Return the first `limit` names in quotes, with commas, and how many more there are."""
    text = ", ".join(quoted(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more:,} more" if more > 0 else text


def n_images(n: int) -> str:
    """Return a count of images: ``1 image``, ``2,000 images``."""
    return f"{n:,} image{'' if n == 1 else 's'}"
