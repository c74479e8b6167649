"""Datasets of a folder, or of files given by path."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kindsight.dataset.columns.codes import CodeColumn, NumberColumn
from kindsight.dataset.columns.convert import sort_order
from kindsight.dataset.columns.texts import TextColumn
from kindsight.dataset.labels import as_labels
from kindsight.dataset.loaders.folders import (
    HOW_TO_ARRANGE,
    Arrangement,
    FolderLabel,
    Tree,
    arrange,
    check_classes,
)
from kindsight.dataset.loaders.renames import find_renames
from kindsight.dataset.names import (
    BESIDE_CLASSES,
    LINK_OUTSIDE,
    UNSUPPORTED_FORMAT,
    IgnoredFiles,
    ignored_notes,
    ignored_text,
    n_images,
    quoted,
)
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.walk import Listing, reason_with_extension, walk
from kindsight.encoding import unescape_name, valid_text
from kindsight.errors import DatasetError, ImageError, KindsightError
from kindsight.images.formats import HEAD_BYTES, detect_format
from kindsight.storage.address import absolute, is_address, split_member
from kindsight.storage.files import sizes
from kindsight.storage.shards import read_part

__all__ = ["from_files", "from_folder"]


def from_folder(
    path: str | Path,
    *,
    labelled: bool = True,
    min_classes: int = 2,
    classes: Sequence[str] = (),
    follow_links: bool = True,
    roots: Sequence[str] = (),
    label_map: Mapping[str, str] | None = None,
) -> ImageDataset:
    """Return the dataset of a folder of class folders, or of split folders of class folders.

    Images in subfolders of a class folder belong to the class. A single wrapping folder is skipped.
    Split folders are recognised by their usual names (see
    :func:`kindsight.dataset.loaders.from_names.split_roles`). Hidden and system files, and files
    that are not images by extension and content, are counted in ``dataset.ignored`` and listed in
    ``dataset.ignored_files``.

    Parameters
    ----------
    path : str or Path
        The folder; a str may be an address, such as ``s3://bucket/photos``.
    labelled : bool
        False: take all images, at any depth, without labels and splits.
    min_classes : int
        Required number of classes; 1 for data that are only evaluated.
    classes : sequence of str
        Known class names: folders with these names are classes, not wrappers or splits.
    follow_links : bool
        False: ignore links that leave the folder.
    roots : sequence of str
        Further folders to which links may lead.
    label_map : mapping of str to str, optional
        Name of a class folder -> class.

    Returns
    -------
    ImageDataset
        Rows sorted by path. `split` is None everywhere if there are no split folders.

    Raises
    ------
    DatasetError
        If the folder is missing, has no images, too few classes or images without class folders,
        or a class has no train images.
    """
    root = _path_text(path)
    ignored = IgnoredFiles()
    listings = _listings(root, ignored, follow_links, roots)
    if not any(listing.files for listing in listings):
        for listing in listings:
            _ignore_unsupported(ignored, listing)
        where = _where(root, ignored)
        raise DatasetError(f"There are no images in {where}. {_cure(ignored)}")
    known = {*classes, *map(unescape_name, classes)}
    found = Arrangement("")
    if labelled:
        tree = Tree.of(listings)
        found = arrange(tree, known)
        _rename(found, tree, label_map or {}, classes)
    rows, outside, labels = _rows(listings, found if labelled else None, ignored)
    where = _where(root, ignored)
    if labelled:
        if not len(rows.paths):
            raise DatasetError(
                f"There are no class folders in {where}, only {n_images(len(outside))}. "
                f"{HOW_TO_ARRANGE}"
            )
        check_classes(found, where, len(rows.paths), min_classes)
    for name in outside:
        ignored.add(name, BESIDE_CLASSES)
    if outside:
        first = f"{n_images(len(outside))}, first {quoted(outside[0])}"
        found.notes.append(f"Ignored outside the class folders: {first}.")
    files = [
        file._replace(label=labels.get(file.path.rpartition("/")[0]))
        for file in sorted(ignored.files, key=lambda file: file.path)
    ]
    return ImageDataset(
        path=rows.paths,
        label=rows.labels.mapped(lambda label: valid_text(label.label) if label else None),
        split=rows.labels.mapped(lambda label: label.split if label else None),
        size=rows.sizes,
        root=absolute(root),
        ignored=dict(sorted(ignored.counts.items())),
        ignored_files=tuple(files),
        notes=(*found.notes, *ignored_notes(files)),
    )


def from_files(
    paths: Iterable[str | Path] | str | Path,
    labels: Any = None,
    *,
    multi_label: str | None = None,
    keep_na_labels: bool = False,
) -> ImageDataset:
    """Return a dataset of files, in the given order; repetitions are allowed.

    Parameters
    ----------
    paths : iterable of str or Path
        Local paths, addresses, or files in tar files (``photos.tar!cat/1.jpg``). A missing file
        causes an error only when it is read. A single path is one file.
    labels : sequence or array, optional
        One name or whole number for each path, or one-hot rows; None or NaN where unknown.
    multi_label, keep_na_labels
        As for :func:`kindsight.dataset.labels.as_labels`.

    Returns
    -------
    ImageDataset
        Without a root; ``path`` as given.

    Raises
    ------
    DatasetError
        If there is no path, one is of another type, or `labels` does not fit.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        paths = [paths]
    names = tuple(_path_text(path) for path in paths)
    if not names:
        raise DatasetError("`paths` must contain at least one path; got none.")
    sizes = _sizes(names)
    label = as_labels(labels, len(names), multi_label=multi_label, keep_na_labels=keep_na_labels)
    return ImageDataset(path=names, label=label, size=sizes)


