"""Transfer networks: trained layers of each phase, compared with Keras and by hand."""

import numpy as np
import pytest

from kindsight.models.networks.keras_heads import TrainableHead
from kindsight.models.networks.transfer import (
    TransferNetwork,
    build_transfer,
    describe_transfer,
    load_maps,
)
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.steps.trainable import TrainableNetwork

SIZE = (12, 16)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """A backbone's file: a convolution, normalised; two branches; another one; a last mean."""
    import keras

    layers = keras.layers
    keras.utils.set_random_seed(5)
    pixels = keras.Input((*SIZE, 3), name="pixels")
    x = layers.Rescaling(1 / 255, name="scale")(pixels)
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="first")(x)
    x = layers.BatchNormalization(name="first_bn")(x)
    x = layers.ReLU(name="first_relu")(x)
    left = layers.Conv2D(5, 1, name="left")(x)
    right = layers.Conv2D(5, 3, padding="same", name="right")(x)
    x = layers.Add(name="join")([left, right])
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Conv2D(6, 3, strides=2, padding="same", name="second")(x)
    x = layers.BatchNormalization(name="second_bn")(x)
    x = layers.ReLU(name="second_relu")(x)
    top = layers.GlobalAveragePooling2D(name="top_mean")(x)
    features = layers.Concatenate(name="features")([layers.GlobalMaxPooling2D()(left), top])
    model = keras.Model(pixels, features, name="tiny_features")
    for layer in ("first_bn", "second_bn"):  # as learned before, not as made
        norm = model.get_layer(layer)
        norm.moving_mean.assign(np.linspace(-0.1, 0.2, norm.moving_mean.shape[0]))
        norm.moving_variance.assign(np.linspace(0.5, 2, norm.moving_mean.shape[0]))
    path = tmp_path_factory.mktemp("backbone") / "tiny.keras"
    model.save(path)
    return str(path)


def network(file, freezes=("all",), head=None, **more):
    return TransferNetwork(file, freezes=freezes, head=head or TrainableHead(), **more)


def batches(classes=3, count=4, n=7):
    random = np.random.default_rng(0)
    for _ in range(count):
        images = random.integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)
        yield images, np.eye(classes, dtype=np.float32)[random.integers(0, classes, n)]


def learn(trainer, rate=0.05, count=4):
    for step, (images, targets) in enumerate(batches(count=count)):
        trainer.step(images, targets, rate, (3, step))


def changed(before, after):
    return {name.split("/")[0] for name in before if not np.array_equal(before[name], after[name])}


def every(trainer):
    return {w.path: w.numpy() for w in trainer._forward.model.weights if "seed" not in w.path}


# Against Keras's own training -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("freeze", "head", "more"),
    [
        ("all", TrainableHead("flatten", (8,)), {}),
        ("join", TrainableHead(dense=(8,), l2=0.03), {}),
        (
            "first",
            TrainableHead("max", dense=(8,), batch_norm=True),
            {"class_weight": (0.5, 2.0, 1.5)},
        ),
    ],
)
def test_steps_are_those_of_keras(file, freeze, head, more):
    import keras

    told = network(file, (freeze,), head)
    trainer = TrainableNetwork(told, 3, 0, 2, more.get("class_weight"))
    trainer.begin(Optimizer("sgd", 0.9), 0.1, freeze)

    twin = build_transfer(told, 3, 0)
    twin.model.get_layer("drop").rate = 0.0
    trainer._forward.model.get_layer("drop").rate = 0.0
    softmax = keras.Model(twin.model.input, keras.layers.Softmax()(twin.model.output))
    softmax.compile(
        keras.optimizers.SGD(0.05, momentum=0.9), keras.losses.CategoricalCrossentropy(False, 0.1)
    )
    for images, targets in batches():
        weight = targets @ np.array(more.get("class_weight", (1, 1, 1)), np.float32)
        softmax.train_on_batch(images.astype(np.float32), targets, sample_weight=weight)
    learn(trainer)
    wanted = {w.path: w.numpy() for w in twin.model.weights}
    found = trainer.weights()
    assert found.keys() <= wanted.keys() and len(found) > 1
    for name, value in every(trainer).items():
        assert value == pytest.approx(wanted[name], abs=2e-5), name


# Trained layers of each phase --------------------------------------------------------------------


