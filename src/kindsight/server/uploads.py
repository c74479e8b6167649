"""Images of a request: parts of a form, a body that is an image, or base64 in JSON."""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from kindsight.server.problems import BAD_REQUEST, TOO_LARGE, UNPROCESSABLE, UNSUPPORTED
from kindsight.server.problems import ProblemError as Problem
from kindsight.server.settings import ServerSettings

__all__ = [
    "REQUEST_BODY", "ClientGoneError", "EncodedImage", "EncodedImages", "Form", "Upload",
    "decode_base64", "invalid_json", "read_body", "read_form", "read_uploads",
]  # fmt: skip

MAX_FIELD_BYTES = 64 * 2**10
"""Limit of the bytes of a form field that is not a file."""

MAX_FIELDS = 16

MAX_NAME = 500
"""Maximum number of characters of an image's name in the response."""


class ClientGoneError(Exception):
    """The client closed its connection; nobody waits for a response."""


@dataclass(frozen=True)
class Upload:
    """The name and content of an image file."""

    name: str
    data: bytes


# For the documentation only; the decoder validates the text.
_BASE64 = "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


class EncodedImage(BaseModel):
    """An image file in base64."""

    model_config = ConfigDict(extra="forbid")

    name: str | None = Field(
        None, max_length=MAX_NAME, description="Name in the response.", examples=["cat.jpg"]
    )
    base64: str = Field(
        description="Content of the file in base64 (RFC 4648).",
        json_schema_extra={"contentEncoding": "base64", "pattern": _BASE64},
    )


class EncodedImages(BaseModel):
    """Image files in base64."""

    model_config = ConfigDict(extra="forbid")

    images: list[EncodedImage] = Field(min_length=1)


_BINARY = {"schema": {"type": "string", "format": "binary"}}

REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "One or many images: as files of a form, as the body itself, or in JSON.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                        }
                    },
                }
            },
            "application/json": {"schema": {"$ref": "#/components/schemas/EncodedImages"}},
            "application/octet-stream": _BINARY,
            "image/*": _BINARY,
        },
    }
}
"""The body of a request for predictions, for the documentation."""


class _Parser(MultiPartParser):
    """Starlette's parser without files on disk; it records whether the form is complete."""

    spool_max_size = 2**40
    is_complete = False

    def on_end(self) -> None:
        """Note that the boundary that ends the form has come."""
        self.is_complete = True


@dataclass(frozen=True)
class Form:
    """The parts of a form, in order: files by field, and other values."""

    files: tuple[tuple[str, Upload], ...]
    values: dict[str, str]


async def read_form(request: Request, settings: ServerSettings) -> Form:
    """Return the parts of a form; ProblemError if it is damaged or too large."""
    parser = _Parser(
        request.headers,
        request.stream(),
        # One more than the limit, to detect that there are too many.
        max_files=settings.files + 1,
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        items = (await parser.parse()).multi_items()
        if not parser.is_complete:
            raise MultiPartException("it lacks the boundary at its end.")
    except MultiPartException as error:
        raise (
            _too_many(settings)
            if "Too many files" in error.message
            else Problem(BAD_REQUEST, f"The form is damaged or incomplete: {error.message}")
        ) from None
    except ClientDisconnect:
        raise ClientGoneError from None
    files: list[tuple[str, Upload]] = []
    for field, item in items:
        if isinstance(item, UploadFile):
            files.append((field, Upload(_name(item.filename, len(files)), item.file.read())))
            item.file.close()
    return Form(tuple(files), {field: item for field, item in items if isinstance(item, str)})


async def read_uploads(request: Request, settings: ServerSettings) -> list[Upload]:
    """Return the images of a request, at least one; ProblemError for any other body."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        found = _images_of(await read_form(request, settings))
    elif kind == "application/json":
        body = await read_body(request)
        # Decoding takes long for a large body, and the event loop must not wait for it.
        found = await asyncio.to_thread(_decode, body)
    elif kind == "application/octet-stream" or kind.startswith("image/"):
        found = [Upload(_name(None, 0), await read_body(request))]
    else:
        given = f"{kind[:80]!r}" if kind else "none"
        raise Problem(
            UNSUPPORTED,
            "The content type must be multipart/form-data, application/json, "
            f"application/octet-stream or that of an image; got {given}.",
        )
    if len(found) > settings.files:
        raise _too_many(settings)
    return found


def _too_many(settings: ServerSettings) -> Problem:
    return Problem(
        TOO_LARGE,
        f"A request may have {settings.files} images; this one has more. Send fewer in each "
        "request.",
    )


def _name(given: str | None, number: int) -> str:
    """Return the name of an image; one without a name is named as by `kindsight.Predictor`."""
    return (given or f"image-{number:06d}")[:MAX_NAME]


async def read_body(request: Request) -> bytes:
    """Return the whole body of a request."""
    try:
        return await request.body()
    except ClientDisconnect:
        raise ClientGoneError from None


def _images_of(form: Form) -> list[Upload]:
    others = [name for name, _ in form.files if name != "images"] + list(form.values)
    if others:
        raise Problem(
            UNPROCESSABLE,
            f"The parts of the form must be files named 'images'; got {others[0][:80]!r}"
            + (", which is not a file." if others[0] in form.values else "."),
        )
    if not form.files:
        raise Problem(UNPROCESSABLE, "The form has no image. Add a file named 'images'.")
    return [upload for _, upload in form.files]


def _decode(body: bytes) -> list[Upload]:
    try:
        given = EncodedImages.model_validate_json(body).images
    except ValidationError as error:
        raise invalid_json(error) from None
    found = []
    for number, image in enumerate(given):
        data = decode_base64(image.base64, f"images.{number}.base64")
        found.append(Upload(_name(image.name, number), data))
    return found


def invalid_json(error: ValidationError) -> Problem:
    """Return the problem of a body that is not JSON, or does not follow the schema."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))[:80] or "the body"
    kind = BAD_REQUEST if first["type"] == "json_invalid" else UNPROCESSABLE
    return Problem(kind, f"{where}: {first['msg'][:200]}.")


def decode_base64(text: str, where: str) -> bytes:
    """Return the bytes of a text in base64; ProblemError naming `where` if it is invalid."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Problem(
            UNPROCESSABLE, f"{where} must be base64 without spaces or line ends: {error}."
        ) from None
