"""Files of Keras that are not trusted: what is accepted, and that nothing else is created."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from kindsight.errors import WeightsError
from kindsight.models.formats.load_keras import load_keras_file, read_keras_config
from kindsight.models.networks.feature_maps import collect_maps


@pytest.fixture
def file(tmp_path):
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(2, 3, activation="relu", kernel_regularizer="l2", name="conv"),
            layers.Flatten(),
            layers.Dense(2, kernel_constraint="non_neg"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-3), "mse", metrics=["accuracy"])
    model.save(tmp_path / "m.keras")
    return tmp_path / "m.keras"


def rewrite(path, edit_config=None, edit_weights=None):
    """Edit the members of a file."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if edit_config is not None:
        config = json.loads(members["config.json"])
        edit_config(config)
        members["config.json"] = json.dumps(config)
    if edit_weights is not None:
        buffer = io.BytesIO(members["model.weights.h5"])
        with h5py.File(buffer, "r+") as weights:
            edit_weights(weights)
        members["model.weights.h5"] = buffer.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def layer(config, kind):
    return next(item for item in config["config"]["layers"] if item["class_name"] == kind)


def test_a_file_of_keras_is_loaded_without_its_training(file):
    import keras

    model = load_keras_file(file)
    assert "compile_config" not in read_keras_config(file) and not model.compiled
    images = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_array_equal(
        np.asarray(model(images)), np.asarray(keras.models.load_model(file)(images))
    )


OBJECTS = {
    "Lambda": {"module": "keras.layers", "class_name": "Lambda", "config": {"name": "x"}},
    "get_file": {"module": "keras.utils", "class_name": "function", "config": "get_file"},
    "system": {"module": "os", "class_name": "function", "config": "system"},
    "by name": {"module": "builtins", "class_name": "function", "config": "deserialize"},
    "lambda": {"class_name": "__lambda__", "config": {"value": ["4w==", None, None]}},
    "typespec": {
        "class_name": "__typespec__", "spec_name": "Popen", "module": "subprocess", "config": [],
        "registered_name": None,
    },
    "vocabulary": {
        "module": "keras.layers", "class_name": "StringLookup",
        "config": {"vocabulary": "/etc/passwd"},
    },
    "text": {"module": "keras.layers", "class_name": "TextVectorization", "config": {}},
    "saved model": {"module": "keras.layers", "class_name": "TFSMLayer", "config": {}},
    "registered": {
        "module": "keras.layers", "class_name": "Dense", "registered_name": "mine>Dense",
        "config": {},
    },
    "module": {"module": "keras.layers.os", "class_name": "system", "config": {}},
    "other package": {"module": "keras_hub.layers", "class_name": "Dense", "config": {}},
    "legacy": {"class_name": "Dense", "config": {"units": 2}},
    "loop": {"module": "keras.src.ops.core", "class_name": "WhileLoop", "config": {}},
    "private": {"module": "keras.src.ops.numpy", "class_name": "np", "config": {}},
    "no name": {"module": "keras.layers", "class_name": ["Dense"], "config": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("place", ["layer", "setting", "build", "nested"])
def test_objects_that_are_not_accepted(file, name, place):
    def edit(config):
        dense = layer(config, "Dense")
        if place == "layer":
            config["config"]["layers"].append(OBJECTS[name])
        elif place == "setting":
            dense["config"]["activation"] = OBJECTS[name]
        elif place == "build":
            dense["build_config"]["input_shape"] = [None, {"a": OBJECTS[name]}]
        else:
            inner = json.loads(json.dumps(config))
            inner["config"]["layers"].append(OBJECTS[name])
            config["config"]["layers"].append(inner)

    rewrite(file, edit)
    with pytest.raises(WeightsError, match="not Keras's own for images and could run code"):
        load_keras_file(file)
    with pytest.raises(WeightsError, match="could run code or read other files"):
        collect_maps(file, np.zeros((8, 8, 3), np.uint8), 4, 4)


def test_settings_of_a_nested_model_s_training_are_not_created(file):
    def edit(config):
        layer(config, "Dense")["compile_config"] = {"loss": OBJECTS["system"]}

    rewrite(file, edit)
    assert load_keras_file(file).count_params() > 0


def test_quantized_layers_are_rejected(file):
    policy = {
        "module": "keras.dtype_policies", "class_name": "QuantizedDTypePolicy",
        "config": {"mode": "int8"}, "registered_name": None,
    }  # fmt: skip
    rewrite(file, lambda config: layer(config, "Dense")["config"].update(dtype=policy))
    with pytest.raises(WeightsError, match="Save the model before it is quantized"):
        read_keras_config(file)


def test_weights_of_other_files_are_rejected(file, tmp_path):
    def link(weights):
        weights["layers/elsewhere"] = h5py.ExternalLink("/etc/passwd", "/x")

    rewrite(file, edit_weights=link)
    with pytest.raises(WeightsError, match="is damaged, or was saved by another version"):
        load_keras_file(file)


@pytest.mark.parametrize(
    "edit",
    [
        lambda config: layer(config, "Dense")["config"].update(units=5),
        lambda config: layer(config, "Dense")["config"].update(new_setting=5),
        lambda config: config.update(class_name="Model"),
    ],
)
def test_a_file_of_another_version_is_one_sentence(file, edit):
    rewrite(file, edit)
    with pytest.raises(WeightsError) as caught:
        load_keras_file(file)
    assert str(caught.value).count(". ") == 1 and "\n" not in str(caught.value)
