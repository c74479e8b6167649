"""Run the application: sockets, signals, and a shutdown that finishes the requests under way."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from kindsight.errors import KindsightError, UsageError
from kindsight.server.serving import Serving

__all__ = ["JoiningTransport", "bind", "run_server"]

HEADER_SECONDS = 20.0
"""Seconds from a request's first byte, or a connection's start, to the end of its headers."""

IDLE_SECONDS = 30
"""Seconds for which a connection without a request stays open."""

LAST_REQUEST_SECONDS = 0.5
"""Seconds after a signal in which open connections may send one more request, which is answered.

If a connection were closed at once, a request on its way would be lost.
"""

HEAD_BYTES = 64 * 2**10
"""Limit of the bytes of a request's first line and headers."""

MAX_CONNECTIONS = 800
"""Maximum number of open connections; systems often allow a process 1024 files."""

_LAST_ANSWER = (
    b"HTTP/1.1 %b\r\nconnection: close\r\ncontent-type: application/problem+json\r\n"
    b"content-length: %d\r\n\r\n%b"
)
_BUSY = (
    b"503 Service Unavailable\r\nretry-after: 1",
    b'{"type": "urn:kindsight:problem:connections", "title": "Too many connections are open", '
    b'"status": 503, "detail": "Try again in 1 second."}',
)
_HEAD_TOO_LARGE = (
    b"431 Request Header Fields Too Large",
    b'{"type": "urn:kindsight:problem:headers", "title": "The headers are too large", '
    b'"status": 431, "detail": "The address and the headers may have %d bytes together."}'
    % HEAD_BYTES,
)


def bind(host: str, port: int) -> socket.socket:
    """Return a socket that is bound but does not listen yet; port 0 means any free port.

    UsageError for a host that is not this machine's; KindsightError if the port cannot be used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise UsageError(
            f"`host` must be an address or name of this machine, such as 127.0.0.1; got {host!r}."
        ) from None
    # localhost often has both address families, and programs try IPv4 in any case.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        if sys.platform != "win32":  # where it would share the port with another program
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise _bind_error(host, port, error) from error
    return sock


def _bind_error(host: str, port: int, error: OSError) -> KindsightError:
    if error.errno == errno.EADDRINUSE:
        return KindsightError(
            f"Port {port} of {host} is used by another program. Use another one, such as "
            f"`port={port + 1}`, or `port=0` for any free one."
        )
    if error.errno == errno.EACCES:
        return KindsightError(
            f"This user may not use port {port}. Use one from 1024, such as `port=8000`."
        )
    return UsageError(
        f"`host` must be an address of this machine, such as 127.0.0.1; got {host} "
        f"({error.strerror})."
    )


def run_server(app: FastAPI, sock: socket.socket, on_ready: Callable[[], None]) -> bool:
    """Serve until SIGTERM or Ctrl-C; return whether all requests under way were finished.

    A second Ctrl-C ends at once. `on_ready` is called when the socket listens.
    """
    serving: Serving = app.state.serving
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # Addresses of clients behind a proxy are not used.
        proxy_headers=False,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=max(1, round(serving.settings.grace)),
    )
    server = _Server(config, serving, on_ready)
    server.run(sockets=[sock])
    return not server.unfinished


class _Server(uvicorn.Server):
    """Uvicorn's server, which still answers requests on their way when it is stopped."""

    def __init__(
        self, config: uvicorn.Config, serving: Serving, on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self.unfinished = 0
        self._serving = serving
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at a signal, without raising it again afterwards."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no new connections, and finish those that are open."""
        self._serving.stopping = True
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        end = loop.time() + LAST_REQUEST_SECONDS
        while self.server_state.connections and loop.time() < end and not self.force_exit:
            await asyncio.sleep(0.02)
        counting = asyncio.create_task(self._count_unfinished())
        await super().shutdown(sockets)
        counting.cancel()
        if self.force_exit:
            self.unfinished = len(self.server_state.tasks)

    async def _count_unfinished(self) -> None:
        """Record the number of requests that are left at the end of the grace period."""
        await asyncio.sleep(0.1 + (self.config.timeout_graceful_shutdown or 0) - 0.05)
        self.unfinished = len(self.server_state.tasks)


class _HeadTooLargeError(Exception):
    """The first line and the headers of a request have too many bytes."""


class JoiningTransport:
    """A transport that joins two writes in one iteration of the event loop.

    Uvicorn writes the headers and the body of a response separately. That takes two system calls,
    and two TCP segments that wake the client twice.

    Parameters
    ----------
    transport : asyncio.Transport
    loop : asyncio.AbstractEventLoop
    """

    def __init__(self, transport: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Send data with the next write, or at the end of this iteration of the event loop."""
        self._parts.append(data)
        if len(self._parts) == 1:
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def close(self) -> None:
        """Close the connection after everything is sent."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            self._transport.write(b"".join(self._parts))
            self._parts.clear()


class _Protocol(HttpToolsProtocol):
    """Uvicorn's protocol, with limits of the time and size of headers, and of connections."""

    _timer: asyncio.TimerHandle | None = None
    # Bytes of complete headers, and those received since the request began; None in its body.
    _head = 0
    _begun: int | None = 0
    _has_ended = False  # whether a request has ended in the latest data

    def connection_made(self, transport: Any) -> None:
        """Begin a connection."""
        joining: Any = JoiningTransport(transport, self.loop)
        super().connection_made(joining)
        if len(self.connections) > MAX_CONNECTIONS:
            self._answer_and_close(*_BUSY)
            return
        self._start_timer()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        self._has_ended = False
        super().data_received(data)
        # Not all of the data are headers if another request ends in them.
        if self._begun is not None and not self._has_ended:
            self._begun += len(data)
            if self._begun > HEAD_BYTES:
                self._answer_and_close(*_HEAD_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Reject data that is not an HTTP request."""
        if self._head > HEAD_BYTES:
            self._answer_and_close(*_HEAD_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def _answer_and_close(self, status: bytes, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(_LAST_ANSWER % (status, len(body), body))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """End a connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._start_timer()
        self._head = self._begun = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """Receive a part of the URL."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Receive a header."""
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > HEAD_BYTES:
            raise _HeadTooLargeError

    def on_headers_complete(self) -> None:
        """Begin to respond to a request."""
        self._begun = None
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End a request."""
        self._has_ended = True
        super().on_message_complete()

    def _start_timer(self) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(HEADER_SECONDS, self.timeout_keep_alive_handler)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
