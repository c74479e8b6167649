"""The answers that labels are held to: of labelled images, copies always in one fold."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "checks"))
from made_up import context

from kindsight.checks import RowFeatures
from kindsight.models.backbones.layout import FeatureBlock, FeatureLayout
from kindsight.runs.checking.out_of_fold import out_of_fold_predictions

LAYOUT = FeatureLayout((FeatureBlock("top_mean", 0, 64),))


def features_of(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 64)).astype(np.float32)


def answers(made, vectors):
    found = RowFeatures(np.arange(len(vectors)), vectors)
    return out_of_fold_predictions(made, found, LAYOUT)


def test_only_labelled_images_are_answered():
    labels = ["a", "b"] * 20 + [None] * 5
    found = answers(context(labels), features_of(45))
    assert found.rows.tolist() == list(range(40))
    assert found.probabilities.shape == (40, 2)


def test_copies_and_groups_are_not_answered_by_heads_that_know_them():
    """Each image five times, labels drawn: only who knows them by heart is right."""
    random = np.random.default_rng(2)
    vectors = np.repeat(features_of(60, 3), 5, axis=0)
    labels = np.repeat(random.choice(["a", "b"], 60), 5)
    names = [str(i // 5) for i in range(300)]

    def right(**columns):
        found = answers(context(labels.tolist(), **columns), vectors)
        return (np.array(["a", "b"])[found.probabilities.argmax(axis=1)] == labels).mean()

    assert right() > 0.75
    assert right(digest=names) < 0.65
    assert right(group=names) < 0.65


def test_too_few_images_are_not_answered():
    assert len(answers(context(["a", "b", "a"]), features_of(3)).rows) == 0
    assert len(answers(context(["a"] * 30), features_of(30)).rows) == 0
    assert len(answers(context([None] * 3), features_of(3)).rows) == 0
