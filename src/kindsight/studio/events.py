"""Server-sent events: all changes since the last event that the page received."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections import deque
from collections.abc import AsyncIterator
from typing import Any

__all__ = ["EventLog"]

MAX_EVENTS = 2000
"""Maximum number of stored events; a page that missed more reloads everything."""

QUIET_SECONDS = 8.0
"""Seconds without an event after which a comment is sent, to show that the connection is alive."""


class EventLog:
    """Numbered events, sent from any thread to all pages that listen.

    An id contains the name of this log, so that a page of an earlier server process is recognised.
    It gets a ``hello`` and reloads everything.
    """

    def __init__(self) -> None:
        self._name = secrets.token_hex(4)
        self._lock = threading.Lock()
        self._events: deque[tuple[int, str]] = deque(maxlen=MAX_EVENTS)
        self._last = 0
        self._listeners: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._closed = False

    def send(self, event: str, data: Any) -> None:
        """Send an event with data for JSON."""
        with self._lock:
            self._last += 1
            self._events.append((self._last, self._text(self._last, event, data)))
        self._wake()

    def close(self) -> None:
        """End all connections."""
        self._closed = True
        self._wake()

    async def listen(self, last_id: str, hello: Any) -> AsyncIterator[str]:
        """Yield the events after an id, then new ones as they come.

        - `last_id`: the page's ``Last-Event-ID``; empty for a page that has just loaded.
        - `hello`: the data of the first event for a page that must load everything.
        """
        changed = asyncio.Event()
        listener = (asyncio.get_running_loop(), changed)
        with self._lock:
            number = self._number(last_id)
            if number is None:
                number = self._last
                first = self._text(number, "hello", hello)
            else:
                first = ": continued\n\n"
            self._listeners.add(listener)
        try:
            yield first
            while not self._closed:
                changed.clear()
                with self._lock:
                    texts = [text for event, text in self._events if event > number]
                    number = self._last
                if texts:
                    yield "".join(texts)
                    continue
                try:
                    await asyncio.wait_for(changed.wait(), QUIET_SECONDS)
                except asyncio.TimeoutError:
                    yield ": waiting\n\n"
        finally:
            with self._lock:
                self._listeners.discard(listener)

    def _number(self, last_id: str) -> int | None:
        """Return the number of the last event that a page had; None if it must load everything."""
        name, _, digits = last_id.partition("-")
        if name != self._name or not (digits.isascii() and digits.isdigit() and len(digits) < 12):
            return None
        oldest = self._events[0][0] if self._events else self._last + 1
        return int(digits) if oldest - 1 <= int(digits) <= self._last else None

    def _text(self, number: int, event: str, data: Any) -> str:
        body = json.dumps(data, separators=(",", ":"))
        return f"id: {self._name}-{number}\nevent: {event}\ndata: {body}\n\n"

    def _wake(self) -> None:
        with self._lock:
            listeners = list(self._listeners)
        for loop, changed in listeners:
            try:
                loop.call_soon_threadsafe(changed.set)
            except RuntimeError:  # the loop is closed
                continue
