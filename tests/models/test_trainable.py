"""Training steps compared with Keras; random numbers by key; states to the bit."""

import itertools

import numpy as np
import pytest

from kindsight.models.networks.small_cnn import SmallCNN, build_small_cnn
from kindsight.models.steps import small_cnn as small_forward
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.steps.trainable import TrainableNetwork

SIZE = (20, 24)
RULES = ("rmsprop", "rmsprop with momentum", "adam", "sgd", "sgd with momentum", "adamw")
PARTS = {"size": SIZE, "filters": (3, 5), "dense": (7,)}


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Split even small kernels, as large ones are split."""
    monkeypatch.setattr(small_forward, "PIECE", 40)


def batches(classes, count=5, n=9):
    random = np.random.default_rng(0)
    for _ in range(count):
        images = random.integers(0, 256, (n, *SIZE, 3), dtype=np.uint8)
        yield images, np.eye(classes, dtype=np.float32)[random.integers(0, classes, n)]


def train(trainer, classes, count=5, rate=0.01):
    return [
        trainer.step(images, targets, rate, (3, step))
        for step, (images, targets) in enumerate(batches(classes, count))
    ]


def keras_twin(network, classes, optimizer, smoothing=0.0, class_weight=None):
    """The same network trained by Keras itself, sigmoid or softmax at its end; its weights."""
    import keras

    model = build_small_cnn(network, classes, 0)
    if classes == 2:
        out = keras.layers.Activation("sigmoid")(model.get_layer("unit").output)
        loss = keras.losses.BinaryCrossentropy(label_smoothing=smoothing)
    else:
        out = keras.layers.Activation("softmax")(model.output)
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    if network.l2:
        for layer in model.layers:
            if layer.trainable_weights and hasattr(layer, "kernel"):
                layer.kernel.regularizer = keras.regularizers.L2(network.l2)
    twin = keras.Model(model.input, out)
    twin.compile(optimizer, loss)
    for images, targets in batches(classes):
        labels = targets[:, 1:] if classes == 2 else targets
        weight = None if class_weight is None else targets @ np.array(class_weight, np.float32)
        twin.train_on_batch(images.astype(np.float32), labels, sample_weight=weight)
    return {w.path: w.numpy() for w in model.weights}


def twins():
    import keras

    o = keras.optimizers
    return {
        "rmsprop": (Optimizer("rmsprop"), o.RMSprop(0.01)),
        "rmsprop with momentum": (Optimizer("rmsprop", 0.5), o.RMSprop(0.01, momentum=0.5)),
        "adam": (Optimizer("adam"), o.Adam(0.01)),
        "sgd": (Optimizer("sgd"), o.SGD(0.01)),
        "sgd with momentum": (Optimizer("sgd", 0.9), o.SGD(0.01, momentum=0.9)),
        "adamw": (Optimizer("adamw", 0.0, 0.3), decaying_kernels(o.AdamW(0.01, weight_decay=0.3))),
    }


def decaying_kernels(optimizer):
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    return optimizer


def close(found, wanted):
    assert found.keys() <= wanted.keys()
    for name, value in found.items():
        assert value == pytest.approx(wanted[name], abs=2e-5), name


@pytest.mark.parametrize("name", RULES)
def test_optimizers_are_those_of_keras(name):
    network = SmallCNN(**PARTS)
    optimizer, theirs = twins()[name]
    trainer = TrainableNetwork(network, 2, 0, 2)
    trainer.begin(optimizer)
    train(trainer, 2)
    close(trainer.weights(), keras_twin(network, 2, theirs))


@pytest.mark.parametrize(
    ("parts", "more"),
    [
        ({"pooling": "average", "dense": (6, 5)}, {"class_weight": (0.5, 2.0, 1.5)}),
        ({"pooling": "max", "dense": (), "l2": 0.05}, {"smoothing": 0.2}),
        ({"batch_norm": True, "l2": 0.05}, {"smoothing": 0.1, "class_weight": (0.5, 2.0, 1.5)}),
    ],
)
def test_layers_and_losses_are_those_of_keras(parts, more):
    import keras

    network = SmallCNN(**{**PARTS, **parts})
    trainer = TrainableNetwork(network, 3, 0, 2, more.get("class_weight"))
    trainer.begin(Optimizer("sgd", 0.9), more.get("smoothing", 0.0))
    train(trainer, 3)
    wanted = keras_twin(network, 3, keras.optimizers.SGD(0.01, momentum=0.9), **more)
    close(trainer.weights(), wanted)


def test_shards_change_no_more_than_rounding():
    results = []
    for shards in (1, 3):
        trainer = TrainableNetwork(SmallCNN(**PARTS), 3, 0, shards)
        trainer.begin(Optimizer())
        results.append((train(trainer, 3), trainer.weights()))
    for told, weights in results[1:]:
        assert told == [(pytest.approx(loss, rel=1e-5), right) for loss, right in results[0][0]]
        close(weights, results[0][1])


def test_bfloat16_changes_a_step_little():
    # A step of plain SGD at rate 1 is the gradient itself. Where two of the four numbers under a
    # pooling round to the same, another image element may get its share: on noise, the worst
    # there is, the first kernel's gradient turns by a few degrees.
    found = []
    for compute_dtype in ("float32", "bfloat16"):
        trainer = TrainableNetwork(SmallCNN(**PARTS), 3, 0, 2, compute_dtype=compute_dtype)
        before = trainer.weights()
        trainer.begin(Optimizer("sgd"))
        [(loss, _)] = train(trainer, 3, 1, rate=1.0)
        found.append((loss, {n: (v - before[n]).ravel() for n, v in trainer.weights().items()}))
    (loss, exact), (rounded_loss, rounded) = found
    assert rounded_loss == pytest.approx(loss, rel=5e-3)
    for name, value in exact.items():
        length = np.linalg.norm(value)
        assert value @ rounded[name] / length / np.linalg.norm(rounded[name]) > 0.99, name
        assert np.linalg.norm(rounded[name]) == pytest.approx(length, rel=0.05), name
    assert any((rounded[name] != exact[name]).any() for name in exact)


def test_evaluation_is_float32():
    (images, targets), *_ = batches(3, 1)
    losses = [
        TrainableNetwork(SmallCNN(**PARTS), 3, 0, 1, compute_dtype=compute_dtype).evaluate(
            images, targets.argmax(1)
        )
        for compute_dtype in ("float32", "bfloat16")
    ]
    assert losses[0] == losses[1]


def test_loss_and_correct_predictions_of_a_batch():
    trainer = TrainableNetwork(SmallCNN(**PARTS), 3, 0, 1, (5.0, 1.0, 1.0))
    trainer.begin(Optimizer("sgd"), 0.3)
    model = build_small_cnn(SmallCNN(**PARTS), 3, 0)
    (images, targets), *_ = batches(3, 1)
    logits = model(images.astype(np.float32)).numpy().astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log((shares * targets).sum(1)).sum()
    right = int((logits.argmax(1) == targets.argmax(1)).sum())
    assert trainer.evaluate(images, targets.argmax(1)) == (pytest.approx(loss, rel=1e-5), right)
    # The returned loss is without label smoothing and class weights.
    assert trainer.step(images, targets, 1e-9, (0, 0)) == (pytest.approx(loss, rel=1e-5), right)


def test_trains_on_soft_targets():
    trainer = TrainableNetwork(SmallCNN(**PARTS), 2, 0, 1)
    trainer.begin(Optimizer("sgd"))
    (images, _), *_ = batches(2, 1)
    half = np.full((9, 2), 0.5, np.float32)
    for _ in range(300):
        loss, _ = trainer.step(images, half, 0.05, (0, 0))
    assert loss / 9 == pytest.approx(np.log(2), abs=0.02)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_dropout_depends_on_the_random_key(batch_norm):
    network = SmallCNN(**PARTS, dropout=0.5, batch_norm=batch_norm)
    trainer = TrainableNetwork(network, 2, 0, 1)
    trainer.begin(Optimizer("sgd"))
    start, ((images, targets), *_) = trainer.state(), batches(2, 1)

    def after(key):
        trainer.set_state(start)
        trainer.step(images, targets, 0.1, key)
        return np.concatenate([w.ravel() for w in trainer.weights().values()])

    first, same, other, third = (after(a) for a in ((1, 2), (1, 2), (1, 3), (2, 2)))
    assert (first == same).all() and (first != other).any() and (first != third).any()
    for one, two in itertools.combinations((first, other, third), 2):
        assert one == pytest.approx(two, abs=1)


def test_dropout_keeps_the_mean():
    import tensorflow as tf

    network = SmallCNN(**PARTS, dropout=0.4)
    trainer = TrainableNetwork(network, 3, 0, 1)
    images = tf.constant(np.full((1500, *SIZE, 3), 90, np.uint8))
    plain = trainer._forward.logits(images[:1], 1).numpy()[0]
    key = tf.constant([7, 8], tf.int64)
    drawn = trainer._forward.differentiate(images, tf.reduce_sum, key, 1)[0].numpy()
    spread = drawn.std(0)
    assert drawn.mean(0) == pytest.approx(plain, abs=float(0.1 * spread.max()))
    assert spread.min() > 0


@pytest.mark.parametrize(
    ("rule", "batch_norm"),
    [("rmsprop", True), ("rmsprop with momentum", False), ("sgd", False), ("adamw", False)],
)
def test_training_continues_from_a_state_to_the_bit(rule, batch_norm):
    network, optimizer = SmallCNN(**PARTS, dropout=0.2, batch_norm=batch_norm), twins()[rule][0]
    one = TrainableNetwork(network, 3, 0, 2)
    one.begin(optimizer)
    train(one, 3)
    state = one.state()
    other = TrainableNetwork(network, 3, 5, 2)
    other.begin(optimizer)
    other.set_state(state)
    assert train(one, 3) == train(other, 3)
    for name, value in one.state().items():
        assert value.tobytes() == other.state()[name].tobytes(), name


def test_states_are_copies():
    trainer = TrainableNetwork(SmallCNN(**PARTS), 3, 0, 2)
    trainer.begin(Optimizer("adam"))
    weights, state = trainer.weights(), trainer.state()
    before = {name: value.copy() for name, value in {**weights, **state}.items()}
    train(trainer, 3)
    for name, value in {**weights, **state}.items():
        assert (value == before[name]).all()
    trainer.set_weights(weights)
    assert all((trainer.weights()[name] == before[name]).all() for name in weights)


def test_a_state_that_does_not_fit_changes_nothing():
    trainer = TrainableNetwork(SmallCNN(**PARTS), 2, 0, 1)
    trainer.begin(Optimizer())
    before = trainer.state()
    train(trainer, 2, 1)
    now = trainer.state()
    for spoil in (
        lambda state: state.pop("updates"),
        lambda state: state.update(more=np.zeros(1, np.float32)),
        lambda state: state.update({"weights/unit/bias": np.zeros(2, np.float32)}),
        lambda state: state.update({"weights/unit/bias": np.zeros(1, np.float64)}),
        lambda state: state.update({"velocity/unit/kernel": np.zeros((3, 1), np.float32)}),
    ):
        spoilt = dict(before)
        spoil(spoilt)
        with pytest.raises(ValueError):
            trainer.set_state(spoilt)
        assert all((trainer.state()[name] == value).all() for name, value in now.items())


def test_both_files_have_the_trained_weights(tmp_path):
    import keras

    from kindsight.models.runtime import run_litert

    trainer = TrainableNetwork(SmallCNN(**PARTS, batch_norm=True, dropout=0.3), 2, 0, 2)
    trainer.begin(Optimizer())
    train(trainer, 2)
    assert trainer.save(tmp_path / "n.keras", tmp_path / "n.tflite") < 1e-4
    (images, targets), *_ = batches(2, 1)
    pixels = images.astype(np.float32)
    logits = keras.models.load_model(tmp_path / "n.keras")(pixels)[0].numpy()
    assert run_litert((tmp_path / "n.tflite").read_bytes(), pixels) == pytest.approx(
        logits, abs=1e-4
    )
    losses = np.log(1 + np.exp(np.where(targets[:, 1] > 0, -logits[:, 1], logits[:, 1])))
    found, right = trainer.evaluate(images, targets.argmax(1))
    assert found == pytest.approx(losses.sum(), rel=1e-4)
    assert right == (logits.argmax(1) == targets.argmax(1)).sum()
