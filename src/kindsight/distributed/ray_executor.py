"""Tasks on Ray Data: blocks of one task, actors of one core each, results in order."""

from __future__ import annotations

import contextlib
import pickle
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kindsight.distributed.executor import LostTask, MakeWorker
from kindsight.distributed.ray_worker import TaskWorker, Versions, load_result
from kindsight.errors import ClusterError, KindsightError

__all__ = ["RayExecutor", "on_every_node", "reason_of"]

# Cores per actor. Below 1: Ray's own tasks also need cores, and actors of whole cores would cause a
# deadlock on a small machine. Above 19/20: a node of n < 20 cores gets n actors.
ACTOR_CORES = 0.95
# Tasks queued at an actor, including the running one, so that it never idles.
IN_FLIGHT = 3
# How often Ray retries a task whose process or node was lost.
RETRIES = 2
# Tasks given to Ray Data at a time: minimum, number per actor, and maximum of their bytes, which
# this process holds. Results wait in the object store, which limits how many are computed ahead.
WINDOW = 4096
WINDOW_PER_ACTOR = 64
WINDOW_BYTES = 256 << 20


@dataclass(frozen=True)
class RayShared:
    """A value in the object store."""

    reference: Any

    def get(self) -> Any:
        """Return the value, from this node's object store."""
        import ray

        return ray.get(self.reference)


class RayExecutor:
    """An :class:`.executor.Executor` in a process that is connected to a cluster.

    Parameters
    ----------
    versions : dict
        The driver's versions, which every worker must have.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions

    def share(self, value: Any) -> RayShared:
        """Put a value into the object store."""
        import ray

        return RayShared(ray.put(value))

    def map(self, make_worker: MakeWorker[Any, Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield the result of each task, in the order of the tasks."""
        pickled = dump(make_worker)
        waiting = (pickle.dumps(task, protocol=5) for task in tasks)
        actors = 0
        for first in waiting:
            actors = count_actors(actors)
            window = _take(first, waiting, max(WINDOW, WINDOW_PER_ACTOR * actors))
            yield from self._window(pickled, window, actors)

    def _window(self, make_worker: bytes, tasks: Sequence[bytes], actors: int) -> Iterator[Any]:
        """Yield the results of a window of tasks; those that Ray Data omits were lost."""
        number = 0
        with contextlib.closing(self._numbered(make_worker, tasks, actors)) as numbered:
            for found, result in numbered:
                while number < found:
                    yield from self._isolated(make_worker, tasks[number : number + 1])
                    number += 1
                yield load_result(result)
                number += 1
        yield from self._isolated(make_worker, tasks[number:])

    def _numbered(
        self, make_worker: bytes, tasks: Sequence[bytes], actors: int
    ) -> Generator[tuple[int, memoryview], None, None]:
        """Yield (number, pickled result) of the tasks that Ray Data could compute, in order."""
        import ray

        items = [{"number": number, "task": task} for number, task in enumerate(tasks)]
        with _errors_explained():
            blocks = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
                TaskWorker,
                batch_size=1,
                batch_format="numpy",
                compute=ray.data.ActorPoolStrategy(
                    size=min(actors, len(items)), max_tasks_in_flight_per_actor=IN_FLIGHT
                ),
                fn_constructor_args=(make_worker, self._versions),
                num_cpus=ACTOR_CORES,
                ray_remote_args_fn=_actor_options,
            )
            batches = blocks.iter_batches(
                batch_size=None, batch_format="pyarrow", prefetch_batches=1
            )
            for table in batches:
                for number, result in zip(table["number"], table["result"], strict=True):
                    yield number.as_py(), memoryview(result.as_buffer())

    def isolate(self, make_worker: MakeWorker[Any, Any], tasks: Iterable[Any]) -> Iterator[Any]:
        """Yield the results, each task in a separate process."""
        return self._isolated(dump(make_worker), (pickle.dumps(task) for task in tasks))

    def _isolated(self, make_worker: bytes, tasks: Iterable[bytes]) -> Iterator[Any]:
        import ray

        # Without a reserved core: Ray Data's actors hold the cores while its window runs.
        actor_class = ray.remote(num_cpus=0, max_restarts=0)(TaskWorker)
        actor = None
        try:
            for task in tasks:
                for _ in range(RETRIES):
                    actor = actor or actor_class.remote(make_worker, self._versions)
                    try:
                        data = ray.get(actor.run.remote(task))
                        break
                    except ray.exceptions.RayActorError:
                        actor = None
                else:
                    yield LostTask()
                    continue
                yield load_result(data)
        finally:
            if actor is not None:
                ray.kill(actor)

    def on_every_node(self, function: Any, *arguments: Any) -> list[tuple[str, Any]]:
        """Call a function once on every node."""
        return on_every_node(function, *arguments)


