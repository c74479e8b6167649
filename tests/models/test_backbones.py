"""The table of backbones, the layout of features, and the models that compute them."""

import subprocess
import sys

import numpy as np
import pytest

from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout, Stage, check_size
from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.backbones.table import BACKBONES, get_backbone
from kindsight.models.runtime import convert_to_litert, make_images, run_litert

SIZE = (64, 48)
STATISTICS = (
    *("mean", "max", "std", "rowstd", "rowmax", "rowmin"),
    *("columnstd", "columnmax", "columnmin"),
)
# Channels at the ends of stages 3 to 6, from table 1 of the paper; of Lite2 times 1.1, rounded
# to multiples of eight.
CHANNELS = {
    "efficientnet-lite0": (40, 80, 112, 192),
    "efficientnet-lite1": (40, 80, 112, 192),
    "efficientnet-lite2": (48, 88, 120, 208),
}


@pytest.fixture(scope="module")
def network():
    """Lite0 as a Keras model, images and their features."""
    backbone = get_backbone("efficientnet-lite0")
    model, layout = build_feature_model(backbone, build_network(backbone, SIZE))
    assert layout == backbone.layout()
    images = make_images(4, SIZE)
    return backbone, model, images, np.asarray(model(images, training=False))


@pytest.mark.parametrize("name", CHANNELS)
def test_layout_by_hand(name):
    layout = get_backbone(name).layout()
    start = 0
    for stage, channels in enumerate(CHANNELS[name], start=3):
        for statistic in STATISTICS:
            assert layout[f"stage{stage}_{statistic}"] == slice(start, start + channels)
            start += channels
    assert layout["top_mean"] == slice(start, start + 1280)
    assert layout.width == start + 1280
    assert layout.names[:3] == ("stage3_mean", "stage3_max", "stage3_std")
    assert layout.names[3:5] == ("stage3_rowstd", "stage3_rowmax")
    assert layout.names[-1] == "top_mean"


def test_width_of_lite0():
    assert (
        get_backbone("efficientnet-lite0").layout().width == 5096
    )  # 9 * (40 + 80 + 112 + 192) + 1280


def test_wide_stages_have_no_profiles():
    assert Stage("narrow", 256).statistics == STATISTICS
    assert Stage("wide", 257).statistics == ("mean", "max", "std")


def test_facts_of_efficientnet_lite():
    sizes = {name: BACKBONES[name].size for name in CHANNELS}
    assert sizes == {
        "efficientnet-lite0": (224, 224),
        "efficientnet-lite1": (240, 240),
        "efficientnet-lite2": (260, 260),
    }
    assert all(BACKBONES[name].licence == "Apache-2.0" for name in CHANNELS)
    assert all(name in BACKBONES[name].weights_source for name in CHANNELS)


def test_layout_round_trip():
    layout = get_backbone("efficientnet-lite0").layout()
    assert FeatureLayout.from_dict(layout.to_dict()) == layout


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"blocks": 3},
        {"blocks": []},
        {"blocks": [["a", 0]]},
        {"blocks": [["a", 0, 0]]},
        {"blocks": [["a", 1, 2]]},
        {"blocks": [["a", 0, 2], ["b", 3, 4]]},
        {"blocks": [["a", 0, 2], ["a", 2, 4]]},
        {"blocks": [["a", 0, 2.0]]},
        {"blocks": [[1, 0, 2]]},
        {"blocks": [["a", False, True]]},
    ],
)
def test_invalid_layouts_are_rejected(data):
    with pytest.raises(WeightsError, match=r"[Bb]lock"):
        FeatureLayout.from_dict(data)


def test_unknown_block_is_rejected():
    layout = FeatureLayout((FeatureBlock("a", 0, 2),))
    with pytest.raises(SettingsError, match="one of a"):
        layout["b"]


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("efficientnet-lite-0", "efficientnet-lite0"),
        ("EfficientNet_Lite1", "efficientnet-lite1"),
        ("lite2", "efficientnet-lite2"),
        ("InceptionV3", "inception-v3"),
        ("ResNet", "resnet50"),
    ],
)
def test_near_name_is_suggested(typed, meant):
    with pytest.raises(SettingsError, match=f"Did you mean '{meant}'"):
        get_backbone(typed)


def test_far_name_is_not_suggested():
    with pytest.raises(SettingsError, match=r"one of efficientnet-lite0.*got 'walrus'\.$"):
        get_backbone("walrus")


@pytest.mark.parametrize(
    "size", [(31, 64), (64, 1025), (64,), (64, 64, 3), 64, (64.5, 64), ("a", 64), None]
)
def test_invalid_sizes_are_rejected(size):
    with pytest.raises(SettingsError, match="height, width"):
        check_size(size)


def test_model_agrees_with_the_table(network):
    backbone, model, _, features = network
    assert model.count_params() == backbone.parameters
    assert model.output_shape == (None, backbone.layout().width)
    assert model.layers[-1].name == "features"
    assert features.dtype == np.float32
    assert np.isfinite(features).all()


def test_features_are_statistics_of_the_stages(network):
    import keras

    backbone, model, images, features = network
    layout = backbone.layout()
    stages = [stage.layer for stage in backbone.stages]
    probe = keras.Model(model.input, [model.get_layer(stage).output for stage in stages])
    maps = [np.asarray(values, np.float64) for values in probe(images, training=False)]
    for stage, values in zip(stages, maps, strict=True):
        name = stage.removesuffix("_out")
        scale = np.abs(values).max()
        for statistic, expected in (
            ("mean", values.mean(axis=(1, 2))),
            ("max", values.max(axis=(1, 2))),
            ("std", np.sqrt(values.var(axis=(1, 2)) + 1e-6)),
            # Of the means of rows, and of columns.
            ("rowstd", np.sqrt(values.mean(axis=2).var(axis=1) + 1e-6)),
            ("rowmax", values.mean(axis=2).max(axis=1)),
            ("rowmin", values.mean(axis=2).min(axis=1)),
            ("columnstd", np.sqrt(values.mean(axis=1).var(axis=1) + 1e-6)),
            ("columnmax", values.mean(axis=1).max(axis=1)),
            ("columnmin", values.mean(axis=1).min(axis=1)),
        ):
            got = features[:, layout[f"{name}_{statistic}"]]
            assert np.abs(got - expected).max() < 1e-5 * scale, (name, statistic)


def test_litert_gives_the_same_features(network):
    backbone, model, images, features = network
    got = run_litert(convert_to_litert(model), images)
    layout = backbone.layout()
    for name in layout.names:
        block = layout[name]
        scale = np.abs(features[:, block]).max()
        assert np.abs(got[:, block] - features[:, block]).max() < 1e-5 * scale, name


def test_gradient_is_finite_for_a_constant_image(network):
    import tensorflow as tf

    _, model, _, _ = network
    pixels = tf.fill((1, *SIZE, 3), 127.0)
    with tf.GradientTape() as tape:
        tape.watch(pixels)
        total = tf.reduce_sum(model(pixels, training=False))
    assert np.isfinite(np.asarray(tape.gradient(total, pixels))).all()


def test_modules_import_without_tensorflow():
    code = (
        "import sys, kindsight.models.keras_jobs, kindsight.models.backbones.build; "
        "print(sorted({'tensorflow', 'keras', 'scipy', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert result.stdout.decode().strip() == "[]"
