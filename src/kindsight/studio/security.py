"""Access control: only the studio's own page, on this machine, may use its API."""

from __future__ import annotations

import hmac
import os
import secrets
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["POLICY", "Guard", "load_token"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; connect-src 'self'; frame-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
"""Content security policy of the page."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self)",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every response that does not set them itself."""

TOKEN_HEADER = "x-kindsight-token"

_BY_COOKIE = ("/api/thumbnails/", "/api/images/", "/api/events", "/api/reports/", "/api/exports/")
"""Paths that a browser requests without the page's headers: the cookie is enough, for GET."""

_REFUSED = (
    "<!doctype html><meta charset=utf-8><title>kindsight studio</title><p>This page belongs to "
    "whoever started kindsight studio. Open the address that the command printed.</p>"
)


def load_token(path: Path) -> str:
    """Return the token of a project, the same after a restart, so that an open page still works.

    If there is none, it is created in a file that only this user may read.
    """
    try:
        token = path.read_text("ascii").strip()
        if len(token) >= 32 and token.isalnum():
            return token
    except (OSError, UnicodeDecodeError):
        pass
    token = secrets.token_hex(24)
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return token


class Guard:
    """An ASGI application that only forwards requests of the studio's own page.

    - The Host must be this machine's; a domain that resolves to this machine is rejected (DNS
    rebinding).
    - The Origin, if there is one, must be the studio's, and Sec-Fetch-Site must not be another
    site.
    - The page needs the token once in its URL, which becomes a cookie; the API needs it as a
    header.
    - A body must not be larger than `most_bytes`.

    Parameters
    ----------
    app : ASGI application
    token : str
    port : int
        Port that the server listens on.
    most_bytes : int
        Limit of a request's body.
    """

    def __init__(self, app: ASGIApp, token: str, port: int, most_bytes: int) -> None:
        self._app, self._token, self._most_bytes = app, token, most_bytes
        self._cookie = f"kindsight-studio-{port}"
        names = ("127.0.0.1", "localhost", "[::1]")
        self._hosts = {f"{name}:{port}" for name in names}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request or reject it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = self._refusal(scope, headers)
        if answer is not None:
            await answer(scope, receive, _with_headers(send))
            return
        await self._app(scope, _limited(receive, self._most_bytes), _with_headers(send))

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        """Return the response to a rejected request; None if it is accepted."""
        path = str(scope["path"])
        if why := self._foreign(path, str(scope["method"]), headers):
            return JSONResponse({"detail": why}, 403)
        if _length(headers) > self._most_bytes:
            return JSONResponse({"detail": "The request is too large. Send fewer files."}, 413)
        if path.startswith("/assets/"):
            return None
        if not path.startswith("/api/"):
            return self._page_refusal(scope, headers)
        by_cookie = scope["method"] in ("GET", "HEAD") and path.startswith(_BY_COOKIE)
        given = [headers.get(TOKEN_HEADER, ""), *([self._cookie_of(headers)] if by_cookie else [])]
        if any(self._is_token(text) for text in given):
            return None
        return JSONResponse({"detail": "The token is missing or wrong. Reload the page."}, 403)

    def _foreign(self, path: str, method: str, headers: Headers) -> str:
        """Return why a request cannot be from the studio's own page; empty if it can."""
        if headers.getlist("host") not in [[host] for host in self._hosts]:
            return "The address must be 127.0.0.1 or localhost."
        origin = headers.get("origin")
        site = headers.get("sec-fetch-site", "same-origin")
        # A link to the page may be on any site, and its URL may be typed.
        followed = method == "GET" and (site == "none" or not path.startswith("/api/"))
        if (origin is not None and origin not in self._origins) or not (
            site == "same-origin" or followed
        ):
            return "A page of another site may not use the studio."
        return ""

    def _page_refusal(self, scope: Scope, headers: Headers) -> Response | None:
        query = parse_qs(scope["query_string"].decode("latin-1"), max_num_fields=20)
        if self._is_token(query.get("token", [""])[0]):
            # The token is removed from the URL, where others could read it.
            answer = RedirectResponse(str(scope["path"]), 303)
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="strict", path="/")
            return answer
        if self._is_token(self._cookie_of(headers)):
            return None
        return HTMLResponse(_REFUSED, 403)

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode("utf-8", "replace"), self._token.encode())

    def _cookie_of(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")[:8192]).get(self._cookie)
        except CookieError:
            return ""
        return "" if found is None else found.value


def _length(headers: Headers) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _limited(receive: Receive, most: int) -> Receive:
    """Return a receiver that ends a request with more bytes than its header states."""
    seen = 0

    async def limited() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return {"type": "http.disconnect"} if seen > most else message

    return limited


def _with_headers(send: Send) -> Send:
    """Return a sender that adds the headers of :data:`HEADERS`."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            known = {name.lower() for name, _ in headers}
            headers += _missing(known, HEADERS.items())
            if b"cache-control" not in known:
                headers.append((b"cache-control", b"no-store"))
            message = {**message, "headers": headers}
        await send(message)

    return sending


def _missing(known: set[bytes], headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [
        (name.encode(), value.encode())
        for name, value in headers
        if name.lower().encode() not in known
    ]
