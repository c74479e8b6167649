"""Networks whose weights users bring, against PyTorch, and the layouts of their files.

``tests/golden/make_torch_golden.py`` writes the golden files. Weights and images come from
formulas, so that the files hold outputs only.
"""

import csv
import itertools
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.bundle import load_bundle
from kindsight.errors import SettingsError, WeightsError
from kindsight.models.backbones.features import build_feature_model, build_network
from kindsight.models.backbones.table import BACKBONES, get_backbone
from kindsight.models.backbones.torch_networks import load_convnext_state
from kindsight.models.backbones.torch_state import read_state
from kindsight.models.backbones.vit import ViTSpec, build_vit
from kindsight.models.backbones.vit_weights import load_vit_state, resample_positions
from kindsight.models.backbones.weights import check_weights, is_available, weights_by_backbone
from kindsight.models.pooled_maps import MapNetwork
from kindsight.models.runtime import convert_to_litert, make_images, run_litert
from kindsight.predictor import Predictor
from kindsight.runs.settings import TrainSettings
from kindsight.runs.train import train
from kindsight.training.frozen.fitted import RUN_BY_KERAS
from kindsight.training.frozen.settings import FrozenTrainer
from shapes import CLASSES, shape

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PATTERNS = runpy.run_path(str(GOLDEN / "patterns.py"))
# Largest difference as a fraction of the largest value.
TOLERANCE = 1e-4
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def tiny(patch, grid, **more):
    return ViTSpec(patch, 32, 2, grid, depth=2, **more)


VITS = {
    "hf_vit": tiny(16, 4, scaling=HALF),
    "hf_dinov2": tiny(14, 5, layer_scale=True),
    "hf_registers": tiny(14, 5, layer_scale=True, registers=4),
    "timm_vit": tiny(16, 4, scaling=HALF),
    "timm_dinov2": tiny(14, 5, layer_scale=True),
    "timm_registers": tiny(14, 5, layer_scale=True, registers=4),
}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "torch_networks.npz", allow_pickle=False)


def state_of(golden, name):
    return PATTERNS["make_state"](
        golden[f"{name}/names"].tolist(), golden[f"{name}/shapes"].tolist()
    )


def write_safetensors(path, state):
    """Write float32 tensors as the format's specification says."""
    header, start = {"__metadata__": {"format": "pt"}}, 0
    for name, array in state.items():
        stop = start + array.nbytes
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    numbers = b"".join(array.astype("<f4").tobytes() for array in state.values())
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


def run(model, golden, name):
    size = tuple(golden[f"{name}/size"].tolist())
    images = PATTERNS["make_images"](2, size).astype(np.float32)
    return np.asarray(model(images, training=False))


def assert_agree(got, expected):
    assert got.shape == expected.shape
    assert np.abs(got - expected).max() < TOLERANCE * np.abs(expected).max()
    # The images differ, so a network that ignored its input would be noticed.
    assert np.abs(expected[0] - expected[1]).max() > 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("name", VITS)
def test_a_vision_transformer_agrees_with_the_reference(golden, name, tmp_path):
    spec, size = VITS[name], tuple(golden[f"{name}/size"].tolist())
    model = build_vit("tiny", spec, size)
    file = write_safetensors(tmp_path / "tiny.safetensors", state_of(golden, name))
    load_vit_state(model, spec, read_state(file))
    assert_agree(run(model, golden, name), golden[f"{name}/maps"])


