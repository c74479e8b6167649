"""Ctrl-C, also where it gets lost: some libraries swallow a KeyboardInterrupt while they load.

Seen with LiteRT, whose extension module drops one that comes during the milliseconds of its
import. So a Ctrl-C is remembered, and raised again at the next news of the command's progress.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["forgive_interrupt", "interrupted", "listening", "raise_if_interrupted"]

_seen = threading.Event()


@contextmanager
def listening() -> Iterator[None]:
    """Remember Ctrl-C while the block runs; it raises KeyboardInterrupt as always."""
    _seen.clear()
    # Signals belong to the main thread; and whoever set a handler of his own wants that one.
    theirs = threading.current_thread() is not threading.main_thread()
    if theirs or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _remember)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def interrupted() -> bool:
    """Whether there was a Ctrl-C since the last :func:`listening` began."""
    return _seen.is_set()


def raise_if_interrupted() -> None:
    """Raise KeyboardInterrupt if there was a Ctrl-C that did not end the command."""
    if _seen.is_set():
        raise KeyboardInterrupt


def forgive_interrupt() -> None:
    """Forget a Ctrl-C that the command has answered by finishing early."""
    _seen.clear()


def _remember(number: int, frame: FrameType | None) -> None:
    _seen.set()
    raise KeyboardInterrupt
