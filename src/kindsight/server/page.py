"""The server's web page: the components of an exported page, with this server as the classifier."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from fastapi import APIRouter, Request
from fastapi.responses import Response

from kindsight.export.web.pages import fill_page, join_page, read_source
from kindsight.server.settings import ServerSettings

__all__ = ["page_router"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; worker-src 'self'; "
    "img-src blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
)
"""The page may load its own files only, and connect to this server only."""

HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-cache",  # revalidated each time, and not sent again
}

NOT_KEPT = (
    "Images are sent to this server, which does not store them. Corrections stay in this "
    "page until you download them."
)
KEPT = (
    "Images are sent to this server, which stores only corrected images, each with its correction."
)


@dataclass(frozen=True)
class _File:
    content: bytes
    headers: Mapping[str, str]


def page_router(settings: ServerSettings) -> APIRouter:
    """Return the routes of the page and its files, which need no token."""
    router = APIRouter()
    files = {
        "/": _file(_page(settings), "text/html"),
        "/assets/page.js": _file(join_page("served.js"), "text/javascript"),
        "/assets/shrink.js": _file(join_page("shrink.js"), "text/javascript"),
        "/assets/style.css": _file(read_source("style.css"), "text/css"),
    }
    for address, file in files.items():
        router.add_route(address, partial(_answer, file), include_in_schema=False)
    return router


def _page(settings: ServerSettings) -> str:
    """Return the page; its script adds the list of models, which may need the token."""
    about = {"keeps": settings.keep is not None, "bytes": settings.body_bytes}
    texts = {
        "title": "kindsight",
        "lead": "",
        "privacy": KEPT if settings.keep is not None else NOT_KEPT,
        "credits": f"Made with kindsight {version('kindsight')}.",
    }
    return fill_page(
        texts, policy=POLICY, style='<link rel="stylesheet" href="assets/style.css">',
        data=f'<script type="application/json" id="server-info">{json.dumps(about)}</script>',
        script='<script src="assets/page.js"></script>',
    )  # fmt: skip


def _file(text: str, kind: str) -> _File:
    content = text.encode()
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return _File(content, {**HEADERS, "Content-Type": f"{kind}; charset=utf-8", "ETag": tag})


async def _answer(file: _File, request: Request) -> Response:
    known = request.headers.get("if-none-match", "")
    if file.headers["ETag"] in (each.strip().removeprefix("W/") for each in known.split(",")):
        return Response(status_code=304, headers=file.headers)
    return Response(file.content, headers=file.headers)
