"""The map of images: principal components, t-SNE and the grid."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness

from kindsight.explain.similarity import grid_side, map_images, principal_components, spread_on_grid
from kindsight.explain.similarity import t_sne as place


def groups(count: int = 90) -> tuple[np.ndarray, np.ndarray]:
    """Return points of three groups in ten dimensions, and their group."""
    random = np.random.default_rng(0)
    group = np.arange(count) % 3
    return random.normal(size=(count, 10)) + 6 * np.eye(3, 10)[group], group


def test_principal_components_are_those_of_scikit_learn():
    values, _ = groups()
    reference = PCA(4).fit(values)
    found, fractions = principal_components(values, 4)
    np.testing.assert_allclose(np.abs(found), np.abs(reference.transform(values)), atol=1e-8)
    np.testing.assert_allclose(fractions, reference.explained_variance_ratio_, rtol=1e-10)


def test_more_components_than_images_are_zeros():
    found, fractions = principal_components(np.eye(3), 5)
    assert found.shape == (3, 5)
    np.testing.assert_allclose(found[:, 3:], 0)
    assert fractions.sum() == pytest.approx(1)


def test_t_sne_keeps_neighbours_together():
    values, group = groups()
    positions = place(principal_components(values, 10)[0])
    distances = np.square(positions[:, None] - positions[None]).sum(axis=2)
    np.fill_diagonal(distances, np.inf)
    nearest = np.argsort(distances, axis=1)[:, :5]
    assert (group[nearest] == group[:, None]).mean() > 0.95
    assert trustworthiness(values, positions, n_neighbors=10) > 0.85
    np.testing.assert_array_equal(positions, place(principal_components(values, 10)[0]))


@given(st.integers(3, 60), st.integers(0, 10))
def test_every_image_has_a_cell_of_its_own(count, seed):
    points = np.random.default_rng(seed).normal(size=(count, 2)).round(1)
    side = grid_side(count)
    placed = spread_on_grid(points)
    cells = placed * side - 0.5
    np.testing.assert_allclose(cells, np.rint(cells), atol=1e-9)
    assert cells.min() >= 0 and cells.max() <= side - 1
    assert len({(round(x), round(y)) for x, y in cells}) == count


@pytest.mark.parametrize(("count", "method"), [(2, None), (5, "PCA"), (40, "t-SNE")])
def test_map_of_few_images(count, method):
    values, _ = groups(count)
    found = map_images("validation", [f"{i}.png" for i in range(count)], values)
    if method is None:
        assert found is None
        return
    assert (found.split, found.method) == ("validation", method)
    assert [image.path for image in found.images] == [f"{i}.png" for i in range(count)]
    assert (found.explained is not None) == (method == "PCA")


def test_identical_images_can_be_mapped():
    found = map_images("test", [str(i) for i in range(20)], np.ones((20, 4)))
    assert len({(image.x, image.y) for image in found.images}) == 20
