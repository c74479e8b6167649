"""Several catalogs as one, such as a training part and a test part that lie in two places."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.spelling import class_order
from kindsight.errors import CatalogError

__all__ = ["join_parts"]


def join_parts(parts: Sequence[tuple[str | None, Catalog]]) -> Catalog:
    """Put catalogs one after the other.

    Parameters
    ----------
    parts : sequence of (split, Catalog)
        The split that all rows of the catalog get; None leaves them what they have.

    Returns
    -------
    Catalog
        Its root is the nearest folder that all files lie in, and paths start there; if there is
        none (two drives of Windows) paths are absolute.

    Raises
    ------
    CatalogError
        If some are files and others are in memory.
    """
    catalogs = [catalog for _, catalog in parts]
    in_memory = [catalog.arrays is not None for catalog in catalogs]
    if any(in_memory) != all(in_memory):
        raise CatalogError(
            "All parts of the data must be files, or all of them arrays or pixels. Received: both. "
            "Bring them into one form."
        )
    root, paths = None, [path for catalog in catalogs for path in catalog.path]
    if not any(in_memory):
        root, paths = _common(catalogs)
    passed_over: Counter[str] = Counter()
    for catalog in catalogs:
        passed_over.update(catalog.passed_over)
    labels = [label for catalog in catalogs for label in catalog.label]
    known = catalogs[0].classes
    return Catalog(
        path=tuple(paths),
        label=tuple(labels),
        split=tuple(split or given for split, catalog in parts for given in catalog.split),
        group=tuple(group for catalog in catalogs for group in catalog.group),
        digest=tuple(digest for catalog in catalogs for digest in catalog.digest),
        size=tuple(size for catalog in catalogs for size in catalog.size),
        root=root,
        arrays=tuple(array for catalog in catalogs for array in catalog.arrays or ())
        if any(in_memory)
        else None,
        classes=known if {*labels} <= {*known, None} else class_order(labels),
        passed_over=dict(sorted(passed_over.items())),
        notes=tuple(dict.fromkeys(note for catalog in catalogs for note in catalog.notes)),
    )


def _common(catalogs: Sequence[Catalog]) -> tuple[Path | None, list[str]]:
    """Return the nearest common folder, and all paths as they are spelled from there."""
    roots = [catalog.root for catalog in catalogs]
    if roots[0] is not None and all(root == roots[0] for root in roots):
        return roots[0], [path for catalog in catalogs for path in catalog.path]
    folders = [str(root or Path().absolute()) for root in roots]
    try:
        common = os.path.commonpath(folders)
    except ValueError:  # on different drives
        files = [str(catalog.file(row)) for catalog in catalogs for row in range(len(catalog))]
        return None, [file.replace(os.sep, "/") for file in files]
    paths: list[str] = []
    for catalog, folder in zip(catalogs, folders, strict=True):
        start = os.path.relpath(folder, common).replace(os.sep, "/")
        prefix = "" if start == "." else start + "/"
        paths.extend(
            path if os.path.isabs(path) else prefix + path  # noqa: PTH117
            for path in catalog.path
        )
    return Path(common), paths
