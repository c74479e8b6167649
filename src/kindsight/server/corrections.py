"""Corrections of predictions, stored as a dataset for the next training.

The folder has ``corrections.csv`` (path, label, predicted, model, time) and the images in
``images``, each named after the digest of its content. An image of none of the classes has an empty
label, and training leaves it out.
"""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from filelock import FileLock
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kindsight.digest import content_digest
from kindsight.encoding import valid_text
from kindsight.errors import ImageError, SettingsError
from kindsight.files import delete_file, replacing, write_csv
from kindsight.images.formats import detect_format, file_ending
from kindsight.server import uploads
from kindsight.server.models import LoadedModel
from kindsight.server.problems import (
    KEEPING_FULL,
    NOT_FOUND,
    OF_IMAGES,
    OTHER_SITE,
    UNPROCESSABLE,
    UNSUPPORTED,
    ProblemError,
    documented,
)
from kindsight.server.serving import Serving

__all__ = ["CorrectionStore", "corrections_router"]


COLUMNS = ("path", "label", "predicted", "model", "time")

TABLE, IMAGES = "corrections.csv", "images"

MAX_TABLE_BYTES = 64 * 2**20
"""Limit of the bytes of the table."""


class KeepingFullError(Exception):
    """The images in the folder have reached the limit of bytes."""


class CorrectionStore:
    """A folder of corrected images; several threads and processes may write to it.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    limit : int
        Limit of the bytes of all images.

    Raises
    ------
    SettingsError
        If the folder has a table of something else.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self._limit = limit
        try:
            (folder / IMAGES).mkdir(parents=True, exist_ok=True)
            self._mutex = threading.Lock()
            # On disk, because several servers may share the folder.
            self._lock = FileLock(folder / ".lock")
            with self._lock:
                self._read()
        except OSError as error:
            raise SettingsError(
                f"`keep` must be a writable folder; got {folder} ({error.strerror})."
            ) from error

    def add(self, data: bytes, label: str | None, predicted: str | None, model: str) -> str:
        """Store an image with its label, replacing an earlier one; return its digest.

        KeepingFullError if there is no room, ImageError for a file that is not an image.
        """
        digest = content_digest(data)
        kind = detect_format(data)
        path = f"{IMAGES}/{digest}.{file_ending(kind)}"
        time = datetime.now(timezone.utc).isoformat(timespec="seconds")
        with self._mutex, self._lock:
            rows = self._read()
            if path not in rows and self._size() + len(data) > self._limit:
                raise KeepingFullError
            if not (self.folder / path).exists():
                with replacing(self.folder / path) as temporary:
                    temporary.write_bytes(data)
            rows.pop(path, None)
            rows[path] = [path, label or "", predicted or "", model, time]
            write_csv(self.folder / TABLE, COLUMNS, rows.values())
        return digest

    def remove(self, digest: str) -> bool:
        """Delete the correction of an image; return whether there was one."""
        with self._mutex, self._lock:
            rows = self._read()
            paths = [path for path in rows if Path(path).stem == digest]
            for path in paths:
                del rows[path]
            if paths:
                write_csv(self.folder / TABLE, COLUMNS, rows.values())
            for path in paths:
                delete_file(self.folder / IMAGES / Path(path).name)
        return bool(paths)

    def _size(self) -> int:
        return sum(path.stat().st_size for path in (self.folder / IMAGES).iterdir())

    def _read(self) -> dict[str, list[str]]:
        """Return the table's rows by path; a user may have changed it."""
        table = self.folder / TABLE
        if not table.exists():
            return {}
        with table.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
        try:
            if len(content) > MAX_TABLE_BYTES:
                raise ValueError(f"more than {MAX_TABLE_BYTES:,} bytes")
            reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            if next(reader, None) != list(COLUMNS):
                raise ValueError("other columns")
            rows = [row for row in reader if row]
            if any(len(row) != len(COLUMNS) for row in rows):
                raise ValueError("rows of different lengths")
        except (ValueError, csv.Error) as error:
            raise SettingsError(
                f"`keep` must be a new folder, or one of corrections; {table} has {error}. Give "
                "another folder, or repair the table."
            ) from None
        return {row[0]: row for row in rows}


