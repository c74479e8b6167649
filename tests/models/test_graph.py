"""Cut, frozen layers and trainable head; InceptionV3 up to mixed7."""

import numpy as np
import pytest

from kindsight.errors import SettingsError
from kindsight.models.backbones.features import build_network
from kindsight.models.backbones.table import get_backbone
from kindsight.models.graph import complete_layer, cut_network
from kindsight.models.networks.fine_tuned import (
    freeze,
    freeze_batch_norm,
    last_frozen_layer,
    parse_freeze,
    summarise,
)
from kindsight.models.networks.keras_heads import TrainableHead, add_trainable_head


def make_network():
    import keras

    layers = keras.layers
    pixels = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(2, 3, strides=2, padding="same", name="first")(pixels)
    x = layers.BatchNormalization(name="first_bn")(x)
    left = layers.Conv2D(3, 1, name="left")(x)
    right = layers.Conv2D(3, 1, name="right")(x)
    x = layers.Add(name="join")([left, right])
    x = layers.Conv2D(4, 3, strides=2, padding="same", name="second")(x)
    x = layers.BatchNormalization(name="second_bn")(x)
    return keras.Model(pixels, x, name="small")


@pytest.fixture
def network():
    return make_network()


@pytest.fixture(scope="module")
def inception():
    """At 150 pixels, as the course has it; random weights."""
    return build_network(get_backbone("inception-v3"), (150, 150), "none")


def trainable(model):
    return {layer.name for layer in model.layers if layer.trainable_weights}


def test_inception_v3_cut_at_mixed7_with_a_dense_head(inception):
    """Up to mixed7, all frozen; flatten, dense 1024, dropout 0.2, one sigmoid unit."""

    network = cut_network(inception, "mixed7")
    # 150 pixels: 7 x 7 maps of 768 channels, the course's own figures.
    assert network.output_shape == (None, 7, 7, 768)
    freeze(network, "all")
    head = TrainableHead(pooling="flatten", dense=(1024,), dropout=0.2)
    model = add_trainable_head(network, head, 2)
    names = [layer.name for layer in model.layers[-6:]]
    assert names == ["head_flatten", "head_dense1", "head_relu1", "head_dropout", "unit", "logits"]
    assert model.get_layer("unit").output.shape == (None, 1) and model.output_shape == (None, 2)
    # 7 * 7 * 768 * 1024 + 1024, then 1024 + 1
    assert sum(np.prod(v.shape) for v in model.trainable_weights) == 38_536_192 + 1_025


def test_summary_of_the_cut(inception):
    network = cut_network(inception, "mixed7")
    freeze(network, "mixed6")
    parts = summarise(network, get_backbone("inception-v3").cuts)
    assert [part.name for part in parts] == [f"mixed{number}" for number in range(8)]
    assert parts[-1].output == (7, 7, 768) and parts[2].output == (16, 16, 288)
    # What Keras counts up to mixed7; 8,975,264 is the figure of the course's notebook.
    assert sum(part.parameters for part in parts) == network.count_params() == 8_975_264
    assert [part.trainable > 0 for part in parts] == [False] * 7 + [True]
    # Of mixed7 the kernels train; means, variances and shifts of its normalisations do not:
    # ten convolutions without bias and normalisations without scale, three numbers a channel.
    kernels = [layer for layer in network.layers if layer.trainable_weights]
    assert {type(layer).__name__ for layer in kernels} == {"Conv2D"} and len(kernels) == 10


def test_cut_shares_weights(network):
    cut = cut_network(network, "join")
    assert cut.output_shape == (None, 8, 8, 3)
    assert cut.get_layer("first") is network.get_layer("first")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "left",
            r"Cannot cut small at 'left': other layers bypass it.*Use one of: join, second_bn",
        ),
        ("secnod", r"small has no layer 'secnod'\. Did you mean 'second'"),
        ("zebra", r"no layer 'zebra'\. Its last layers are right, join, second, second_bn\.$"),
        ("", r"no layer ''\. Its last layers are"),
        ("sec", r"'sec' is ambiguous: it matches 2 layers, second, second_bn"),
    ],
)
def test_invalid_cuts_raise(network, name, message):
    with pytest.raises(SettingsError, match=message):
        cut_network(network, name)


def test_layer_names_are_completed(network):
    assert complete_layer(network, "j") == "join"
    assert complete_layer(network, "first") == "first"  # though another begins so, too


def test_cut_after_pooling_raises(network):
    import keras

    pooled = keras.layers.GlobalAveragePooling2D(name="pooled")(network.output)
    model = keras.Model(network.input, pooled)
    with pytest.raises(SettingsError, match="not a feature map"):
        cut_network(model, "pooled")


@pytest.mark.parametrize(
    ("what", "training"),
    [
        ("all", set()),
        ("none", {"first", "left", "right", "second"}),
        (0, {"first", "left", "right", "second"}),
        (1, {"left", "right", "second"}),
        ("2", {"left", "right", "second"}),
        ("left", {"right", "second"}),
        ("join", {"second"}),
        ("second", set()),
    ],
)
def test_freeze(network, what, training):
    freeze(network, what)
    assert trainable(network) == training  # normalisation never
    freeze(network, what, train_batch_norm=True)
    assert training <= trainable(network) <= training | {"first_bn", "second_bn"}


