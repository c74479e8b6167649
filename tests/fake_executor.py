"""An executor without a cluster: threads, and everything pickled as on its way to a process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from kindsight.distributed import LostTask
from kindsight.threads import map_ordered


class Value:
    """A shared value; it is pickled with its reference."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value


class FakeExecutor:
    """Runs tasks on `workers` threads, each with a function of its own.

    Tasks for which `loses` is true are lost each time. `tasks`, `made` and `opened` count.
    """

    def __init__(self, workers: int = 2, loses: Callable[[Any], bool] | None = None) -> None:
        self.workers, self.loses = workers, loses or (lambda task: False)
        self.tasks = self.made = self.isolated = self.opened = 0
        self.checked: list[str] = []

    def share(self, value: Any) -> Value:
        return Value(value)

    def map(self, make_worker: Callable[[], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        local, pickled = threading.local(), pickle.dumps(make_worker)

        def run(task: bytes) -> bytes:
            if not hasattr(local, "function"):
                self.made += 1
                local.function = pickle.loads(pickled)()  # noqa: S301
            given = pickle.loads(task)  # noqa: S301
            lost = self.loses(given)
            return pickle.dumps(LostTask() if lost else local.function(given))

        for result in map_ordered(run, self._dumped(tasks), self.workers):
            yield pickle.loads(result)  # noqa: S301

    def _dumped(self, tasks: Iterable[Any]) -> Iterator[bytes]:
        for task in tasks:
            self.tasks += 1
            yield pickle.dumps(task)

    def isolate(self, make_worker: Callable[[], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        self.isolated += 1
        return self.map(make_worker, tasks)

    def on_every_node(self, function: Callable[..., Any], *arguments: Any) -> list[Any]:
        self.checked += arguments[0]
        return [("this machine", function(*arguments))]


def use_fake_executor(monkeypatch: Any, **options: Any) -> FakeExecutor:
    """Have ``on="ray"`` run on a :class:`FakeExecutor`, which is returned."""
    executor = FakeExecutor(**options)

    @contextmanager
    def opened(on: str) -> Iterator[FakeExecutor]:
        assert on == "ray"
        executor.opened += 1
        yield executor

    monkeypatch.setattr("kindsight.predictor.open_executor", opened)
    monkeypatch.setattr("kindsight.predictor.require_cluster", lambda on: None)
    return executor
