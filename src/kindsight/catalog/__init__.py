"""Many pictures: which there are, where they lie, what they are called, which part they are in."""

from kindsight.catalog.catalog import SPLITS, Catalog
from kindsight.catalog.folds import fold_indices
from kindsight.catalog.listing import iter_pictures
from kindsight.catalog.sources import as_catalog, from_arrays, from_files, from_folder
from kindsight.catalog.split import split_catalog
from kindsight.catalog.units import units

__all__ = [
    "SPLITS",
    "Catalog",
    "as_catalog",
    "fold_indices",
    "from_arrays",
    "from_files",
    "from_folder",
    "iter_pictures",
    "split_catalog",
    "units",
]
