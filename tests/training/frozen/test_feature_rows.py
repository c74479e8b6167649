"""Features read in blocks, from memory and from the cache."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import numpy as np
import pytest

from kindsight.cache.sqlite_table import LostTableError
from kindsight.training.frozen import feature_rows, select_head, softmax
from kindsight.training.frozen.column_store import ColumnStore
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.pca import fit_nystroem, fit_pca
from kindsight.training.frozen.softmax import fit_softmax

VALUES = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)


@pytest.fixture(params=["memory", "cache"])
def rows(request, tmp_path, monkeypatch):
    monkeypatch.setattr(feature_rows, "BLOCK", 7)
    monkeypatch.setattr(feature_rows, "IN_MEMORY", 10**9 if request.param == "memory" else 0)
    with closing(FeatureTable(tmp_path / "net.sqlite", 6)) as table:
        digests = [f"{n:02d}" for n in range(30)]
        table.put(
            [FeatureRow(digest, value) for digest, value in zip(digests, VALUES, strict=True)]
        )
        yield FeatureRows.of_table(table, digests)
        with pytest.raises(LostTableError):
            FeatureRows.of_table(table, ["00", "lost"])


def test_rows_are_those_of_the_table(rows):
    wide = VALUES
    assert len(rows) == 30 and rows.shape == (30, 6) and rows[:].dtype == np.float32
    np.testing.assert_array_equal(rows[:], wide)
    np.testing.assert_array_equal(np.asarray(rows), wide)
    np.testing.assert_array_equal(rows[4], wide[4])
    np.testing.assert_array_equal(rows[::-3], wide[::-3])
    np.testing.assert_array_equal(rows[np.array([5, 5, 1])], wide[[5, 5, 1]])
    some = rows.take(np.arange(30) % 2 == 1).of_columns(slice(1, 5)).of_columns(slice(2, 4))
    assert some.shape == (15, 2)
    np.testing.assert_array_equal(some[2:4], wide[1::2, 3:5][2:4])


def test_a_function_is_applied_in_blocks(rows):
    sizes = []

    def first_two(block):
        sizes.append(len(block))
        return block[:, :2] * 2

    np.testing.assert_array_equal(rows.map(first_two), VALUES[:, :2] * 2)
    assert sizes == [7, 7, 7, 7, 2]
    assert rows.map(first_two, np.float16).dtype == np.float16
    assert rows.take(np.array([], np.int64)).map(first_two).shape == (0, 2)


def test_features_are_combined_where_they_are_read(rows, monkeypatch):
    half = FeatureRows.combined([rows, rows.take(np.arange(29, -1, -1))], mean_of)
    np.testing.assert_array_equal(half[:], (VALUES + VALUES[::-1]) / np.float32(2))
    both = FeatureRows.combined([half, rows], partial(np.concatenate, axis=1))
    assert both.shape == (30, 12)
    np.testing.assert_array_equal(
        both.take([3, 1]).of_columns(slice(5, 8))[:],
        np.concatenate([(VALUES + VALUES[::-1]) / np.float32(2), VALUES], axis=1)[[3, 1], 5:8],
    )
    monkeypatch.setattr(feature_rows, "IN_MEMORY", 0)
    read = []

    def count(parts):
        read.append(len(parts[0]))
        return mean_of(parts)

    lazy = FeatureRows.combined([rows, rows], count)
    assert sum(read) == 0
    np.testing.assert_array_equal(lazy[4:9], VALUES[4:9])
    assert sum(read) == 5


def mean_of(both):
    return (both[0] + both[1]) / np.float32(2)


def test_a_fit_in_blocks_is_that_of_all_images(monkeypatch):
    random = np.random.default_rng(1)
    features = random.normal(size=(300, 8)).astype(np.float32)
    targets = (features[:, :3] + random.normal(size=(300, 3))).argmax(1)
    weights = random.uniform(0.5, 2, (2, 300)).astype(np.float32)
    whole = fit_softmax(features, targets, 3, weights, 0.01)
    monkeypatch.setattr(softmax, "BLOCK_IMAGES", 64)
    blocks = fit_softmax(features, targets, 3, weights, 0.01)
    np.testing.assert_allclose(blocks.kernel, whole.kernel, atol=2e-3)
    np.testing.assert_allclose(blocks.bias, whole.bias, atol=2e-3)
    again = fit_softmax(features, targets, 3, weights, 0.01)
    assert again.kernel.tobytes() == blocks.kernel.tobytes()
    half = fit_softmax(features.astype(np.float16), targets, 3, weights, 0.01)
    np.testing.assert_allclose(half.kernel, whole.kernel, atol=5e-3)


@pytest.mark.parametrize("limit", [10**9, 0])
def test_the_columns_of_a_head_are_computed_in_blocks(tmp_path, limit):
    random = np.random.default_rng(2)
    features = random.normal(size=(700, 12)).astype(np.float32)
    pca = fit_pca(features, np.ones(12, np.float32), 8, np.random.default_rng(0))
    nystroem = fit_nystroem(pca.apply(features), 20, 0.7, np.random.default_rng(0))
    store = ColumnStore(tmp_path, limit)
    for fitted, wanted in (
        (None, pca.apply(features)), (nystroem, nystroem.apply(pca.apply(features)))
    ):  # fmt: skip
        with select_head.head_columns(FeatureRows.of(features), pca, fitted, store) as found:
            assert found.shape == wanted.shape and len(found) == 700
            block = found[500:530]
        assert block.dtype == (np.float32 if limit else np.float16)
        exact = 1e-5 if limit else 1e-2
        np.testing.assert_allclose(block, wanted[500:530], atol=exact, rtol=1e-3)
    assert not list(tmp_path.iterdir())
