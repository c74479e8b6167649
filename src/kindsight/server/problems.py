"""Errors as ``application/problem+json`` (RFC 9457)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

__all__ = [
    "BAD_REQUEST",
    "FAILED",
    "FULL",
    "KEEPING_FULL",
    "KINDS",
    "MEDIA_TYPE",
    "NOT_ALLOWED",
    "NOT_FOUND",
    "OF_IMAGES",
    "OTHER_HOST",
    "OTHER_SITE",
    "SLOW",
    "STOPPING",
    "TIMEOUT",
    "TOO_LARGE",
    "UNAUTHORIZED",
    "UNPROCESSABLE",
    "UNSUPPORTED",
    "Kind",
    "Problem",
    "ProblemError",
    "any_of",
    "documented",
    "handle_problems",
    "problem_response",
]  # fmt: skip

MEDIA_TYPE = "application/problem+json"

logger = logging.getLogger("kindsight.server")


@dataclass(frozen=True)
class Kind:
    """A kind of problem: its name in ``type``, status and title."""

    name: str
    status: int
    title: str

    @property
    def uri(self) -> str:
        """The value of ``type``."""
        return f"urn:kindsight:problem:{self.name}"


BAD_REQUEST = Kind("bad-request", 400, "The request cannot be read")
UNAUTHORIZED = Kind("unauthorized", 401, "A token is needed")
OTHER_SITE = Kind("other-site", 403, "Another web site sent the request")
NOT_FOUND = Kind("not-found", 404, "There is nothing at this address")
NOT_ALLOWED = Kind("method-not-allowed", 405, "The address does not accept this method")
SLOW = Kind("slow-upload", 408, "The upload took too long")
TOO_LARGE = Kind("too-large", 413, "The request is too large")
UNSUPPORTED = Kind("unsupported-media-type", 415, "The content type is not supported")
OTHER_HOST = Kind("other-host", 421, "The server does not have this host name")
UNPROCESSABLE = Kind("unprocessable", 422, "The request is not valid")
FULL = Kind("queue-full", 429, "Too many images are waiting")
FAILED = Kind("internal-error", 500, "The server failed")
KEEPING_FULL = Kind("corrections-full", 507, "There is no room for more corrections")
STOPPING = Kind("stopping", 503, "The server is stopping")
TIMEOUT = Kind("timeout", 504, "The predictions took too long")

KINDS = (
    BAD_REQUEST, UNAUTHORIZED, OTHER_SITE, NOT_FOUND, NOT_ALLOWED, SLOW, TOO_LARGE, UNSUPPORTED,
    OTHER_HOST, UNPROCESSABLE, FULL, FAILED, STOPPING, TIMEOUT, KEEPING_FULL,
)  # fmt: skip


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str = Field(description="Kind of problem.", examples=[FULL.uri])
    title: str = Field(description="Kind of problem in words.", examples=[FULL.title])
    status: int = Field(description="Status of the response.", examples=[FULL.status])
    detail: str = Field(
        description="What happened, and what to do.",
        examples=["256 images are waiting: no room for 1 more. Try again in 2 seconds."],
    )


class ProblemError(Exception):
    """A problem that ends a request.

    Parameters
    ----------
    kind : Kind
    detail : str
        What happened to this request, and what to do.
    headers : mapping of str to str, optional
        Further headers of the response.
    """

    def __init__(self, kind: Kind, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.headers = dict(headers or {})


class _ProblemResponse(Response):
    """A problem as a response; below ``/v2``, in the form of the Open Inference Protocol."""

    def __init__(self, error: ProblemError, body: bytes) -> None:
        super().__init__(body, error.kind.status, error.headers, MEDIA_TYPE)
        self._error = error

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response."""
        if not f"{scope['path']}/".startswith("/v2/"):
            await super().__call__(scope, receive, send)
            return
        body = json.dumps({"error": self._error.detail}, ensure_ascii=False)
        content = body.encode("utf-8", "backslashreplace")
        answer = Response(content, self.status_code, self._error.headers, "application/json")
        await answer(scope, receive, send)


def problem_response(error: ProblemError) -> Response:
    """Return the response for a problem."""
    content = {
        "type": error.kind.uri,
        "title": error.kind.title,
        "status": error.kind.status,
        "detail": error.detail,
    }
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return _ProblemResponse(error, body)


def documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """Return the problems of a route for its documentation, as FastAPI's ``responses``."""
    schema = {"$ref": "#/components/schemas/Problem"}
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        example = {"type": kind.uri, "title": kind.title, "status": kind.status, "detail": "..."}
        found[kind.status] = {
            "description": kind.title,
            "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
        }
    return found


OF_IMAGES = documented(
    BAD_REQUEST, OTHER_SITE, SLOW, TOO_LARGE, UNSUPPORTED, UNPROCESSABLE, FULL, STOPPING, TIMEOUT
)
"""The problems of a route that takes images, as FastAPI's ``responses``."""


def handle_problems(app: FastAPI) -> None:
    """Make an application respond to every error with a problem."""

    async def of_kind(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return problem_response(error)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(ProblemError(UNPROCESSABLE, _faults(request, error)))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return problem_response(_of_status(request, error))

    app.add_exception_handler(ProblemError, of_kind)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)


def _of_status(request: Request, error: HTTPException) -> ProblemError:
    path = request.url.path[:200]
    if error.status_code == NOT_FOUND.status:
        return ProblemError(NOT_FOUND, f"There is no {path}. /openapi.json lists all addresses.")
    if error.status_code == NOT_ALLOWED.status:
        allowed = dict(error.headers or {})
        detail = f"{request.method[:20]} is not allowed at {path}; use {allowed.get('Allow', '')}."
        return ProblemError(NOT_ALLOWED, detail, allowed)
    for kind in KINDS:
        if kind.status == error.status_code:
            return ProblemError(kind, str(error.detail), error.headers)
    return ProblemError(FAILED, str(error.detail))


def _faults(request: Request, error: RequestValidationError) -> str:
    """Return a sentence for each wrong parameter, with the rule that it breaks."""
    sentences = []
    for each in error.errors()[:5]:
        name = ".".join(str(part) for part in each["loc"][1:])[:80] or "the body"
        if each["type"] == "extra_forbidden":
            sentences.append(f"There is no parameter {name!r} here; use {_parameters(request)}.")
            continue
        given = f"; got {str(each['input'])[:80]!r}" if isinstance(each.get("input"), str) else ""
        sentences.append(f"{name}: {str(each['msg'])[:200]}{given}.")
    return " ".join(sentences)


def _parameters(request: Request) -> str:
    """Return the query parameters of the route of a request, such as ``top_k, sets or explain``."""
    route = request.app.openapi()["paths"][request.scope["route"].path]
    parameters = route[request.method.lower()]["parameters"]
    return any_of([each["name"] for each in parameters if each["in"] == "query"])


def any_of(names: Sequence[str]) -> str:
    """Return names as text: ``a, b or c``."""
    return " or ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
