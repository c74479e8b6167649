"""Lists of a project's images: filtered, sorted, in pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from kindsight.dataset.table import SPLITS
from kindsight.errors import UsageError
from kindsight.studio.shapes import Filters, ImageRow, ImageTable, ProjectClass, Totals
from kindsight.studio.state.adding import IMAGES_FOLDER
from kindsight.studio.state.images import NO_LABEL, ImageColumns, Rows
from kindsight.studio.state.project import Project

__all__ = ["SORTS", "class_counts", "image_rows", "image_table", "select", "version_of"]

SORTS = ("id", "name", "label", "size", "flags")

Flags = Mapping[int, Sequence[str]]


def select(
    project: Project,
    flags: Flags,
    filters: Filters,
) -> Rows:
    """Return the ids of the images that pass all filters, sorted."""
    images, split, finding = project.images, filters.split, filters.finding
    mask = images.present.copy()
    if filters.label:
        keys = [NO_LABEL if name == "" else project.class_key(name) for name in filters.label]
        mask &= np.isin(images.label, keys)
    if filters.excluded is not None:
        mask &= images.excluded == filters.excluded
    if split:
        if split not in (*SPLITS, "none"):
            raise UsageError(f"`split` must be {', '.join(SPLITS)} or none; got {split!r}.")
        mask &= images.split == (0 if split == "none" else 1 + SPLITS.index(split))
    if finding:
        found = np.zeros(len(images), np.bool_)
        found[[i for i, codes in flags.items() if finding == "any" or finding in codes]] = True
        mask &= found
    rows = np.flatnonzero(mask).astype(np.int64)
    if filters.query:
        wanted = filters.query.casefold()
        name, path = images.name, images.path
        texts = (f"{name[row]}\n{path[row]}".casefold() for row in rows.tolist())
        rows = rows[np.array([wanted in text for text in texts], np.bool_)]
    return _sorted(images, rows, flags, filters.sort, reverse=filters.reverse)


def _sorted(images: ImageColumns, rows: Rows, flags: Flags, sort: str, *, reverse: bool) -> Rows:
    if sort not in SORTS:
        raise UsageError(f"`sort` must be one of {', '.join(SORTS)}; got {sort[:40]!r}.")
    if sort == "size":
        rows = rows[np.argsort(images.size[rows], kind="stable")]
    elif sort == "label":
        order = {key: place for place, key in enumerate(images.classes)}
        places = [order.get(key, len(order)) for key in images.label[rows].tolist()]
        rows = rows[np.argsort(np.array(places, np.int64), kind="stable")]
    elif sort == "name":
        rows = np.array(sorted(rows.tolist(), key=images.name.__getitem__), np.int64)
    elif sort == "flags":
        counts = np.array([-len(flags.get(row, ())) for row in rows.tolist()], np.int64)
        rows = rows[np.argsort(counts, kind="stable")]
    return rows[::-1] if reverse else rows


def image_rows(images: ImageColumns, rows: Rows, flags: Flags) -> list[ImageRow]:
    """Return the entries of images for a list."""
    labels = images.labels(rows)
    return [
        {
            "id": row, "name": images.name[row], "path": images.path[row], "label": label,
            "excluded": bool(images.excluded[row]), "split": images.split_name(row),
            "flags": list(flags.get(row, ())), "version": version_of(images, row),
            "size": int(images.size[row]),
            "added": is_copy(images.path[row]),
        }
        for row, label in zip(rows.tolist(), labels, strict=True)
    ]  # fmt: skip


def image_table(project: Project, flags: Flags) -> ImageTable:
    """Return all images, one column for each property."""
    images, rows = project.images, project.present()
    index = {key: place for place, key in enumerate(images.classes)}
    ids, names = rows.tolist(), images.name
    return {
        "revision": project.revision,
        "classes": list(images.classes.values()),
        "ids": ids,
        "names": [names[row] for row in ids],
        "labels": [index.get(key, -1) for key in images.label[rows].tolist()],
        "excluded": images.excluded[rows].astype(np.int8).tolist(),
        "splits": images.split[rows].tolist(),
        "versions": [version_of(images, row) for row in ids],
        "flags": {str(row): list(codes) for row, codes in flags.items()},
    }


def version_of(images: ImageColumns, row: int) -> str:
    """Return a text that changes with the image's content: the digest of a copy, or the size.

    A digest that becomes known later does not change it, or browsers would reload the thumbnail.
    """
    if is_copy(images.path[row]):
        return images.digest[row]
    return f"s{images.size.item(row):x}"


def is_copy(path: str) -> bool:
    """Return whether a path is that of a copy in the studio's folder."""
    return path.startswith(f"{IMAGES_FOLDER}/")


def class_counts(images: ImageColumns) -> tuple[list[ProjectClass], Totals]:
    """Return the classes with their numbers of images, and the numbers of all images."""
    used, out = images.present & ~images.excluded, images.present & images.excluded
    used_by = Counter(images.label[used].tolist())
    out_by = Counter(images.label[out].tolist())
    classes: list[ProjectClass] = [
        {"name": name, "images": used_by[key], "excluded": out_by[key]}
        for key, name in images.classes.items()
    ]
    unlabelled = used_by[NO_LABEL]
    splits = np.bincount(images.split[used], minlength=4).tolist()
    totals: Totals = {
        "images": int(images.present.sum()),
        "labelled": int(used.sum()) - unlabelled,
        "unlabelled": unlabelled,
        "excluded": int(out.sum()),
        "splits": dict(zip(SPLITS, splits[1:], strict=True)),
    }
    return classes, totals
