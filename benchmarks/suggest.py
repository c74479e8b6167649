"""Verify the suggestions: label the suggested images, or as many random ones, and compare.

Each case starts with few labelled images of a dataset, fits a head, and adds images from a pool:
those that the selection of ``kindsight suggest`` chooses, or random ones (the mean of several
draws). The accuracy is that of a newly selected and fitted head on test images. The target: above
random in at least 4 of 5 seeds on two datasets.

The number of candidates for each suggestion was chosen with seeds from 100.

Examples
--------
::

    python benchmarks/suggest.py sign-digits/ elpv cifar10/
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from kindsight.runs.more_images.select import select_diverse, selection_space
from kindsight.runs.more_images.suggest import SHORTLIST
from more_images import Data, arguments, datasets_of, shuffled
from processes import log

PER_CLASS = 8
"""Labelled images at the start, times the number of classes, at least 80."""
RANDOM_DRAWS = 5
TEST_IMAGES = 1000
NEEDED = 0.8


def suggested(data: Data, start: Any, pool: Any, count: int) -> Any:
    """Return the rows that ``kindsight suggest`` chooses; the images have no copies."""
    fitted = data.fit(start)
    probabilities = np.sort(fitted.probabilities(pool), axis=1)
    uncertainty = 1 - (probabilities[:, -1] - probabilities[:, -2])
    best = np.argsort(-uncertainty, kind="stable")[: SHORTLIST * count]
    features = fitted.features.vectors[pool[best]]
    vectors = selection_space(features, fitted.head.layers.logits(features))
    return pool[best[select_diverse(vectors, np.maximum(uncertainty[best], 1e-6), count)]]


def case(data: Data, seed: int) -> dict[str, float]:
    """Return the accuracies at the start, with suggested and with random images."""
    rows = shuffled(data, seed)
    first = max(80, PER_CLASS * len(data.images.dataset.classes))
    tests = min(TEST_IMAGES, len(rows) // 3)
    test, start, pool = rows[:tests], rows[tests : tests + first], rows[tests + first :]

    def accuracy(train: Any) -> float:
        return float(1 - data.wrong(data.fit(train), test).mean())

    generator = np.random.default_rng(seed)
    random = [
        accuracy(np.concatenate([start, generator.permutation(pool)[:first]]))
        for _ in range(RANDOM_DRAWS)
    ]
    chosen = suggested(data, start, pool, first)
    return {
        "start": accuracy(start),
        "random": float(np.mean(random)),
        "suggested": accuracy(np.concatenate([start, chosen])),
        "images": first,
    }


def main() -> None:
    """Measure and print the result."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    results = {}
    for data in datasets_of(options.data):
        gains = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            found = case(data, seed)
            gains.append(found["suggested"] - found["random"])
            log(
                f"{data.name} seed {seed}: {found['images']} labelled {found['start']:.1%}; as "
                f"many more at random {found['random']:.1%}, suggested {found['suggested']:.1%}"
            )
        above = sum(gain > 0 for gain in gains)
        results[data.name] = {
            "above_random": above,
            "seeds": len(gains),
            "mean_gain": float(np.mean(gains)),
            "met": bool(above >= NEEDED * len(gains)),
        }
    print(json.dumps({**results, "met": sum(r["met"] for r in results.values()) >= 2}))


if __name__ == "__main__":
    main()
