"""Many pictures: which there are, where they lie, what they are called, which part they are in."""

from kindsight.catalog.arrays import from_arrays
from kindsight.catalog.catalog import SPLITS, Catalog
from kindsight.catalog.folds import fold_indices
from kindsight.catalog.given import as_catalog
from kindsight.catalog.listing import iter_pictures
from kindsight.catalog.opening import open_catalog, open_parts
from kindsight.catalog.options import DataOptions
from kindsight.catalog.readers.npz import from_npz
from kindsight.catalog.readers.tables import from_table
from kindsight.catalog.sources import from_files, from_folder
from kindsight.catalog.split import split_catalog
from kindsight.catalog.units import units

__all__ = [
    "SPLITS",
    "Catalog",
    "DataOptions",
    "as_catalog",
    "fold_indices",
    "from_arrays",
    "from_files",
    "from_folder",
    "from_npz",
    "from_table",
    "iter_pictures",
    "open_catalog",
    "open_parts",
    "split_catalog",
    "units",
]
