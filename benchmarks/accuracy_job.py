"""Measure the accuracy of ``ImageClassifier`` on one dataset over fixed splits.

Folders of class folders are split by scikit-learn's ``StratifiedKFold`` into five folds, the solar
cells of ``elpv-dataset`` by four (or ``--splits``) stratified splits with 25% for testing. The
features are computed once; the head is selected and fitted for each split. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

FOLDS = 5
SPLITS = 4
TEST_FRACTION = 0.25


def make_splits(labels: Sequence[str], folds: bool, count: int = SPLITS) -> list[tuple[Any, Any]]:
    """Return (training rows, test rows) of five folds, or else of `count` splits."""
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

    rows = np.arange(len(labels))
    if folds:
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        return list(splitter.split(rows, labels))
    return [
        next(
            StratifiedShuffleSplit(1, test_size=TEST_FRACTION, random_state=seed).split(
                rows, labels
            )
        )
        for seed in range(count)
    ]


def load(data: str) -> Any:
    """Return the dataset of a folder, or the solar cells for ``elpv``."""
    from kindsight import ImageDataset

    if data != "elpv":
        return ImageDataset.from_folder(data)
    from elpv_dataset.utils import load_dataset

    images, defect_probabilities, _ = load_dataset()
    return ImageDataset.from_arrays(
        images,
        ["defective" if value >= 0.5 else "functional" for value in defect_probabilities],
    )


def some_rows(labels: Sequence[str], limit: int | None) -> Any:
    """Return the rows of about `limit` images, equally many per class; all for None."""
    every = np.array(labels)
    if limit is None:
        return np.arange(len(every))
    classes = np.unique(every)
    count = max(FOLDS, limit // len(classes))
    return np.sort(np.concatenate([np.flatnonzero(every == name)[:count] for name in classes]))


def measure(
    dataset: Any, settings: dict[str, Any], folds: bool, splits: int = SPLITS
) -> dict[str, Any]:
    """Fit and score a classifier on each split."""
    from kindsight import ImageClassifier
    from kindsight.training.trainer import make_training

    classifier = ImageClassifier(**settings)
    # The backbone is built once per machine and is not timed here.
    make_training(classifier.get_params()).backbone()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        classifier.fit(dataset)
        seconds.append(time.perf_counter() - start)
    accuracies, heads = [], []
    for train, test in make_splits(dataset.label, folds, splits):
        fitted = ImageClassifier(**settings).fit(dataset[train])
        accuracies.append(fitted.score(dataset[test]))
        heads.append(fitted.head_.chosen.describe())
    return {
        "images": len(dataset),
        "settings": settings,
        "mean": float(np.mean(accuracies)),
        "standard_error": float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))),
        "accuracies": accuracies,
        "heads": heads,
        "cold_seconds": seconds[0],
        "warm_seconds": seconds[1],
    }


def main() -> None:
    """Measure and print the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of class folders, or elpv")
    parser.add_argument("--demo", action="store_true", help="the demo's settings")
    parser.add_argument("--splits", type=int, default=SPLITS, help="splits of elpv  [default: 4]")
    parser.add_argument("--limit", type=int, help="use about this many images")
    options = parser.parse_args()
    settings: dict[str, Any] = {}
    if options.demo:
        from kindsight import ImageClassifier
        from kindsight.runs.demo import BEST_SETTINGS

        known = ImageClassifier().get_params()
        # The splits already hold out images; `validation` is for networks.
        known.pop("validation")
        settings = {name: value for name, value in BEST_SETTINGS.items() if name in known}
    dataset = load(options.data)
    dataset = dataset[some_rows(dataset.label, options.limit)]
    result = measure(dataset, settings, folds=options.data != "elpv", splits=options.splits)
    print(json.dumps({"data": Path(options.data).name, **result}))


if __name__ == "__main__":
    main()
