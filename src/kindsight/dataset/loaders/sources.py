"""Where datasets come from: a folder, or files given by name."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from kindsight.dataset.labels import as_labels
from kindsight.dataset.loaders.folders import (
    HOW_TO_ARRANGE,
    Arrangement,
    Place,
    Tree,
    arrange,
    check_classes,
)
from kindsight.dataset.names import images, shown
from kindsight.dataset.table import ImageDataset
from kindsight.dataset.walk import Listing, walk
from kindsight.errors import DatasetError

__all__ = ["from_files", "from_folder"]

_OUTSIDE = "outside the class folders"


def from_folder(
    path: str | Path,
    *,
    labelled: bool = True,
    min_classes: int = 2,
    classes: Sequence[str] = (),
) -> ImageDataset:
    """Make a dataset of a folder of class folders, or of split folders of class folders.

    Images in a class's own sub-folders belong to the class. A single wrapping folder is seen
    through. Split folders are recognised in their usual spellings (see
    :func:`kindsight.dataset.loaders.folder_roles.split_roles`). Hidden files and folders, what
    operating systems
    leave behind, what is no image by its name, and links out of the folder are passed over
    and counted in ``dataset.ignored``.

    Parameters
    ----------
    path : str or Path
        The folder.
    labelled : bool
        False: take all images, at any depth, without labels and splits.
    min_classes : int
        How many classes there must be; 1 where a folder is only evaluated.
    classes : sequence of str
        Names known to be classes: folders so named are never taken for a wrapper or a split.

    Returns
    -------
    ImageDataset
        Rows sorted by path. `split` is None everywhere if the folders state no splits.

    Raises
    ------
    DatasetError
        If the folder is absent, holds no images, too few classes, images without class
        folders, or classes of which the training part has no image.
    """
    root = _path_text(path)
    ignored: Counter[str] = Counter()
    listings = _listings(root, ignored)
    where = shown(root) + _passed_over_text(ignored)
    if not any(listing.files for listing in listings):
        raise DatasetError(
            f"The folder must hold images. Received: {where}, without any. Look at the path, "
            "and at the files' extensions."
        )
    found = arrange(Tree.of(listings), classes) if labelled else Arrangement("")
    rows, outside = _rows(listings, found if labelled else None)
    if labelled:
        if not rows:
            raise DatasetError(
                f"The folders in a folder are its classes. Received: {where}, with "
                f"{images(len(outside))} outside of class folders. {HOW_TO_ARRANGE}"
            )
        check_classes(found, where, len(rows), min_classes)
    if outside:
        ignored[_OUTSIDE] = len(outside)
        found.notes.append(
            f"Outside the class folders, and so left out: {images(len(outside))}, the first of "
            f"them {shown(outside[0])}."
        )
    return ImageDataset(
        path=tuple(row[0] for row in rows),
        label=tuple(row[2].label if row[2] else None for row in rows),
        split=tuple(row[2].split if row[2] else None for row in rows),
        size=tuple(row[1] for row in rows),
        root=Path(root).absolute(),
        ignored=dict(sorted(ignored.items())),
        notes=tuple(found.notes),
    )


def from_files(paths: Iterable[str | Path], labels: Sequence[object] | None = None) -> ImageDataset:
    """Make a dataset of files given by name, in their order; one may occur twice.

    Parameters
    ----------
    paths : iterable of str or Path
        Taken as they are. A file that does not exist is no error here: reading it will be.
    labels : sequence of str or int, optional
        One for each path.

    Returns
    -------
    ImageDataset
        Without a root; ``path`` as given.

    Raises
    ------
    DatasetError
        If a path is something else, if there is none, or if `labels` does not fit.
    """
    if isinstance(paths, (str, bytes, os.PathLike)):
        raise DatasetError(
            f"Files are given as a list of paths. Received: the single path {paths!r}. "
            "Put it in a list: [path]."
        )
    names = tuple(_path_text(path) for path in paths)
    if not names:
        raise DatasetError("At least one path must be given. Received: none.")
    sizes = tuple(map(_size, names))
    return ImageDataset(path=names, label=as_labels(labels, len(names)), size=sizes)


def _listings(root: str, ignored: Counter[str]) -> list[Listing]:
    """Walk the folder, with a clear error where it is none."""
    try:
        return list(walk(root, ignored))
    except FileNotFoundError:
        what = "which does not exist"
    except NotADirectoryError:
        what = "which is a file; an archive has to be unpacked first"
    except (OSError, ValueError) as error:  # a NUL in the path is a ValueError
        what = f"which cannot be opened: {error}"
    raise DatasetError(
        "Images come from a folder, or from a table (.csv, .parquet) or arrays (.npz). Received: "
        f"{shown(root)}, {what}."
    )


_Row = tuple[str, int, Place | None]


def _rows(listings: list[Listing], found: Arrangement | None) -> tuple[list[_Row], list[str]]:
    """Return the rows, sorted by path, and the images that lie in no class folder."""
    rows: list[_Row] = []
    outside: list[str] = []
    places: dict[str, Place] = {}
    for folder, files in listings:
        prefix = folder + "/" if folder else ""
        place = None
        if found is not None:
            place = found.places.get(folder) or places.get(folder.rpartition("/")[0])
            if place is None:
                outside.extend(prefix + name for name, _ in files)
                continue
            places[folder] = place
        rows.extend((prefix + name, size, place) for name, size in files)
    rows.sort(key=lambda row: row[0])
    return rows, outside


def _passed_over_text(ignored: Mapping[str, int]) -> str:
    if not ignored:
        return ""
    reasons = ", ".join(f"{count:,} x {reason}" for reason, count in sorted(ignored.items()))
    return f" (passed over: {reasons})"


def _path_text(path: object) -> str:
    if isinstance(path, (str, os.PathLike)):
        return str(os.fsdecode(path))
    raise DatasetError(f"A path is a text or a Path. Received: {type(path).__name__}")


def _size(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except (OSError, ValueError):  # a NUL in the name is a ValueError: reading will say so
        return 0
