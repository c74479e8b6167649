"""Subsets, and the learning curve of heads that are refitted on them."""

import numpy as np
import pytest

from kindsight.errors import DatasetError
from kindsight.evaluation.learning_curve import CurveErrors, fit_learning_curve
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.training.frozen.learning_curve import (
    LabelledFeatures,
    measure_learning_curve,
    nested_order,
    subset_sizes,
)
from kindsight.training.frozen.softmax import Candidate

LINEAR = Candidate("linear", "all", 0.01, 0.0, 1.0, 0.0, 1.0)


def made(vectors, targets, **changes):
    n, width = vectors.shape
    layout = FeatureLayout((FeatureBlock("top_mean", 0, width),))
    given = {
        "groups": np.arange(n), "held_out": None, "keys": [str(row) for row in range(n)],
        "layout": layout, "head": LINEAR,
    }  # fmt: skip
    return LabelledFeatures(
        vectors.astype(np.float32), targets, int(targets.max()) + 1, **{**given, **changes}
    )


def blobs(n, classes, spread, seed=0, width=12):
    generator = np.random.default_rng(seed)
    targets = np.arange(n) % classes
    centres = generator.normal(size=(classes, width))
    return centres[targets] + spread * generator.normal(size=(n, width)), targets


def test_every_beginning_has_the_proportions_of_all():
    targets = np.repeat([0, 1, 2], [600, 300, 100])
    order = nested_order(targets, np.arange(1000), (0, 0, 0))
    assert sorted(order) == list(range(1000))
    for size in (50, 200, 700):
        counts = np.bincount(targets[order[:size]], minlength=3)
        assert counts == pytest.approx(size * np.array([0.6, 0.3, 0.1]), abs=4)


def test_a_rare_class_is_in_the_first_subset():
    targets = np.repeat([0, 1], [500, 3])
    for seed in range(5):
        assert (targets[nested_order(targets, np.arange(503), (seed, 0, 0))[:8]] == 1).sum() >= 2


def test_images_of_a_group_follow_each_other():
    targets, groups = np.arange(60) % 3, np.arange(60) // 6
    order = nested_order(targets, groups, (1, 2, 3))
    assert (np.diff(groups[order]) != 0).sum() == 9
    assert not np.array_equal(order, nested_order(targets, groups, (1, 2, 4)))


def test_more_images_are_better_and_the_law_extrapolates():
    vectors, targets = blobs(600, 3, 1.6)
    errors = measure_learning_curve(made(vectors, targets))
    assert len(errors.targets) == 600
    assert errors.means[0] > errors.means[-1] + 0.03
    assert errors.sizes[-1] == 480
    curve = fit_learning_curve(errors, 480, ("a", "b", "c"))
    more, targets = blobs(4600, 3, 1.6)
    held_out = np.arange(4600) >= 960
    truth = measure_learning_curve(made(more, targets, held_out=held_out))
    _, low, high = curve.accuracy(960)
    assert low <= 1 - truth.means[-1] <= high
    values = curve.to_dict()
    assert [entry["name"] for entry in values["classes"]] != []
    assert values["double"]["low"] <= values["double"]["gain"] <= values["double"]["high"]
    assert "(960 instead of 480)" in values["sentence"]


def test_a_group_is_never_on_both_sides():
    # Every image exists four times and has a random label: only a copy tells it.
    generator = np.random.default_rng(0)
    vectors = np.repeat(generator.normal(size=(60, 80)), 4, axis=0)
    targets = np.repeat(generator.permutation(np.arange(60) % 2), 4)
    alone = measure_learning_curve(made(vectors, targets))
    grouped = measure_learning_curve(made(vectors, targets, groups=np.repeat(np.arange(60), 4)))
    assert alone.means[-1] < 0.1
    assert grouped.means[-1] > 0.3


def test_a_given_split_is_kept():
    vectors, targets = blobs(300, 2, 1.0)
    held_out = np.arange(300) >= 200
    errors = measure_learning_curve(made(vectors, targets, held_out=held_out))
    assert len(errors.targets) == 100
    assert errors.sizes[-1] == 200
    assert len(np.unique(errors.folds)) == 1


def test_the_variance_of_independent_images_is_that_of_a_proportion():
    generator = np.random.default_rng(1)
    wrong = (generator.uniform(size=(2, 1, 4000)) < [[[0.3]], [[0.1]]]).astype(np.float32)
    n = np.zeros(4000, np.int64)
    errors = CurveErrors(
        np.array([100, 200]), wrong, n, n, np.arange(4000), np.array([[100.0], [200.0]])
    )
    assert np.diag(errors.covariance()) == pytest.approx([1 / 16_000] * 2, rel=0.02)
    assert abs(errors.covariance()[0, 1]) < 0.1 / 16_000


def test_four_copies_are_one_observation():
    generator = np.random.default_rng(1)
    wrong = np.repeat(generator.uniform(size=(2, 1, 1000)) < [[[0.3]], [[0.1]]], 4, axis=2)
    n, sizes = np.zeros(4000, np.int64), np.array([100, 200])
    errors = CurveErrors(
        sizes, wrong.astype(np.float32), n, n, np.repeat(np.arange(1000), 4), sizes[:, None] * 1.0
    )
    assert np.diag(errors.covariance()) == pytest.approx([1 / 4000] * 2, rel=0.02)


def test_few_held_out_images_of_a_class_tell_nothing():
    vectors, targets = blobs(200, 2, 1.0)
    keep = (targets == 0) | (np.arange(200) < 12)
    errors = measure_learning_curve(made(vectors[keep], targets[keep]))
    curve = fit_learning_curve(errors, 80, ("many", "few"))
    assert curve.classes[-1].name == "few"
    assert curve.classes[-1].double is None
    assert "too few" in curve.classes[-1].sentence()


def test_too_few_images_are_refused_with_the_number_needed():
    with pytest.raises(DatasetError, match="at least 80 training images for 10 classes"):
        subset_sizes(60, 10)
    assert subset_sizes(1000, 2)[-1] == 1000
