"""Interface of an executor: run tasks in worker processes, with results in order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

__all__ = ["Executor", "LostTask", "MakeWorker", "Shared"]

Task = TypeVar("Task")
Result = TypeVar("Result")
MakeWorker = Callable[[], Callable[[Task], Result]]
"""A picklable callable; called once per worker process, it returns the worker's function."""


@dataclass(frozen=True)
class LostTask:
    """Result of a task whose worker process died in every attempt."""


class Shared(Protocol):
    """A value that every worker process can get; pickled as a reference."""

    def get(self) -> Any:
        """Return the value, which is copied once to each node."""


class Executor(Protocol):
    """Runs tasks in worker processes on one machine or several."""

    def share(self, value: Any) -> Shared:
        """Return a reference to a value, such as the bytes of a network, for `make_worker`."""

    def map(
        self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]
    ) -> Iterator[Result | LostTask]:
        """Yield the result of each task, in the order of the tasks.

        A limited number of tasks are read ahead. A task that was lost with its process or node is
        retried; if every attempt kills its process, its result is a :class:`LostTask`. An exception
        of a worker's function is raised when it is the task's turn.
        """

    def isolate(
        self, make_worker: MakeWorker[Task, Result], tasks: Iterable[Task]
    ) -> Iterator[Result | LostTask]:
        """Yield results as :meth:`map` does, with each task in a separate process."""

    def on_every_node(
        self, function: Callable[..., Result], *arguments: Any
    ) -> list[tuple[str, Result]]:
        """Call an importable function once on every node; return (node, result) of each."""
