"""MixUp and CutMix: pixels and targets in the same shares."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import noise

from kindsight.augment import Augment, mix_batch
from kindsight.augment.apply import beta_quantiles
from kindsight.errors import UsageError


def one_hot(count: int, classes: int = 3) -> np.ndarray:
    return np.eye(classes, dtype=np.float32)[np.arange(count) % classes]


def flat_batch(count: int = 40, side: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Images of one grey each, all different, each a class of its own."""
    values = (np.arange(count) * 255 // (count - 1)).astype(np.uint8)
    images = np.broadcast_to(values[:, None, None, None], (count, side, side, 3)).copy()
    return images, np.eye(count, dtype=np.float32)


def test_mixup_blends_pixels_as_it_blends_targets():
    images, targets = flat_batch()
    mixed, shares = mix_batch(images, targets, Augment(mixup=1), seed=0, epoch=1, step=2)
    assert mixed.shape == images.shape and shares.dtype == np.float32
    values = images[:, 0, 0, 0].astype(float)
    # Each class stands for its grey, so the targets say what the pixels must be.
    assert np.abs(mixed - (shares @ values)[:, None, None, None]).max() <= 0.501
    partners = shares.argsort(axis=1)[:, -2:]
    assert ((shares > 0).sum(axis=1) <= 2).all() and (partners == np.arange(40)[:, None]).any(
        1
    ).all()
    assert len(np.unique(mixed)) > 25


def test_cutmix_puts_a_rectangle_of_another_image_in_its_place():
    count, side = 40, 16
    images = noise(1, count, side, side)
    targets = np.eye(count, dtype=np.float32)
    mixed, shares = mix_batch(images, targets, Augment(cutmix=1), seed=0, epoch=1, step=0)
    cut = 0
    for i in range(count):
        partner = next((k for k in np.flatnonzero(shares[i]) if k != i), i)
        changed = (mixed[i] != images[i]).any(axis=2)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        if partner == i:
            assert not changed.any()
            continue
        cut += 1
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        assert np.array_equal(mixed[i][box], images[partner][box])
        area = (rows[-1] + 1 - rows[0]) * (columns[-1] + 1 - columns[0]) / side**2
        assert shares[i, partner] == pytest.approx(area, abs=1e-6)
        assert shares[i, i] == pytest.approx(1 - area, abs=1e-6)
    assert cut > 25


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0, 5),
    st.floats(0, 5),
    st.integers(),
    st.integers(0, 1000),
    st.integers(0, 9),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_targets_keep_their_sum_and_nothing_given_is_changed(mixup, cutmix, seed, step, n, size):
    images, targets = noise(2, n, *size), one_hot(n)
    before = images.copy(), targets.copy()
    policy = Augment(mixup=mixup, cutmix=cutmix)
    mixed, shares = mix_batch(images, targets, policy, seed=seed, epoch=1, step=step)
    assert mixed.shape == images.shape and mixed.dtype == np.uint8
    assert shares.min(initial=0) >= 0
    assert shares.sum(axis=1) == pytest.approx(np.ones(n), abs=1e-6)
    assert np.array_equal(images, before[0]) and np.array_equal(targets, before[1])
    again = mix_batch(images, targets, policy, seed=seed, epoch=1, step=step)
    assert np.array_equal(mixed, again[0]) and np.array_equal(shares, again[1])


@pytest.mark.parametrize("policy", [Augment(mixup=1), Augment(cutmix=1)])
def test_turned_and_read_only_images_are_mixed(policy):
    images, targets = noise(4, 6, 7, 9), one_hot(6)
    expected, _ = mix_batch(images, targets, policy, seed=0, epoch=1, step=0)
    turned = np.ascontiguousarray(images[:, ::-1, :, ::-1])[:, ::-1, :, ::-1]
    turned.setflags(write=False)
    got, _ = mix_batch(turned, targets, policy, seed=0, epoch=1, step=0)
    assert np.array_equal(got, expected)


def test_every_step_epoch_and_seed_mixes_anew():
    images, targets = flat_batch(16)
    policy = Augment(mixup=1)
    seen = {
        mix_batch(images, targets, policy, seed=seed, epoch=epoch, step=step)[1].tobytes()
        for seed in range(2)
        for epoch in range(2)
        for step in range(2)
    }
    assert len(seen) == 8


def test_with_both_each_batch_is_mixed_in_one_way_half_the_time():
    images, targets = flat_batch(12)
    greys = set(np.unique(images))
    blended = 0
    for step in range(300):
        mixed, _ = mix_batch(
            images, targets, Augment(mixup=1, cutmix=1), seed=0, epoch=1, step=step
        )
        blended += not set(np.unique(mixed)) <= greys
    # 300 batches: 4 standard deviations are 35.
    assert abs(blended - 150) < 35


def test_a_policy_that_mixes_nothing_returns_the_batch():
    images, targets = noise(3, 4, 5, 5), one_hot(4)
    mixed, shares = mix_batch(images, targets, Augment(), seed=0, epoch=1, step=0)
    assert mixed is images and np.array_equal(shares, targets)


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.4, 1.0, 1.5, 2.0, 20.0])
def test_shares_are_of_the_beta_distribution(alpha):
    stats = pytest.importorskip("scipy.stats")
    chances = np.linspace(0.0005, 0.9995, 1000)
    expected = stats.beta.ppf(chances, alpha, alpha)
    assert np.abs(beta_quantiles(alpha, chances) - expected).max() < (1e-7 if alpha <= 1 else 1e-4)


@pytest.mark.parametrize("alpha", [5e-324, 1e-3, 0.2, 1.0, 100.0])
def test_shares_stay_between_0_and_1(alpha):
    shares = beta_quantiles(alpha, np.array([0.0, 1e-16, 0.5, 1 - 2**-53]))
    assert (np.diff(shares) >= 0).all() and shares[0] >= 0 and shares[-1] <= 1
    assert shares[2] == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("images", "targets", "rule"),
    [
        (noise(1, 2, 5, 5), np.array([0, 1]), r"shape \(2, classes\).*\(2,\).*np.eye"),
        (noise(1, 2, 5, 5), one_hot(3), r"shape \(2, classes\)"),
        (noise(1, 2, 5, 5), np.array([["a"], ["b"]]), "must be numbers"),
        (noise(1, 2, 5, 5) / 255, one_hot(2), "uint8 array"),
        ([1, 2], one_hot(2), "got list"),
    ],
)
def test_what_cannot_be_mixed_is_refused(images, targets, rule):
    with pytest.raises(UsageError, match=rule):
        mix_batch(images, targets, Augment(mixup=1), seed=0, epoch=1, step=0)