def test_batch_norm_is_trained_on_request(network):
    freeze(network, "first_bn", train_batch_norm=True)
    assert trainable(network) == {"left", "right", "second", "second_bn"}
    freeze_batch_norm(network)
    assert trainable(network) == {"left", "right", "second"}


def test_unfrozen_network_keeps_normalisation_in_inference_mode(network):
    freeze(network, "none")
    pixels = np.random.default_rng(0).normal(5, 9, (4, 16, 16, 3)).astype(np.float32)
    calm, training = network(pixels, training=False), network(pixels, training=True)
    np.testing.assert_array_equal(np.asarray(calm), np.asarray(training))
    freeze(network, "none", train_batch_norm=True)
    assert np.abs(np.asarray(network(pixels, training=True)) - np.asarray(calm)).max() > 0.1


@pytest.mark.parametrize("what", [-1, True, None, "", 1.5])
def test_invalid_freezes_raise(what):
    with pytest.raises(SettingsError, match=r"`freeze` must be all, none, a number"):
        parse_freeze(what)


def test_freezing_more_layers_than_there_are_raises(network):
    with pytest.raises(SettingsError, match=r"at most 6, the layers of small with weights"):
        freeze(network, 7)


def test_summary_by_hand(network):
    freeze(network, "join")
    parts = summarise(network)
    rows = [(p.name, p.output, p.layers, p.parameters, p.trainable) for p in parts]
    assert rows == [
        ("image", (16, 16, 3), 0, 0, 0),
        # 3*3*3*2 + 2, 4*2, twice 2*3 + 3
        ("join", (8, 8, 3), 4, 56 + 8 + 18, 0),
        # 3*3*3*4 + 4 that train, 4*4 that do not
        ("second_bn", (4, 4, 4), 2, 112 + 16, 112),
    ]


@pytest.mark.parametrize(
    ("head", "classes", "layers", "parameters"),
    [
        (TrainableHead(), 3, ["head_average", "logits"], 4 * 3 + 3),
        (TrainableHead(pooling="max"), 2, ["head_max", "unit", "logits"], 4 + 1),
        (
            TrainableHead("flatten", (5,), 0.5, batch_norm=True),
            4,
            ["head_flatten", "head_dense1", "head_bn1", "head_relu1", "head_dropout", "logits"],
            64 * 5 + 5 + 2 * 5 + 5 * 4 + 4,
        ),
    ],
)
def test_heads_by_hand(network, head, classes, layers, parameters):
    freeze(network, "all")
    model = add_trainable_head(network, head, classes)
    assert [layer.name for layer in model.layers][-len(layers) :] == layers
    assert sum(int(np.prod(v.shape)) for v in model.trainable_weights) == parameters


def test_l2_is_the_penalty_on_kernels(network):
    model = add_trainable_head(network, TrainableHead(dense=(3,), l2=0.5), 3)
    kernels = [model.get_layer(name).kernel for name in ("head_dense1", "logits")]
    expected = 0.5 * sum(float(np.square(np.asarray(kernel)).sum()) for kernel in kernels)
    assert float(sum(model.losses)) == pytest.approx(expected, rel=1e-5)


def test_heads_too_large_for_memory_are_refused(inception):
    head = TrainableHead("flatten", (65_536,))
    with pytest.raises(SettingsError, match='Use `pooling="average"`'):
        add_trainable_head(inception, head, 2)


def test_two_logits_are_nothing_and_the_unit_s(network):
    import keras

    model = add_trainable_head(network, TrainableHead(), 2, seed=3)
    ends = keras.Model(model.input, [model.get_layer("unit").output, model.output])
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3)).astype(np.float32)
    unit, logits = (np.asarray(values) for values in ends(pixels))
    np.testing.assert_array_equal(logits, np.concatenate([np.zeros_like(unit), unit], 1))
    assert len({float(value) for value in unit[:, 0]}) == 3


def test_a_head_s_first_weights_are_of_the_seed_alone(network):
    def first(seed):
        model = add_trainable_head(network, TrainableHead("flatten", (5,), 0.5), 3, seed)
        return np.asarray(model.get_layer("head_dense1").kernel)

    one, other = first(1), first(2)
    np.testing.assert_array_equal(one, first(1))
    assert np.abs(one - other).max() > 0.01
    # Glorot's bound: the root of 6 by 64 inputs and 5 outputs.
    assert 0.9 < np.abs(one).max() / np.sqrt(6 / 69) <= 1


@pytest.mark.parametrize(
    ("learning", "border"),
    [
        (set(), "second_bn"),
        ({"second"}, "join"),
        ({"second_bn"}, "second"),
        ({"left"}, "first_bn"),  # the right branch is frozen, too, but nothing all passes through
        ({"first_bn"}, "first"),
        ({"first"}, None),
    ],
)
def test_the_last_frozen_layer_is_below_the_trained_ones(network, learning, border):
    found = last_frozen_layer(network, learning)
    assert (found and found.name) == border
