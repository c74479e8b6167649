"""Principal components under several weightings, against an exact decomposition."""

import tracemalloc

import numpy as np
import pytest

from kindsight.training.frozen import pca as module
from kindsight.training.frozen.pca import WeightedPCA, fit_pca


def generator():
    return np.random.Generator(np.random.Philox(5))


def features_of(images=60, columns=200, seed=0):
    """Rows that vary in eight directions, by clearly different amounts, and a little in all."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(images, 8)) * [9, 7, 5.5, 4, 3, 2.2, 1.6, 1.2]
    rows = hidden @ random.normal(size=(8, columns)) + 0.05 * random.normal(size=(images, columns))
    return (rows * random.uniform(0.1, 30, columns) + 5).astype(np.float32)


def weightings(columns=200):
    early = np.where(np.arange(columns) < 150, 3.0, 1.0)
    last = np.where(np.arange(columns) < 150, 0.0, 1.0)
    apart = np.where(np.arange(columns) % 2, 2.0, 0.5)
    return [w.astype(np.float32) for w in (np.ones(columns), early, last, apart)]


def decomposed(features, weights, count):
    """The components by NumPy's own decomposition, in float64."""
    rows = features.astype(np.float64)
    spread = rows.std(0)
    rows = (rows - rows.mean(0)) / np.where(spread, spread, 1) * (spread > 0) * weights
    rows /= np.sqrt(np.square(rows).sum(1).mean())
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    return (left * values)[:, :count]


def up_to_signs(found, expected):
    return found * np.sign((found * expected).sum(0))


@pytest.mark.parametrize("number", range(4))
def test_components_are_those_of_a_decomposition(number):
    features, every = features_of(), weightings()
    found = WeightedPCA(features, every, 6, generator).components(number)
    expected = decomposed(features, every[number], 6)
    assert found.dtype == np.float32 and found.shape == (60, 6)
    np.testing.assert_allclose(up_to_signs(found, expected), expected, atol=2e-4)


@pytest.mark.parametrize("number", range(4))
def test_the_projection_gives_the_same_components(number):
    features = features_of()
    weighed = WeightedPCA(features, weightings(), 6, generator)
    found = weighed.components(number)
    again = weighed.projection(number).apply(features)
    np.testing.assert_allclose(again, found, atol=2e-4)


@pytest.mark.parametrize("number", range(4))
def test_many_images_are_projected_without_products(number, monkeypatch):
    features, every = features_of(), weightings()
    few = WeightedPCA(features, every, 6, generator)
    monkeypatch.setattr(module, "MAX_PRODUCTS", 59)
    many = WeightedPCA(features, every, 6, generator)
    expected = fit_pca(features, every[number], 6, generator()).apply(features)
    np.testing.assert_array_equal(many.components(number), expected)
    found = up_to_signs(few.components(number), expected)
    np.testing.assert_allclose(found, expected, atol=5e-4)


def test_constant_columns_and_images_all_alike():
    features = features_of()
    features[:, 20:40] = 3.0
    weighed = WeightedPCA(features, weightings(), 4, generator)
    assert not weighed.projection(0).kernel[20:40].any()
    alike = WeightedPCA(np.full((5, 9), 2, np.float32), weightings(9), 4, generator)
    assert not alike.components(0).any()
    assert np.isfinite(alike.projection(0).kernel).all()


def test_no_more_components_than_images_differ():
    # Eleven images, centred, span ten dimensions; noise of the arithmetic is no eleventh.
    features = np.random.default_rng(3).normal(size=(11, 200)).astype(np.float32)
    found = WeightedPCA(features, weightings(), 512, generator).components(0)
    assert found.shape == (11, 10)


def test_features_that_may_be_overwritten_are_not_copied():
    features, every = features_of(300, 4000), weightings(4000)
    peaks, found = [], []
    for overwrite in (False, True):
        given = features.copy()
        tracemalloc.start()
        weighed = WeightedPCA(given, every, 6, generator, overwrite=overwrite)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        found.append([weighed.components(number) for number in range(4)])
        assert np.array_equal(given, features) is not overwrite
    assert peaks[1] < peaks[0] - 0.9 * features.nbytes
    np.testing.assert_array_equal(*found)


def test_products_can_be_freed_before_the_projection():
    features = features_of(300, 400)
    tracemalloc.start()
    one = WeightedPCA(features, weightings(400), 6, generator)
    for number in range(4):
        one.components(number)
    before = tracemalloc.get_traced_memory()[0]
    one.forget_products()
    freed = before - tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert freed > 0.9 * 4 * 4 * 300**2  # four groups of columns
    other = WeightedPCA(features, weightings(400), 6, generator)
    for number in range(4):
        np.testing.assert_array_equal(one.components(number), other.components(number))
        np.testing.assert_array_equal(
            one.projection(number).kernel, other.projection(number).kernel
        )
