"""Data of the benchmarks on more images: frozen features of four datasets, computed once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accuracy_job import load
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.prepared import FrozenImages, prepare_frozen
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = ["Data", "datasets_of", "shuffled"]

LARGEST = 4000
"""Images that are used of a dataset."""


@dataclass(frozen=True)
class Data:
    """A dataset with its features."""

    name: str
    images: FrozenImages

    @property
    def targets(self) -> Any:
        """The class index of each image."""
        return self.images.dataset.targets

    def fit(self, rows: Any) -> FittedFrozenHead:
        """Select and fit a head as ``kindsight train`` does."""
        return self.images.fit_head(self.images.dataset.classes, np.sort(rows))

    def wrong(self, fitted: FittedFrozenHead, rows: Any) -> Any:
        """Return which images are misclassified."""
        return fitted.probabilities(rows).argmax(1) != self.targets[rows]


def datasets_of(paths: Sequence[str]) -> list[Data]:
    """Return the datasets of folders, and of ``elpv``."""
    found = []
    for path in paths:
        dataset = load(path)
        if len(dataset) > LARGEST:
            rows = np.random.default_rng(0).permutation(len(dataset))[:LARGEST]
            dataset = dataset[np.sort(rows)]
        found.append(Data(Path(path).name, prepare_frozen(FrozenTrainer(), dataset)))
    return found


def shuffled(data: Data, seed: int) -> Any:
    """Return the rows in random order, stratified; byte-identical images once."""
    digests = np.array([str(digest) for digest in data.images.dataset.digest])
    rows = np.sort(np.unique(digests, return_index=True)[1])
    generator = np.random.default_rng(seed)
    places = np.empty(len(rows))
    targets = data.targets[rows]
    for label in np.unique(targets):
        mine = np.flatnonzero(targets == label)
        places[generator.permutation(mine)] = (np.arange(len(mine)) + 0.5) / len(mine)
    return rows[np.argsort(places, kind="stable")]


def arguments(description: str) -> argparse.ArgumentParser:
    """Return a parser of the datasets and the seeds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("data", nargs="+", help="folders of class folders, or elpv")
    parser.add_argument("--seeds", type=int, default=5, help="splits of each  [default: 5]")
    parser.add_argument("--first-seed", type=int, default=0, help="[default: 0]")
    return parser
