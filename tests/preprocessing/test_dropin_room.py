"""Memory of batches: given out again when nobody has it any more, and never before."""

import gc
import sys
import threading

import numpy as np
import pytest

from kindsight.preprocessing import _batches as _room
from kindsight.preprocessing._batches import Room
from kindsight.preprocessing.image import ImageDataGenerator

SHAPE = (20, 64, 64, 3)


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def room():
    return Room(sys.getrefcount)


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
def test_what_somebody_holds_is_not_given_out_again(room, held):
    first = room.empty(SHAPE, np.float32)
    first[...] = 7
    place, kept = address(first), held(first)
    del first
    others = [room.empty(SHAPE, np.float32) for _ in range(6)]
    assert place not in [address(other) for other in others]
    for other in others:
        other[...] = 1
    found = kept["deep"][0] if isinstance(kept, dict) else kept
    numbers = np.asarray(found)
    assert (numbers.view(np.float32) == 7).all()


def test_what_nobody_holds_is_given_out_again(room):
    first = room.empty(SHAPE, np.float32)
    place = address(first)
    del first
    again = room.empty(SHAPE, np.float32)
    assert address(again) == place
    assert (again.shape, again.dtype, again.flags.writeable) == (SHAPE, np.float32, True)


def test_other_sizes_get_memory_of_their_own(room):
    first = room.empty(SHAPE, np.float32)
    place = address(first)
    del first
    assert address(room.empty((*SHAPE[:3], 4), np.float32)) != place


def test_what_is_kept_is_bounded(room, monkeypatch):
    monkeypatch.setattr(_room, "MOST_BYTES", 3 * 2**20)
    held = [room.empty((2**20,), np.uint8) for _ in range(10)]
    assert sum(owner.nbytes for owner in room._kept) <= 3 * 2**20
    room.empty((2**21,), np.uint8)  # more than half of it: not kept at all
    assert all(owner.nbytes == 2**20 for owner in room._kept)
    assert len({address(array) for array in held}) == 10


def test_where_references_are_not_counted_every_array_is_new():
    room = Room(None)
    room.empty(SHAPE, np.float32)
    assert not room._kept


def test_threads_never_share_an_array(room):
    failures = []

    def work(number):
        for _ in range(200):
            array = room.empty(SHAPE, np.float32)
            array[...] = number
            if not (array == number).all():
                failures.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_batches_that_are_kept_stay_as_they_were():
    images = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.float32)
    flow = ImageDataGenerator(rescale=1 / 255).flow(images, batch_size=10, shuffle=False)
    kept = [next(flow) for _ in range(12)]
    gc.collect()
    for number, batch in enumerate(kept):
        start = number % 4 * 10
        wanted = images[start : start + 10] * np.float32(1 / 255)
        assert np.array_equal(batch, wanted)
