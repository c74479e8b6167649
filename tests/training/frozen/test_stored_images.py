"""Images stored with their features, and the fraction outside the crop."""

import numpy as np
import pytest

from kindsight.images import InputSpec
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.stored_images import cropped_fraction, read_stored, to_jpeg


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "t.sqlite"
    grey = np.full((8, 8, 3), 90, np.uint8)
    vector = np.zeros(2, np.float32)
    rows = [
        FeatureRow("wide", vector, to_jpeg(grey), 100, 200),
        FeatureRow("tall", vector, to_jpeg(grey), 400, 100),
        FeatureRow("square", vector, to_jpeg(grey), 50, 50),
        FeatureRow("bad", None, code="corrupt", reason="It is damaged."),
    ]
    with_rows = FeatureTable(path, 2)
    with_rows.put(rows)
    with_rows.close()
    return path


def test_cropped_fraction_by_hand(table):
    # Half of the wide one is left, a quarter of the tall one, all of the square one.
    spec = InputSpec(8, 8, fit="crop")
    assert cropped_fraction(table, 2, ["wide"], spec) == pytest.approx(0.5)
    assert cropped_fraction(table, 2, ["tall", "bad"], spec) == pytest.approx(0.75)
    every = ["wide", "tall", "square"]
    assert cropped_fraction(table, 2, every, spec) == pytest.approx(1 - (0.5 + 0.25 + 1) / 3)


def test_a_crop_of_the_same_proportions_cuts_nothing_off(table):
    assert cropped_fraction(table, 2, ["wide"], InputSpec(8, 16, fit="crop")) == pytest.approx(0)


@pytest.mark.parametrize("fit", ["stretch", "pad"])
def test_only_a_crop_cuts(table, fit):
    assert cropped_fraction(table, 2, ["wide", "tall"], InputSpec(8, 8, fit=fit)) == 0


def test_stored_images_are_in_the_order_of_the_digests(table):
    tall, bad, wide = read_stored(table, 2, ["tall", "bad", "wide"])
    assert (tall.height, tall.width, wide.height, wide.width) == (400, 100, 100, 200)
    assert bad is None
    assert np.abs(tall.pixels.astype(int) - 90).max() <= 2
