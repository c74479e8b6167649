"""How often ``ImageClassifier`` is right on one data set, over fixed divisions of its images.

Folders of class folders are divided by scikit-learn's ``StratifiedKFold`` into five folds, the
solar cells of ``elpv-dataset`` four times, or as often as told, into training and a 25% test part.
The features are
computed once, the head is chosen and fitted anew for each division. Prints one line of JSON.
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
DRAWS = 4
TEST_SHARE = 0.25


def divisions(labels: Sequence[str], folds: bool, draws: int = DRAWS) -> list[tuple[Any, Any]]:
    """Return (rows to learn from, rows to test) of each division.

    Parameters
    ----------
    labels : sequence of str
    folds : bool
        Whether five folds, in which each image is tested once, or draws of a quarter.
    draws : int
        How many of these.
    """
    from sklearn.model_selection import StratifiedKFold, StratifiedShuffleSplit

    rows = np.arange(len(labels))
    if folds:
        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
        return list(splitter.split(rows, labels))
    return [
        next(StratifiedShuffleSplit(1, test_size=TEST_SHARE, random_state=seed).split(rows, labels))
        for seed in range(draws)
    ]


def load(data: str) -> Any:
    """Return the dataset of a folder, or of the solar cells for ``elpv``."""
    from kindsight import ImageDataset

    if data != "elpv":
        return ImageDataset.from_folder(data)
    from elpv_dataset.utils import load_dataset

    images, shares, _ = load_dataset()
    return ImageDataset.from_arrays(
        images, ["defective" if share >= 0.5 else "functional" for share in shares]
    )


def some_rows(labels: Sequence[str], limit: int | None) -> Any:
    """Return rows of about `limit` images, equally many of each class; all for None."""
    every = np.array(labels)
    if limit is None:
        return np.arange(len(every))
    classes = np.unique(every)
    share = max(FOLDS, limit // len(classes))
    return np.sort(np.concatenate([np.flatnonzero(every == name)[:share] for name in classes]))


def measure(
    dataset: Any, settings: dict[str, Any], folds: bool, draws: int = DRAWS
) -> dict[str, Any]:
    """Fit and score each division."""
    from kindsight import ImageClassifier
    from kindsight.training.trainer import make_training

    classifier = ImageClassifier(**settings)
    # Made once on a machine, and not what is measured here.
    make_training(classifier.get_params()).backbone()
    seconds = []
    for _ in range(2):
        start = time.perf_counter()
        classifier.fit(dataset)
        seconds.append(time.perf_counter() - start)
    accuracies, heads = [], []
    for train, test in divisions(dataset.label, folds, draws):
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
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a folder of class folders, or elpv")
    parser.add_argument("--demo", action="store_true", help="the demo's settings")
    parser.add_argument("--draws", type=int, default=DRAWS, help="divisions of elpv  [default: 4]")
    parser.add_argument("--limit", type=int, help="use about this many images")
    options = parser.parse_args()
    settings: dict[str, Any] = {}
    if options.demo:
        from kindsight import ImageClassifier
        from kindsight.runs.demo import BEST_SETTINGS

        known = ImageClassifier().get_params()
        # What is kept back is the divisions' matter; a classifier's own part is for networks.
        known.pop("validation")
        settings = {name: value for name, value in BEST_SETTINGS.items() if name in known}
    dataset = load(options.data)
    dataset = dataset[some_rows(dataset.label, options.limit)]
    answer = measure(dataset, settings, folds=options.data != "elpv", draws=options.draws)
    print(json.dumps({"data": Path(options.data).name, **answer}))


if __name__ == "__main__":
    main()
