"""Running networks: order, bounds and errors of many at once; what a model file must be."""

import itertools
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from kindsight.errors import BundleError
from kindsight.models import runtime
from kindsight.models.runtime import Interpreter, InterpreterPool
from kindsight.threads import (
    AHEAD,
    count_cores,
    in_batches,
    map_ordered,
    single_threaded_opencv,
)


def test_results_come_in_the_order_of_the_items():
    def slow_first(n):
        time.sleep(0.02 if n % 5 == 0 else 0)
        return n * n

    assert list(map_ordered(slow_first, range(100), 4)) == [n * n for n in range(100)]
    assert list(map_ordered(slow_first, [], 4)) == []


def test_items_are_worked_on_at_once():
    # Three items wait for each other: one thread alone would wait for ever.
    barrier = threading.Barrier(3, timeout=20)
    assert list(map_ordered(lambda n: (barrier.wait(), n)[1], range(6), 3)) == list(range(6))


def test_an_error_is_raised_at_its_turn():
    def divide(n):
        return 60 // (n - 3)

    results = map_ordered(divide, range(10), 2)
    assert [next(results) for _ in range(3)] == [-20, -30, -60]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(results) == []


def test_endless_items_are_taken_only_as_needed():
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


def test_looking_ahead_goes_as_far_as_stated():
    gate = threading.Event()
    taken = []

    def items():
        for n in range(1000):
            taken.append(n)
            if n == AHEAD * 3 - 1:
                gate.set()
            yield n

    # The first result is held back until the look-ahead is full: it would hang if that were less.
    assert next(map_ordered(lambda n: gate.wait(20) and n, items(), 3)) == 0
    assert len(taken) == AHEAD * 3


