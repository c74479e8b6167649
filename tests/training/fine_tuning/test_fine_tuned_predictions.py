"""Test-time augmentation, ensembles, and the flips that preserve a class."""

import numpy as np
import pytest

from kindsight.training.fine_tuning.choices import choose_flips, choose_prediction, flipped_logits
from kindsight.training.fine_tuning.train import _describe_prediction

TARGETS = np.array([0, 1] * 20)
CORRECT = np.where(np.eye(2)[TARGETS] > 0, 2.0, -2.0).astype(np.float32)


def wrong(*images):
    logits = CORRECT.copy()
    logits[list(images)] *= -1
    return logits


def choose(flipped, frozen, wide=False, margin=0.02):
    found = choose_prediction(np.stack(flipped), frozen, TARGETS, wide=wide, margin=margin)
    return found.flips, found.ensemble


def test_an_ensemble_where_it_is_clearly_better():
    first, last = wrong(*range(8)), wrong(*range(32, 40))  # different errors
    assert choose([first], last) == (1, True)
    assert choose([CORRECT], CORRECT) == (1, False)
    assert choose([CORRECT], -CORRECT) == (1, False)


def test_flips_alone_where_they_are_clearly_better():
    # Different errors of each flip: their mean is uncertain there and correct elsewhere.
    flipped = [wrong(*range(8)), wrong(*range(8, 16)), wrong(*range(16, 24))]
    assert choose(flipped, wrong(*range(4))) == (3, False)
    found = choose_prediction(np.stack(flipped), wrong(*range(4)), TARGETS, wide=False, margin=0.02)
    np.testing.assert_allclose(found.logits, np.mean(flipped, 0), rtol=1e-6)
    # No better, or no better than the ensemble: one image.
    assert choose([CORRECT, CORRECT], CORRECT) == (1, False)
    assert choose([CORRECT, -CORRECT], CORRECT) == (1, False)
    assert choose([wrong(0, 1), wrong(1, 2)], CORRECT) == (1, True)


def test_with_wider_features_flips_and_the_ensemble_are_the_default():
    assert choose([CORRECT, CORRECT], CORRECT, wide=True) == (2, True)
    assert choose([wrong(3), CORRECT], -CORRECT, wide=True) == (2, False)
    assert choose([CORRECT, -CORRECT], CORRECT, wide=True) == (1, True)
    assert choose([CORRECT, -CORRECT], -CORRECT, wide=True, margin=1.0) == (2, True)


class Corners:
    """A network whose logits are two corners of an image."""

    def logits(self, images):
        return np.stack([images[:, 0, 0, 0], images[:, 0, -1, 0]], 1).astype(np.float32)


def test_each_flip_is_run():
    pixels = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    reports = []
    found = flipped_logits(
        Corners(), pixels, np.array([[1, 1, 1, 1]]), (0, 1, 2, 3), flipped=False,
        report=lambda: reports.append(1),
    )  # fmt: skip
    # The second image's corners are 12 and 15 above, 18 and 21 below.
    np.testing.assert_array_equal(found, [[[12, 15]], [[15, 12]], [[18, 21]], [[21, 18]]])
    assert len(reports) == 4
    cached = Corners(), pixels, np.array([[1, 0]]), (0, 2)
    found = flipped_logits(*cached, flipped=True, report=lambda: None)
    np.testing.assert_array_equal(found, [[[12, 15]], [[0, 3]]])


def test_the_prediction_is_described():
    assert _describe_prediction(1, False) == []
    assert _describe_prediction(4, False) == ["test-time augmentation over 4 flips"]
    assert _describe_prediction(2, True)[1:] == ["ensemble with the frozen head"]


class PixelNetwork:
    """Images of four pixels, the first of which tells the class; and features that are pixels."""

    workers = 1

    def __init__(self, used):
        self.used = used

    def pixels(self, rows):
        image = np.zeros((len(rows), 2, 2, 3), np.uint8)
        image[np.asarray(rows) % 2 == 1, 0, 0, 0] = 200
        return image

    def run(self, pixels):
        return pixels[..., 0].astype(np.float32).reshape(4)[self.used]


@pytest.mark.parametrize(
    ("used", "flips"),
    [([0, 1, 2, 3], (0, 1, 2, 3)), ([0, 1], (0, 1)), ([0, 2], (0, 2)), ([0], (0,))],
)
def test_flips_that_lose_no_accuracy_are_used(used, flips):
    def predict(vectors):
        high = np.clip(vectors.sum(1) / 200, 0.05, 0.95)
        return np.stack([1 - high, high], 1).astype(np.float32)

    network, rows = PixelNetwork(used), np.arange(20)
    found = choose_flips(network, rows, rows % 2, network, predict, ("dark", "bright"))
    assert found == (flips, 60)
