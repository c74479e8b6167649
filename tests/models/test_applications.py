"""The networks of keras.applications: table, scaling, weights files, model files."""

import importlib
import inspect

import numpy as np
import pytest

from kindsight.models.backbones.applications import APPLICATIONS
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.graph import cut_points, output_of
from kindsight.models.heads import LinearHead
from kindsight.models.runtime import make_images, run_litert

# The module of Keras with the network's preprocess_input and weights file.
MODULES = {
    "inception-v3": "inception_v3",
    "mobilenet-v2": "mobilenet_v2",
    "mobilenet-v3-small": "mobilenet_v3",
    "mobilenet-v3-large": "mobilenet_v3",
    "efficientnet-v2-b0": "efficientnet_v2",
    "efficientnet-v2-b1": "efficientnet_v2",
    "efficientnet-v2-b2": "efficientnet_v2",
    "efficientnet-v2-b3": "efficientnet_v2",
    "efficientnet-v2-s": "efficientnet_v2",
    "resnet50": "resnet",
    "resnet50-v2": "resnet_v2",
    "densenet121": "densenet",
    "xception": "xception",
    "vgg16": "vgg16",
    "convnext-tiny": "convnext",
}
SCALED_BY_KERAS = ("efficientnet_v2", "mobilenet_v3", "convnext")
# The cheapest network of each family. The others are built by the same code of Keras.
FAMILIES = (
    *("mobilenet-v3-small", "mobilenet-v2", "efficientnet-v2-b0", "resnet50", "densenet121"),
    *("xception", "vgg16", "inception-v3", "convnext-tiny"),
)


def slow_unless(names, fast):
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in names]


def test_every_application_is_tested():
    assert MODULES.keys() == APPLICATIONS.keys()


@pytest.mark.parametrize("name", slow_unless(MODULES, FAMILIES))
def test_table_agrees_with_keras(name):
    import keras

    backbone = APPLICATIONS[name]
    size = (backbone.min_size, backbone.min_size)
    model = build_network(backbone, size, "none")
    assert model.count_params() == backbone.parameters
    assert model.input_shape == (None, *size, 3)
    assert model.output_shape[-1] == backbone.top_width
    for stage in backbone.stages:
        assert output_of(model, stage.layer).shape[-1] == stage.channels
    features, layout = build_feature_model(backbone, model)
    assert layout == backbone.layout()
    assert features.output_shape == (None, layout.width)

    # No connection bypasses stages and cut layers, which are listed from input to output.
    points = [point.name for point in cut_points(model)]
    assert {stage.layer for stage in backbone.stages} | set(backbone.cuts) <= set(points)
    assert sorted(backbone.cuts, key=points.index) == list(backbone.cuts)

    # The network scales pixels as Keras's preprocess_input does.
    images = make_images(2, size)
    expected = importlib.import_module(f"keras.applications.{MODULES[name]}").preprocess_input(
        images.copy()
    )
    if MODULES[name] in SCALED_BY_KERAS:
        np.testing.assert_array_equal(expected, images)
        assert backbone.scaling == "as in Keras, by the network's first layers"
    else:
        scaled = keras.Model(model.input, output_of(model, "scaling"))(images)
        tolerance = 2e-5 * np.abs(expected).max()
        np.testing.assert_allclose(np.asarray(scaled), expected, atol=tolerance)


@pytest.mark.parametrize("name", MODULES)
def test_weights_file_is_the_one_that_keras_downloads(name):
    published = APPLICATIONS[name].published
    module = "resnet" if MODULES[name] == "resnet_v2" else MODULES[name]
    source = inspect.getsource(importlib.import_module(f"keras.src.applications.{module}"))
    flat = source.replace('"\n    "', "").replace('"\n    f"', "")
    assert published.digest in flat
    folder = published.url.rpartition("/")[0]
    assert folder.removeprefix("https://storage.googleapis.com/tensorflow/") in flat
    assert published.host == "storage.googleapis.com"


@pytest.mark.parametrize("name", slow_unless(FAMILIES, FAMILIES[:1]))
def test_backbone_becomes_a_classifier(name, keras_process, tmp_path):
    """The LiteRT file and the Keras file, each with a head, give the same logits."""
    backbone = APPLICATIONS[name]
    size = (backbone.min_size, backbone.min_size + 8)
    files = ensure_backbone(name, size, tmp_path, weights="none", seed=3, process=keras_process)
    assert files.layout == backbone.layout()
    images = make_images(3, size)
    features = run_litert(files.tflite.read_bytes(), images)
    assert np.isfinite(features).all()
    generator = np.random.default_rng(0)
    scale = np.maximum(np.abs(features).max(0), 1e-3)
    kernel = generator.normal(size=(files.layout.width, 2)) / scale[:, None]
    head = LinearHead(kernel.astype(np.float32), np.zeros(2, np.float32))
    write_tflite(files.tflite, head, tmp_path / "model.tflite")
    write_keras(files.keras, head, tmp_path / "model.keras")
    logits = run_litert((tmp_path / "model.tflite").read_bytes(), images)
    keras_features, keras_logits, _ = keras_process.run(tmp_path / "model.keras", images)
    np.testing.assert_allclose(keras_features, features, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(logits, keras_logits, atol=1e-3 * np.abs(keras_logits).max())