def _take(first: bytes, more: Iterator[bytes], limit: int) -> list[bytes]:
    """Return up to `limit` tasks, and fewer where they are large."""
    taken, size = [first], len(first)
    while len(taken) < limit and size < WINDOW_BYTES:
        task = next(more, None)
        if task is None:
            break
        taken.append(task)
        size += len(task)
    return taken


def dump(value: Any) -> bytes:
    """Pickle by value what a worker could not import, such as a function of a script."""
    from ray import cloudpickle

    data: bytes = cloudpickle.dumps(value)
    return data


def count_actors(before: int = 0) -> int:
    """Return how many actors fit on the cores that are free now; ClusterError if none fits.

    The cores of the `before` actors of the last window are freed within a few seconds.
    """
    import ray

    until = time.monotonic() + FREE_SECONDS
    while True:
        free: dict[str, float] = ray.available_resources()
        count = int(free.get("CPU", 0) / ACTOR_CORES)
        if count >= max(1, before):
            return count
        if time.monotonic() > until:
            break
        time.sleep(0.05)
    if before or count:
        return max(count, 1)
    raise ClusterError(
        "The Ray cluster has no free CPU. Wait until its other work has ended, or add a node."
    )


def on_every_node(function: Any, *arguments: Any) -> list[tuple[str, Any]]:
    """Call a function once on every node of the cluster; return (address, result) of each."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote = ray.remote(num_cpus=0, max_retries=0)(function)
    nodes = [node for node in ray.nodes() if node["Alive"]]
    calls = [
        remote.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote(*arguments)
        for node in nodes
    ]
    found = []
    for node, call in zip(nodes, calls, strict=True):
        address = str(node["NodeManagerAddress"])
        try:
            found.append((address, ray.get(call, timeout=NODE_SECONDS)))
        except ray.exceptions.RayError as error:
            raise ClusterError(
                f"The node {address} of the Ray cluster cannot run kindsight: "
                f"{reason_of(error)} Install the same version of kindsight on every node."
            ) from error
    return found


# Seconds within which a core must become free.
FREE_SECONDS = 5.0
# Seconds within which a node must respond; the first call starts a process on it.
NODE_SECONDS = 120.0


def _actor_options() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": RETRIES, "scheduling_strategy": "SPREAD"}


@contextlib.contextmanager
def _errors_explained() -> Iterator[None]:
    """Convert an error of Ray, such as a lost cluster, to a KindsightError."""
    import ray

    try:
        yield
    except (ray.exceptions.RayError, ConnectionError) as error:
        raise KindsightError(
            f"The work on the Ray cluster was interrupted: {reason_of(error)} Start the same "
            "command again: finished images are not computed again."
        ) from error


def reason_of(error: BaseException) -> str:
    """Return the first line of an error, or the last one of a traceback, as a sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = (lines[-1] if "Traceback" in str(error) and lines else lines[0] if lines else "")[:200]
    text = text or type(error).__name__
    return text if text.endswith(".") else f"{text}."
