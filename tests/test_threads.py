"""Ordered parallel maps, bundles of items, and the threads of OpenCV."""

import itertools
import threading
import time

import cv2
import pytest

from kindsight.threads import (
    AHEAD,
    count_cores,
    in_batches,
    map_ordered,
    single_threaded_opencv,
)


def test_results_are_in_the_order_of_the_items():
    def slow_first(n):
        time.sleep(0.02 if n % 5 == 0 else 0)
        return n * n

    assert list(map_ordered(slow_first, range(100), 4)) == [n * n for n in range(100)]
    assert list(map_ordered(slow_first, [], 4)) == []


def test_items_are_processed_in_parallel():
    # Three items wait for each other: a single thread would wait for ever.
    barrier = threading.Barrier(3, timeout=20)
    assert list(map_ordered(lambda n: (barrier.wait(), n)[1], range(6), 3)) == list(range(6))


def test_an_error_is_raised_in_order():
    def divide(n):
        return 60 // (n - 3)

    results = map_ordered(divide, range(10), 2)
    assert [next(results) for _ in range(3)] == [-20, -30, -60]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_items_are_taken_only_as_needed():
    taken = []

    def items():
        for n in itertools.count():
            taken.append(n)
            yield n

    results = map_ordered(lambda n: n, items(), 2)
    assert taken == []
    for wanted in range(200):
        assert next(results) == wanted
        assert len(taken) <= wanted + 1 + AHEAD * 2
    results.close()
    # Closed, it takes no more.
    count = len(taken)
    time.sleep(0.05)
    assert len(taken) == count


def test_number_of_items_taken_ahead():
    gate = threading.Event()
    taken = []

    def items():
        for n in range(1000):
            taken.append(n)
            if n == AHEAD * 3 - 1:
                gate.set()
            yield n

    # The first result waits until AHEAD items are taken: fewer would hang.
    assert next(map_ordered(lambda n: gate.wait(20) and n, items(), 3)) == 0
    assert len(taken) == AHEAD * 3


def test_finished_results_are_returned_before_more_items_are_taken():
    done = [threading.Event() for _ in range(3)]
    taken = []

    def items():
        for n in range(3):
            # The item before is done, but its result need not be returned yet.
            if n:
                assert done[n - 1].wait(20)
                time.sleep(0.5)  # its thread may have been stopped before it gave its result
            taken.append(n)
            yield n

    def work(n):
        done[n].set()
        return n

    results = map_ordered(work, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 2


def own_threads():
    """Return the threads of map_ordered; other pools may live as long as the process."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("kindsight_")]


def test_closing_waits_for_running_items_and_drops_the_rest():
    started, finished = [], []

    def work(n):
        started.append(n)
        time.sleep(0.02)
        finished.append(n)
        return n

    results = map_ordered(work, range(1000), 2)
    assert next(results) == 0
    results.close()
    assert sorted(started) == sorted(finished) and len(started) < 2 * AHEAD * 2
    assert not own_threads()


def test_an_error_of_the_iterator_is_raised():
    def items():
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(map_ordered(lambda n: n, items(), 2))
    assert not own_threads()


def test_opencv_threads_are_restored():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        with pytest.raises(KeyError), single_threaded_opencv():
            assert cv2.getNumThreads() == 1
            raise KeyError
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_opencv_threads_are_restored_by_the_last_of_several():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        first, second = single_threaded_opencv(), single_threaded_opencv()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # not the last that was entered
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_cores_of_this_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert count_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert count_cores() == 1


def test_bundles_grow_while_items_are_fast():
    bundles = list(in_batches(range(300), 8, threads=2))
    # One each until both threads have had four, two each until eight, and so on.
    assert [len(bundle) for bundle in bundles[:13]] == [1] * 8 + [2] * 4 + [3]
    assert max(len(bundle) for bundle in bundles) == 8
    assert [item for bundle in bundles for item in bundle] == list(range(300))
    assert list(in_batches([], 8, 2)) == [] and list(in_batches("ab", 1, 2)) == [["a"], ["b"]]


def test_after_a_slow_item_the_next_bundle_has_one(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kindsight.threads.time.monotonic", lambda: now[0])

    def items():
        for number in range(12):
            now[0] += 1.0 if number == 5 else 0.0
            yield number

    sizes = [len(bundle) for bundle in in_batches(items(), 8, threads=1)]
    assert sizes == [1, 1, 1, 1, 2, 1, 2, 3]
