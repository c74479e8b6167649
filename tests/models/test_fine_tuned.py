"""Fine-tuned networks: initial logits, training above the cut, and states to the bit."""

import numpy as np
import pytest

from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
from kindsight.models.heads import LinearHead, RBFHead
from kindsight.models.networks.fine_tuned import (
    activation_shape,
    average_logits,
    average_over_flips,
    base_feature_count,
    build_fine_tuned,
    build_frozen_base,
    load_network,
    stages_of,
    with_head,
)
from kindsight.models.networks.frozen_base import list_cut_candidates
from kindsight.models.runtime import run_litert, write_both_forms
from kindsight.models.steps.backbones import HEAD_LEARNING_RATE, FineTunedForward
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.steps.trainable import TrainableNetwork

SIZE = (12, 10)
CHANNELS = {"stage3": 4, "stage4": 6}
TOP = 5


def tiny_layout():
    blocks, start = [], 0
    for stage, channels in CHANNELS.items():
        for kind in ("mean", "max"):
            blocks.append(FeatureBlock(f"{stage}_{kind}", start, start + channels))
            start += channels
    return FeatureLayout((*blocks, FeatureBlock("top_mean", start, start + TOP)))


def tiny_backbone():
    """Convolutions, one depthwise, a sum that goes past them; batch normalisations of any kind."""
    import keras

    layers, random = keras.layers, np.random.default_rng(5)
    pixels = keras.Input((*SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 255)(pixels)
    x = layers.Conv2D(4, 3, 2, "same", use_bias=False, name="stage3_conv")(x)
    first = layers.BatchNormalization(name="stage3_bn")(x)
    y = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name="stage3_dw")(first)
    y = layers.ReLU(6.0)(layers.BatchNormalization(name="stage3_dw_bn", epsilon=0.01)(y))
    third = layers.Add(name="stage3_out")([first, y])
    x = layers.Conv2D(6, 3, 2, "same", name="stage4_conv")(third)
    x = layers.BatchNormalization(name="stage4_bn", scale=False)(x)
    y = layers.DepthwiseConv2D(5, padding="same", use_bias=False, name="stage4_dw")(x)
    y = layers.BatchNormalization(name="stage4_dw_bn")(layers.ReLU()(y))  # cannot be folded
    fourth = layers.Activation("linear", name="stage4_out")(layers.Add()([x, y]))
    x = layers.Conv2D(TOP, 1, use_bias=False, name="top_conv")(fourth)
    x = layers.BatchNormalization(name="top_bn", center=False)(x)
    parts = []
    for values in (third, fourth):
        parts += [keras.ops.mean(values, (1, 2)), keras.ops.max(values, (1, 2))]
    parts.append(layers.GlobalAveragePooling2D(name="top_mean")(x))
    model = keras.Model(pixels, layers.Concatenate(name="features")(parts), name="tiny")
    for layer in model.layers:
        if layer.name.endswith("bn"):
            layer.set_weights([random.uniform(0.5, 1.5, w.shape) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module")
def tiny():
    return tiny_backbone()


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (9, *SIZE, 3)).astype(np.float32)


def heads(width):
    random = np.random.default_rng(1)

    def draw(*shape):
        return random.normal(0, 0.3, shape).astype(np.float32)

    yield LinearHead(draw(width, 3), draw(3))
    yield RBFHead(
        project_kernel=draw(width, 4), project_bias=draw(4), landmarks=draw(7, 4),
        gamma=np.float32(0.1), kernel=draw(7, 3), bias=draw(3),
    )  # fmt: skip


def cut(tiny, images, head, stage="stage3"):
    features = np.asarray(tiny(images))
    spread = features.std(0) + 0.1
    return build_fine_tuned(tiny, tiny_layout(), stage, head, 1.7, features.mean(0), spread)


def inputs(tiny, images, stage="stage3"):
    """The activations at the cut, and the features below it block by block."""
    lower = np.asarray(build_frozen_base(tiny, tiny_layout(), stage)(images))
    low = base_feature_count(tiny_layout(), stage)
    blocks = [block for block in tiny_layout().blocks if block.stop <= low]
    maps = lower[:, low:].reshape(-1, *activation_shape(tiny, stage))
    return [maps, *(lower[:, block.start : block.stop] for block in blocks)]


def tuned(network, given, compute_dtype="float32", shards=1, **more):
    forward = FineTunedForward(network, given, compute_dtype)
    return TrainableNetwork(forward, 3, 0, shards, ema_warmup=False, **more)


@pytest.mark.parametrize("stage", ["stage3", "stage4", None])
def test_initial_logits_are_those_of_the_fitted_head(tiny, images, stage):
    assert stages_of(tiny_layout()) == ("stage3", "stage4")
    for head in heads(tiny_layout().width):
        expected = head.logits(np.asarray(tiny(images))) / 1.7
        network = cut(tiny, images, head, stage)
        np.testing.assert_allclose(network.full(images), expected, rtol=1e-4, atol=2e-5)
        given = inputs(tiny, images, stage) if stage else images
        np.testing.assert_allclose(network.top(given), expected, rtol=1e-4, atol=2e-5)


def test_only_layers_above_the_cut_are_trained(tiny, images):
    head = next(heads(tiny_layout().width))
    names = {v.path for v in cut(tiny, images, head).top.trainable_variables}
    layers = {name.split("/")[0] for name in names}
    # The one that cannot be folded stays in inference mode, and as it is.
    assert layers == {"stage4_conv", "stage4_dw", "top_conv", "logits"}


def test_first_step_of_the_head_by_hand(tiny, images):
    head = next(heads(tiny_layout().width))
    network, targets = cut(tiny, images, head), np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    tuner = tuned(network, lambda _: inputs(tiny, images), layer_decay=0.5, ema_decay=0.75)
    tuner.begin(Optimizer("sgd"), 0.1)
    before = {name: value.copy() for name, value in tuner.weights().items()}
    loss, right = tuner.step(None, targets, 0.2, (0, 0))

    features = np.asarray(tiny(images), np.float64)
    logits = head.logits(features) / 1.7
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert loss == pytest.approx(-np.log((shares * targets).sum(1)).sum(), rel=1e-4)
    assert right == (shares.argmax(1) == targets.argmax(1)).sum()
    standard = (features - features.mean(0)) / (features.std(0) + 0.1)
    smoothed = targets * 0.9 + 0.1 / 3
    step = 0.2 * HEAD_LEARNING_RATE * standard.T @ (shares - smoothed) / 9
    state = tuner.state()
    np.testing.assert_allclose(
        state["weights/logits/kernel"], before["logits/kernel"] - step, atol=1e-5
    )
    # The mean goes a quarter of the way.
    np.testing.assert_allclose(
        tuner.weights()["logits/kernel"], before["logits/kernel"] - step / 4, atol=1e-5
    )


def test_layer_wise_learning_rate_decay(tiny, images):
    head = next(heads(tiny_layout().width))
    targets = np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    moved = []
    for decay in (1.0, 0.5):
        network = cut(tiny, images, head)
        tuner = tuned(network, lambda _: inputs(tiny, images), layer_decay=decay)
        tuner.begin(Optimizer("sgd"))
        before = tuner.weights()
        tuner.step(None, targets, 0.01, (0, 0))
        after = tuner.weights()
        moved.append({name: np.abs(after[name] - before[name]).sum() for name in before})
    shares = {name: moved[1][name] / moved[0][name] for name in moved[0] if "kernel" in name}
    expected = {"logits": 1.0, "top_conv": 0.5, "stage4_dw": 0.25, "stage4_conv": 0.125}
    for name, share in expected.items():
        assert shares[f"{name}/kernel"] == pytest.approx(share, rel=0.01)


def test_training_continues_from_a_state_to_the_bit(tiny, images):
    head = next(heads(tiny_layout().width))
    targets = np.eye(3, dtype=np.float32)[np.arange(9) % 3]

    def tuner():
        made = tuned(cut(tiny, images, head), lambda _: inputs(tiny, images), ema_decay=0.7)
        made.begin(Optimizer("adamw"))
        return made

    through, halved, other = tuner(), tuner(), tuner()
    for step in range(4):
        through.step(None, targets, 0.01, (0, step))
        if step < 2:
            halved.step(None, targets, 0.01, (0, step))
    other.set_state(halved.state())
    for step in (2, 3):
        other.step(None, targets, 0.01, (0, step))
    for name, value in through.state().items():
        np.testing.assert_array_equal(other.state()[name], value, err_msg=name)
    assert other.evaluate(None, targets.argmax(1)) == through.evaluate(None, targets.argmax(1))
    with pytest.raises(ValueError, match="other names"):
        other.set_weights({})


def test_average_logits_is_a_weighted_mean(tiny, images):
    head = list(heads(tiny_layout().width))[1]
    network = cut(tiny, images, head)
    copy = tiny_backbone()
    copy.set_weights(tiny.get_weights())
    other = with_head(copy, head, 0.5)  # on an input of its own
    before = np.asarray(network.frozen(images))
    np.testing.assert_allclose(before, head.logits(np.asarray(tiny(images))) / 1.7, atol=2e-5)
    (kernel,) = (v for v in network.top.trainable_variables if v.path == "logits/kernel")
    kernel.assign(kernel * 3)
    tuned = np.asarray(network.full(images))
    assert np.abs(tuned - before).max() > 0.01  # far more than what is allowed below
    for frozen, answers in ((network.frozen, before), (other, before * 1.7 / 0.5)):
        both = average_logits(network.full, frozen, 0.25)
        expected = 0.25 * tuned + 0.75 * answers
        np.testing.assert_allclose(both(images), expected, rtol=1e-4, atol=2e-5)


def test_logits_are_averaged_over_flips_in_both_files(tiny, images, tmp_path):
    flips = (0, 1, 2, 3)
    full = cut(tiny, images, list(heads(tiny_layout().width))[1]).full
    turned = {0: lambda x: x, 1: np.fliplr, 2: np.flipud, 3: lambda x: np.fliplr(np.flipud(x))}
    each = [full(np.stack([turned[flip](image) for image in images])) for flip in flips]
    expected, network = np.mean(each, 0), average_over_flips(full, flips)
    np.testing.assert_allclose(network(images), expected, atol=1e-5)
    files = tmp_path / "n.keras", tmp_path / "n.tflite"
    write_both_forms(network, *files)
    np.testing.assert_allclose(load_network(files[0])(images), expected, atol=1e-5)
    np.testing.assert_allclose(run_litert(files[1].read_bytes(), images), expected, atol=1e-4)


def test_average_with_a_copy_of_the_backbone_can_be_loaded(tiny, images, tmp_path):
    head = list(heads(tiny_layout().width))[1]
    full, copy = cut(tiny, images, head).full, tiny_backbone()
    both = average_logits(average_over_flips(full, (0, 2)), with_head(copy, head, 0.5), 0.5)
    both.save(tmp_path / "n.keras")
    np.testing.assert_allclose(load_network(tmp_path / "n.keras")(images), both(images), atol=1e-5)


def test_shared_weights_are_written_once(tmp_path):
    import keras

    pixels = keras.Input((8, 8, 3), name="pixels")
    logits = keras.layers.Dense(500)(keras.layers.Flatten()(pixels))
    full = keras.Model(pixels, keras.layers.Dense(2)(logits), name="wide")
    files = tmp_path / "n.keras", tmp_path / "n.tflite"
    write_both_forms(average_over_flips(full, (0, 1, 2, 3)), *files)
    weights = 4 * full.count_params()
    assert all(weights < file.stat().st_size < 1.5 * weights for file in files)


def test_a_phase_may_freeze_layers_up_to_a_stage(tiny, images):
    head = next(heads(tiny_layout().width))
    tuner = tuned(cut(tiny, images, head, None), lambda given: [given])
    targets = np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    tuner.begin(Optimizer("adamw"), 0.0, "stage4")
    before = tuner.weights()
    tuner.step(images, targets, 0.01, (0, 0))
    moved = {name for name, value in tuner.weights().items() if (value != before[name]).any()}
    assert {name.split("/")[0] for name in moved} == {"top_conv", "logits"}
    tuner.begin(Optimizer("adamw"))
    tuner.step(images, targets, 0.01, (0, 1))
    moved = {name for name, value in tuner.weights().items() if (value != before[name]).any()}
    assert "stage3_conv/kernel" in moved


def test_shards_change_no_more_than_rounding(tiny, images):
    head, targets = next(heads(tiny_layout().width)), np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    found = []
    for shards in (1, 2):
        network = cut(tiny, images, head)
        given = inputs(tiny, images)
        tuner = tuned(network, lambda _, given=given: given, shards=shards)
        tuner.begin(Optimizer("sgd"))
        told = [tuner.step(None, targets, 0.01, (0, step)) for step in range(3)]
        found.append((told, tuner.evaluate(None, targets.argmax(1)), tuner.weights()))
        assert {key[:2] for key in tuner._traced} == {("step", shards), ("evaluation", shards)}
    (told, judged, weights), (told_too, judged_too, weights_too) = found
    np.testing.assert_allclose(told_too, told, rtol=1e-4)
    np.testing.assert_allclose(judged_too, judged, rtol=1e-4)
    for name, value in weights.items():
        np.testing.assert_allclose(weights_too[name], value, rtol=1e-3, atol=1e-5, err_msg=name)


def test_cut_candidates_by_hand(tiny):
    # Multiplications: 6x5 outputs of 3x3x3x4 and of 3x3x4; 3x3 of 3x3x4x6, 5x5x6 and 6x5 (top).
    below, above = 30 * (108 + 36), 9 * (216 + 150 + 30)
    third, fourth = list_cut_candidates(tiny, tiny_layout())
    assert (third.stage, third.features, third.shape) == ("stage3", 8, (6, 5, 4))
    assert third.work_above == pytest.approx(above / (below + above))
    assert (fourth.stage, fourth.features, fourth.shape) == ("stage4", 20, (3, 3, 6))
    assert fourth.work_above == pytest.approx(9 * 30 / (below + above))


def test_bfloat16_changes_a_step_little_and_weights_stay_float32(tiny, images):
    head, targets = next(heads(tiny_layout().width)), np.eye(3, dtype=np.float32)[np.arange(9) % 3]
    moved = {}
    for compute_dtype in ("float32", "bfloat16"):
        network = cut(tiny, images, head)
        given = inputs(tiny, images)
        tuner = tuned(network, lambda _, given=given: given, compute_dtype)
        tuner.begin(Optimizer("sgd"))
        before, answers = tuner.weights(), np.asarray(network.top(given))
        tuner.step(None, targets, 0.01, (0, 0))
        moved[compute_dtype] = tuner.weights()["top_conv/kernel"] - before["top_conv/kernel"]
        tuner.set_weights(before)
        np.testing.assert_array_equal(network.top(given), answers)
        assert all(layer.compute_dtype == "float32" for layer in network.top.layers)
    difference = np.abs(moved["bfloat16"] - moved["float32"]).max()
    assert 0 < difference < 0.02 * np.abs(moved["float32"]).max()
