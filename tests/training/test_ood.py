"""The out-of-distribution score, against scikit-learn's covariances, and on degenerate features."""

import numpy as np
import pytest
from sklearn.covariance import shrunk_covariance
from sklearn.metrics import pairwise_distances

from kindsight.training.held_out import HeldOutPredictions
from kindsight.training.ood import fit_score, known_threshold

FOLDS = 5


def held_out(targets, folds=None):
    targets = np.asarray(targets)
    rows = np.arange(len(targets))
    folds = rows % FOLDS if folds is None else np.asarray(folds)
    return HeldOutPredictions(rows, np.zeros((len(rows), 2), np.float32), targets, 1.0, folds, "x")


def classes_apart(count=200, width=12, seed=0):
    random = np.random.default_rng(seed)
    targets = np.arange(count) % 3
    mixed = random.normal(size=(count, width)) @ random.normal(size=(width, width))
    features = 4 * random.normal(size=(3, width))[targets] + mixed
    return (features * random.uniform(0.1, 50, width) + 7).astype(np.float32), targets


def distances(points, train, targets):
    """Return the squared distance to the nearest class, by scikit-learn."""
    means = np.stack([train[targets == k].mean(0) for k in np.unique(targets)])
    residuals = train - means[np.searchsorted(np.unique(targets), targets)]
    # Adding 0.3 of the mean variance is shrinking by 0.3 / 1.3, times 1.3.
    covariance = 1.3 * shrunk_covariance(residuals.T @ residuals / len(train), 0.3 / 1.3)
    inverse = np.linalg.inv(covariance)
    return pairwise_distances(points, means, metric="mahalanobis", VI=inverse).min(1) ** 2


def test_score_is_the_shrunk_mahalanobis_distance_to_the_nearest_class():
    features, targets = classes_apart()
    fitted = fit_score(features, held_out(targets), seed=3)
    mean, variance = features.mean(0, np.float64), features.var(0, dtype=np.float64)
    deviation = np.sqrt(variance + 0.09 * variance.mean())
    rows = (features - mean) / deviation
    wanted = np.empty(len(rows))
    for fold in range(FOLDS):
        held = np.arange(len(rows)) % FOLDS == fold
        wanted[held] = distances(rows[held], rows[~held], targets[~held])
    unit = np.median(wanted)
    np.testing.assert_allclose(fitted.held_out, wanted / unit, rtol=1e-3)
    new = rows[:9] + 1
    np.testing.assert_allclose(
        fitted.score(mean + new * deviation), distances(new, rows, targets) / unit, rtol=1e-3
    )


def test_features_that_few_images_have_do_not_make_known_images_unknown():
    # As in a network: rectified, and some of the 2,000 positive on hardly any of the 100 images.
    # Without an added deviation, 47 to 70% of the new images are kept.
    kept = []
    for seed in range(3):
        random = np.random.default_rng(seed)
        hidden = random.normal(size=(600, 40)) @ random.normal(size=(40, 2000)) / np.sqrt(40)
        noise = 0.3 * random.normal(size=hidden.shape) - random.uniform(0, 2, 2000)
        features = np.maximum(hidden + noise, 0).astype(np.float32)
        fitted = fit_score(features[:100], held_out(np.arange(100) % 2), seed=0)
        threshold = known_threshold(fitted.held_out, 0.95)
        kept.append((fitted.score(features[100:]) <= threshold).mean())
    assert np.mean(kept) > 0.88


def test_many_features_are_projected_and_foreign_images_score_higher():
    random = np.random.default_rng(1)
    basis = random.normal(size=(40, 3000))
    features = (random.normal(size=(300, 40)) @ basis).astype(np.float32)
    new = (random.normal(size=(400, 40)) @ basis).astype(np.float32)
    foreign = (random.normal(size=(200, 40)) @ random.normal(size=(40, 3000))).astype(np.float32)
    targets = np.arange(300) % 2
    fitted = fit_score(features, held_out(targets), seed=0)
    assert fitted.score.project_kernel.shape == (3000, 256)
    threshold = known_threshold(fitted.held_out, 0.95)
    assert 0.9 <= (fitted.score(new) <= threshold).mean() <= 1
    assert (fitted.score(foreign) > threshold).all()
    # The unit: a typical new image has a score of about 1.
    assert np.median(fitted.score(new)) == pytest.approx(1, abs=0.15)


def test_the_same_seed_gives_the_same_score_whatever_the_layout_of_the_array():
    features = np.random.default_rng(2).normal(size=(60, 400)).astype(np.float32)
    targets = np.arange(60) % 2
    one, same = (
        fit_score(array, held_out(targets), seed=5).score.project_kernel
        for array in (features, np.asfortranarray(features).copy("C"))
    )
    np.testing.assert_array_equal(one, same)
    other = fit_score(features, held_out(targets), seed=6).score.project_kernel
    assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    "features",
    [
        np.ones((10, 5)),
        np.zeros((10, 600)),
        np.eye(10, 700),
        np.concatenate([np.ones((9, 4)), 1e6 * np.ones((1, 4))]),
        1e30 * np.random.default_rng(0).normal(size=(10, 3)),
    ],
)
def test_degenerate_features_give_finite_scores(features):
    targets = np.array([0] * 9 + [1])  # one image of a class, held out in turn
    fitted = fit_score(features.astype(np.float32), held_out(targets), seed=0)
    assert np.isfinite(fitted.held_out).all()
    assert np.isfinite(fitted.score(features)).all()
    assert np.isfinite(known_threshold(fitted.held_out, 0.95))


def test_two_images_of_two_classes_have_a_score():
    features = np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)
    fitted = fit_score(features, held_out([0, 1], [0, 1]), seed=0)
    assert np.isfinite(fitted.held_out).all() and np.isfinite(fitted.score(features)).all()


def test_threshold_keeps_the_stated_fraction_of_new_images():
    random = np.random.default_rng(0)
    kept = [
        (random.normal(size=1000) <= known_threshold(random.normal(size=99), 0.95)).mean()
        for _ in range(300)
    ]
    assert np.mean(kept) == pytest.approx(0.95, abs=0.005)
    # Of 19 images, the 20th of 20 quantiles does not exist: the largest score, and a thousandth.
    assert known_threshold(np.arange(19.0), 0.95) == pytest.approx(18.018)
    assert known_threshold(np.arange(10.0), 0.95) == pytest.approx(9.009)


def test_rounding_in_another_runtime_does_not_make_an_image_unknown():
    scores = np.array([2.0, -3.0, 5.0])
    for known_kept, score in ((0.2, -3.0), (0.5, 2.0), (0.9, 5.0)):
        threshold = known_threshold(scores, known_kept)
        assert score + 5e-4 * abs(score) < threshold < score + 2e-3 * abs(score)


def test_the_entry_in_the_bundle():
    features, targets = classes_apart(40)
    fitted = fit_score(features, held_out(targets), seed=0)
    part = fitted.to_dict(0.9)
    assert part["threshold"] == known_threshold(fitted.held_out, 0.9)
    assert (part["known_kept"], part["images"], part["source"]) == (0.9, 40, "x")
    rows = np.array([3, 50])
    found = fitted.scores(rows, features[[3, 4]])
    assert found.tolist() == [fitted.held_out[3], pytest.approx(fitted.score(features[4:5])[0])]