def _rename(
    found: Arrangement, tree: Tree, label_map: Mapping[str, str], classes: Sequence[str]
) -> None:
    """Rename the classes in place, and note it."""
    counts: Counter[tuple[str | None, str | None]] = Counter()
    for folder, entry in found.entries.items():
        counts[entry.label, entry.split] += tree.total[folder]
    renames = find_renames(counts, label_map, classes)
    for folder, entry in found.entries.items():
        name = renames.names.get(entry.label, entry.label)
        found.entries[folder] = entry._replace(label=name)
    found.notes.extend(renames.notes)


def _listings(
    root: str, ignored: IgnoredFiles, follow_links: bool, roots: Sequence[str]
) -> list[Listing]:
    try:
        return list(walk(root, ignored, follow_links=follow_links, roots=roots))
    except FileNotFoundError:
        what = f"does not exist. {_shortened(root) or _FORMS}"
    except NotADirectoryError:
        what = _what_file(root)
    except KindsightError:  # some are ValueErrors
        raise
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        what = f"cannot be opened: {error}. {_FORMS}"
    raise DatasetError(f"{quoted(root)} {what}")


def _shortened(root: str) -> str:
    """Return a hint if an address lacks a slash, as one in a `Path` does; "" for other paths."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+:)/([^/].*)", root)
    if match is None:
        return ""
    return (
        f"An address has two slashes: {quoted(f'{match[1]}//{match[2]}')}. Path drops one of them: "
        "give an address as text."
    )


_FORMS = "Images are read from a folder, a table (.csv, .parquet) or arrays (.npz)."
_ARCHIVES = (
    b"PK\x03\x04",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ\0",
    b"7z\xbc\xaf",
    b"Rar!",
    b"\x28\xb5\x2f\xfd",
)


def _what_file(path: str) -> str:
    """Return the fault of a file that is neither a table nor a file of arrays, and the cure."""
    try:
        head = read_part(path, 0, HEAD_BYTES)
        detect_format(head)
    except OSError as error:
        return f"cannot be opened: {error}. {_FORMS}"
    except ImageError as error:
        if head.startswith(_ARCHIVES) or head[257:262] == b"ustar":
            return "is an archive. Unpack it, and give the folder, or a tar file."
        if error.code != "unsupported":
            return f"is neither a table nor a file of arrays. {_FORMS}"
    return (
        "is a single image. Give a folder with a folder of images for each class, or a table of "
        "paths and labels; kindsight predict takes single images."
    )


class _Rows(NamedTuple):
    """The rows of a folder, sorted by path."""

    paths: TextColumn
    sizes: NumberColumn
    labels: CodeColumn  # FolderLabel or None


def _rows(
    listings: list[Listing], found: Arrangement | None, ignored: IgnoredFiles
) -> tuple[_Rows, list[str], dict[str, str]]:
    """Return the rows, sorted by path, the images outside the class folders, and folders' labels.

    Outside the class folders, files of unsupported formats are ignored.
    """
    used: list[tuple[Listing, FolderLabel | None]] = []
    outside: list[str] = []
    inherited: dict[str, FolderLabel] = {}
    for listing in listings:
        folder = listing.folder
        prefix = folder + "/" if folder else ""
        label = None
        if found is not None:
            label = found.entries.get(folder) or inherited.get(folder.rpartition("/")[0])
            if label is None:
                outside.extend(prefix + name for name, _ in listing.files)
                _ignore_unsupported(ignored, listing)
                continue
            inherited[folder] = label
        used.append((listing, label))
    files = [listing.all_files for listing, _ in used]
    paths = TextColumn.of(
        f"{listing.folder}/{name}" if listing.folder else name
        for (listing, _), every in zip(used, files, strict=True)
        for name, _ in every
    )
    sizes = np.fromiter((size for every in files for _, size in every), np.int64, len(paths))
    counts = np.fromiter(map(len, files), np.int64, len(files))
    labels = CodeColumn.of(label for _, label in used).take(np.repeat(np.arange(len(used)), counts))
    order = sort_order(paths)
    rows = _Rows(paths.take(order), NumberColumn(sizes[order]), labels.take(order))
    return rows, outside, {folder: label.label for folder, label in inherited.items()}


def _ignore_unsupported(ignored: IgnoredFiles, listing: Listing) -> None:
    prefix = listing.folder and listing.folder + "/"
    for name, size in listing.unsupported:
        ignored.add(prefix + name, reason_with_extension(UNSUPPORTED_FORMAT, name), size)


def _cure(ignored: IgnoredFiles) -> str:
    """Return what to do about a folder without images."""
    if LINK_OUTSIDE in ignored.counts:
        return "Leave out --no-follow-links (in Python follow_links=False) to use the links."
    if any(reason.startswith(UNSUPPORTED_FORMAT) for reason in ignored.counts):
        return "Save copies as JPEG or PNG."
    return "Check the path."


def _where(root: str, ignored: IgnoredFiles) -> str:
    text = ignored_text(ignored.counts.items())
    return quoted(root) + (f" (ignored: {text})" if text else "")


def _path_text(path: object) -> str:
    if isinstance(path, (str, os.PathLike)):
        return str(os.fsdecode(path))
    raise DatasetError(f"A path must be a str or a Path; got {type(path).__name__}.")


def _sizes(names: Sequence[str]) -> tuple[int, ...]:
    remote = [name for name in names if is_address(name) and split_member(name) is None]
    known = dict(zip(remote, sizes(remote), strict=True)) if remote else {}
    return tuple(known[name] or 0 if name in known else _size(name) for name in names)


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):  # a NUL in the name is a ValueError; reading gives the error
        return 0
