"""Out-of-fold predictions of full checks: labelled images only, duplicates in one fold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "checks"))
from fake_context import context

from kindsight.checks import RowFeatures
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.runs.checking.out_of_fold import out_of_fold_predictions

LAYOUT = FeatureLayout((FeatureBlock("top_mean", 0, 64),))


def features_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 64)).astype(np.float32)


def predictions(given, vectors):
    features = RowFeatures(np.arange(len(vectors)), vectors)
    return out_of_fold_predictions(given, features, LAYOUT)


def test_only_labelled_images_are_predicted():
    labels = ["a", "b"] * 20 + [None] * 5
    found = predictions(context(labels), features_of(45))
    assert found.rows.tolist() == list(range(40))
    assert found.probabilities.shape == (40, 2)


def test_duplicates_and_groups_are_in_one_fold():
    """Each image five times with random labels: only a head trained on a copy is correct."""
    random = np.random.default_rng(2)
    vectors = np.repeat(features_of(60, 3), 5, axis=0)
    labels = np.repeat(random.choice(["a", "b"], 60), 5)
    names = [str(i // 5) for i in range(300)]

    def accuracy(**columns):
        found = predictions(context(labels.tolist(), **columns), vectors)
        return (np.array(["a", "b"])[found.probabilities.argmax(axis=1)] == labels).mean()

    assert accuracy() > 0.75
    assert accuracy(digest=names) < 0.65
    assert accuracy(group=names) < 0.65


def test_too_few_images_are_not_predicted():
    assert len(predictions(context(["a", "b", "a"]), features_of(3)).rows) == 0
    assert len(predictions(context(["a"] * 30), features_of(30)).rows) == 0
    assert len(predictions(context([None] * 3), features_of(3)).rows) == 0


def test_fewer_groups_than_folds_are_not_predicted():
    assert len(predictions(context(["a", "a", "b", "b"]), features_of(4)).rows) == 0
