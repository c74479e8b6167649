"""The queue and its threads: order, bounds, dropping, errors, closing."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from kindsight.server.engine import Engine, Job, QueueFullError

SECONDS = 20


@pytest.fixture
def engine() -> Iterator[Engine]:
    """One thread, and room for three."""
    made = Engine(workers=1, limit=3)
    made.start()
    yield made
    made.close()


class Gate:
    """Work that occupies a thread until it is opened."""

    def __init__(self) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.entered.set()
        assert self.opened.wait(SECONDS)
        return "gate"


def jobs(*works: Callable[[], Any]) -> list[Job]:
    loop = asyncio.get_running_loop()
    return [Job(work, loop) for work in works]


async def occupied(engine: Engine) -> tuple[Gate, Job]:
    """Occupy the engine's thread."""
    gate = Gate()
    (job,) = jobs(gate)
    engine.submit([job])
    assert await asyncio.to_thread(gate.entered.wait, SECONDS)
    return gate, job


def test_jobs_run_in_their_order(engine: Engine) -> None:
    async def main() -> list[int]:
        done: list[int] = []
        made = jobs(*(lambda number=number: done.append(number) for number in range(3)))
        engine.submit(made)
        await asyncio.wait_for(asyncio.gather(*(job.done for job in made)), SECONDS)
        return done

    assert asyncio.run(main()) == [0, 1, 2]


def test_a_full_queue_takes_all_jobs_of_a_request_or_none(engine: Engine) -> None:
    async def main() -> None:
        gate, first = await occupied(engine)
        engine.submit(jobs(int, int))
        with pytest.raises(QueueFullError) as caught:
            engine.submit(jobs(int, int))
        assert (caught.value.waiting, engine.waiting) == (2, 2)
        assert caught.value.retry_after >= 1
        engine.submit(jobs(int))
        assert (engine.waiting, engine.running) == (3, 1)
        gate.opened.set()
        assert await asyncio.wait_for(first.done, SECONDS) == "gate"

    asyncio.run(main())


def test_a_dropped_job_is_never_run_and_leaves_its_place(engine: Engine) -> None:
    async def main() -> list[str]:
        gate, _ = await occupied(engine)
        ran: list[str] = []
        dropped, kept = jobs(lambda: ran.append("dropped"), lambda: ran.append("kept"))
        engine.submit([dropped, kept])
        engine.drop([dropped])
        assert engine.waiting == 1
        assert dropped.done.cancelled()
        gate.opened.set()
        await asyncio.wait_for(kept.done, SECONDS)
        return ran

    assert asyncio.run(main()) == ["kept"]


def test_the_result_of_a_job_that_is_dropped_while_it_runs_is_ignored(engine: Engine) -> None:
    async def main() -> Any:
        gate, running = await occupied(engine)
        engine.drop([running])
        gate.opened.set()
        (after,) = jobs(lambda: "next")
        engine.submit([after])
        assert running.done.cancelled()
        return await asyncio.wait_for(after.done, SECONDS)

    assert asyncio.run(main()) == "next"


@pytest.mark.parametrize(
    ("error", "raised"),
    [(ValueError("no"), ValueError), (MemoryError(), MemoryError), (SystemExit(), RuntimeError)],
)
def test_an_error_is_raised_where_it_is_awaited_and_the_thread_lives(
    engine: Engine, error: BaseException, raised: type[Exception]
) -> None:
    def fail() -> None:
        raise error

    async def main() -> Any:
        failing, after = jobs(fail, lambda: "alive")
        engine.submit([failing, after])
        with pytest.raises(raised):
            await asyncio.wait_for(failing.done, SECONDS)
        return await asyncio.wait_for(after.done, SECONDS)

    assert asyncio.run(main()) == "alive"


def test_the_time_to_wait_follows_from_the_rate(engine: Engine, monkeypatch: Any) -> None:
    # Two images a second: with three too many, room is there after a second and a half.
    moments = iter([0.0, 0.5, 1.0, 1.5, 2.0])
    now = [0.0]

    # The module's own name of the clock alone: the event loop goes by the real one.
    clock = SimpleNamespace(monotonic=lambda: now[0])
    monkeypatch.setattr("kindsight.server.engine.time", clock)

    async def main() -> int:
        for moment in moments:
            now[0] = moment
            made = jobs(int)
            engine.submit(made)
            await asyncio.wait_for(made[0].done, SECONDS)
            while engine.running:
                await asyncio.sleep(0.001)
        now[0] = 2.5
        with pytest.raises(QueueFullError) as caught:
            engine.check_room(6)
        return caught.value.retry_after

    assert asyncio.run(main()) == 2


def test_a_closed_engine_ends_its_threads_and_takes_no_more() -> None:
    before = set(threading.enumerate())
    engine = Engine(workers=2, limit=3)
    engine.start()
    started = set(threading.enumerate()) - before
    assert len(started) == 2
    engine.close()
    assert not any(thread.is_alive() for thread in started)

    async def main() -> None:
        with pytest.raises(RuntimeError):
            engine.submit(jobs(int))

    asyncio.run(main())
