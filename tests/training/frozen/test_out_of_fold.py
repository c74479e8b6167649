"""Out-of-fold predictions, for finding wrong labels."""

from __future__ import annotations

import numpy as np
import pytest

from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.training.frozen.select_head import predict_out_of_fold

LAYOUT = FeatureLayout((FeatureBlock("stage_mean", 0, 12), FeatureBlock("top_mean", 12, 20)))


def clouds(each=60, apart=3.0):
    random = np.random.default_rng(0)
    targets = np.repeat(np.arange(3), each)
    centres = random.normal(0, apart, (3, 20))
    vectors = centres[targets] + random.normal(size=(len(targets), 20))
    return vectors.astype(np.float32), targets, np.arange(len(targets)) % 5


def test_out_of_fold_predictions_are_accurate_probabilities():
    vectors, targets, folds = clouds()
    found = predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=folds)
    assert found.shape == (180, 3) and found.dtype == np.float32
    assert found.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (found.argmax(axis=1) == targets).mean() > 0.98
    assert np.array_equal(found, predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=folds))


def test_a_wrong_label_is_not_predicted():
    vectors, targets, folds = clouds()
    wrong = targets.copy()
    wrong[[5, 70, 130]] = [1, 2, 0]
    found = predict_out_of_fold(vectors, wrong, 3, LAYOUT, folds=folds)
    assert found[[5, 70, 130]].argmax(axis=1).tolist() == [0, 1, 2]


def test_random_labels_are_not_memorised():
    """Noise with random labels: a head fitted on them would classify them correctly."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(150, 20)).astype(np.float32)
    targets = random.integers(0, 3, 150)
    found = predict_out_of_fold(vectors, targets, 3, LAYOUT, folds=np.arange(150) % 5)
    assert (found.argmax(axis=1) == targets).mean() < 0.5
