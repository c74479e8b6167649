"""Datasets of many images: opened from folders, tables or arrays; split; read and cached.

Names are imported on first use, so that predicting starts quickly.
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
    from kindsight.dataset.properties import with_value_range as with_value_range
    from kindsight.dataset.splits.groups import fold_indices as fold_indices
    from kindsight.dataset.splits.settings import SplitSettings as SplitSettings
    from kindsight.dataset.splits.settings import check_split as check_split
    from kindsight.dataset.splits.stratified import random_split as random_split
    from kindsight.dataset.table import SPLITS as SPLITS
    from kindsight.dataset.table import ImageDataset as ImageDataset
    from kindsight.dataset.write import write_dataset as write_dataset
    from kindsight.dataset.write import write_parquet as write_parquet

_HOMES = {
    "SPLITS": "table",
    "DataOptions": "options",
    "ImageDataset": "table",
    "SplitSettings": "splits.settings",
    "as_dataset": "open",
    "check_split": "splits.settings",
    "fold_indices": "splits.groups",
    "from_arrays": "loaders.arrays",
    "from_files": "loaders.sources",
    "from_folder": "loaders.sources",
    "from_npz": "loaders.npz",
    "from_table": "loaders.tables",
    "open_dataset": "open",
    "open_splits": "open",
    "random_split": "splits.stratified",
    "with_value_range": "properties",
    "write_dataset": "write",
    "write_parquet": "write",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605

__getattr__, __dir__ = lazy_names(__name__, _HOMES)