def test_frozen_layers_of_each_phase(file):
    trainer = TrainableNetwork(network(file, ("all", "join", "none")), 3, 0, 1)
    start = every(trainer)
    seen = []
    for freeze in ("all", "join", "none"):
        before = every(trainer)
        trainer.begin(Optimizer("adam"), 0.0, freeze)
        learn(trainer, 0.01)
        seen.append(changed(before, every(trainer)))
    assert seen == [
        {"logits"},
        {"second", "logits"},
        {"first", "left", "right", "second", "logits"},
    ]
    # Normalisation is as it was, to the bit: not trained, and no means of batches in it.
    assert {name for name in start if "_bn/" in name} & changed(start, every(trainer)) == set()
    names = {name.split("/")[0] for name in trainer.weights()}
    assert names == {"first", "left", "right", "second", "logits"}


def test_batch_norm_is_trained_on_request(file):
    trainer = TrainableNetwork(network(file, ("join",), train_batch_norm=True), 3, 0, 1)
    before = every(trainer)
    trainer.begin(Optimizer("sgd"), 0.0, "join")
    learn(trainer)
    after = every(trainer)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert {"second_bn/gamma", "second_bn/moving_mean"} <= moved
    assert not any(name.startswith(("first", "left", "right")) for name in moved)
    assert {"second_bn/moving_variance", "second_bn/beta"} <= trainer.weights().keys()


def test_frozen_layers_run_in_inference_mode(file):
    """Frozen dropout drops nothing, with pixels or activations as inputs."""
    told = network(file, ("join",))
    maps_of = build_maps(file, "drop")
    by_pixels, by_maps = TrainableNetwork(told, 3, 0, 1), TrainableNetwork(told, 3, 0, 1)
    for trainer in (by_pixels, by_maps):
        trainer.begin(Optimizer("sgd"), 0.0, "join")
    for step, (images, targets) in enumerate(batches()):
        one = by_pixels.step(images, targets, 0.05, (9, step))
        other = by_maps.step(maps_of(images), targets, 0.05, (9, step))
        assert one == pytest.approx(other, rel=1e-5)
        judged = by_pixels.evaluate(images, targets.argmax(1))
        assert judged == pytest.approx(by_maps.evaluate(maps_of(images), targets.argmax(1)))
    for name, value in by_maps.weights().items():
        assert value == pytest.approx(by_pixels.weights()[name], abs=1e-6), name


def build_maps(file, layer):
    import keras

    base = load_maps(file)
    lower = keras.Model(base.input, base.get_layer(layer).output)
    return lambda images: np.asarray(lower(images.astype(np.float32), training=False))


# Layer decay and EMA ------------------------------------------------------------------------------


def test_layer_wise_learning_rate_decay(file):
    """One step of plain SGD changes each layer half as much as the one above."""
    moves = []
    for decay in (1.0, 0.5):
        trainer = TrainableNetwork(network(file, ("none",)), 3, 0, 1, layer_decay=decay)
        before = every(trainer)
        trainer.begin(Optimizer("sgd"), 0.0, "none")
        learn(trainer, 0.1, count=1)
        moves.append({name: value - before[name] for name, value in every(trainer).items()})
    factors = {"logits": 1, "second": 2, "right": 4, "left": 8, "first": 16}
    for name, move in moves[1].items():
        factor = factors.get(name.split("/")[0], 1)
        assert move * factor == pytest.approx(moves[0][name], abs=2e-6), name


def test_ema_of_the_weights_by_hand(file):
    share = 0.3
    plain = TrainableNetwork(network(file), 3, 0, 1)
    trainer = TrainableNetwork(network(file), 3, 0, 1, ema_decay=share)
    mean = plain.weights()["logits/kernel"].astype(np.float64)
    for one in (plain, trainer):
        one.begin(Optimizer("sgd"), 0.0, "all")
    for step, (images, targets) in enumerate(batches(), 1):
        for one in (plain, trainer):
            one.step(images, targets, 0.5, (3, step))
        kept = min(share, (1 + step) / (10 + step))
        mean = kept * mean + (1 - kept) * plain.weights()["logits/kernel"]
        assert trainer.weights()["logits/kernel"] == pytest.approx(mean, abs=1e-5)
    # It is the mean that is judged and written, while the steps go on from where they were.
    images, targets = next(batches())
    judged = trainer.evaluate(images, targets.argmax(1))
    plain.set_weights(trainer.weights())
    assert judged == pytest.approx(plain.evaluate(images, targets.argmax(1)), rel=1e-6)
    assert every(trainer)["logits/kernel"] != pytest.approx(mean, abs=1e-4)


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_training_continues_from_a_state_to_the_bit(file, ema_decay):
    def made():
        head = TrainableHead("flatten", (6,), 0.5, batch_norm=True)
        trainer = TrainableNetwork(network(file, ("join",), head), 3, 0, 1, ema_decay=ema_decay)
        trainer.begin(Optimizer("rmsprop"), 0.0, "join")
        return trainer

    one, other = made(), made()
    steps = list(batches())
    for step, (images, targets) in enumerate(steps[:2]):
        one.step(images, targets, 0.01, (1, step))
    other.set_state(one.state())
    for step, (images, targets) in enumerate(steps[2:]):
        assert one.step(images, targets, 0.01, (2, step)) == other.step(
            images, targets, 0.01, (2, step)
        )
    state, twin = one.state(), other.state()
    assert state.keys() == twin.keys()
    assert all(np.array_equal(state[name], twin[name]) for name in state)
    with pytest.raises(ValueError, match="other names"):
        other.set_weights({"first/kernel": np.zeros(3, np.float32)})


