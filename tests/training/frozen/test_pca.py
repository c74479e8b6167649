"""Principal and kernel components against NumPy's own decompositions and numbers made by hand."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from kindsight.training.frozen import pca as module
from kindsight.training.frozen.pca import fit_nystroem, fit_pca


def generator(seed=0):
    return np.random.Generator(np.random.Philox(seed))


def project(features, components=512, weights=None, seed=0):
    features = np.asarray(features, np.float32)
    weights = np.ones(features.shape[1]) if weights is None else weights
    return fit_pca(features, np.asarray(weights, np.float32), components, generator(seed))


def standardised(features, weights=1.0):
    """The documented scaling in float64: standardised, weighted, mean square row norm 1."""
    features = np.asarray(features, np.float64)
    rows = (features - features.mean(0)) / features.std(0) * weights
    return rows / np.sqrt(np.square(rows).sum(1).mean())


def low_rank(images=200, columns=100, noise=0.02, seed=0):
    """Rows that vary in three directions, by clearly different amounts, and a little in all."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(images, 3)) * [5, 2.5, 1.2]
    mixing = np.linalg.qr(random.normal(size=(columns, 3)))[0].T
    return (hidden @ mixing + noise * random.normal(size=(images, columns)) + 7).astype(np.float32)


def test_three_images_by_hand():
    # The means are 2 and 20, the deviations √(2/3) and 10 √(2/3): both columns become -√1.5, 0,
    # √1.5. The mean square norm is (3 + 0 + 3) / 3 = 2, so all is divided by √2. One direction,
    # (1, 1) / √2, holds everything: -√1.5, 0, √1.5 or the opposite.
    features = np.array([[1, 10], [2, 20], [3, 30]], np.float32)
    fitted = project(features)
    components = fitted.apply(features)
    assert components.shape == (3, 1) and components.dtype == np.float32
    assert np.abs(components[:, 0]) == pytest.approx([np.sqrt(1.5), 0, np.sqrt(1.5)], abs=1e-5)
    assert components[0, 0] == pytest.approx(-components[2, 0], abs=1e-5)
    # A fourth image, never seen: one and a half steps on in the first column, back in the other.
    new = fitted.apply(np.array([[3.5, 5]], np.float32))
    assert new[0] == pytest.approx(np.zeros(1), abs=1e-5)


def test_two_images_three_columns_by_hand():
    # Standardised, the rows are (-1, 1, 1) and (1, -1, -1), of norm √3: divided, and rotated into
    # the one direction there is, they lie at -1 and 1.
    components = project([[0, 5, 9], [4, 1, 8]]).apply(np.array([[0, 5, 9], [4, 1, 8]], np.float32))
    assert sorted(components[:, 0]) == pytest.approx([-1, 1], abs=1e-5)
    np.testing.assert_allclose(components[:, 1:], 0, atol=1e-5)


def test_weights_of_columns_by_hand():
    # Rows (±1, ±1) after standardising, the second column three times as heavy: norm √10.
    features = np.array([[1, 2], [-1, 2], [1, -2], [-1, -2]], np.float32)
    components = project(features, weights=[1, 3]).apply(features)
    sizes = np.sqrt(np.square(components).mean(0))
    assert sizes == pytest.approx([3 / np.sqrt(10), 1 / np.sqrt(10)], rel=1e-5)


@pytest.mark.parametrize(("images", "columns"), [(200, 100), (60, 150), (500, 40), (150, 60)])
def test_same_components_as_an_exact_decomposition(images, columns):
    features = low_rank(images, columns)
    components = project(features, 3).apply(features)
    left, values, _ = np.linalg.svd(standardised(features), full_matrices=False)
    wanted = left[:, :3] * values[:3]
    signs = np.sign((components * wanted).sum(0))
    np.testing.assert_allclose(components * signs, wanted, atol=2e-3)


@pytest.mark.parametrize(("images", "columns"), [(20, 90), (90, 20), (30, 30)])
def test_all_components_preserve_distances(images, columns):
    features = np.random.default_rng(1).normal(size=(images, columns)).astype(np.float32)
    components = project(features).apply(features)
    assert components.shape[1] <= min(images, columns)
    rows = standardised(features)
    np.testing.assert_allclose(components @ components.T, rows @ rows.T, atol=2e-4)


