"""The contract of every backbone: what its table says, its scaling, its files, its bundle."""

import importlib
import inspect

import numpy as np
import pytest

from kindsight.models.backbones.applications import APPLICATIONS
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.backbones.table import BACKBONES
from kindsight.models.formats.assemble import write_keras, write_tflite
from kindsight.models.formats.convert import make_images, run_litert
from kindsight.models.graph import cut_points, output_of
from kindsight.models.heads.head import LinearHead

# Where Keras keeps what it wants of pixels, and the file that it downloads.
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
INSIDE = [
    name for name, module in MODULES.items() if module.startswith(("eff", "mobilenet_v3", "c"))
]
FAST = "mobilenet-v3-small"
# One of each family is built to the end; b1 to b3 are made by the same lines as b0.
FAMILIES = [
    name if name == FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in BACKBONES
    if name not in ("efficientnet-v2-b1", "efficientnet-v2-b2", "efficientnet-v2-b3")
]


@pytest.fixture(scope="module", params=MODULES)
def network(request):
    backbone = APPLICATIONS[request.param]
    return backbone, build_network(backbone, (backbone.min_size, backbone.min_size), "none")


def test_every_application_is_tested():
    assert MODULES.keys() == APPLICATIONS.keys()


def test_table_says_what_keras_builds(network):
    backbone, model = network
    assert model.count_params() == backbone.parameters
    assert model.input_shape == (None, backbone.min_size, backbone.min_size, 3)
    assert model.output_shape[-1] == backbone.top_width
    for stage in backbone.stages:
        assert output_of(model, stage.layer).shape[-1] == stage.channels
    features, layout = build_feature_model(backbone, model)
    assert layout == backbone.layout()
    assert features.output_shape == (None, layout.width)


def test_everything_passes_through_stages_and_cuts(network):
    backbone, model = network
    points = [point.name for point in cut_points(model)]
    assert {stage.layer for stage in backbone.stages} | set(backbone.cuts) <= set(points)
    # Named from the image to the top.
    assert sorted(backbone.cuts, key=points.index) == list(backbone.cuts)


def test_scaling_is_what_keras_would_have_done(network):
    import keras

    backbone, model = network
    images = make_images(2, (backbone.min_size, backbone.min_size))
    module = importlib.import_module(f"keras.applications.{MODULES[backbone.name]}")
    expected = module.preprocess_input(images.copy())
    if backbone.name in INSIDE:
        np.testing.assert_array_equal(expected, images)  # so Keras scales inside, as the table says
        assert backbone.scaling == "inside the network of Keras"
        return
    scaled = keras.Model(model.input, output_of(model, "scaling"))(images)
    np.testing.assert_allclose(np.asarray(scaled), expected, atol=2e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", MODULES)
def test_published_file_is_the_one_that_keras_downloads(name):
    published = APPLICATIONS[name].published
    module = "resnet" if MODULES[name] == "resnet_v2" else MODULES[name]
    source = inspect.getsource(importlib.import_module(f"keras.src.applications.{module}"))
    flat = source.replace('"\n    "', "").replace('"\n    f"', "")
    assert published.digest in flat
    folder = published.url.rpartition("/")[0]
    assert folder.removeprefix("https://storage.googleapis.com/tensorflow/") in flat
    assert published.host == "storage.googleapis.com"


@pytest.mark.parametrize("name", FAMILIES)
def test_random_backbone_becomes_a_bundle(name, keras_process, tmp_path):
    """Built, converted, kept, given a head without TensorFlow, loaded by plain Keras: all agree."""
    backbone = BACKBONES[name]
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
    theirs, answers = keras_process.run(tmp_path / "model.keras", images)
    np.testing.assert_allclose(theirs, features, atol=1e-4 * np.abs(features).max())
    np.testing.assert_allclose(logits, answers, atol=1e-3 * np.abs(answers).max())
