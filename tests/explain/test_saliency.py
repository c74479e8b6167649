"""Grad-CAM and occlusion: numbers by an independent implementation, and where the maps are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

import tiny_conv
from kindsight.bundle import load_bundle
from kindsight.errors import UsageError
from kindsight.explain.saliency import GradCAM, Occlusion, class_weights, make_method
from kindsight.models.pooled_maps import MapNetwork, PooledMap

RED, GREEN = (255, 20, 20), (20, 255, 20)


def random_image(seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (tiny_conv.SIDE, tiny_conv.SIDE, 3), np.uint8)


def quarters(values: np.ndarray) -> np.ndarray:
    """Return the sum of a map in each of four quarters, as a fraction."""
    down, right = values.shape[0] // 2, values.shape[1] // 2
    parts = [values[:down, :right], values[:down, right:], values[down:, :right],
             values[down:, right:]]  # fmt: skip
    sums = np.array([part.sum() for part in parts])
    return sums / sums.sum()


def doubled(values: np.ndarray) -> np.ndarray:
    """Enlarge a map to twice its side, linearly between the centres of its pixels."""
    side = len(values)
    at = np.clip((np.arange(2 * side) + 0.5) / 2 - 0.5, 0, side - 1)
    rows = np.stack([np.interp(at, np.arange(side), column) for column in values.T], axis=1)
    return np.stack([np.interp(at, np.arange(side), row) for row in rows])


@pytest.fixture
def colour_bundle(tmp_path):
    return load_bundle(tiny_conv.write_bundle(tmp_path / "b", tiny_conv.colour_weights()))


@pytest.mark.parametrize("seed", range(4))
def test_grad_cam_is_the_map_weighted_by_the_heads_derivative(tmp_path, seed):
    weights = tiny_conv.random_weights(seed)
    bundle = load_bundle(tiny_conv.write_bundle(tmp_path / "b", weights))
    pixels, vector = random_image(seed), class_weights(bundle.classes, 1)
    # The mean gradient of a channel is the derivative by a constant that is added to it, divided
    # by the number of its pixels.
    maps = tiny_conv.stages(weights, pixels)
    expected = np.zeros((tiny_conv.SIDE, tiny_conv.SIDE))
    for stage, values in enumerate(maps):
        cam = np.zeros(values.shape[:2])
        for channel in range(values.shape[2]):
            scores = []
            for shift in (-0.5, 0.5):
                changed = [each.copy() for each in maps]
                changed[stage][..., channel] += shift
                scores.append(tiny_conv.head_logits(weights, changed) @ vector)
            cam += (scores[1] - scores[0]) / cam.size * values[..., channel]
        # of equal sums, at the size of the larger map
        expected += doubled(cam) / 4 if stage else cam
    found = GradCAM(bundle).map(pixels, vector)
    np.testing.assert_allclose(found, np.maximum(expected, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("is_flattened", [False, True])
def test_the_gradient_of_a_flattened_map_counts_at_each_position(colour_bundle, is_flattened):
    values = np.array([[[1, 2], [3, 0]], [[2, 2], [1, 1]]], np.float32)
    gradient = np.array([[[2, 0], [-1, 5]], [[0, 1], [-1, -1]]], np.float64)

    class Network:
        maps = (PooledMap(0, 2, 2, 2, is_flattened=is_flattened),)

        def run(self, pixels):
            return np.zeros(2, np.float32), [values]

        def gradients(self, logits, maps, weights):
            return [gradient]

    found = GradCAM(colour_bundle, network=Network()).map(random_image(0), np.ones(2))
    # Flattened: 1*2 + 2*0, 3*-1 + 0*5, 2*0 + 2*1, 1*-1 + 1*-1; else the mean gradients 0 and 1.25.
    expected = [[2, 0], [2, 0]] if is_flattened else [[2.5, 0], [2.5, 1.25]]
    np.testing.assert_allclose(found, expected)


def test_pooled_maps_are_those_of_both_stages(colour_bundle):
    network = MapNetwork(colour_bundle.tflite)
    sides = [(each.height, each.width, each.channels, each.is_last) for each in network.maps]
    assert sides == [(16, 16, 2, False), (8, 8, 3, True)]
    pixels = random_image(0)
    logits, maps = network.run(pixels)
    expected = tiny_conv.stages(tiny_conv.colour_weights(), pixels)
    for found, wanted in zip(maps, expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-3)
    wanted_logits = tiny_conv.head_logits(tiny_conv.colour_weights(), expected)
    np.testing.assert_allclose(logits, wanted_logits, rtol=1e-5)


@pytest.mark.parametrize("name", ["grad-cam", "occlusion"])
@pytest.mark.parametrize("quarter", range(4))
def test_the_map_is_where_the_class_is(colour_bundle, name, quarter):
    other = 3 - quarter
    pixels = np.maximum(tiny_conv.patched(quarter, RED), tiny_conv.patched(other, GREEN))
    method = make_method(name, colour_bundle)
    for index, place in ((1, quarter), (0, other)):
        shares = quarters(method.map(pixels, class_weights(colour_bundle.classes, index)))
        assert shares.argmax() == place
        assert shares[place] > 0.5


@pytest.mark.parametrize("name", ["grad-cam", "occlusion"])
def test_randomised_weights_change_the_map(colour_bundle, tmp_path, name):
    """As in J. Adebayo et al., "Sanity checks for saliency maps", NeurIPS 2018."""
    method, correlations = make_method(name, colour_bundle), []
    for seed in range(12):
        other = load_bundle(
            tiny_conv.write_bundle(tmp_path / f"r{seed}", tiny_conv.random_weights(seed))
        )
        vector = class_weights(other.classes, 1)
        pixels = tiny_conv.patched(seed % 4, RED)
        before, after = method.map(pixels, vector), make_method(name, other).map(pixels, vector)
        if np.ptp(after) > 0:
            correlations.append(float(spearmanr(before.ravel(), after.ravel()).statistic))
    assert len(correlations) >= 6
    assert abs(np.mean(correlations)) < 0.5
    same = method.map(tiny_conv.patched(0, RED), class_weights(colour_bundle.classes, 1))
    again = make_method(name, colour_bundle).map(
        tiny_conv.patched(0, RED), class_weights(colour_bundle.classes, 1)
    )
    np.testing.assert_array_equal(same, again)


def test_occlusion_measures_the_fall_of_the_logit(colour_bundle):
    """One window that covers everything: the fall is that of the blurred image, everywhere."""
    pixels = tiny_conv.patched(1, RED)
    vector = class_weights(colour_bundle.classes, 1)
    found = Occlusion(colour_bundle, 1, window=2.0, stride=1.0).map(pixels, vector)
    assert np.ptp(found) == pytest.approx(0, abs=1e-5)

    def score(image):
        maps = tiny_conv.stages(tiny_conv.colour_weights(), image)
        return tiny_conv.head_logits(tiny_conv.colour_weights(), maps) @ vector

    import cv2

    covered = cv2.GaussianBlur(pixels, (0, 0), 16 / 12)
    assert found[0, 0] == pytest.approx(score(pixels) - score(covered), rel=1e-4)


def test_class_weights_do_not_depend_on_what_all_logits_share():
    assert class_weights(("a", "b", "c"), 0).tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    assert class_weights(("a", "b", "c"), 2, versus=0).tolist() == [-1, 0, 1]


def test_an_unknown_method_is_an_error(colour_bundle):
    with pytest.raises(UsageError, match="`method` must be grad-cam or occlusion; got 'lime'"):
        make_method("lime", colour_bundle)
