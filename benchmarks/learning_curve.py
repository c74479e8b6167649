"""Verify the learning curve: predict the accuracy with all images from half of them.

Each case splits a dataset at random into a pool and test images. The curve is fitted to one half of
the pool. Its 90% interval for the accuracy with the whole pool is compared with the accuracy that a
head, selected and fitted to the whole pool, has on the test images. The target: within the interval
in at least 16 of 20 cases. The accuracy is itself measured on a finite number of test images, so
the interval of `LearningCurve.accuracy(images, held_out)` includes their noise; the count without
it is printed, too.

The constants of the fit were chosen on splits with seeds from 100.

Examples
--------
::

    python benchmarks/learning_curve.py cats-dogs/ sign-digits/ elpv cifar10/
"""

from __future__ import annotations

import json

import numpy as np

from kindsight.dataset.splits.groups import group_indices
from kindsight.evaluation.learning_curve import fit_learning_curve
from kindsight.training.frozen.learning_curve import LabelledFeatures, measure_learning_curve
from more_images import Data, arguments, datasets_of, shuffled
from processes import log

POOL_FRACTION = 0.6
LARGEST_POOL = 1500
NEEDED = 0.8


def case(data: Data, seed: int) -> dict[str, float]:
    """Return the prediction from half of a pool, and the accuracy with all of it."""
    rows = shuffled(data, seed)
    pool = rows[: min(LARGEST_POOL, round(POOL_FRACTION * len(rows)))]
    half, test = np.sort(pool[: len(pool) // 2]), rows[len(pool) :]
    images, fitted = data.images, data.fit(half)
    dataset = images.dataset[half]
    labelled = LabelledFeatures(
        images.features.vectors[half],
        dataset.targets,
        len(dataset.classes),
        group_indices(dataset),
        None,
        [str(digest) for digest in dataset.digest],
        fitted.files.layout,
        fitted.head.chosen,
        None,
        seed,
    )
    curve = fit_learning_curve(measure_learning_curve(labelled), len(half), dataset.classes)
    predicted, low, high = curve.accuracy(len(pool), held_out=len(test))
    _, narrow_low, narrow_high = curve.accuracy(len(pool))
    before = 1 - data.wrong(fitted, test).mean()
    true = 1 - data.wrong(data.fit(pool), test).mean()
    return {
        "images": len(half), "pool": len(pool), "test": len(test), "half": before,
        "predicted": predicted, "low": low, "high": high, "true": true,
        "inside": bool(low <= true <= high),
        "inside_without_test_noise": bool(narrow_low <= true <= narrow_high),
    }  # fmt: skip


def main() -> None:
    """Measure and print the result."""
    options = arguments(__doc__.splitlines()[0]).parse_args()
    found = []
    for data in datasets_of(options.data):
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            result = case(data, seed)
            found.append(result)
            log(
                f"{data.name} seed {seed}: {result['images']} images {result['half']:.1%}; with "
                f"{result['pool']} predicted {result['predicted']:.1%} ({result['low']:.1%} to "
                f"{result['high']:.1%}), true {result['true']:.1%}"
                f"{'' if result['inside'] else ' OUTSIDE'}"
            )
    inside = sum(result["inside"] for result in found)
    width = np.mean([result["high"] - result["low"] for result in found])
    naive = np.mean([abs(result["true"] - result["half"]) for result in found])
    error = np.mean([abs(result["true"] - result["predicted"]) for result in found])
    print(
        json.dumps(
            {
                "cases": len(found),
                "inside": inside,
                "inside_without_test_noise": sum(r["inside_without_test_noise"] for r in found),
                "needed": round(NEEDED * len(found)),
                "met": bool(inside >= NEEDED * len(found)),
                "mean_width": float(width),
                "mean_error_of_the_prediction": float(error),
                "mean_error_of_no_gain": float(naive),
            }
        )
    )


if __name__ == "__main__":
    main()
