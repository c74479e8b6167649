"""Whole policies: the same result however the work is divided, and nothing given is changed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from policies import POLICIES, noise

from kindsight.augment import Augment, augment_images, augmented_copies
from kindsight.augment.policy import RECIPES
from kindsight.errors import UsageError

EVERYTHING = Augment.from_dict({"recipe": "strong", "auto": True, "vertical_flip": True})
sizes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@settings(max_examples=60, deadline=None)
@given(POLICIES, st.integers(), st.integers(1, 7), sizes, st.randoms())
def test_an_image_becomes_the_same_in_any_batch_order_and_number_of_workers(
    policy, seed, count, size, random
):
    images = noise(count, count, *size)
    before = images.copy()
    index = np.array(random.sample(range(10**9), count))
    whole = augment_images(images, policy, seed=seed, epoch=1, index=index, workers=1)
    assert whole.shape == images.shape and whole.dtype == np.uint8
    order = np.array(random.sample(range(count), count))
    shuffled = augment_images(
        images[order], policy, seed=seed, epoch=1, index=index[order], workers=3
    )
    assert np.array_equal(shuffled, whole[order])
    one = random.randrange(count)
    alone = augment_images(
        images[one : one + 1], policy, seed=seed, epoch=1, index=index[one : one + 1]
    )
    assert np.array_equal(alone[0], whole[one])
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_changes_images_but_for_none(name):
    images = noise(1, 12, 30, 40)
    policy = Augment.recipe(name)
    got = augment_images(images, policy, seed=0, epoch=1, index=np.arange(12))
    same = [np.array_equal(one, other) for one, other in zip(got, images, strict=True)]
    assert all(same) if name == "none" else sum(same) <= 4
    assert policy.changes_images == (name != "none")
    assert not np.shares_memory(got, images)


def test_epochs_and_copies_differ():
    images, index = noise(2, 3, 20, 20), np.arange(3)
    got = [
        augment_images(images, EVERYTHING, seed=seed, epoch=epoch, index=index, copy=copy)
        for seed, epoch, copy in ((0, 1, 0), (1, 1, 0), (0, 2, 0), (0, 1, 1))
    ]
    assert all(not np.array_equal(got[0], other) for other in got[1:])


def test_read_only_mapped_and_turned_images_are_taken(tmp_path):
    images, index = noise(3, 4, 9, 11), np.arange(4)
    expected = augment_images(images, EVERYTHING, seed=0, epoch=1, index=index)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    frozen = images.copy()
    frozen.setflags(write=False)
    turned = np.ascontiguousarray(images[:, ::-1, :, ::-1])[:, ::-1, :, ::-1]
    for given_ in (mapped, frozen, turned):
        got = augment_images(given_, EVERYTHING, seed=0, epoch=1, index=index)
        assert type(got) is np.ndarray and np.array_equal(got, expected)
    assert np.array_equal(np.load(tmp_path / "images.npy"), images)


def test_no_images_and_single_pixels_are_no_trouble():
    empty = np.empty((0, 5, 5, 3), np.uint8)
    got = augment_images(empty, EVERYTHING, seed=0, epoch=1, index=np.arange(0))
    assert got.shape == (0, 5, 5, 3)
    dots = noise(4, 50, 1, 1)
    assert augment_images(dots, EVERYTHING, seed=0, epoch=1, index=np.arange(50)).shape == (
        50, 1, 1, 3,
    )  # fmt: skip


def test_several_threads_may_ask_at_once_and_opencv_gets_its_threads_back():
    images, index = noise(5, 40, 24, 24), np.arange(40)
    expected = augment_images(images, EVERYTHING, seed=0, epoch=1, index=index, workers=1)
    before = cv2.getNumThreads()
    results = []

    def ask():
        got = augment_images(images, EVERYTHING, seed=0, epoch=1, index=index, workers=2)
        results.append(np.array_equal(got, expected))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 6
    assert cv2.getNumThreads() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_has_threads_of_its_own(tmp_path: Path):
    code = """
import multiprocessing, numpy as np
from kindsight.augment import Augment, augment_images

def ask(_=0):
    images = np.arange(40 * 30 * 30 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 30, 30, 3)
    return augment_images(images, Augment.recipe("strong"), seed=0, epoch=1,
                            index=np.arange(40), workers=2)

first = ask()
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(np.array_equal(pool.map_async(ask, [0]).get(60)[0], first))
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    ("images", "options", "rule"),
    [
        (noise(1, 2, 5, 5)[0], {}, r"\(n, height, width, 3\).*\(5, 5, 3\)"),
        (noise(1, 2, 5, 5) / 255, {}, "got float64 array"),
        (noise(1, 2, 5, 5)[..., :1], {}, r"\(2, 5, 5, 1\)"),
        ([1, 2], {}, "got list"),
        (np.empty((1, 2, 9000, 3), np.uint8), {"index": [0]}, "sides up to 8192"),
        (np.empty((2, 0, 5, 3), np.uint8), {}, r"\(2, 0, 5, 3\)"),
        (noise(1, 2, 5, 5), {"index": [0]}, "a number for each of the 2 images"),
        (noise(1, 2, 5, 5), {"index": [0.0, 1.0]}, "`index` must be integers"),
        (noise(1, 2, 5, 5), {"epoch": -1}, "`epoch` must be an integer"),
        (noise(1, 2, 5, 5), {"workers": 0}, "`workers` must be 1 or more; got 0"),
    ],
)
def test_what_cannot_be_augmented_is_refused(images, options, rule):
    options = {"seed": 0, "epoch": 1, "index": np.arange(2), **options}
    options["index"] = np.array(options["index"])
    with pytest.raises(UsageError, match=rule):
        augment_images(images, EVERYTHING, **options)


# Views for testing --------------------------------------------------------------------------------


def test_the_first_copy_is_the_image_and_flips_take_turns():
    images = noise(6, 2, 7, 9)
    across, down = images[:, :, ::-1], images[:, ::-1]
    both = images[:, ::-1, ::-1]
    got = augmented_copies(images, Augment(horizontal_flip=True), 4)
    assert got.shape == (2, 4, 7, 9, 3)
    for view, expected in enumerate((images, across, images, across)):
        assert np.array_equal(got[:, view], expected)
    got = augmented_copies(images, Augment(vertical_flip=True), 3)
    for view, expected in enumerate((images, down, images)):
        assert np.array_equal(got[:, view], expected)
    got = augmented_copies(images, Augment(vertical_flip=True, horizontal_flip=True), 5)
    for view, expected in enumerate((images, across, down, both, images)):
        assert np.array_equal(got[:, view], expected)


def test_copies_of_an_image_do_not_depend_on_the_others():
    images = noise(7, 3, 12, 12)
    got = augmented_copies(images, EVERYTHING, 4, seed=5)
    assert np.array_equal(augmented_copies(images[1:2], EVERYTHING, 4, seed=5)[0], got[1])
    assert np.array_equal(augmented_copies(images, EVERYTHING, 2, seed=5, workers=1), got[:, :2])
    assert not np.array_equal(augmented_copies(images, EVERYTHING, 4, seed=6)[:, 1:], got[:, 1:])
    assert len({view.tobytes() for view in got[0]}) == 4


def test_one_copy_is_the_image_and_none_is_refused():
    images = noise(8, 2, 5, 5)
    assert np.array_equal(augmented_copies(images, EVERYTHING, 1)[:, 0], images)
    for count in (0, True, 1.5):
        with pytest.raises(UsageError, match="`count` must be an integer from 1"):
            augmented_copies(images, EVERYTHING, count)
