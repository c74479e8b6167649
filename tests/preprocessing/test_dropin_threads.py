"""Work on several threads: every call once, the first error raised."""

from __future__ import annotations

import threading
import time

import pytest

from kindsight.preprocessing import _batches
from kindsight.preprocessing._batches import Work, for_each


@pytest.fixture(params=[0, 1, 3], autouse=True)
def helpers(request, monkeypatch):
    monkeypatch.setattr(_batches._pool, "helpers", request.param)
    monkeypatch.setattr(_batches._pool, "executor", None)
    return request.param


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_every_call_is_made_once(count):
    done: list[int] = []
    for_each(count, done.append)
    assert sorted(done) == list(range(count))


def test_first_error_is_raised():
    def work(number: int) -> None:
        if number in (3, 4, 9):
            raise ValueError(f"number {number}")

    for _ in range(20):
        with pytest.raises(ValueError, match="number 3"):
            for_each(12, work)


def test_started_work_continues_without_the_caller(helpers):
    first = threading.Event()
    work = Work(5, lambda _: first.set())
    work.start()
    assert first.wait(60 if helpers else 0) is (helpers > 0)
    work.finish()
    assert first.is_set()


def test_stopped_work_makes_no_further_calls():
    done: list[int] = []
    work = Work(5, done.append)
    work.stop()
    work.finish()
    assert done == []


def test_without_a_pool_the_caller_makes_all_calls(monkeypatch):
    class Closed:
        def submit(self, task):
            raise RuntimeError("cannot schedule new futures after shutdown")

    monkeypatch.setattr(_batches._pool, "executor", Closed())
    done: list[int] = []
    for_each(7, done.append)
    assert done == list(range(7))


def spin(seconds: float) -> None:
    """Use the CPU for some seconds."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_short_calls_stay_on_the_calling_thread(helpers):
    for _ in range(20):  # a busy machine may interrupt a call, which then counts as long
        seen: set[int] = set()
        work = Work(200, lambda _, seen=seen: seen.add(threading.get_ident()))
        work.finish()
        if len(seen) == 1:
            break
    assert seen == {threading.get_ident()}
    assert work.is_light and not work._helpers


def test_threads_join_after_the_first_long_call(helpers):
    seen: list[tuple[int, int]] = []

    def call(number: int) -> None:
        seen.append((number, threading.get_ident()))
        if number >= 5:
            spin(2e-3)

    work = Work(40, call)
    work.finish()
    own = threading.get_ident()
    assert {who for number, who in seen if number <= 5} == {own}
    assert (len({who for _, who in seen}) > 1) is (helpers > 0)
    assert not work.is_light
    assert sorted(number for number, _ in seen) == list(range(40))


def test_waiting_does_not_count_as_work(helpers, monkeypatch):
    monkeypatch.setattr(_batches, "_LIGHT", 1e-3)
    work = Work(20, lambda _: time.sleep(5e-3))
    work.finish()
    assert work.is_light
    assert not Work(0, lambda _: None).is_light
