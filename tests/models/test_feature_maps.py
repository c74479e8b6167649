"""Feature maps: those of a network whose filters are known, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from kindsight.errors import KindsightError, SettingsError
from kindsight.models.networks.feature_maps import (
    LayerMaps,
    brightness,
    collect_maps,
    collect_maps_in_worker,
    evenly,
    read_maps,
    write_maps,
)
from kindsight.models.worker.process import KerasProcess


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """Two filters of 2x2: the sum of the reds, and minus the green at the top left; then a pool."""
    import keras

    kernel = np.zeros((2, 2, 3, 2), np.float32)
    kernel[:, :, 0, 0] = 1
    kernel[0, 0, 1, 1] = -1
    pixels = keras.Input((3, 4, 3), name="pixels")
    x = keras.layers.Rescaling(1.0, name="scaling")(pixels)
    x = keras.layers.Conv2D(2, 2, activation="relu", name="first")(x)
    x = keras.layers.BatchNormalization(name="norm")(x)
    x = keras.layers.Dropout(0.5, name="dropout")(x)
    x = keras.layers.MaxPooling2D((1, 3), name="pool")(x)
    x = keras.layers.GlobalAveragePooling2D(name="mean")(x)
    model = keras.Model(pixels, keras.layers.Dense(2, name="logits")(x))
    model.get_layer("first").set_weights([kernel, np.array([1.0, 0.0], np.float32)])
    path = tmp_path_factory.mktemp("networks") / "model.keras"
    model.save(path)
    return path


PIXELS = np.zeros((3, 4, 3), np.uint8)
PIXELS[..., 0] = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]]
PIXELS[..., 1] = 200
# 1 + 2 + 5 + 6 and the bias of 1, and so on; -200 is cut off by the ReLU
FIRST = [[15, 19, 23], [31, 35, 39]]


def test_the_maps_are_those_worked_out_by_hand(network):
    (first, pool), left_out, within = collect_maps(network, PIXELS, 16, 64)
    assert not within
    assert (first.name, first.kind, first.channels, first.size) == ("first", "Conv2D", 2, (2, 3))
    assert first.maps.tolist() == [FIRST, [[0, 0, 0], [0, 0, 0]]]
    assert (first.low, first.high, first.silent) == (0, 39, 1)
    assert first.shown.tolist() == [0, 1]
    # the pool sees it through a fresh batch normalisation, which divides by sqrt(1 + 0.001)
    assert (pool.name, pool.size) == ("pool", (2, 1))
    np.testing.assert_allclose(pool.maps[0], [[23 / 1.0005], [39 / 1.0005]], rtol=1e-6)
    assert left_out == []


def test_layers_and_maps_are_chosen_evenly_and_the_rest_is_named(network):
    (first,), left_out, _ = collect_maps(network, PIXELS, 1, 1)
    assert (first.name, first.channels, first.shown.tolist()) == ("first", 2, [0])
    assert first.maps.tolist() == [FIRST]
    # of all its maps, not of those shown
    assert (first.low, first.silent) == (0, 1)
    assert left_out == ["pool"]


def test_the_worker_process_returns_the_same(network, keras_process):
    layers, left_out, _ = collect_maps_in_worker(keras_process, network, PIXELS, max_layers=1)
    assert layers[0].maps.tolist() == [FIRST, [[0, 0, 0], [0, 0, 0]]]
    assert layers[0].maps.dtype == np.float32
    assert left_out == ["pool"]


def test_network_without_feature_maps_raises(tmp_path):
    import keras

    flat = keras.Sequential([keras.Input((3, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    flat.save(tmp_path / "flat.keras")
    with pytest.raises(
        KindsightError, match=r"1 inputs and 0 layers with feature maps among its 2"
    ):
        collect_maps(tmp_path / "flat.keras", PIXELS, 16, 64)


def test_all_layers_of_a_sequential_network(tmp_path):
    import keras

    layers = keras.layers
    model = keras.Sequential([
        keras.Input((12, 10, 3)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.MaxPooling2D(2),
        layers.Conv2D(8, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(1, activation="sigmoid"),
    ])  # fmt: skip
    model.save(tmp_path / "model.keras")
    found, *_ = collect_maps(tmp_path / "model.keras", np.zeros((12, 10, 3), np.uint8), 16, 64)
    assert [(layer.kind, layer.channels, layer.size) for layer in found] == [
        ("Conv2D", 4, (10, 8)),
        ("MaxPooling2D", 4, (5, 4)),
        ("Conv2D", 8, (3, 2)),
    ]


@pytest.mark.parametrize("shape", [(1, 3, 4, 3), (0, 4, 3), ()])
def test_pixels_of_another_shape_raise_before_a_process_starts(shape):
    process = KerasProcess()
    with pytest.raises(SettingsError, match="must be one image"):
        collect_maps_in_worker(process, "model.keras", np.zeros(shape, np.uint8))
    assert process.pid is None


@pytest.mark.parametrize(
    ("count", "limit", "chosen"),
    [
        (3, 5, [0, 1, 2]),
        (5, 5, [0, 1, 2, 3, 4]),
        (9, 3, [0, 4, 8]),
        (100, 2, [0, 99]),
        (100, 1, [0]),
        (0, 3, []),
    ],
)
def test_even_choice(count, limit, chosen):
    assert evenly(count, limit) == chosen


def test_even_choices_are_different_numbers():
    for count in range(1, 200):
        found = evenly(count, 64)
        assert len(set(found)) == len(found) == min(count, 64)
        assert (found[0], found[-1]) == (0, count - 1)


def test_brightness_is_the_course_s():
    # mean 2, standard deviation sqrt(2): the ends are 1.414 deviations away, 128 -+ 64 * 1.414
    maps = np.array([[[0, 1, 2, 3, 4]]], np.float32)
    assert brightness(maps).tolist() == [[[37, 83, 128, 173, 219]]]
    # one of many is far more than two deviations away
    spike = np.zeros((1, 10, 10), np.float32)
    spike[0, 0, 0] = 5
    # mean 0.05, deviation 0.4975: 128 - 6.4 for the others
    assert brightness(spike)[0, 0].tolist() == [255] + [122] * 9
    assert brightness(np.full((1, 2, 2), 7, np.float32)).tolist() == [[[0, 0], [0, 0]]]
    odd = np.array([[[np.nan, 1.0]], [[np.inf, 1.0]]], np.float32)
    assert brightness(odd).tolist() == [[[0, 0]], [[0, 0]]]


def test_layers_come_back_from_their_file(tmp_path):
    maps = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    layer = LayerMaps("a", "Conv2D", 9, np.array([0, 8]), maps, -1.5, 11.0, 3)
    facts = write_maps([layer], tmp_path / "out.npz")
    (again,) = read_maps(facts, tmp_path / "out.npz")
    assert (again.name, again.kind, again.channels, again.silent) == ("a", "Conv2D", 9, 3)
    assert (again.low, again.high, again.size) == (-1.5, 11.0, (2, 3))
    assert again.shown.tolist() == [0, 8]
    assert np.array_equal(again.maps, maps)


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("views", [(0,), (0, 1)])
def test_a_fine_tuned_network_shows_its_trained_layers(tmp_path, share, views):
    import keras

    from kindsight.models.backbones.backbone import FeatureBlock, FeatureLayout
    from kindsight.models.heads import LinearHead
    from kindsight.models.networks.fine_tuned import (
        average_logits,
        average_over_flips,
        build_fine_tuned,
        with_head,
    )

    def build():
        layers, pixels = keras.layers, keras.Input((3, 4, 3), name="pixels")
        x = layers.Conv2D(2, 1, name="low_conv")(pixels)
        low = layers.Activation("relu", name="low_out")(x)
        high = layers.Conv2D(4, 1, name="high_conv")(low)
        ends = [layers.GlobalAveragePooling2D(name=n)(x) for n, x in (("a", low), ("b", high))]
        return keras.Model(pixels, layers.Concatenate(name="features")(ends), name="tiny")

    backbone = build()
    layout = FeatureLayout((FeatureBlock("low_mean", 0, 2), FeatureBlock("high_mean", 2, 6)))
    head = LinearHead(np.ones((6, 2), np.float32), np.zeros(2, np.float32))
    told = np.zeros(6, np.float32), np.ones(6, np.float32)
    network = build_fine_tuned(backbone, layout, "low", head, 1.0, *told)
    for variable in network.top.get_layer("high_conv").trainable_variables:
        variable.assign(variable + 3)
    full = network.full if views == (0,) else average_over_flips(network.full, views)
    if share < 1:
        frozen = network.frozen if len(views) == 1 else with_head(build(), head, 1.0)
        full = average_logits(full, frozen, share)
    full.save(tmp_path / "n.keras")

    found, left_out, within = collect_maps(tmp_path / "n.keras", PIXELS, 16, 64)
    assert [layer.name for layer in found] == ["low_conv", "low_out", "high_conv"]
    assert not left_out and within is (share < 1 or len(views) > 1)
    batch = PIXELS[None].astype(np.float32)
    between = keras.Model(backbone.input, backbone.get_layer("low_out").output)(batch)
    expected = np.asarray(network.top.get_layer("high_conv")(between))[0]
    np.testing.assert_allclose(np.moveaxis(found[2].maps, 0, -1), expected, rtol=1e-4)
    (last,), left_out, _ = collect_maps(tmp_path / "n.keras", PIXELS, 1, 64)
    assert {last.name, *left_out} == {"low_conv", "low_out", "high_conv"}


def test_of_a_joined_network_with_crops_a_backbone_is_shown(network, tmp_path):
    import keras

    pixels = keras.Input((3, 4, 3))
    inner = keras.models.load_model(network)
    closer = keras.layers.Resizing(3, 4)(keras.layers.Cropping2D(((0, 1), (1, 0)))(pixels))
    ends = [inner(pixels), inner(closer)]
    keras.Model(pixels, keras.layers.Average()(ends)).save(tmp_path / "joined.keras")
    (first, pool), _, within = collect_maps(tmp_path / "joined.keras", PIXELS, 16, 64)
    assert (first.name, pool.name) == ("first", "pool") and within
    assert first.maps[0].tolist() == FIRST


def test_a_network_within_networks_is_looked_into(network, tmp_path):
    import keras

    from kindsight.models.networks.fine_tuned import (
        average_logits,
        average_over_flips,
        load_network,
    )

    layers, pixels = keras.layers, keras.Input((3, 4, 3))
    other = keras.Model(pixels, layers.Dense(2)(layers.Flatten()(pixels)))
    both = average_logits(average_over_flips(load_network(network), (0, 1)), other, 0.5)
    both.save(tmp_path / "both.keras")
    (first, pool), _, within = collect_maps(tmp_path / "both.keras", PIXELS, 16, 64)
    assert within
    assert (first.name, pool.name) == ("first", "pool")
    assert first.maps[0].tolist() == FIRST