def test_components_are_uncorrelated_centred_and_largest_first():
    features = low_rank(300, 80, noise=0.3)
    components = project(features, 20).apply(features).astype(np.float64)
    products = components.T @ components / 300
    sizes = np.diag(products)
    assert (np.diff(sizes) <= 1e-7).all() and sizes[0] > 5 * sizes[-1]
    correlations = products / np.sqrt(np.outer(sizes, sizes))
    assert np.abs(correlations - np.eye(20)).max() < 0.02
    assert np.abs(components.mean(0)).max() < 1e-5


def test_directions_are_orthonormal():
    features = low_rank(300, 80, noise=0.3)
    spread = features.std(0, dtype=np.float64)
    rows = (features - features.mean(0, dtype=np.float64)) / spread
    norm = np.sqrt(np.square(rows).sum(1).mean())
    directions = project(features, 20).kernel * spread[:, None] * norm
    np.testing.assert_allclose(directions.T @ directions, np.eye(20), atol=1e-4)


def test_scale_and_offset_of_columns_do_not_matter():
    features = low_rank(100, 30, noise=0.3)
    random = np.random.default_rng(5)
    other = features * random.uniform(0.01, 100, 30) + random.normal(size=30)
    one = project(features, 3).apply(features)
    two = project(other, 3).apply(other.astype(np.float32))
    np.testing.assert_allclose(two * np.sign((one * two).sum(0)), one, atol=2e-3)


def test_a_constant_column_is_dropped():
    features = low_rank(50, 12, noise=0.5)
    features[:, 3] = 0
    features[:, 7] = 12345.678
    # Rounding of float32 around a large constant is no variation either.
    features[:, 9] = 1e6 + np.random.default_rng(0).choice([0, 0.0625], 50)
    fitted = project(features)
    assert np.isfinite(fitted.kernel).all() and np.isfinite(fitted.bias).all()
    assert not fitted.kernel[[3, 7, 9]].any()
    assert fitted.kernel[[0, 1, 2]].any(1).all()
    rows = standardised(np.delete(features, [3, 7, 9], 1))
    components = fitted.apply(features)
    np.testing.assert_allclose(components @ components.T, rows @ rows.T, atol=5e-4)


def test_a_column_with_weight_0_is_dropped():
    features = low_rank(50, 12, noise=0.5)
    weights = np.ones(12)
    weights[:8] = 0
    fitted = project(features, weights=weights)
    assert not fitted.kernel[:8].any()
    rows = standardised(features[:, 8:])
    components = fitted.apply(features)
    np.testing.assert_allclose(components @ components.T, rows @ rows.T, atol=2e-4)


@pytest.mark.filterwarnings("error")
def test_identical_images_give_finite_components():
    features = np.full((6, 5), 3.25, np.float32)
    components = project(features).apply(features)
    assert len(components) == 6
    np.testing.assert_array_equal(components, np.zeros_like(components))


def test_many_images_use_the_statistics_of_all(monkeypatch):
    monkeypatch.setattr(module, "BASIS_ROWS", 60)
    features = low_rank(400, 50)
    features[200:] += 3
    components = project(features, 4).apply(features)
    assert np.abs(components.mean(0)).max() < 1e-4
    wanted = standardised(features)
    # The directions come from some of the rows, so nearly all of the variation is still held.
    _, left, _, _ = np.linalg.lstsq(components.astype(np.float64), wanted, rcond=None)
    assert left.sum() < 0.03 * np.square(wanted).sum()
    # So does the scale, which must come near.
    assert np.square(components).sum(1).mean() == pytest.approx(1, abs=0.2)


def test_same_seed_same_bits():
    features = low_rank(150, 80, noise=0.3)
    one, two = project(features, 9), project(features, 9)
    assert one.kernel.tobytes() == two.kernel.tobytes()
    assert one.bias.tobytes() == two.bias.tobytes()


def test_order_of_images_does_not_matter_but_for_rounding():
    features = low_rank(150, 40, noise=0.1)
    order = np.random.default_rng(2).permutation(150)
    one = project(features, 3).apply(features)
    two = project(features[order], 3).apply(features)
    signs = np.sign((one * two).sum(0))
    np.testing.assert_allclose(two * signs, one, atol=2e-3)


def points(count=40, columns=6, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, columns)).astype(np.float32)
    return rows / np.sqrt(columns)


def exact_kernel(one, two, gamma):
    return np.exp(-gamma * cdist(one.astype(np.float64), two.astype(np.float64), "sqeuclidean"))


