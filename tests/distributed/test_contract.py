"""One contract for every way of computing: threads of this process, an executor, and Ray.

The Ray part needs a cluster and is slow.
"""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from fake_executor import FakeExecutor, use_fake_executor
from kindsight import network_outputs
from kindsight.distributed import open_executor
from kindsight.errors import ImageError
from kindsight.predictor import Predictor
from tiny_bundle import CLASSES, COLOURS, write_bundle, write_image

RAY = pytest.param("ray", marks=pytest.mark.slow)

WINDOW = 8
"""Number of tasks that Ray Data gets at once in these tests."""

AHEAD = 2 * WINDOW
"""Maximum number of tasks that are taken before their turn; threads take eight each."""

SECONDS = 60.0


@pytest.fixture(scope="module")
def ray_executor() -> Iterator[object]:
    ray = pytest.importorskip("ray")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import it
    folder = tempfile.mkdtemp(prefix="ks", dir="/tmp")  # the path of a socket must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("kindsight.distributed.ray_cluster.count_cores", lambda: 2)
        patch.setattr("kindsight.distributed.ray_executor.WINDOW", WINDOW)
        patch.setattr("kindsight.distributed.ray_executor.WINDOW_PER_ACTOR", WINDOW // 2)
        try:
            with open_executor("ray") as executor:
                yield executor
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> object:
    """An executor by its name: ``threads`` or ``ray``."""
    if request.param == "threads":
        return FakeExecutor(workers=2)
    return request.getfixturevalue("ray_executor")


@pytest.fixture
def predictor(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Predictor]:
    """A predictor by where it computes: ``local``, ``executor`` or ``ray``; blocks of 4 images."""
    monkeypatch.setattr(network_outputs, "BLOCK", 4)
    if request.param == "ray":
        request.getfixturevalue("ray_executor")
    elif request.param == "executor":
        use_fake_executor(monkeypatch, workers=2)
    on = None if request.param == "local" else "ray"
    with Predictor(write_bundle(tmp_path / "bundle"), on=on, workers=2) as predictor:
        yield predictor


executors = pytest.mark.parametrize("executor", ["threads", RAY], indirect=True)
predictors = pytest.mark.parametrize("predictor", ["local", "executor", RAY], indirect=True)


class Tasks:
    """Endless tasks 0, 1, 2, ..., how many were taken, and whether the last user closed them."""

    def __init__(self, value: Callable[[int], object] = int) -> None:
        self.taken, self.closed, self._value = 0, False, value

    def __iter__(self) -> Iterator[object]:
        try:
            for number in itertools.count():
                self.taken += 1
                yield self._value(number)
        finally:
            self.closed = True


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.05)


# Tasks of an executor. A worker's function is made by a picklable object: here, by a class.


class Square:
    """Returns the square of a task; later tasks end before earlier ones."""

    def __call__(self, task: int) -> int:
        time.sleep(0.03 if task % 3 == 0 else 0.0)
        return task * task


class FailsAt5:
    """Returns a task; raises an error for 5."""

    def __call__(self, task: int) -> int:
        if task == 5:
            raise ImageError("corrupt", "It is no image.", "a.jpg")
        return task


def note(folder: str, task: int) -> int:
    """Write a file named after a task, and return the task."""
    Path(folder, f"{task}").touch()
    return task


@executors
def test_results_are_in_the_order_of_the_tasks(executor) -> None:
    # More tasks than a window has.
    assert list(executor.map(Square, range(20))) == [number * number for number in range(20)]
    assert list(executor.map(Square, [])) == []
    assert list(executor.isolate(Square, [3, 2])) == [9, 4]


@executors
def test_an_error_is_raised_in_the_turn_of_its_task(executor) -> None:
    results = executor.map(FailsAt5, range(12))
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ImageError, match=r"a\.jpg: It is no image\.") as raised:
        next(results)
    assert raised.value.code == "corrupt"
    assert list(executor.map(FailsAt5, range(3))) == [0, 1, 2]  # it can be used again


@executors
def test_tasks_are_taken_only_a_bounded_number_ahead(executor) -> None:
    tasks = Tasks()
    with closing(executor.map(Square, tasks)) as results:
        some = itertools.islice(enumerate(results), 3 * WINDOW)
        ahead = [tasks.taken - 1 - number for number, _ in some]
    assert max(ahead) < AHEAD


@executors
def test_closing_the_results_ends_the_tasks(executor, tmp_path: Path) -> None:
    make = partial(partial, note, str(tmp_path))
    tasks = Tasks()
    results = executor.map(make, tasks)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    results.close()
    wait_until(lambda: tasks.closed)
    # Tasks that were read before may still be computed; none after them is.
    taken = tasks.taken
    assert taken <= 3 + AHEAD
    assert list(executor.map(make, range(100, 102))) == [100, 101]
    assert tasks.taken == taken
    computed = {int(path.name) for path in tmp_path.iterdir()} - {100, 101}
    assert computed <= set(range(taken))


# Images of a predictor


def write_images(folder: Path, count: int) -> list[Path]:
    """Write images of one colour each, in turn."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{number:02d}.png")
        write_image(paths[-1], COLOURS[CLASSES[number % len(CLASSES)]])
    return paths


@predictors
def test_rows_are_those_of_the_images_and_an_unreadable_one_is_named(
    predictor: Predictor, tmp_path: Path
) -> None:
    paths = write_images(tmp_path, 23)
    paths[9].write_bytes(paths[9].read_bytes()[:50])
    paths[14].unlink()
    found = list(predictor.predict(paths))
    assert [each.path for each in found] == [str(path) for path in paths]
    bad = {9: "truncated", 14: "missing"}
    for number, each in enumerate(found):
        if number in bad:
            assert each.error is not None and each.error.code == bad[number]
            assert each.error.path == str(paths[number]) and each.label is None
        else:
            assert each.error is None and each.label == CLASSES[number % 3]
            # The network's logits are a colour's values divided by 50.
            expected = [5.1 if name == each.label else 0.0 for name in CLASSES]
            assert np.allclose(each.logits, expected, atol=1e-5)


@predictors
def test_an_endless_stream_is_read_a_bounded_number_ahead_and_can_be_left(
    predictor: Predictor, tmp_path: Path
) -> None:
    paths = write_images(tmp_path, 3)
    images = Tasks(lambda number: (f"{number}", str(paths[number % 3])))
    before = threading.active_count()
    with closing(predictor.predict_named(images)) as stream:
        for number, each in enumerate(itertools.islice(stream, 40)):
            assert (each.path, each.label) == (f"{number}", CLASSES[number % 3])
            # Tasks have 4 images; threads without an executor take some batches of 8.
            assert images.taken - number <= 4 * AHEAD + 64
    wait_until(lambda: images.closed)
    taken = images.taken
    assert [each.label for each in predictor.predict(paths)] == list(CLASSES)
    assert images.taken == taken
    wait_until(lambda: threading.active_count() <= before + 4)
