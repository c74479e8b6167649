"""Jobs of the Keras worker: a backbone run ahead is reused if the classifier contains it."""

import threading

import numpy as np
import pytest

from kindsight.models.heads import LinearHead
from kindsight.models.keras_jobs import Backbone, predict

SIZE = (10, 8)


def backbone():
    import keras

    pixels = keras.Input((*SIZE, 3), name="pixels")
    maps = keras.layers.Conv2D(4, 3, name="conv", bias_initializer="uniform")(pixels)
    maps = keras.layers.ReLU(6.0, name="relu")(maps)
    statistics = [keras.ops.max(maps, axis=(1, 2)), keras.layers.GlobalAveragePooling2D()(maps)]
    return keras.Model(pixels, keras.layers.Concatenate(name="features")(statistics), name="tiny")


@pytest.fixture
def files(tmp_path):
    """The file of a backbone, and of a classifier with it."""
    from kindsight.models.formats.assemble import write_keras

    model = backbone()
    model.save(tmp_path / "backbone.keras")
    kernel = np.arange(16, dtype=np.float32).reshape(8, 2) / 10
    write_keras(tmp_path / "backbone.keras", LinearHead(kernel, [1, 2]), tmp_path / "model.keras")
    return tmp_path / "backbone.keras", tmp_path / "model.keras"


def load(file):
    import keras

    return keras.models.load_model(file)


def some_pixels(count=11, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *SIZE, 3), np.uint8)


class Spy(Backbone):
    """Returns features that differ from those computed now."""

    def run(self, pixels):
        super().run(pixels)
        self._features = self._features + 100


def test_features_computed_ahead_are_reused(files):
    frozen, pixels, written = Spy("a", load(files[0])), some_pixels(), load(files[1])
    plain, logits = predict(written, pixels)
    frozen.run(pixels)
    features, again = predict(written, pixels, frozen.features(pixels, written))
    np.testing.assert_allclose(features, plain + 100, rtol=1e-6)
    # The head is the file's own.
    kernel = written.layers[-1].get_weights()[0]
    np.testing.assert_allclose(again, logits + 100 * kernel.sum(0), rtol=1e-5)


def test_features_of_other_images_are_not_reused(files):
    frozen, written = Spy("a", load(files[0])), load(files[1])
    for before in (None, some_pixels(3, seed=1), some_pixels(4)):
        if before is not None:
            frozen.run(before)
        assert frozen.features(some_pixels(3), written) is None


@pytest.mark.parametrize("change", ["number", "setting", "input"])
def test_features_of_another_network_are_not_reused(files, change):
    import keras

    model = load(files[0])
    if change == "number":
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[0, 0, 0, 0] = np.nextafter(kernel[0, 0, 0, 0], 9)
        model.get_layer("conv").set_weights([kernel, bias])
    elif change == "setting":
        model.get_layer("relu").max_value = 5.0
    else:  # the same layers, connected in another order
        pixels = keras.Input((*SIZE, 3), name="pixels")
        maps = model.get_layer("conv")(keras.layers.ReLU(6.0, name="relu")(pixels))
        statistics = [keras.ops.max(maps, axis=(1, 2)), keras.layers.GlobalAveragePooling2D()(maps)]
        model = keras.Model(
            pixels, keras.layers.Concatenate(name="features")(statistics), name="tiny"
        )
    frozen, pixels, written = Spy("a", model), some_pixels(), load(files[1])
    frozen.run(pixels)
    assert not frozen.is_in(written) and frozen.features(pixels, written) is None


def test_features_inside_a_layer_are_replaced_by_logits(files):
    import keras

    pixels = keras.Input((*SIZE, 3))
    wrapped = keras.Model(pixels, load(files[1])(pixels))
    features, logits = predict(wrapped, some_pixels())
    np.testing.assert_array_equal(features, logits)
    np.testing.assert_allclose(logits, predict(load(files[1]), some_pixels())[1], rtol=1e-5)


def test_the_worker_runs_ahead(keras_process, files):
    pixels = some_pixels()
    plain = keras_process.run(files[1], pixels)
    keras_process.load_ahead(files[0])
    keras_process.run_ahead(files[0], lambda: pixels)
    wait_for(keras_process)
    for one, other in zip(keras_process.run(files[1], pixels)[:2], plain[:2], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def wait_for(process):
    """Wait for background jobs: a job that comes before one has begun replaces it."""
    for thread in threading.enumerate():
        if thread.name == "kindsight-background-job":
            thread.join(300)
