"""Open executors when they are first needed, and close them at the end of the command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from kindsight.distributed.cluster_address import check_on, is_remote
from kindsight.distributed.executor import Executor

__all__ = ["open_executor", "reuse_executors"]


def open_executor(on: str | None) -> AbstractContextManager[Executor | None]:
    """Return the context of an executor on Ray, or of None for ``"local"``.

    Parameters
    ----------
    on : str or None
        ``"local"`` (also None); ``"ray"``: the cluster of the environment variable RAY_ADDRESS, or
        else one that is started on this machine and stopped at the end; ``"ray://HOST:PORT"``: a
        running cluster.

    Raises
    ------
    SettingsError
        For another value.
    ClusterError
        For a cluster that does not respond, or nodes with other versions.
    MissingExtraError
        If Ray is not installed.
    """
    if on is None or not is_remote(on):
        return nullcontext()
    check_on(on)
    from kindsight.distributed.ray_cluster import RayCluster

    opened = _opened.get()
    if opened is None:
        return RayCluster(on)
    if on not in opened.executors:
        opened.executors[on] = opened.stack.enter_context(RayCluster(on))
    return nullcontext(opened.executors[on])


@dataclass
class _OpenExecutors:
    """Open executors by their value of `on`; an exit stack closes them."""

    stack: ExitStack
    executors: dict[str, Executor] = field(default_factory=dict)


_opened: ContextVar[_OpenExecutors | None] = ContextVar("open executors", default=None)


@contextmanager
def reuse_executors() -> Iterator[None]:
    """Within the block, on this thread, return the same executor from each :func:`open_executor`.

    A command thus opens a cluster when it first needs one, and once. Executors are closed at the
    end of the block.
    """
    if _opened.get() is not None:  # the outer block closes them
        yield
        return
    with ExitStack() as stack:
        token = _opened.set(_OpenExecutors(stack))
        try:
            yield
        finally:
            _opened.reset(token)
