"""Out-of-fold answers: of heads that have not seen the image, and not fooled by wrong labels."""

from __future__ import annotations

import numpy as np
import pytest

from kindsight.models.backbones.layout import FeatureBlock, FeatureLayout
from kindsight.training.frozen.select_head import predict_out_of_fold

LAYOUT = FeatureLayout((FeatureBlock("stage_mean", 0, 12), FeatureBlock("top_mean", 12, 20)))


def clouds(each=60, apart=3.0):
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), each)
    centres = random.normal(0, apart, (3, 20))
    vectors = centres[targets] + random.normal(size=(len(targets), 20))
    return vectors.astype(np.float32), targets, np.arange(len(targets)) % 5


def test_answers_are_probabilities_and_right_where_classes_are_apart():
    vectors, targets, folds = clouds()
    found = predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=folds)
    assert found.shape == (180, 3) and found.dtype == np.float64
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found.argmax(axis=1) == targets).mean() > 0.98
    assert np.array_equal(found, predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=folds))


def test_a_wrong_label_is_contradicted():
    vectors, targets, folds = clouds()
    wrong = targets.copy()
    wrong[[5, 70, 130]] = [1, 2, 0]
    found = predict_out_of_fold(vectors, wrong, 3, LAYOUT, folds=folds)
    assert found[[5, 70, 130]].argmax(axis=1).tolist() == [0, 1, 2]


def test_what_was_held_out_was_not_seen():
    """Images of noise whose labels are drawn: seen, they would be known by heart."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(150, 20)).astype(np.float32)
    targets = random.integers(0, 3, 150)
    found = predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=np.arange(150) % 5)
    assert (found.argmax(axis=1) == targets).mean() < 0.5
