"""The modern CNN: table of layers, the Keras model, and its training step."""

import numpy as np
import pytest

from kindsight.models.networks.small_cnn import ModernCNN, build_modern_cnn, default_filters
from kindsight.models.steps import small_cnn as modern_forward
from kindsight.models.steps.optimizers import Optimizer
from kindsight.models.steps.trainable import TrainableNetwork

SMALL = ModernCNN(size=(13, 8), filters=(3, 5, 4))


def batches(classes, count=3, n=9):
    random = np.random.default_rng(0)
    for _ in range(count):
        images = random.integers(0, 256, (n, *SMALL.size, 3), dtype=np.uint8)
        yield images, np.eye(classes, dtype=np.float32)[random.integers(0, classes, n)]


def train(network, classes, rule, cores=2, n=9):
    trainer = TrainableNetwork(network, classes, 0, cores)
    trainer.begin(rule)
    losses = [trainer.step(*batch, 0.01, (1, 2))[0] for batch in batches(classes, n=n)]
    return trainer, losses


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "parts",
    [{}, {"pooling": "average", "dropout": 0.5}, {"pooling": "flatten", "dense": (7, 6)}],
)
def test_table_of_layers_equals_the_model(parts, classes):
    network = ModernCNN(**{"size": (13, 8), "filters": (3, 5, 4), **parts})
    model = build_modern_cnn(network, classes, 0)
    trained = {
        layer.name: sum(int(np.prod(w.shape)) for w in layer.trainable_weights)
        for layer in model.layers
    }
    for row in network.layers(classes):
        layer = model.get_layer(row.name)
        assert layer.output.shape[1:] == row.output and trained.pop(row.name) == row.parameters
    assert not any(trained.values())
    assert ModernCNN.from_dict(network.to_dict()) == network


def test_multiplications_are_those_of_padded_convolutions():
    # 13 x 8, then 13 x 8 and 6 x 4, then 6 x 4 and 3 x 2 pixels.
    sizes = ((3, 3, 104), (3, 5, 104), (5, 5, 24), (5, 4, 24), (4, 4, 6))
    assert SMALL.multiplications() == sum(9 * i * o * pixels for i, o, pixels in sizes)


def test_filters_double_until_four_pixels_are_left():
    assert default_filters((32, 32), 16) == (16, 32, 64, 128)
    assert default_filters((64, 48), 8) == (8, 16, 32, 64)
    assert default_filters((96, 96), 8) == (8, 16, 32, 64, 128)
    assert default_filters((4, 4), 16) == (16, 32)
    assert ModernCNN(size=(8, 8), filters=(1, 1, 1, 1)).faults() == []
    (fault,) = ModernCNN(size=(7, 40), filters=(1, 1, 1, 1)).faults()
    assert "at least 8 pixels for 4 numbers" in fault


@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_is_that_of_keras(classes):
    import keras

    network = ModernCNN(size=SMALL.size, filters=SMALL.filters, dense=(6,), l2=0.01)
    model = build_modern_cnn(network, classes, 0)
    for layer in model.layers:
        if layer.trainable_weights and hasattr(layer, "kernel"):
            layer.kernel.regularizer = keras.regularizers.L2(network.l2)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    for images, targets in batches(classes):
        model.train_on_batch(images.astype(np.float32), targets)
    ours, _ = train(network, classes, Optimizer("sgd"))
    found = ours.weights()
    for weight in model.weights:
        if weight.path.startswith("logits") and classes == 2:
            continue  # the constant layer that makes two logits of one unit
        # Its variance is that of a sample, Keras's that of a population: 54 values at the least.
        close = 0.03 if weight.path.endswith("moving_variance") else 2e-4
        assert found[weight.path] == pytest.approx(weight.numpy(), abs=close, rel=close)


def test_saved_network_predicts_as_in_training(tmp_path):
    import keras

    ours, _ = train(SMALL, 3, Optimizer("adam"))
    images, _ = next(batches(3))
    logits = ours.logits(images)
    ours.save(tmp_path / "network.keras", tmp_path / "network.tflite")
    outputs = keras.models.load_model(tmp_path / "network.keras")(images.astype(np.float32))
    assert outputs[0].numpy() == pytest.approx(logits, abs=1e-4)
    assert outputs[1].shape == (len(images), SMALL.filters[-1])


def test_the_result_does_not_depend_on_the_number_of_cores(monkeypatch):
    monkeypatch.setattr(modern_forward.ModernCNNForward, "shard_images", 4)
    one, first = train(SMALL, 3, Optimizer("adam"), cores=1)
    eight, second = train(SMALL, 3, Optimizer("adam"), cores=8)
    assert first == second
    for name, value in one.weights().items():
        assert (value == eight.weights()[name]).all(), name
    monkeypatch.setattr(modern_forward.ModernCNNForward, "shard_images", 9)
    _, whole = train(SMALL, 3, Optimizer("adam"), cores=8)
    assert whole != first  # shards are normalised by their own statistics
