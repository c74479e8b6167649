"""A user's own Keras file as a backbone."""

import json
import zipfile

import numpy as np
import pytest

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.backbone import Stage
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.features import build_network
from kindsight.models.backbones.table import get_backbone
from kindsight.models.graph import layer_path
from kindsight.models.runtime import make_images, run_litert


def make_model(size=(40, 48), kind="functional"):
    import keras

    keras.utils.set_random_seed(7)
    layers = keras.layers
    chain = [
        layers.Rescaling(1 / 255, name="scale"),
        layers.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="one"),
        layers.Conv2D(6, 3, strides=4, padding="same", activation="relu", name="two"),
        layers.Conv2D(8, 3, strides=2, padding="same", activation="relu", name="three"),
        layers.GlobalAveragePooling2D(keepdims=True),
        layers.Conv2D(5, 1, name="after"),
        layers.Flatten(),
        layers.Dense(3, activation="softmax"),
    ]
    pixels = keras.Input((*(size or (None, None)), 3))
    if kind == "sequential":
        return keras.Sequential([pixels, *chain])
    x = pixels
    for layer in chain:
        x = layer(x)
    return keras.Model(pixels, x, name="own")


@pytest.mark.parametrize(("kind", "size"), [("functional", None), ("sequential", (40, 48))])
def test_features_are_statistics_of_the_stages(tmp_path, keras_process, kind, size):
    import keras

    model = make_model(size, kind)
    file = tmp_path / "my network.keras"
    model.save(file)
    backbone = get_backbone(str(file))
    assert (backbone.name, backbone.size) == ("my network", size or (224, 224))
    files = ensure_backbone(str(file), (40, 48), tmp_path / "cache", process=keras_process)
    # "two" (5 x 6) ends a stage; "three" (3 x 3) has the last maps, before the global pooling.
    assert tuple(map(layer_path, files.layout.names)) == (
        *(f"two_{statistic}" for statistic in Stage("two", 6).statistics),
        "top_mean",
    )
    assert files.layout.width == 9 * 6 + 8
    images = make_images(3, (40, 48))
    probe = keras.Model(model.inputs, [model.get_layer(n).output for n in ("two", "three")])
    two, three = (np.asarray(values) for values in probe(images))
    expected = np.concatenate(
        [
            two.mean((1, 2)),
            two.max((1, 2)),
            np.sqrt(two.var((1, 2)) + 1e-6),
            *(
                found
                for lines in (two.mean(2), two.mean(1))
                for found in (np.sqrt(lines.var(1) + 1e-6), lines.max(1), lines.min(1))
            ),
            three.mean((1, 2)),
        ],
        axis=1,
    )
    got = run_litert(files.tflite.read_bytes(), images)
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max())


def test_fixed_size_is_checked(tmp_path):
    make_model().save(tmp_path / "own.keras")
    with pytest.raises(SettingsError, match=r"accepts images of 40 x 48 pixels only"):
        get_backbone(str(tmp_path / "own.keras")).check_size((48, 40))


def test_code_in_a_file_is_rejected(tmp_path):
    import keras

    @keras.saving.register_keras_serializable("mine")
    class Odd(keras.layers.Layer):
        def call(self, x):
            return x

    for layer, name in ((Odd(), "Odd"), (keras.layers.Lambda(lambda x: x), "Lambda")):
        pixels = keras.Input((32, 32, 3))
        keras.Model(pixels, layer(keras.layers.Conv2D(2, 3)(pixels))).save(tmp_path / "odd.keras")
        with pytest.raises(WeightsError, match=f"could run code or read other files: .*{name}"):
            get_backbone(str(tmp_path / "odd.keras"))


def test_other_inputs_are_rejected(tmp_path):
    import keras

    for shape in ((32, 32, 1), (10,)):
        keras.Sequential([keras.Input(shape), keras.layers.Flatten()]).save(tmp_path / "m.keras")
        with pytest.raises(WeightsError, match="must take one image"):
            get_backbone(str(tmp_path / "m.keras"))


def test_model_without_maps_is_rejected(tmp_path, keras_process):
    import keras

    keras.Sequential([keras.Input((32, 32, 3)), keras.layers.Flatten()]).save(tmp_path / "m.keras")
    with pytest.raises(WeightsError, match="no layer with feature maps"):
        ensure_backbone(str(tmp_path / "m.keras"), (32, 32), tmp_path, process=keras_process)


def test_several_outputs_are_rejected_with_a_cure_that_works(tmp_path):
    import keras

    model = make_model()
    two = keras.Model(model.inputs, [model.get_layer("three").output, model.output])
    two.save(tmp_path / "two.keras")
    with pytest.raises(WeightsError, match=r"two\.keras must have one input and one output"):
        build_network(get_backbone(str(tmp_path / "two.keras")))
    keras.Model(two.input, two.outputs[0]).save(tmp_path / "one.keras")
    network = build_network(get_backbone(str(tmp_path / "one.keras")))
    assert network.output_shape == (None, 3, 3, 8)


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b'{"config": 3}', b'{"config": {}}'])
def test_damaged_files_are_rejected(tmp_path, config):
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
    with pytest.raises(WeightsError, match=r"m\.keras (is damaged|must)"):
        get_backbone(str(path))
    path.write_bytes(b"no archive")
    with pytest.raises(WeightsError, match="is damaged"):
        get_backbone(str(path))
    path.unlink()
    with pytest.raises(WeightsError, match="cannot be read"):
        get_backbone(str(path))


def test_deep_nesting_is_rejected(tmp_path):
    config = {"config": {}}
    for _ in range(100):
        config = {"config": config}
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(WeightsError, match="nested too deeply"):
        get_backbone(str(tmp_path / "m.keras"))