def test_what_is_done_goes_out_before_more_is_taken():
    done = [threading.Event() for _ in range(3)]
    taken = []

    def items():
        for n in range(3):
            # The item before was answered, but nothing forces its answer out yet.
            if n:
                assert done[n - 1].wait(20)
                time.sleep(0.05)
            taken.append(n)
            yield n

    def work(n):
        done[n].set()
        return n

    results = map_ordered(work, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 2


def own_threads():
    """Return the threads of map_ordered; a pool of another room may live as long as the process."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("kindsight_")]


def test_left_early_it_waits_for_what_is_under_way_and_drops_the_rest():
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


def test_an_error_of_the_items_ends_it():
    def items():
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError, match="no more"):
        list(map_ordered(lambda n: n, items(), 2))
    assert not own_threads()


def test_opencv_gets_its_threads_back():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        with pytest.raises(KeyError), single_threaded_opencv():
            assert cv2.getNumThreads() == 1
            raise KeyError
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_opencv_gets_its_threads_back_from_the_last_of_several():
    before = cv2.getNumThreads()
    cv2.setNumThreads(2)
    try:
        first, second = single_threaded_opencv(), single_threaded_opencv()
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)  # not the one that was entered last
        assert cv2.getNumThreads() == 1
        second.__exit__(None, None, None)
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)


def test_cores_are_those_of_this_process(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert count_cores() == 3
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert count_cores() == 1


class Stub:
    """An interpreter that only says what it takes and gives."""

    def __init__(self, inputs, outputs):
        self.inputs, self.outputs = inputs, outputs

    def get_input_details(self):
        return self.inputs

    def get_output_details(self):
        return self.outputs


def tensor(*shape, dtype=np.float32):
    return {"shape": np.array(shape, np.int32), "dtype": dtype, "index": 0}


GOOD_INPUT, GOOD_OUTPUT = tensor(1, 8, 6, 3), tensor(1, 5)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ([GOOD_INPUT, GOOD_INPUT], [GOOD_OUTPUT]),
        ([], [GOOD_OUTPUT]),
        ([GOOD_INPUT], [GOOD_OUTPUT, GOOD_OUTPUT]),
        ([GOOD_INPUT], []),
        ([tensor(1, 8, 6)], [GOOD_OUTPUT]),
        ([tensor(2, 8, 6, 3)], [GOOD_OUTPUT]),
        ([tensor(1, 3, 8, 6)], [GOOD_OUTPUT]),
        ([tensor(1, 8, 6, 3, dtype=np.uint8)], [GOOD_OUTPUT]),
        ([GOOD_INPUT], [tensor()]),
        ([GOOD_INPUT], [tensor(5)]),
        ([GOOD_INPUT], [tensor(2, 5)]),
        ([GOOD_INPUT], [tensor(1, 5, 5)]),
        ([GOOD_INPUT], [tensor(1, 5, dtype=np.int8)]),
    ],
)
def test_models_of_another_kind_are_refused(monkeypatch, inputs, outputs):
    monkeypatch.setattr(runtime, "make_interpreter", lambda *_: Stub(inputs, outputs))
    with pytest.raises(BundleError, match=r"any\.tflite"):
        Interpreter("any.tflite")


def test_a_model_says_its_size(monkeypatch):
    monkeypatch.setattr(runtime, "make_interpreter", lambda *_: Stub([GOOD_INPUT], [GOOD_OUTPUT]))
    found = Interpreter("any.tflite")
    assert (found.size, found.width) == ((8, 6), 5)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x1c\0\0\0TFL3" + b"\xff" * 500])
def test_a_file_that_is_no_model_is_refused(tmp_path, content):
    (tmp_path / "bad.tflite").write_bytes(content)
    with pytest.raises(BundleError, match="LiteRT model"):
        Interpreter(tmp_path / "bad.tflite")
    with pytest.raises(BundleError, match="LiteRT model"):
        InterpreterPool(tmp_path / "absent.tflite")


def images(count, size):
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *size, 3), dtype=np.uint8)


def test_a_pool_gives_what_one_interpreter_gives(backbone):
    alone = Interpreter(backbone.tflite)
    assert alone.size == (64, 64) and alone.width == backbone.layout.width
    given = images(24, alone.size)
    wanted = np.stack([alone(image) for image in given])
    assert wanted.dtype == np.float32 and wanted.shape == (24, alone.width)
    assert len(np.unique(wanted[:, 0])) == 24
    pool = InterpreterPool(backbone.tflite, 2)
    results = np.stack(list(map_ordered(pool.run, given, 3)))
    np.testing.assert_array_equal(results, wanted)


def test_a_pool_has_no_more_interpreters_than_workers(backbone, monkeypatch):
    made, running, most = [], [], []

    class Counting(Interpreter):
        def __init__(self, *arguments):
            made.append(self)
            super().__init__(*arguments)

        def __call__(self, image):
            running.append(self)
            most.append(len(running))
            assert running.count(self) == 1  # never two images in one interpreter
            result = super().__call__(image)
            running.remove(self)
            return result

    monkeypatch.setattr(runtime, "Interpreter", Counting)
    pool = InterpreterPool(backbone.tflite, 2)
    assert len(made) == 1  # the second one only when it is needed
    list(map_ordered(pool.run, images(40, pool.size), 5))
    assert len(made) <= 2 and max(most) <= 2


def test_a_image_of_another_size_is_an_error_and_the_pool_goes_on(backbone):
    pool = InterpreterPool(backbone.tflite, 1)
    with pytest.raises(BundleError, match="takes images of shape"):
        pool.run(np.zeros((32, 32, 3), np.uint8))
    assert np.isfinite(pool.run(np.zeros((64, 64, 3), np.uint8))).all()


def test_nothing_is_said_on_the_terminal(backbone, environment):
    code = (
        "import numpy as np\n"
        "from kindsight.models.runtime import Interpreter\n"
        f"Interpreter({str(backbone.tflite)!r})(np.zeros((64, 64, 3), np.uint8))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_bundles_grow_while_items_come_quickly():
    bundles = list(in_batches(range(300), 8, threads=2))
    # By ones until each of two threads has had four, by twos until eight each, and so on.
    assert [len(bundle) for bundle in bundles[:13]] == [1] * 8 + [2] * 4 + [3]
    assert max(len(bundle) for bundle in bundles) == 8
    assert [item for bundle in bundles for item in bundle] == list(range(300))
    assert list(in_batches([], 8, 2)) == [] and list(in_batches("ab", 1, 2)) == [["a"], ["b"]]


def test_after_an_item_that_was_long_in_coming_the_next_goes_alone(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("kindsight.threads.time.monotonic", lambda: now[0])

    def items():
        for number in range(12):
            now[0] += 1.0 if number == 5 else 0.0
            yield number

    sizes = [len(bundle) for bundle in in_batches(items(), 8, threads=1)]
    assert sizes == [1, 1, 1, 1, 2, 1, 2, 3]
