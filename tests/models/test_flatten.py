"""A user's own network, with networks nested in it, as one graph of layers."""

import numpy as np
import pytest

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.formats.load_keras import flat_backbone, load_keras_file
from kindsight.models.graph import complete_layer, cut_network, cut_points, layer_path, name_of_path
from kindsight.models.runtime import convert_to_litert, make_images, run_litert


def inner_network(name="inner net"):
    import keras

    layers = keras.layers
    pixels = keras.Input((None, None, 3))
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="conv one")(pixels)
    x = layers.BatchNormalization(name="norm:1")(x)
    # "add" and "mean" are names that Keras would give to operations added later, too.
    x = layers.Add(name="add")([x, layers.Conv2D(4, 3, padding="same", name="mean")(x)])
    x = layers.Conv2D(6, 3, strides=2, padding="same", activation="relu", name="last")(x)
    return keras.Model(pixels, x, name=name)


def save(tmp_path, *, sequential=False):
    """Save a transfer model; return its file and the maps of its nested network, as a model."""
    import keras

    keras.utils.set_random_seed(3)
    layers = keras.layers
    scale = layers.Normalization(name="scale")
    scale.adapt(np.random.default_rng(0).uniform(0, 255, (9, 8, 8, 3)))
    inner = inner_network()
    inner.compile("adam", "mse")
    augmentation = keras.Sequential(
        [layers.RandomFlip(), layers.RandomRotation(0.3), layers.RandomContrast(0.4)],
        name="augment",
    )
    middle = keras.Sequential([keras.Input((None, None, 3)), scale, inner], name="middle")
    end = [layers.GlobalAveragePooling2D(), layers.Dropout(0.5), layers.Dense(3)]
    pixels = keras.Input((40, 48, 3), dtype="uint8")
    if sequential:
        model = keras.Sequential([pixels, augmentation, middle, *end])
    else:
        x = middle(augmentation(pixels), training=False)
        for layer in end:
            x = layer(x)
        model = keras.Model(pixels, x)
    random = np.random.default_rng(1)
    inner.set_weights([random.uniform(0.1, 1, w.shape) for w in inner.get_weights()])
    model.save(tmp_path / "own.keras")
    return tmp_path / "own.keras", middle


@pytest.mark.parametrize("sequential", [False, True])
def test_nested_networks_compute_the_same(tmp_path, sequential):
    file, maps = save(tmp_path, sequential=sequential)
    flat = flat_backbone(load_keras_file(file), (40, 48), "own")
    images = make_images(3, (40, 48))
    expected = np.asarray(maps(images, training=False))
    np.testing.assert_allclose(np.asarray(flat(images)), expected, rtol=1e-4, atol=1e-4)
    # Augmentation is left out: training mode changes nothing but normalisation.
    assert [layer_path(layer.name) for layer in flat.layers] == [
        "pixels", "middle/scale", *(
            f"middle/inner net/{name}" for name in ("conv one", "norm:1", "mean", "add", "last")
        )
    ]  # fmt: skip
    got = run_litert(convert_to_litert(flat), images)
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_layers_of_nested_networks_are_addressed_by_their_path(tmp_path):
    flat = flat_backbone(load_keras_file(save(tmp_path)[0]), (40, 48), "own")
    name = complete_layer(flat, "middle/inner net/norm:1")
    assert complete_layer(flat, "middle/inner net/n") == complete_layer(flat, name) == name
    assert cut_network(flat, "middle/inner net/add").output_shape == (None, 20, 24, 4)
    with pytest.raises(SettingsError, match=r"'add'\. Did you mean 'middle/inner net/add'"):
        complete_layer(flat, "add")
    with pytest.raises(SettingsError, match="matches 5 layers, middle/inner net/conv one, "):
        complete_layer(flat, "middle/inner")
    with pytest.raises(SettingsError, match=r"at 'middle/inner net/mean'.* of: .*/inner net/add"):
        cut_network(flat, "middle/inner net/mean")


def test_a_network_called_twice_shares_its_weights(tmp_path):
    import keras

    pixels, inner = keras.Input((16, 16, 3)), inner_network("inner")
    both = keras.layers.Concatenate()([inner(pixels), inner(keras.layers.Rescaling(0.5)(pixels))])
    model = keras.Model(pixels, keras.layers.Conv2D(2, 1, name="end")(both))
    flat = flat_backbone(model, (16, 16), "twice")
    images = make_images(2, (16, 16))
    np.testing.assert_allclose(np.asarray(flat(images)), np.asarray(model(images)), rtol=1e-4)
    assert flat.count_params() == model.count_params()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16", "float16"])
def test_layers_compute_in_float32(tmp_path, policy):
    import keras

    keras.config.set_dtype_policy(policy)
    try:
        pixels = keras.Input((16, 16, 3))
        x = inner_network()(keras.layers.Rescaling(1 / 255)(pixels))
        keras.Model(pixels, keras.layers.Flatten()(x)).save(tmp_path / "own.keras")
    finally:
        keras.config.set_dtype_policy("float32")
    model = load_keras_file(tmp_path / "own.keras")
    flat = flat_backbone(model, (16, 16), "own")
    assert {layer.compute_dtype for layer in flat.layers} == {"float32"}
    assert {str(weight.dtype) for weight in flat.weights} == {"float32"}
    images = make_images(2, (16, 16))
    expected = np.asarray(keras.ops.cast(model(images), "float32")).reshape(2, 4, 4, 6)
    np.testing.assert_allclose(np.asarray(flat(images)), expected, atol=0.03)


def test_what_cannot_be_converted_is_one_sentence():
    import keras

    pixels = keras.Input((8, 8, 3))
    model = keras.Model(pixels, keras.ops.erfinv(pixels / 256), name="odd")
    with pytest.raises(WeightsError, match=r"'odd' cannot be converted for LiteRT.*: tf\.Erfinv\."):
        convert_to_litert(model)


def test_several_outputs_are_rejected():
    import keras

    pixels = keras.Input((8, 8, 3))
    with pytest.raises(SettingsError, match="one input and one output"):
        flat_backbone(keras.Model(pixels, [pixels, pixels + 1]), (8, 8), "two")


@pytest.mark.parametrize(
    "path", [("a",), ("a b", "c:1"), ("1.00_96", "..20..", "é"), ("", "\N{PARTY POPPER}.x")]
)
def test_names_of_paths(path):
    name = name_of_path(path)
    assert name.isascii() and set(" :/>").isdisjoint(name)
    assert layer_path(name) == "/".join(path)


def test_other_names_are_paths_of_themselves():
    assert [layer_path(name) for name in ("block_1.x", "owner", "logits")] == [
        "block_1.x", "owner", "logits"
    ]  # fmt: skip


def test_operations_added_later_have_other_names(tmp_path):
    """Names that Keras numbers, such as "add", are not those of the user's layers."""
    import keras

    flat = flat_backbone(load_keras_file(save(tmp_path)[0]), (40, 48), "own")
    keras.utils.clear_session()
    x = keras.ops.mean(flat.output, axis=(1, 2)) + 1.0
    model = keras.Model(flat.inputs, x)
    assert len(cut_points(model)) == len(cut_points(flat)) + 2