@pytest.mark.parametrize("name", ["timm_convnext", "torchvision_convnext"])
def test_a_convnext_agrees_with_the_reference(golden, name):
    import keras
    from keras.src.applications.convnext import ConvNeXt  # Keras offers the full sizes only

    keras.utils.clear_session()
    depths, size = (1, 2, 1, 1), tuple(golden[f"{name}/size"].tolist())
    model = ConvNeXt(
        depths, (8, 16, 32, 64), name="tiny", include_top=False, input_shape=(*size, 3)
    )
    load_convnext_state(model, state_of(golden, name), depths)
    assert_agree(run(model, golden, name), golden[f"{name}/maps"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dinov2-small", "resnet50", "convnext-tiny"])
def test_a_whole_network_agrees_with_the_reference(golden, name, tmp_path):
    backbone, size = get_backbone(name), tuple(golden[f"{name}/size"].tolist())
    file = write_safetensors(tmp_path / "whole.safetensors", state_of(golden, name))
    model = build_network(backbone, size, str(file))
    got = run(model, golden, name)
    assert_agree(got[:, [0, -1], [0, -1]], golden[f"{name}/corners"])
    features, layout = build_feature_model(backbone, model)
    assert layout == backbone.layout()
    images = make_images(2, size)
    expected = np.asarray(features(images, training=False))
    lite = run_litert(convert_to_litert(features), images)
    assert np.abs(lite - expected).max() < TOLERANCE * np.abs(expected).max()


def test_other_prefixes_and_the_names_of_meta_are_the_same_network(golden, tmp_path):
    name, spec = "hf_registers", VITS["hf_registers"]
    state = state_of(golden, name)
    prefixed = {f"dinov2_with_registers.{key}": array for key, array in state.items()}
    prefixed["classifier.weight"] = np.zeros((2, 64), np.float32)
    size = tuple(golden[f"{name}/size"].tolist())
    model = build_vit("tiny", spec, size)
    load_vit_state(model, spec, read_state(write_safetensors(tmp_path / "a.safetensors", prefixed)))
    assert_agree(run(model, golden, name), golden[f"{name}/maps"])
    meta = {}
    for key, array in state.items():
        new = key.replace("encoder.layer.", "blocks.").replace("layernorm.", "norm.")
        new = new.replace("patch_embeddings.projection", "patch_embed.proj")
        new = new.replace("position_embeddings", "pos_embed").removeprefix("embeddings.")
        new = new.replace("attention.output.dense", "attn.proj").replace(".lambda1", ".gamma")
        meta[new.replace("layer_scale", "ls")] = array
    for block in (0, 1):
        for part in ("weight", "bias"):
            parts = [
                meta.pop(f"blocks.{block}.attention.attention.{kind}.{part}")
                for kind in ("query", "key", "value")
            ]
            meta[f"blocks.{block}.attn.qkv.{part}"] = np.concatenate(parts)
    other = build_vit("tiny", spec, size)
    load_vit_state(other, spec, meta)
    np.testing.assert_array_equal(run(other, golden, name), run(model, golden, name))


def test_resampling_by_hand():
    # Halfway between values the weights of the cubic kernel with a = -0.75 are -3/32 and 19/32.
    row = np.array([0, 32, 0, 0], np.float32).reshape(1, 4, 1)
    got = resample_positions(row, (1, 2), antialias=False)
    np.testing.assert_allclose(got.ravel(), [19, -3], atol=1e-5)
    same = resample_positions(row, (1, 4), antialias=True)
    np.testing.assert_array_equal(same, row)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm.weight": None}, "lack the tensor 'norm.weight'"),
        ({"cls_token": np.zeros((1, 1, 16))}, r"shape \(1, 1, 32\); its shape is \(1, 1, 16\)"),
        ({"norm.bias": np.full(32, np.nan)}, "finite"),
        ({"blocks.2.norm1.weight": np.ones(32)}, "more than 2 blocks"),
        ({"reg_token": np.zeros((1, 4, 32))}, "has register tokens"),
        ({"pos_embed": np.zeros(26)}, "pos_embed"),
        ({"blocks.1.attn.qkv.bias": np.zeros(95)}, "qkv.bias"),
        ({"blocks.0.ls1.gamma": None}, "ls1.gamma"),
    ],
)
def test_weights_of_another_network_are_rejected(golden, change, message):
    state = {**state_of(golden, "timm_dinov2"), **change}
    state = {name: array for name, array in state.items() if array is not None}
    spec = VITS["timm_dinov2"]
    with pytest.raises(WeightsError, match=message):
        load_vit_state(build_vit("tiny", spec, (70, 70)), spec, state)


def test_a_file_of_another_network_is_named(tmp_path):
    file = write_safetensors(tmp_path / "x.safetensors", {"a": np.zeros(3, np.float32)})
    for name in ("resnet50", "convnext-tiny", "efficientnet-lite0"):
        with pytest.raises(
            WeightsError, match=f"x.safetensors is not for {name}. The weights lack"
        ):
            build_network(get_backbone(name), (64, 64), str(file))


@pytest.mark.parametrize("name", [name for name in BACKBONES if BACKBONES[name].required_file])
def test_sizes_are_multiples_of_the_patch(name):
    backbone = get_backbone(name)
    step = 14 if "dinov2" in name else 16
    assert backbone.check_size(backbone.size) == (224, 224)
    assert backbone.check_size((4 * step, 9 * step)) == (4 * step, 9 * step)
    with pytest.raises(SettingsError, match=f"multiples of {step} .* Use {7 * step} or {8 * step}"):
        backbone.check_size((7 * step + 1, 7 * step + 1))
    with pytest.raises(SettingsError, match=f"Use {4 * step} or {4 * step} x {5 * step}"):
        backbone.check_size((4 * step, 4 * step + 3))


