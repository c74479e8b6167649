"""The small CNN: table of layers, sizes that do not fit, and the Keras model."""

import numpy as np
import pytest

from kindsight.models.networks.small_cnn import SmallCNN, build_small_cnn

SMALL = SmallCNN(size=(20, 24), filters=(3, 5), dense=(7,))


def test_default_network():
    # What the course's listing prints for this network.
    rows = [(row.name, row.output, row.parameters) for row in SmallCNN().layers(2)]
    assert rows == [
        ("scale", (150, 150, 3), 0),
        ("conv_1", (148, 148, 16), 448),
        ("pool_1", (74, 74, 16), 0),
        ("conv_2", (72, 72, 32), 4640),
        ("pool_2", (36, 36, 32), 0),
        ("conv_3", (34, 34, 64), 18496),
        ("pool_3", (17, 17, 64), 0),
        ("features", (18496,), 0),
        ("dense_1", (512,), 9470464),
        ("unit", (1,), 513),
    ]
    last = SmallCNN().layers(10)[-1]
    assert (last.name, last.output, last.parameters) == ("logits", (10,), 5130)


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"batch_norm": True, "dropout": 0.5, "dense": (7, 6)},
        {"pooling": "average", "dense": ()},
        {"pooling": "max", "filters": (4,)},
    ],
)
def test_table_of_layers_equals_the_model(parts, classes):
    network = SmallCNN(**{"size": (20, 24), "filters": (3, 5), "dense": (7,), **parts})
    model = build_small_cnn(network, classes, 0)
    trained = {
        layer.name: sum(int(np.prod(w.shape)) for w in layer.trainable_weights)
        for layer in model.layers
    }
    for row in network.layers(classes):
        layer = model.get_layer(row.name)
        assert layer.output.shape[1:] == row.output and trained.pop(row.name) == row.parameters
    assert not any(trained.values())
    assert model.output_shape == (None, classes)


def test_two_logits_of_one_unit():
    import keras

    model = build_small_cnn(SMALL, 2, 0)
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 20, 24, 3)).astype(np.float32)
    unit = keras.Model(model.input, model.get_layer("unit").output)(pixels).numpy()[:, 0]
    logits = model(pixels).numpy()
    assert (logits[:, 0] == 0).all() and (logits[:, 1] == unit).all() and unit.std() > 0
    powers = np.exp(logits.astype(np.float64))
    assert (powers[:, 1] / powers.sum(1)) == pytest.approx(1 / (1 + np.exp(-unit)), rel=1e-6)


def test_keras_loads_the_model(tmp_path):
    import keras

    model = build_small_cnn(SMALL, 2, 0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    pixels = np.ones((1, 20, 24, 3), np.float32)
    assert (loaded(pixels).numpy() == model(pixels).numpy()).all()


def test_weights_depend_on_the_seed():
    first, same, other = (build_small_cnn(SMALL, 3, seed) for seed in (1, 1, 2))
    for one, two, three in zip(first.weights, same.weights, other.weights, strict=True):
        assert (one.numpy() == two.numpy()).all()
        if one.path.endswith("kernel"):
            assert (one.numpy() != three.numpy()).any()
    kernels = [w.numpy() for w in first.weights if w.path.endswith("kernel")]
    # Glorot's bound: the square root of 6 over the number of inputs and outputs.
    assert np.abs(kernels[0]).max() <= (6 / (27 + 9 * 3)) ** 0.5
    assert np.abs(kernels[-1]).max() <= (6 / (7 + 3)) ** 0.5


def test_images_too_small_for_the_convolutions():
    # 4 pixels become 2, then 1; one more convolution needs 10.
    assert SmallCNN(size=(4, 4), filters=(1,)).faults() == []
    assert SmallCNN(size=(10, 10), filters=(1, 1)).faults() == []
    (fault,) = SmallCNN(size=(9, 20), filters=(1, 1)).faults()
    assert "at least 10 pixels for 2 convolutions" in fault
    (fault,) = SmallCNN(size=(1024, 1024), filters=(64,), dense=(65536,)).faults()
    assert "more than 500,000,000" in fault


def test_settings_are_restored_from_json():
    network = SmallCNN(size=(20, 24), filters=(3,), dense=(), dropout=0.25, batch_norm=True)
    assert SmallCNN.from_dict(network.to_dict()) == network
