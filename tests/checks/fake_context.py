"""Contexts with given measurements, features and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np

from kindsight.checks import CheckContext, Measurements, OutOfFoldPredictions, RowFeatures
from kindsight.checks.measure import NUMERIC, TEXT
from kindsight.dataset import ImageDataset


def measured(n: int, **columns: Any) -> Measurements:
    """Return measurements of n readable images of 300 x 400 pixels, with some columns given."""
    numeric = np.zeros(n, NUMERIC)
    numeric["height"], numeric["width"], numeric["bytes"] = 300, 400, 60_000
    text = {name: np.full(n, "", object) for name in TEXT}
    text["format"][:], text["mode"][:] = "JPEG", "RGB"
    for name, column in columns.items():
        (text if name in TEXT else numeric)[name][:] = column
    return Measurements(numeric, text, lambda rows: np.zeros((len(rows), 64, 64), np.uint8))


def context(
    labels: Any,
    *,
    split: Any = (),
    digest: Any = None,
    group: Any = (),
    vectors: Any = None,
    probabilities: Any = None,
    **columns: Any,
) -> CheckContext:
    """Return a context of images 0.jpg, 1.jpg, ... with a label each."""
    n = len(labels)
    dataset = ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(labels),
        split=tuple(split),
        digest=tuple(digest or (f"{i:04}" for i in range(n))),
        group=tuple(group),
    )
    rows = np.arange(n)
    return CheckContext(
        dataset,
        measured(n, **columns),
        compute_features=None
        if vectors is None
        else lambda: RowFeatures(rows, np.asarray(vectors, np.float32)),
        compute_out_of_fold=None
        if probabilities is None
        else lambda: OutOfFoldPredictions(rows, np.asarray(probabilities, np.float64)),
    )
