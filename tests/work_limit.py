"""A limit on the work of a block, in seconds of the processor, not of the clock."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class TooMuchWork(BaseException):  # no Exception, which code under test may catch
    """A block worked longer than its limit."""


@contextmanager
def seconds_of_work(limit: float) -> Iterator[None]:
    """Interrupt a block that uses the processor longer than a limit, also within a search."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooMuchWork(f"more than {limit} s of work")

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