def test_both_files_have_the_trained_weights(file, tmp_path):
    import keras

    from kindsight.models.runtime import run_litert

    trainer = TrainableNetwork(network(file, ("join",), cut="join"), 2, 0, 1, ema_decay=0.5)
    trainer.begin(Optimizer("sgd"), 0.0, "join")
    for step, (images, targets) in enumerate(batches(2)):
        trainer.step(images, targets, 0.05, (3, step))
    assert trainer.save(tmp_path / "a.keras", tmp_path / "a.tflite") < 1e-4
    model = keras.models.load_model(tmp_path / "a.keras")
    assert model.get_layer("head_average").input.name == model.get_layer("join").output.name
    images = next(batches(2))[0].astype(np.float32)
    logits = np.asarray(model(images)[0])
    assert logits == pytest.approx(
        run_litert((tmp_path / "a.tflite").read_bytes(), images), abs=1e-5
    )
    weights = {w.path: w.numpy() for w in model.weights}
    for name, value in trainer.weights().items():
        np.testing.assert_array_equal(weights[name], value)


def test_bfloat16_convolutions_differ_by_rounding_only(file):
    found = []
    for compute_dtype in ("float32", "bfloat16"):
        trainer = TrainableNetwork(network(file, ("none",)), 3, 0, 1, None, compute_dtype)
        trainer._forward.model.get_layer("drop").rate = 0.0
        trainer.begin(Optimizer("sgd"), 0.0, "none")
        learn(trainer, count=2)
        assert all(value.dtype == np.float32 for value in trainer.weights().values())
        found.append(trainer.weights())
    gaps = [np.abs(found[0][name] - found[1][name]).max() for name in found[0]]
    assert 0 < max(gaps) < 0.01


# Descriptions --------------------------------------------------------------------------


def test_description_of_a_network(file):
    told = describe_transfer(network(file, ("all", "jo", 1), cut="second"), 2, None)
    assert told["cut"] == "second" and told["freezes"] == ["all", "join", 1]
    assert told["frozen_cuts"] == [
        {"layer": "second", "shape": [3, 4, 6]},
        {"layer": "drop", "shape": [6, 8, 5]},  # behind join, where nothing learns either
        {"layer": "first_relu", "shape": [6, 8, 4]},
    ]
    rows = {row[0]: row[1:] for row in told["layers"]}
    # 3 * 3 * 3 * 4 + 4 and 4 * 4 numbers, 4 * 5 + 5, 3 * 3 * 4 * 5 + 5, 3 * 3 * 5 * 6 + 6
    assert rows["first"] == ["convolution 3 x 3", (6, 8, 4), 112, "frozen"]
    assert rows["first_bn"] == ["batch normalisation", (6, 8, 4), 16, "frozen"]
    assert rows["left"] == ["convolution 1 x 1", (6, 8, 5), 25, "trainable in phase 3"]
    assert rows["second"] == ["convolution 3 x 3", (3, 4, 6), 276, "trainable from phase 2 on"]
    assert rows["unit"] == ["dense, sigmoid", (1,), 7, "trainable"] and "logits" not in rows


def test_frozen_blocks_are_one_row_each(file):
    told = describe_transfer(network(file, ("join",)), 3, ("first_relu", "join"))
    assert [row[0] for row in told["layers"]] == [
        *("to first_relu", "to join", "second", "second_bn", "head_average", "logits"),
    ]
    assert told["layers"][0][1:] == ["2 layers with weights", (6, 8, 4), 128, "frozen"]


def test_settings_are_restored_from_json(file):
    import json

    told = network(file, ("all", 3), TrainableHead("max", (4, 5), 0.1, True, 0.2), cut="join")
    assert TransferNetwork.from_dict(json.loads(json.dumps(told.to_dict()))) == told
