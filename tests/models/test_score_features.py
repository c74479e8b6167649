"""The out-of-distribution score of networks trained by gradient: both files, by Keras itself."""

import keras
import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.formats.assemble import finish_keras, finish_tflite
from kindsight.models.formats.load_keras import load_keras_file
from kindsight.models.networks.fine_tuned import average_logits, average_over_flips
from kindsight.models.networks.keras_heads import with_score_features
from kindsight.models.networks.small_cnn import SmallCNN, build_small_cnn
from kindsight.models.ood import OODScore
from kindsight.models.runtime import Interpreter, make_images, run_litert, write_both_forms

SIZE = (24, 24)


def small(classes=3, name="small"):
    network = SmallCNN(size=SIZE, filters=(4, 8), dense=(16,), dropout=0.5)
    model = build_small_cnn(network, classes, 0)
    return keras.Model(model.input, model.output, name=name)


def within():
    pixels = keras.Input((*SIZE, 3))
    return keras.Model(pixels, small()(pixels))


# The network, and the width of the inputs of its last dense layers.
NETWORKS = {
    "three classes": (small, 16),
    "two classes": (lambda: small(2), 16),
    "nested": (within, 16),
    "flips": (lambda: average_over_flips(small(), (0, 1)), 16),
    "ensemble": (
        lambda: average_logits(average_over_flips(small(), (0, 1)), small(name="other"), 0.5), 32,
    ),
}  # fmt: skip


def random_score(width, classes):
    random = np.random.default_rng(0)
    return OODScore(
        random.normal(size=(width, 8)), random.normal(size=8), random.normal(size=(classes, 8))
    )


@pytest.mark.parametrize("kind", NETWORKS)
def test_both_files_give_the_score_of_the_last_dense_layers_inputs(kind, tmp_path):
    build, width = NETWORKS[kind]
    model, images = build(), make_images(3, SIZE)
    logits = np.asarray(model(images))
    network = with_score_features(model)
    same, features = (np.asarray(output) for output in network(images))
    np.testing.assert_allclose(same, logits, atol=1e-6)
    assert features.shape == (3, width)
    files = tmp_path / "n.keras", tmp_path / "n.tflite"
    write_both_forms(network, *files)
    score = random_score(width, logits.shape[1])
    finish_keras(files[0], tmp_path / "model.keras", logits.shape[1], score)
    finish_tflite(files[1], tmp_path / "model.tflite", {"a": 1}, score)
    outputs = keras.models.load_model(tmp_path / "model.keras")(images)
    content = (tmp_path / "model.tflite").read_bytes()
    for number, expected in enumerate((logits, score(features)[:, None])):
        np.testing.assert_allclose(np.asarray(outputs[number]), expected, rtol=1e-4, atol=1e-5)
        found = run_litert(content, images, number)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert Interpreter(tmp_path / "model.tflite").second_width == 1
    # A network of the user's own is read with its logits alone.
    alone = load_keras_file(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(alone(images)), logits, atol=1e-6)


def test_the_litert_file_has_little_but_its_weights(tmp_path):
    values = pixels = keras.Input((*SIZE, 3))
    for filters in (30, 60, 120, 240, 3):
        values = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(values)
    network = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(values))
    write_both_forms(network, tmp_path / "n.keras", tmp_path / "n.tflite")
    finish_tflite(tmp_path / "n.tflite", tmp_path / "model.tflite", {})
    assert (tmp_path / "model.tflite").stat().st_size < 4 * network.count_params() + 50_000
    images = make_images(2, SIZE)
    before = run_litert((tmp_path / "n.tflite").read_bytes(), images)
    after = run_litert((tmp_path / "model.tflite").read_bytes(), images)
    np.testing.assert_array_equal(after, before)


def test_without_a_score_the_files_have_one_output(tmp_path):
    network, images = with_score_features(small()), make_images(2, SIZE)
    files = tmp_path / "n.keras", tmp_path / "n.tflite"
    write_both_forms(network, *files)
    finish_keras(files[0], tmp_path / "model.keras", 3)
    finish_tflite(files[1], tmp_path / "model.tflite", {})
    logits = np.asarray(network(images)[0])
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(np.asarray(loaded(images)), logits, atol=1e-6)
    assert Interpreter(tmp_path / "model.tflite").second_width == 0


def test_a_network_without_a_last_dense_layer_is_not_changed(tmp_path):
    pixels = keras.Input((*SIZE, 3))
    maps = keras.layers.Conv2D(3, 3)(pixels)
    model = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(maps))
    assert with_score_features(model) is model
    model.save(tmp_path / "n.keras")
    with pytest.raises(WeightsError, match="second output"):
        finish_keras(tmp_path / "n.keras", tmp_path / "model.keras", 3, random_score(4, 3))
    finish_keras(tmp_path / "n.keras", tmp_path / "model.keras", 3)
    assert keras.models.load_model(tmp_path / "model.keras").output_shape == (None, 3)
