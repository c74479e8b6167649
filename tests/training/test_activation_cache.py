"""The activation cache: copies depend on their key only, and are computed once."""

import numpy as np
import pytest

from kindsight.augment import Augment
from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.image_cache import cache_images
from kindsight.images import InputSpec
from kindsight.models.backbones.weights import weights_digest
from kindsight.models.networks.frozen_base import FrozenBase
from kindsight.models.runtime import Interpreter
from kindsight.training.activation_cache import (
    ActivationFile,
    CopyPlan,
    cache_activations,
    map_activations,
)
from kindsight.training.engine.batches import Batches

SPEC = InputSpec(16, 20, fit="crop")
POLICY = Augment(rotation=20)
PLAN = CopyPlan((0, 1), POLICY)
FEATURES = 3
SHAPE = (8, 10, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    import keras

    from kindsight.models.runtime import convert_to_litert

    pixels = keras.Input((16, 20, 3))
    maps = keras.layers.Conv2D(2, 3, 2, "same")(pixels)
    low = keras.layers.GlobalAveragePooling2D()(pixels)
    flat = keras.layers.Concatenate()([low, keras.layers.Flatten()(maps)])
    path = tmp_path_factory.mktemp("base") / "base.tflite"
    path.write_bytes(convert_to_litert(keras.Model(pixels, flat)))
    return FrozenBase(path, "stage4", FEATURES, SHAPE, weights_digest(path), 1.0)


def dataset(count=7):
    pixels = np.random.default_rng(0).integers(0, 256, (count, 16, 20, 3), dtype=np.uint8)
    return ImageDataset.from_arrays(pixels, ["ab"[row % 2] for row in range(count)])


def made(base, folder, data, count, **options):
    counts = np.full(len(data), count) if np.ndim(count) == 0 else np.asarray(count)
    with cache_images(data, SPEC, Cache(folder)) as stored:
        file = ActivationFile(stored, base, SPEC, 3, Cache(folder))
        views = cache_activations(file, PLAN, counts, **options)
        records = map_activations(views.file, FEATURES, SHAPE)
        found = np.array(records[views.rows])
        views.close()
    return views, found


def test_activations_of_flipped_and_augmented_copies(base, tmp_path):
    data = dataset()
    _, found = made(base, tmp_path, data, 2)
    assert found.shape == (7, 3)
    network = Interpreter(base.tflite)
    for row in range(7):
        numbers = network(data.load(row))
        np.testing.assert_array_equal(found[row, 0]["features"], numbers[:FEATURES])
        np.testing.assert_array_equal(
            found[row, 0]["map"], numbers[FEATURES:].reshape(SHAPE).astype(np.float16)
        )
        mirrored = network(np.ascontiguousarray(data.load(row)[:, ::-1]))[FEATURES:].reshape(SHAPE)
        np.testing.assert_array_equal(found[row, 1]["map"], mirrored.astype(np.float16))
    # Another view for each number and image, none the image itself.
    maps = found["map"].reshape(21, -1)
    assert len(np.unique(maps, axis=0)) == 21


def test_activations_do_not_depend_on_order_workers_or_other_images(base, tmp_path):
    data = dataset()
    _, found = made(base, tmp_path / "one", data, 2, workers=1)
    order = np.array([4, 0, 6, 2])
    _, other = made(base, tmp_path / "two", data[order], 2, workers=3)
    np.testing.assert_array_equal(other, found[order])


def test_cached_copies_are_reused_and_others_not_computed(base, tmp_path):
    data = dataset()
    views, _ = made(base, tmp_path, data, [1, 1, 1, 1, 0, 0, -1])
    assert (views.computed, views.reused) == (10, 0)
    assert views.rows[4].tolist()[1] == -1 and views.rows[6].tolist() == [-1, -1]
    views, _ = made(base, tmp_path, data, 2)
    assert (views.computed, views.reused) == (11, 10)
    (entry,) = [item for item in Cache(tmp_path).entries() if item.kind == "activations"]
    assert entry.size > 21 * (8 * 10 * 2 * 2 + FEATURES * 4)


def test_no_round_of_copies_starts_after_the_deadline(base, tmp_path):
    views, found = made(base, tmp_path, dataset(), 5, deadline=0.0)
    assert found.shape == (7, 2) and views.computed == 14


def test_epochs_cycle_through_the_copies():
    places = np.arange(30).reshape(10, 3)
    pixels = np.arange(30, dtype=np.uint8)
    batches = Batches(pixels, places, np.zeros(10, np.int64), 2, 4, Augment(), 1)
    seen = []
    for epoch in (1, 2, 3):
        order = batches.order(epoch)
        made = np.concatenate([batches.make(epoch, s, order).images for s in range(3)])
        assert sorted(made // 3) == list(range(10))
        assert len({int(value) % 3 for value in made}) > 1
        seen += made.tolist()
    assert sorted(seen) == list(range(30))


def test_a_file_that_would_outgrow_the_cache_is_replaced(base, tmp_path):
    data, each = dataset(), 8 * 10 * 2 * 2 + FEATURES * 4

    def make(seed, limit, count=2):
        counts, cache = np.full(len(data), count), Cache(tmp_path, limit=limit)
        with cache_images(data, SPEC, Cache(tmp_path)) as stored:
            views = cache_activations(ActivationFile(stored, base, SPEC, seed, cache), PLAN, counts)
            views.close()
        return views.computed, views.file.stat().st_size // each

    # Images and flips are the same for all seeds; each has seven different random views.
    plain = 7 * 2
    assert make(1, 100_000) == (plain + 7, 21)
    assert make(2, 28 * each) == (7, 28)
    assert make(2, 28 * each) == (0, 28)
    assert make(3, 35 * each - 1) == (plain + 7, 21)
    # What is there already is kept, however full it is.
    assert make(3, 21 * each) == (0, 21) and make(3, 10) == (0, 21)
