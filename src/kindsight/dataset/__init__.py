"""Many images: which there are, where they lie, what they are called, which part they are in.

The names below are imported when they are first used: a prediction needs few of them, and is to
start at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kindsight.lazy import lazy_names

if TYPE_CHECKING:
    from kindsight.dataset.loaders.arrays import from_arrays as from_arrays
    from kindsight.dataset.loaders.npz import from_npz as from_npz
    from kindsight.dataset.loaders.sources import from_files as from_files
    from kindsight.dataset.loaders.sources import from_folder as from_folder
    from kindsight.dataset.loaders.tables import from_table as from_table
    from kindsight.dataset.open import as_dataset as as_dataset
    from kindsight.dataset.open import open_dataset as open_dataset
    from kindsight.dataset.open import open_splits as open_splits
    from kindsight.dataset.options import DataOptions as DataOptions
    from kindsight.dataset.splits.folds import fold_indices as fold_indices
    from kindsight.dataset.splits.settings import SplitSettings as SplitSettings
    from kindsight.dataset.splits.split import random_split as random_split
    from kindsight.dataset.table import SPLITS as SPLITS
    from kindsight.dataset.table import ImageDataset as ImageDataset
    from kindsight.dataset.write_table import write_dataset as write_dataset

_HOMES = {
    "SPLITS": "table",
    "ImageDataset": "table",
    "DataOptions": "options",
    "as_dataset": "open",
    "fold_indices": "splits.folds",
    "from_arrays": "loaders.arrays",
    "from_files": "loaders.sources",
    "from_folder": "loaders.sources",
    "from_npz": "loaders.npz",
    "from_table": "loaders.tables",
    "open_dataset": "open",
    "open_splits": "open",
    "SplitSettings": "splits.settings",
    "write_dataset": "write_table",
    "random_split": "splits.split",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
