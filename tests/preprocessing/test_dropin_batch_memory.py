"""Memory of batches: reused when nothing refers to it, and never before."""

import gc
import sys
import threading

import numpy as np
import pytest

from kindsight.preprocessing import _batches
from kindsight.preprocessing._batches import BatchMemory
from kindsight.preprocessing.image import ImageDataGenerator

SHAPE = (20, 64, 64, 3)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def memory():
    return BatchMemory(sys.getrefcount)


@pytest.mark.parametrize(
    "held",
    [
        lambda array: array,
        lambda array: array[3:5],
        lambda array: array[0, 0].T,
        lambda array: array.ravel(),
        memoryview,
        lambda array: np.frombuffer(array, np.uint8),
        lambda array: {"deep": [array[1]]},
    ],
)
def test_memory_in_use_is_not_reused(memory, held):
    first = memory.empty(SHAPE, np.float32)
    first[...] = 7
    start, in_use = address(first), held(first)
    del first
    others = [memory.empty(SHAPE, np.float32) for _ in range(6)]
    assert start not in [address(other) for other in others]
    for other in others:
        other[...] = 1
    found = in_use["deep"][0] if isinstance(in_use, dict) else in_use
    numbers = np.asarray(found)
    assert (numbers.view(np.float32) == 7).all()


def test_unused_memory_is_reused(memory):
    first = memory.empty(SHAPE, np.float32)
    start = address(first)
    del first
    again = memory.empty(SHAPE, np.float32)
    assert address(again) == start
    assert (again.shape, again.dtype, again.flags.writeable) == (SHAPE, np.float32, True)


def test_other_sizes_get_new_memory(memory):
    first = memory.empty(SHAPE, np.float32)
    start = address(first)
    del first
    assert address(memory.empty((*SHAPE[:3], 4), np.float32)) != start


def test_memory_for_reuse_is_limited(memory, monkeypatch):
    monkeypatch.setattr(_batches, "MAX_BYTES", 3 * 2**20)
    held = [memory.empty((2**20,), np.uint8) for _ in range(10)]
    assert sum(owner.nbytes for owner in memory._arrays) <= 3 * 2**20
    memory.empty((2**21,), np.uint8)  # more than half of the limit
    assert all(owner.nbytes == 2**20 for owner in memory._arrays)
    assert len({address(array) for array in held}) == 10


def test_without_reference_counts_every_array_is_new():
    memory = BatchMemory(None)
    memory.empty(SHAPE, np.float32)
    assert not memory._arrays


def test_threads_never_share_an_array(memory):
    failures = []

    def work(number):
        for _ in range(200):
            array = memory.empty(SHAPE, np.float32)
            array[...] = number
            if not (array == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_batches_in_use_do_not_change():
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.float32)
    flow = ImageDataGenerator(rescale=1 / 255).flow(images, batch_size=10, shuffle=False)
    in_use = [next(flow) for _ in range(12)]
    gc.collect()
    for number, batch in enumerate(in_use):
        begin = number % 4 * 10
        wanted = images[begin : begin + 10] * np.float32(1 / 255)
        assert np.array_equal(batch, wanted)
