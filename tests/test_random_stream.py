"""Counter-based random numbers: published values, and independence of the batch."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.errors import UsageError
from kindsight.random_stream import permutation, philox, uniforms

seeds = st.integers(-(2**70), 2**70)
purposes = st.text(max_size=12)
epochs = st.integers(0, 2**32 - 1)
indices = st.lists(st.integers(0, 2**63 - 1), max_size=9)


def plain_philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, ...]:
    """Philox4x32-10 word by word, as the paper's figure 2 draws it."""
    left0, right0, left1, right1 = counter
    for step in range(10):
        first = (key[0] + step * 0x9E3779B9) % 2**32
        second = (key[1] + step * 0xBB67AE85) % 2**32
        high0, low0 = divmod(left0 * 0xD2511F53, 2**32)
        high1, low1 = divmod(left1 * 0xCD9E8D57, 2**32)
        left0, right0, left1, right1 = high1 ^ right0 ^ first, low1, high0 ^ right1 ^ second, low0
    return left0, right0, left1, right1


# Known outputs of Philox4x32-10 that its authors publish with Random123 (kat_vectors).
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


# What seed 7, purpose "example", epoch 3 gives to images 0 and 41, and as an order of 8.
PINNED = [
    [0.16789618448493848, 0.7847167386336151],
    [0.3158406945412614, 0.024950411762527436],
]
PINNED_ORDER = [4, 2, 6, 5, 7, 3, 1, 0]


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_philox_gives_the_published_outputs(counter, key, output):
    given_ = np.array([words(counter)] * 2, np.uint64)
    assert philox(given_, words(key)).tolist() == [list(words(output))] * 2
    assert plain_philox(words(counter), words(key)) == words(output)


@given(st.lists(st.tuples(*[epochs] * 4), min_size=1, max_size=5), st.tuples(epochs, epochs))
def test_philox_of_many_is_philox_of_each(counters, key):
    many = philox(np.array(counters, np.uint64), key)
    assert many.tolist() == [list(plain_philox(counter, key)) for counter in counters]


@given(seeds, purposes, epochs, st.integers(0, 2**63 - 1))
def test_numbers_follow_from_their_arguments(seed, purpose, epoch, index):
    text = f"uniforms:{seed}:{purpose}".encode()
    digest = hashlib.blake2b(text, digest_size=8, person=b"kindsight chance").digest()
    key = int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:], "little")
    expected = []
    for block in range(2):
        a, b, c, d = plain_philox((block, epoch, index % 2**32, index >> 32), key)
        expected += [(x // 32 * 2**26 + y // 64) / 2**53 for x, y in ((a, b), (c, d))]
    got = uniforms(seed, purpose, epoch, np.array([index]), 4)
    assert got.dtype == np.float64 and got.tolist() == [expected]


@given(seeds, purposes, epochs, indices, st.integers(0, 9), st.integers(0, 9))
def test_a_row_depends_on_its_own_index_only(seed, purpose, epoch, index, count, more):
    together = uniforms(seed, purpose, epoch, np.array(index, np.int64), count + more)
    assert together.shape == (len(index), count + more)
    assert ((together >= 0) & (together < 1)).all()
    for row, one in enumerate(index):
        alone = uniforms(seed, purpose, epoch, np.array([one]), count)
        assert alone[0].tolist() == together[row, :count].tolist()


@settings(max_examples=30)
@given(seeds, purposes, epochs, st.integers(0, 60), st.integers(0, 60))
def test_a_permutation_holds_every_number_once_and_a_longer_one_keeps_the_order(
    seed, purpose, epoch, short, more
):
    order = permutation(seed, purpose, epoch, short)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(short))
    longer = permutation(seed, purpose, epoch, short + more)
    assert longer[longer < short].tolist() == order.tolist()


def test_seed_purpose_epoch_and_index_each_change_the_numbers():
    rows = [
        uniforms(seed, purpose, epoch, np.array([index]), 8)[0]
        for seed in (0, 1, -1, 2**64)
        for purpose in ("flip", "shift", "")
        for epoch in (0, 1)
        for index in (0, 1, 2**32, 2**33)
    ]
    assert len(np.unique(np.concatenate(rows))) == 8 * len(rows)
    assert permutation(0, "a", 0, 50).tolist() != permutation(0, "a", 1, 50).tolist()
    assert permutation(0, "a", 0, 50).tolist() != permutation(0, "b", 0, 50).tolist()


def test_pinned_numbers():
    # Written down once: a change here would change every training of the past.
    assert uniforms(7, "example", 3, np.array([0, 41]), 2).tolist() == PINNED
    assert permutation(7, "example", 3, 8).tolist() == PINNED_ORDER


def test_numbers_are_uniform_and_unrelated():
    numbers = uniforms(1, "uniformity", 2, np.arange(50_000), 4)
    # 200,000 numbers in 20 bins: chi-square of 19 degrees is above 43.8 once in a thousand.
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 43.8
    assert abs(numbers.mean() - 0.5) < 4 / np.sqrt(12 * numbers.size)
    # Neighbours in one row, and one row after another: 5 standard errors.
    correlations = np.corrcoef(np.hstack([numbers[:-1], numbers[1:]]).T) - np.eye(8)
    correlations[range(4, 8), range(4)] = correlations[range(4), range(4, 8)] = 0.0
    assert np.abs(correlations[:4, :4]).max() < 5 / np.sqrt(50_000)
    following = [np.corrcoef(numbers[:-1, k], numbers[1:, k])[0, 1] for k in range(4)]
    assert np.abs(following).max() < 5 / np.sqrt(50_000)


def test_all_orders_of_four_are_equally_likely():
    orders = [tuple(permutation(3, "orders", epoch, 4)) for epoch in range(2400)]
    found, counts = np.unique(orders, axis=0, return_counts=True)
    # 24 orders, 100 times each: chi-square of 23 degrees is above 49.7 once in a thousand.
    assert len(found) == 24
    assert ((counts - 100) ** 2 / 100).sum() < 49.7


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        (("0", "p", 0, np.arange(2), 1), "`seed` must be an integer; got '0'"),
        ((0, "p", -1, np.arange(2), 1), "`epoch` must be an integer from 0 to 4,294,967,295"),
        ((0, "p", 2**32, np.arange(2), 1), "got 4294967296"),
        ((0, "p", 0.5, np.arange(2), 1), "got 0.5"),
        ((0, "p", 0, np.arange(2), -1), "`count` must be an integer from 0"),
        ((0, "p", 0, np.arange(2) / 2, 1), "`index` must be integers in one dimension"),
        ((0, "p", 0, np.arange(4).reshape(2, 2), 1), r"array of shape \(2, 2\)"),
    ],
)
def test_invalid_arguments_are_refused(arguments, rule):
    with pytest.raises(UsageError, match=rule):
        uniforms(*arguments)


def test_a_negative_length_is_refused():
    with pytest.raises(UsageError, match="`n` must be an integer from 0"):
        permutation(0, "p", 0, -1)
