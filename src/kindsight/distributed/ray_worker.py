"""The part of the executor that runs in a worker process of Ray."""

from __future__ import annotations

import pickle
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from kindsight.errors import ClusterError

__all__ = ["TaskWorker", "Versions", "installed_versions", "load_result", "require_versions"]

Versions = dict[str, str]

# Packages that affect how an image is decoded.
_PACKAGES = (
    "kindsight", "numpy", "pillow", "simplejpeg", "opencv-python-headless", "ai-edge-litert",
)  # fmt: skip


def installed_versions() -> Versions:
    """Return the versions of Python and of the packages on which results depend."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def require_versions(expected: Versions, found: Versions, node: str) -> None:
    """Raise ClusterError if a node has another version of a package than the driver."""
    for name, version in expected.items():
        if found.get(name) != version:
            raise ClusterError(
                f"The node {node} has {name} {found.get(name)}, this machine {version}: results "
                "would differ. Install the same versions on every node of the cluster."
            )


@dataclass
class _Raised:
    """An exception of a worker's function."""

    error: Exception


def dump_result(result: Any) -> bytes:
    return pickle.dumps(result, protocol=5)


def load_result(data: bytes | memoryview) -> Any:
    """Return the result of a task; raise the exception that the worker's function raised."""
    result = pickle.loads(data)  # noqa: S301 (from our worker, through Ray)
    if isinstance(result, _Raised):
        raise result.error
    return result


class TaskWorker:
    """Computes tasks; each worker process has one.

    Parameters
    ----------
    make_worker : bytes
        The pickled function that makes the worker's function.
    versions : dict
        The driver's versions; a node that joined the cluster later may have others.
    """

    def __init__(self, make_worker: bytes, versions: Versions) -> None:
        self._pickled, self._versions = make_worker, versions
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, batch: dict[str, Any]) -> Any:
        """Return the results of a batch of tasks, as Ray Data's ``map_batches`` calls it."""
        import pyarrow as pa

        results = [self.run(task) for task in batch["task"]]
        return pa.table(
            {
                "number": pa.array(batch["number"], pa.int64()),
                "result": pa.array(results, pa.large_binary()),
            }
        )

    def run(self, task: bytes) -> bytes:
        """Return the pickled result of a pickled task."""
        try:
            if self._function is None:
                self._function = self._make()
            return dump_result(self._function(pickle.loads(task)))  # noqa: S301 (from the driver)
        except Exception as error:
            return _dump_error(error)

    def _make(self) -> Callable[[Any], Any]:
        require_versions(self._versions, installed_versions(), platform.node())
        function: Callable[[Any], Any] = pickle.loads(self._pickled)()  # noqa: S301
        return function


def _dump_error(error: Exception) -> bytes:
    try:
        data = dump_result(_Raised(error))
        pickle.loads(data)  # noqa: S301 (some exceptions can be pickled, but not read back)
    except Exception:
        return dump_result(_Raised(RuntimeError(f"{type(error).__name__}: {error}")))
    return data
