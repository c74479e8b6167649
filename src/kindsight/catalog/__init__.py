"""Many pictures: which there are, where they lie, what they are called, which part they are in.

The names below are imported when they are first used: a prediction needs few of them, and is to
start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.catalog.arrays import from_arrays as from_arrays
    from kindsight.catalog.catalog import SPLITS as SPLITS
    from kindsight.catalog.catalog import Catalog as Catalog
    from kindsight.catalog.folds import fold_indices as fold_indices
    from kindsight.catalog.given import as_catalog as as_catalog
    from kindsight.catalog.listing import iter_pictures as iter_pictures
    from kindsight.catalog.opening import open_catalog as open_catalog
    from kindsight.catalog.opening import open_parts as open_parts
    from kindsight.catalog.options import DataOptions as DataOptions
    from kindsight.catalog.readers.npz import from_npz as from_npz
    from kindsight.catalog.readers.tables import from_table as from_table
    from kindsight.catalog.sources import from_files as from_files
    from kindsight.catalog.sources import from_folder as from_folder
    from kindsight.catalog.split import split_catalog as split_catalog

_HOMES = {
    "SPLITS": "catalog",
    "Catalog": "catalog",
    "DataOptions": "options",
    "as_catalog": "given",
    "fold_indices": "folds",
    "from_arrays": "arrays",
    "from_files": "sources",
    "from_folder": "sources",
    "from_npz": "readers.npz",
    "from_table": "readers.tables",
    "iter_pictures": "listing",
    "open_catalog": "opening",
    "open_parts": "opening",
    "split_catalog": "split",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
