"""File names: which are images, which are ignored; the files that a dataset leaves out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kindsight.encoding import printable

__all__ = [
    "BESIDE_CLASSES", "HIDDEN_WITH_IMAGES", "IMAGE_EXTENSIONS", "LINK_BROKEN", "LINK_OUTSIDE",
    "LINK_REPEATED", "LINK_TO_PARENT", "MAX_IGNORED_FILES", "NOT_AN_IMAGE", "UNREADABLE_FOLDER",
    "UNREAD_EXTENSIONS", "UNSUPPORTED_FORMAT", "IgnoredFile", "IgnoredFiles", "counts_by_class",
    "extension_of", "ignored_counts", "ignored_notes", "ignored_text", "is_hidden_clutter",
    "n_images", "quoted", "quoted_list", "reasons_by_class", "skipped_counts",
    "why_folder_is_ignored", "why_name_is_ignored",
]  # fmt: skip

IMAGE_EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"}
    | {"ppm", "pgm", "pbm", "pnm", "avif", "jp2"}
)
"""Extensions of image files, in lower case, without the dot."""

UNREAD_EXTENSIONS = frozenset(
    {"heic", "heif", "hif", "jxl", "tga", "raw", "dng", "cr2", "cr3", "nef", "nrw", "arw", "orf"}
    | {"raf", "rw2", "pef", "srw"}
)
"""Extensions of photos that usually cannot be read. They count as images, so that a class of such
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
    """Return the first `limit` names in quotes, with commas, and the number of further ones."""
    text = ", ".join(quoted(name) for name in names[:limit])
    more = len(names) - limit
    return f"{text} and {more:,} more" if more > 0 else text


def n_images(n: int) -> str:
    """Return a count of images: ``1 image``, ``2,000 images``."""
    return f"{n:,} image{'' if n == 1 else 's'}"


MAX_IGNORED_FILES = 100_000
"""Limit of the ignored files that are listed one by one; further ones are only counted."""

NOT_AN_IMAGE = "not an image"
"""Start of the reason for a file that is no image by name and content."""

UNSUPPORTED_FORMAT = "unsupported format"
"""Start of the reason for a drawing, document or video outside the class folders."""

HIDDEN_WITH_IMAGES = "hidden folder with images"
UNREADABLE_FOLDER = "unreadable folder"
LINK_BROKEN = "broken link"
LINK_OUTSIDE = "link to outside the folder"
LINK_TO_PARENT = "link to a folder that contains it"
LINK_REPEATED = "folder that is used already"
BESIDE_CLASSES = "outside the class folders"

# Users do not expect these to be read; they are counted and listed, but not noted.
_EXPECTED = frozenset(("hidden file", "hidden folder", "system file", "system folder"))
# These are noted wherever they occur, because images may be missing.
_ANYWHERE = frozenset(
    (
        HIDDEN_WITH_IMAGES,
        UNREADABLE_FOLDER,
        LINK_BROKEN,
        LINK_OUTSIDE,
        LINK_TO_PARENT,
        LINK_REPEATED,
    )
)
_MAX_NOTES = 6
_MAX_CLASSES = 5


class IgnoredFile(NamedTuple):
    """A file or folder of the data that is not in the dataset.

    Attributes
    ----------
    path : str
        Relative to the data folder, with ``/``.
    reason : str
        Why it is ignored, as counted in ``ImageDataset.ignored``.
    label : str or None
        The class in whose folder it is.
    size : int
        Bytes; 0 for a folder.
    """

    path: str
    reason: str
    label: str | None = None
    size: int = 0


class IgnoredFiles:
    """Collects ignored files.

    Attributes
    ----------
    counts : Counter
        Reason -> number of files and folders.
    files : list of IgnoredFile
        The first :data:`MAX_IGNORED_FILES`.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.files: list[IgnoredFile] = []

    def add(self, path: str, reason: str, size: int = 0) -> None:
        """Add a file or folder."""
        self.counts[reason] += 1
        if len(self.files) < MAX_IGNORED_FILES:
            self.files.append(IgnoredFile(path, reason, size=size))


def counts_by_class(pairs: Iterable[tuple[str | None, str]]) -> list[tuple[str | None, str, int]]:
    """Return (class, reason, count) of pairs (class, reason), the most frequent first."""
    order = sorted(
        Counter(pairs).items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1])
    )
    return [(label, reason, count) for (label, reason), count in order]


def reasons_by_class(pairs: Iterable[tuple[str | None, str]], limit: int = 6) -> str:
    """Return pairs (class, reason) as text: ``8 unsupported in 'cat', 1 empty in 'dog'``."""
    counts = counts_by_class(pairs)
    texts = [
        f"{count:,} {reason}" + ("" if label is None else f" in {quoted(label)}")
        for label, reason, count in counts[:limit]
    ]
    if more := sum(count for *_, count in counts[limit:]):
        texts.append(f"{more:,} more")
    return ", ".join(texts)


def ignored_text(counts: Iterable[tuple[str, int]]) -> str:
    """Return counts as text: ``1 x hidden file, 2 x not an image (.txt)``; by reason."""
    return ", ".join(f"{count:,} x {reason}" for reason, count in sorted(counts))


def ignored_counts(files: Iterable[IgnoredFile]) -> list[dict[str, object]]:
    """Return label, reason and number of files, as in JSON output; the most frequent first."""
    return [
        {"label": label, "reason": reason, "files": count}
        for label, reason, count in counts_by_class((file.label, file.reason) for file in files)
    ]


def skipped_counts(pairs: Iterable[tuple[str | None, str]]) -> list[dict[str, object]]:
    """Return label, code and number of skipped images, as in JSON output, of (label, code)."""
    return [
        {"label": label, "code": code, "images": count}
        for label, code, count in counts_by_class(pairs)
    ]


def ignored_notes(files: Iterable[IgnoredFile]) -> Iterator[str]:
    """Yield a sentence for each reason why files of a class, or whole folders, are ignored.

    Hidden and system files are left out, and so are files beside the class folders.
    """
    by_reason: dict[str, list[IgnoredFile]] = {}
    for file in files:
        expected = file.reason in _EXPECTED or file.reason == BESIDE_CLASSES
        if file.reason in _ANYWHERE or (file.label is not None and not expected):
            by_reason.setdefault(file.reason, []).append(file)
    order = sorted(by_reason.items(), key=lambda item: (-len(item[1]), item[0]))
    for reason, group in order[:_MAX_NOTES]:
        labels = Counter(file.label for file in group if file.label is not None).most_common()
        named = [f"{count:,} in {quoted(label)}" for label, count in labels[:_MAX_CLASSES]]
        if rest := len(group) - sum(count for _, count in labels[:_MAX_CLASSES]):
            named.append(f"{rest:,} elsewhere" if named else f"{rest:,}")
        yield f"Ignored, {reason}: {', '.join(named)}; first {quoted(group[0].path)}."
    if more := sum(len(group) for _, group in order[_MAX_NOTES:]):
        yield f"Ignored for other reasons: {more:,} files."
