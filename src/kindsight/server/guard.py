"""Checks of every request (host name, origin, token, upload), and the headers of every response.

Limits of uploads are enforced while they are read: the size of one, the size of all, the time of
one.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kindsight.server.problems import (
    FAILED,
    FULL,
    OTHER_HOST,
    OTHER_SITE,
    SLOW,
    STOPPING,
    TOO_LARGE,
    UNAUTHORIZED,
    ProblemError,
    any_of,
    problem_response,
)
from kindsight.server.settings import ServerSettings

__all__ = [
    "Guard",
    "UploadLimits",
]

DRAIN_SECONDS = 3.0
"""Seconds for which the rest of a rejected upload is read, so that the client sees the response."""

DRAIN_BYTES = 64 * 2**20
"""Maximum bytes of the rest of a rejected upload that are read."""


class UploadLimits:
    """Middleware that limits uploads, and lets a client that is still sending see the response.

    If a body is not read to its end, the response is sent at once, with ``Connection: close``.
    Closing the connection immediately would make the client's system discard that response, so some
    of the rest is read first.

    Parameters
    ----------
    app : ASGI application
    settings : ServerSettings
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings) -> None:
        self._app = app
        self._settings = settings
        self._held = 0

    @property
    def held(self) -> int:
        """Bytes of uploads in memory."""
        return self._held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        upload = _Upload(self, scope, receive, send)
        try:
            await self._app(scope, upload.receive, upload.send)
        finally:
            self._held -= upload.size

    def grow(self, before: int, size: int) -> None:
        """Count the growth of a body from `before` bytes; ProblemError if that is too much."""
        limit = self._settings.body_bytes
        if before + size > limit:
            raise ProblemError(
                TOO_LARGE,
                f"A request may have {limit:,} bytes; this one has more. Send fewer or smaller "
                "images in each request.",
            )
        if self._held + size > self._settings.memory_bytes:
            raise ProblemError(
                FULL,
                "The uploads of all clients together have reached the limit. Try again in 1 "
                "second.",
                {"Retry-After": "1"},
            )
        self._held += size

    def check_length(self, stated: bytes) -> None:
        """Reject a body that states a size above the limit, before it is read."""
        if stated.isdigit() and int(stated[:20]) > self._settings.body_bytes:
            self.grow(0, self._settings.body_bytes + 1)

    @property
    def seconds(self) -> float:
        """Time limit of an upload."""
        return self._settings.seconds


class _Upload:
    """The body of one request."""

    def __init__(self, limits: UploadLimits, scope: Scope, receive: Receive, send: Send) -> None:
        self.size = 0
        self._limits = limits
        self._receive, self._send = receive, send
        self._end = time.monotonic() + limits.seconds
        headers = dict(scope["headers"])
        self._length = headers.get(b"content-length")
        stated = self._length is not None or b"transfer-encoding" in headers
        self._complete = self._length == b"0" or (not stated and scope["method"] != "POST")
        # Whether the client sends its body only after the server has begun to read it.
        self._asks = headers.get(b"expect", b"").lower() == b"100-continue"

    async def receive(self) -> Message:
        """Return the next part of the body; ProblemError where it exceeds a limit."""
        if self._complete:
            return await self._receive()
        if self._length is not None:
            self._limits.check_length(self._length)
        self._asks = False
        try:
            left = max(0.0, self._end - time.monotonic())
            message = await asyncio.wait_for(self._receive(), left)
        except (TimeoutError, asyncio.TimeoutError):
            raise ProblemError(
                SLOW,
                f"An upload may take {self._limits.seconds:g} seconds; this one was not complete. "
                "Send fewer or smaller images in each request.",
            ) from None
        self._note(message)
        size = len(message.get("body", b""))
        self._limits.grow(self.size, size)
        self.size += size
        return message

    def _note(self, message: Message) -> None:
        self._complete = not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        """Send a part of the response."""
        if message["type"] == "http.response.start" and not self._complete:
            others = [each for each in message["headers"] if each[0].lower() != b"connection"]
            message = {**message, "headers": [*others, (b"connection", b"close")]}
        is_last = message["type"] == "http.response.body" and not message.get("more_body", False)
        if not is_last or self._complete or self._asks:
            await self._send(message)
            return
        await self._send({**message, "more_body": True})
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._drain(), DRAIN_SECONDS)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _drain(self) -> None:
        read = 0
        while not self._complete and read < DRAIN_BYTES:
            message = await self._receive()
            self._note(message)
            read += len(message.get("body", b""))