class Correction(BaseModel):
    """The true class of an image."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field(description="Model that made the prediction.", examples=["photos-1"])
    label: str | None = Field(
        description="The true class; null for none of the classes.", examples=["dog"]
    )
    predicted: str | None = Field(None, description="Predicted class, if any.", examples=["cat"])
    name: str | None = Field(None, max_length=500, description="Name of the file.")


class StoredCorrection(BaseModel):
    """A stored correction."""

    id: str = Field(description="Digest of the image.", examples=["0f4c5d" + "0" * 26])


_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image", "correction"],
                    "additionalProperties": False,
                    "properties": {
                        "image": {"type": "string", "format": "binary"},
                        "correction": {"$ref": "#/components/schemas/Correction"},
                    },
                },
                "encoding": {"correction": {"contentType": "application/json"}},
            }
        },
    }
}


def corrections_router(serving: Serving) -> APIRouter:
    """Return the routes that store and delete corrections."""
    router = APIRouter(tags=["corrections"])
    keep, limit = serving.settings.keep, serving.settings.keep_bytes
    store = None if keep is None else CorrectionStore(keep, limit)

    @router.post(
        "/v1/corrections",
        status_code=201,
        response_model=StoredCorrection,
        responses=OF_IMAGES | documented(NOT_FOUND, KEEPING_FULL),
        openapi_extra=_REQUEST_BODY,
        operation_id="correct",
    )  # fmt: skip
    async def correct(request: Request) -> dict[str, str]:
        """Store an image with its true class; sending the image again replaces the class."""
        found = _needed(store)
        serving.check_room()
        image, correction = await _read_correction(request, serving)
        model = serving.model(correction.model)
        _check_class("label", correction.label, model)
        _check_class("predicted", correction.predicted, model)

        def work() -> str:
            model.read(image, serving.settings.pixels)
            label, predicted = (
                None if name is None else valid_text(name)
                for name in (correction.label, correction.predicted)
            )
            return found.add(image, label, predicted, f"{model.name} {model.version}")

        try:
            (digest,) = await serving.run(request, [work])
        except ImageError as error:
            raise ProblemError(UNPROCESSABLE, f"image: {error.reason}") from None
        except KeepingFullError:
            raise ProblemError(
                KEEPING_FULL,
                f"The folder of corrections has reached its limit ({limit:,} bytes). "
                "Train with it, and start the server with another folder.",
            ) from None
        return {"id": digest}

    @router.delete(
        "/v1/corrections/{id}",
        status_code=204,
        responses=documented(NOT_FOUND, OTHER_SITE),
        operation_id="take_back_correction",
    )
    async def take_back(id: str) -> None:
        """Delete a correction and its image."""
        if not await asyncio.to_thread(_needed(store).remove, id):
            raise ProblemError(NOT_FOUND, f"There is no correction {id[:80]!r}.")

    return router


def _needed(store: CorrectionStore | None) -> CorrectionStore:
    if store is None:
        raise ProblemError(
            NOT_FOUND,
            "This server stores no corrections: it was started without a folder for them.",
        )
    return store


async def _read_correction(request: Request, serving: Serving) -> tuple[bytes, Correction]:
    """Return the image and the correction of a form."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "multipart/form-data":
        raise ProblemError(
            UNSUPPORTED, f"The content type must be multipart/form-data; got {kind[:80]!r}."
        )
    form = await uploads.read_form(request, serving.settings)
    parts = dict(form.files)
    image = parts.pop("image", None)
    values: dict[str, bytes] = {name: text.encode() for name, text in form.values.items()}
    # Browsers send JSON with its own content type as a file.
    values |= {name: upload.data for name, upload in parts.items()}
    if image is None or set(values) != {"correction"}:
        raise ProblemError(UNPROCESSABLE, "The form must have a file 'image' and 'correction'.")
    try:
        return image.data, Correction.model_validate_json(values["correction"])
    except ValidationError as error:
        problem = uploads.invalid_json(error)
        raise ProblemError(UNPROCESSABLE, f"correction: {problem.detail}") from None


def _check_class(field: str, name: str | None, model: LoadedModel) -> None:
    if name is not None and name not in model.description["classes"]:
        raise ProblemError(
            UNPROCESSABLE, f"{field} must be a class of {model.name}, or null; got {name[:80]!r}."
        )
