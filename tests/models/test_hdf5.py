"""Weights files of Keras in both formats, with and without classifier, and hostile ones."""

import h5py
import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.backbones.features import load_h5_weights


def make_network(seed, classes=None):
    """Return a network with branches, a nested model, and layers of each kind of weights."""
    import keras

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    pixels = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(4, 3)(x)
    x = layers.BatchNormalization()(x)
    inner = keras.Sequential([layers.LayerNormalization(), layers.Conv2D(4, 1)])
    x = layers.Concatenate()([inner(x), layers.SeparableConv2D(3, 1)(x)])
    x = layers.Conv2D(5, 1)(x)
    if classes is not None:
        x = layers.GlobalAveragePooling2D()(x)
        x = layers.Dense(classes)(x)
    model = keras.Model(pixels, x)
    for number, variable in enumerate(model.weights):
        variable.assign(np.random.default_rng([seed, number]).uniform(0.5, 1, variable.shape))
    return model


def save(model, path, form):
    if form == "new":
        path = path.with_suffix(".weights.h5")
        model.save_weights(path)
    elif form == "model":  # model.save, with its config and weights in one file
        model.save(path)
    else:
        from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

        with h5py.File(path, "w") as file:
            save_weights_to_hdf5_group(file, model)
    return path


@pytest.mark.parametrize("form", ["old", "model", "new"])
@pytest.mark.parametrize("classes", [None, 7])
def test_weights_are_loaded_with_and_without_classifier(tmp_path, form, classes):
    source = make_network(1, classes)
    path = save(source, tmp_path / "weights.h5", form)
    target = make_network(2)
    load_h5_weights(target, path)
    for got, expected in zip(target.weights, source.weights, strict=False):
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))


@pytest.mark.parametrize("form", ["old", "new"])
def test_another_network_is_rejected(tmp_path, form):
    import keras

    path = save(make_network(1), tmp_path / "weights.h5", form)
    other = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(9, 3)], name="other")
    with pytest.raises(WeightsError, match=r"is not for other, whose layer"):
        load_h5_weights(other, path)


def test_too_few_layers_are_rejected(tmp_path):
    import keras

    short = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3)])
    path = save(short, tmp_path / "weights.h5", "old")
    with pytest.raises(WeightsError, match=r"has 5 layers with weights: it has 1"):
        load_h5_weights(make_network(1), path)


def spoil_link(file):
    name = next(iter(file["layers"]))
    del file["layers"][name]
    file["layers"][name] = h5py.ExternalLink("/etc/other.h5", "/")


def spoil_soft_link(file):
    file["layers/more"] = h5py.SoftLink("/layers")


def spoil_storage(file):
    del file["layers/conv2d/vars/0"]
    file["layers/conv2d/vars"].create_dataset(
        "0", (3, 3, 3, 4), "f4", external=[("/etc/passwd", 0, 432)]
    )


def spoil_numbers(file):
    file["layers/conv2d/vars/0"][0, 0, 0, 0] = np.nan


def spoil_kind(file):
    del file["layers/conv2d/vars/0"]
    file["layers/conv2d/vars"]["0"] = np.array([b"text", b"more"])


def spoil_size(file):
    file.create_dataset("huge", (10**6, 10**6), "f4", chunks=(10, 10))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_link, "a link to another file"),
        (spoil_soft_link, "a link to another file"),
        (spoil_storage, "stored in another file"),
        (spoil_numbers, "not all finite"),
        (spoil_kind, "does not hold numbers"),
        (spoil_size, "has 4000000000000 bytes"),
    ],
)
def test_hostile_files_are_rejected(tmp_path, spoil, words):
    path = save(make_network(1), tmp_path / "weights.h5", "new")
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(WeightsError, match=words):
        load_h5_weights(make_network(2), path)


def test_damaged_and_absent_files_are_rejected(tmp_path):
    path = tmp_path / "weights.h5"
    for content in (b"", b"no HDF5", None):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(WeightsError, match=r"weights\.h5 is damaged"):
            load_h5_weights(make_network(1), path)
    complete = save(make_network(1), tmp_path / "whole.h5", "new").read_bytes()
    path.write_bytes(complete[: len(complete) // 2])
    with pytest.raises(WeightsError, match="is damaged"):
        load_h5_weights(make_network(1), path)