logger = logging.getLogger("kindsight.server")

OPEN_PATHS = ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/")
"""Paths that need no token: probes, and the page, which asks for the token."""

OPEN_PREFIX = "/assets/"

_NAME_CURE = "If that is the server's name, start it with --allow-host NAME."

HEADERS = {
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
}
"""Headers of every response that does not set them itself."""


class Guard:
    """Middleware that rejects requests with a wrong host, origin or token.

    - `Host` must be one of the server's names: otherwise, a web page could point its own domain
      name to this machine and read the responses (DNS rebinding).
    - A browser's request that changes something or takes computing time must come from the server's
      page.
    - If there is a token, it must be sent. The comparison takes the same time wherever the
      tokens differ.

    Parameters
    ----------
    app : ASGI application
    settings : ServerSettings
    is_stopping : callable
        Returns whether connections are to be closed after their response.
    """

    def __init__(
        self, app: ASGIApp, settings: ServerSettings, is_stopping: Callable[[], bool]
    ) -> None:
        self._app = app
        self._hosts = settings.hosts
        self._token = None if settings.token is None else settings.token.encode()
        self._is_stopping = is_stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if self._is_stopping():
                    headers["connection"] = "close"
            await send(message)

        try:
            self._check(scope)
            await self._app(scope, receive, sending)
        except ProblemError as error:
            await problem_response(error)(scope, receive, sending)
        except asyncio.CancelledError:
            if started or not self._is_stopping():
                raise
            problem = ProblemError(STOPPING, "The server stopped before the response was complete.")
            await problem_response(problem)(scope, receive, sending)
        except Exception:
            logger.exception("%s %s failed", scope["method"], scope["path"])
            if started:
                raise
            detail = "This is a bug in kindsight; the server's log has the details."
            problem = ProblemError(FAILED, detail)
            await problem_response(problem)(scope, receive, sending)

    def _check(self, scope: Scope) -> None:
        """Raise ProblemError for a request that must be rejected."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._hosts is not None and _hostname(host) not in self._hosts:
            raise ProblemError(
                OTHER_HOST,
                f"This server is not {host[:80]!r}, but {any_of(self._hosts)}. {_NAME_CURE}",
            )
        # A browser never adds the token by itself, so with a token the origin does not matter.
        if self._token is None and scope["method"] not in ("GET", "HEAD"):
            self._check_origin(headers, host)
        if self._token is not None and not _is_open(scope["path"]):
            self._check_token(headers)

    def _check_origin(self, headers: Headers, host: str) -> None:
        origin = headers.get("origin")
        if origin is None:
            return
        sender = _netloc(origin)
        # A proxy may pass on a name without its port.
        if host.lower() in (sender, _hostname(sender)) and sender:
            return
        raise ProblemError(
            OTHER_SITE,
            f"A page of {origin[:80]!r} sent the request; only this server's own page may. In a "
            "program, leave out the header Origin.",
        )

    def _check_token(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            sent = given.strip().encode("latin-1", "replace")
            if self._token is not None and hmac.compare_digest(sent, self._token):
                return
        raise ProblemError(
            UNAUTHORIZED,
            "Send the server's token in the header 'Authorization: Bearer TOKEN'."
            if not given
            else "The token in the header Authorization is not the server's token.",
            {"WWW-Authenticate": 'Bearer realm="kindsight"'},
        )


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


def _hostname(host: str) -> str:
    """Return the name in a header Host, in lower case, without brackets, port and final dot."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0].rstrip(".")


def _netloc(origin: str) -> str:
    """Return host and port of an Origin, in lower case; empty for ``null`` and other text."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