@pytest.mark.slow
def test_the_table_is_that_of_the_networks():
    for name in ("dinov2-small-registers", "vit-small-patch16"):
        backbone = get_backbone(name)
        network = build_network(backbone, None, "none")
        assert network.count_params() == backbone.parameters
        assert build_feature_model(backbone, network)[1] == backbone.layout()
        known = {layer.name for layer in network.layers}
        assert known.issuperset(backbone.cuts)
        assert {stage.layer for stage in backbone.stages} <= set(backbone.cuts) | known


def test_features_are_the_class_token_and_the_mean_of_the_patch_tokens(golden):
    import keras

    spec = VITS["timm_vit"]
    network = build_vit("tiny", spec, (48, 80))
    load_vit_state(network, spec, state_of(golden, "timm_vit"))
    tokens = keras.Model(network.input, network.get_layer("norm").output)
    found, expected = run(network, golden, "timm_vit"), run(tokens, golden, "timm_vit")[:, 0]
    assert expected.shape == (2, 16, 32)
    means = found.mean(axis=(1, 2))
    np.testing.assert_allclose(means[:, :32], expected[:, 1:].mean(axis=1), atol=1e-5)
    np.testing.assert_allclose(means[:, 32:], expected[:, 0], atol=1e-5)


def test_a_missing_file_is_explained_in_a_sentence():
    backbone = get_backbone("dinov2-small")
    with pytest.raises(
        WeightsError, match=r"download https://huggingface.co/facebook/dinov2-small"
    ):
        check_weights(backbone, "imagenet")
    with pytest.raises(SettingsError, match=r"must be none, or a file ending in .safetensors"):
        check_weights(backbone, "weights.h5")
    with pytest.raises(WeightsError, match="does not exist"):
        check_weights(backbone, "absent.safetensors")
    check_weights(backbone, "none")
    assert not is_available(backbone)


def test_in_an_ensemble_the_file_is_for_the_backbone_that_needs_one():
    lite, dino, vit = map(get_backbone, ("efficientnet-lite0", "dinov2-small", "vit-small-patch16"))
    assert weights_by_backbone([lite, dino], "a.safetensors") == ("imagenet", "a.safetensors")
    assert weights_by_backbone([dino], "a.safetensors") == ("a.safetensors",)
    assert weights_by_backbone([dino, lite], "none") == ("none", "none")
    for several in ([dino, vit], [lite, lite]):
        with pytest.raises(SettingsError, match="exactly one of them needs a file"):
            weights_by_backbone(several, "a.safetensors")


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("dinov2-small", (224, 224)),
        ("efficientnet-lite0+dinov2-small", (224, 224)),
        ("efficientnet-lite2+dinov2-small", (266, 266)),  # 260 is not a multiple of 14
        ("vit-small-patch16+dinov2-small", (224, 224)),
    ],
)
def test_the_default_size_suits_every_backbone(model, size):
    assert FrozenTrainer(model, weights="none").spec().size == size


def test_tokens_are_not_feature_maps_of_an_image(golden, tmp_path):
    import keras

    spec = VITS["timm_vit"]
    network = build_vit("tiny", spec, (48, 80))
    load_vit_state(network, spec, state_of(golden, "timm_vit"))
    means = keras.layers.GlobalAveragePooling2D()(network.output)
    logits = keras.layers.Dense(3)(means)
    file = tmp_path / "vit.tflite"
    file.write_bytes(convert_to_litert(keras.Model(network.input, logits)))
    (pooled,) = MapNetwork(file).maps
    assert (pooled.height, pooled.width, pooled.channels) == (3, 5, 64)
    assert not pooled.is_cropped


@pytest.mark.slow
def test_a_classifier_on_a_vision_transformer(golden, tmp_path, machine_cache):
    """From a weights file through training, and Keras against LiteRT, to predictions of files."""
    file = write_safetensors(tmp_path / "own.safetensors", state_of(golden, "dinov2-small"))
    photos = tmp_path / "photos"
    for name, number in itertools.product(CLASSES, range(10)):
        (photos / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(shape(name, number)).save(photos / name / f"{number}.png")
    settings = TrainSettings(
        str(photos), model="dinov2-small", weights=str(file), size=56, verify="full",
        runs=str(tmp_path), run="one",
    )  # fmt: skip
    result = train(settings)
    parity = load_bundle(result.run).facts["parity"]
    assert parity["keras"] == RUN_BY_KERAS and not parity["note"]
    assert parity["largest_difference"] < TOLERANCE
    with (result.run / "validation.csv").open(newline="") as table:
        known = list(csv.DictReader(table))
    assert len({row["p_ring"] for row in known}) == len(known) > 1
    files = [photos / row["path"] for row in known]
    for row, found in zip(known, Predictor(result.run).predict(files), strict=True):
        assert found.best == row["prediction"]
        expected = [float(row[f"p_{name}"]) for name in sorted(CLASSES)]
        np.testing.assert_allclose(found.probabilities, expected, atol=TOLERANCE)