@pytest.mark.parametrize("gamma", [0.1, 0.7, 3.0])
def test_all_images_as_landmarks_give_the_exact_kernel(gamma):
    rows = points()
    mapping = fit_nystroem(rows, 1000, gamma, generator())
    columns = (mapping.apply(rows) + mapping.mean).astype(np.float64)
    np.testing.assert_allclose(columns @ columns.T, exact_kernel(rows, rows, gamma), atol=1e-3)


def test_few_landmarks_give_nystroems_approximation():
    rows, new = points(200), points(30, seed=9)
    mapping = fit_nystroem(rows, 25, 0.7, generator())
    assert mapping.landmarks.shape == (25, 6)
    found = cdist(mapping.landmarks, rows).min(1)
    assert (found == 0).all()  # each of them is one of the images, and none comes twice
    assert len(np.unique(mapping.landmarks, axis=0)) == 25
    columns = (mapping.apply(new) + mapping.mean).astype(np.float64)
    cross = exact_kernel(new, mapping.landmarks, 0.7)
    inside = exact_kernel(mapping.landmarks, mapping.landmarks, 0.7)
    wanted = cross @ np.linalg.pinv(inside, rcond=1e-5) @ cross.T
    np.testing.assert_allclose(columns @ columns.T, wanted, atol=2e-3)


def test_kernel_values_by_hand():
    rows = np.array([[0, 0], [3, 4], [0, 0.5]], np.float32)
    mapping = fit_nystroem(rows, 3, 0.1, generator())
    order = [int(cdist(rows, landmark[None]).argmin()) for landmark in mapping.landmarks]
    values = mapping.kernel(rows[:1])[0][np.argsort(order)]
    assert values == pytest.approx([1, np.exp(-2.5), np.exp(-0.025)], rel=1e-5)


def test_kernel_components_are_centred_on_the_landmarks():
    rows = points(60)
    mapping = fit_nystroem(rows, 1000, 0.7, generator())
    assert np.abs(mapping.apply(rows).mean(0)).max() < 1e-4
    assert np.abs(mapping.mean).max() > 0.01


def test_duplicates_give_finite_kernel_components():
    rows = np.repeat(points(10), 3, axis=0)
    mapping = fit_nystroem(rows, 1000, 0.7, generator())
    columns = mapping.apply(rows)
    assert columns.shape[1] <= 10 and np.isfinite(columns).all()
    shifted = (columns + mapping.mean).astype(np.float64)
    np.testing.assert_allclose(shifted @ shifted.T, exact_kernel(rows, rows, 0.7), atol=1e-3)


def test_same_seed_same_landmarks():
    rows = points(100)
    one, two, other = (fit_nystroem(rows, 20, 0.7, generator(seed)) for seed in (1, 1, 2))
    assert one.apply(rows).tobytes() == two.apply(rows).tobytes()
    assert not np.array_equal(one.landmarks, other.landmarks)


def test_a_column_that_hardly_varies_is_not_scaled_up():
    # The mean is 1000, the deviation 0.1: a ten-thousandth. It counts as a thousandth, 1, so that
    # its rows are a tenth of a standardised column's: ±0.1 compared with ±1.
    features = np.array([[999.9, 1], [1000.1, 1], [999.9, 3], [1000.1, 3]], np.float32)
    sizes = np.sqrt(np.square(project(features).apply(features)).mean(0))
    assert sizes == pytest.approx(np.array([1, 0.1]) / np.sqrt(1.01), rel=1e-3)


def test_a_column_far_smaller_than_its_layer_is_not_scaled_up():
    # Sizes of the first layer: √((4.9e9 + 1e-9) / 2) about 5e4, a ten-thousandth of which is 5.
    # Its second column deviates by 1 and counts as a fifth; so does none of the other layer.
    features = np.array([[7e4, 1, 1], [-7e4, 1, 1], [7e4, -1, 1], [-7e4, -1, -3]], np.float32)

    def kernel(layers):
        fitted = fit_pca(features, np.ones(3, np.float32), 3, generator(), layers)
        return np.sqrt(np.square(fitted.kernel).sum(1))

    one, other = kernel([slice(0, 2), slice(2, 3)]), kernel([])
    size = 1e-4 * np.sqrt((7e4**2 + 1) / 2)
    assert (one / one[0])[1] == pytest.approx((other / other[0])[1] / size, rel=1e-3)
    assert (one / one[0])[2] == pytest.approx((other / other[0])[2], rel=1e-3)
