"""Executors: opened when first needed, and closed with the command that needed them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field

from kindsight.distributed.executor import Executor
from kindsight.distributed.place import check_on, is_remote

__all__ = ["executors_kept_open", "open_executor"]


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
        For another text.
    ClusterError
        For a cluster that does not answer, or nodes with other versions.
    MissingExtraError
        If Ray is not installed.
    """
    if on is None or not is_remote(on):
        return nullcontext()
    check_on(on)
    from kindsight.distributed.ray_cluster import RayCluster

    kept = _kept.get()
    if kept is None:
        return RayCluster(on)
    if on not in kept.executors:
        kept.executors[on] = kept.stack.enter_context(RayCluster(on))
    return nullcontext(kept.executors[on])


@dataclass
class _Kept:
    """The executors that stay open until the end of a block."""

    stack: ExitStack
    executors: dict[str, Executor] = field(default_factory=dict)


_kept: ContextVar[_Kept | None] = ContextVar("kept executors", default=None)


@contextmanager
def executors_kept_open() -> Iterator[None]:
    """Keep what :func:`open_executor` opens in this block, on this thread, open until its end.

    A command opens a cluster when it first needs one, and once.
    """
    if _kept.get() is not None:  # an outer block keeps them
        yield
        return
    with ExitStack() as stack:
        token = _kept.set(_Kept(stack))
        try:
            yield
        finally:
            _kept.reset(token)
