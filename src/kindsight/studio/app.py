"""The studio's API over HTTP, and its page. See :mod:`kindsight.studio.shapes` for the JSON."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from kindsight.encoding import printable, valid_json
from kindsight.errors import KindsightError
from kindsight.images.formats import detect_format
from kindsight.images.read import read_bytes, read_image
from kindsight.server.predicting import Options, predict_upload
from kindsight.server.problems import ProblemError
from kindsight.server.settings import ServerSettings
from kindsight.server.uploads import ClientGoneError, Upload, read_body, read_form
from kindsight.studio import runs
from kindsight.studio.assets import asset, page
from kindsight.studio.runs import RUNS_FOLDER
from kindsight.studio.security import Guard
from kindsight.studio.shapes import (
    CheckRequest,
    ClassRequest,
    ExcludeRequest,
    ExportRequest,
    Filters,
    ImportRequest,
    LabelRequest,
    TrainRequest,
)
from kindsight.studio.state.adding import (
    LIMITS,
    add_uploads,
    clean_name,
    find_new_images,
    import_dataset,
)
from kindsight.studio.state.listing import image_rows, image_table, select
from kindsight.studio.studio import Studio

__all__ = [
    "create_app",
]


def predict_image(
    studio: Studio, run: str, name: str, data: bytes, *, explain: bool
) -> dict[str, Any]:
    """Return the prediction of a run for the content of an image file.

    - `explain`: with a heat map for the most probable class.
    """
    model, shown = studio.model(run), clean_name(name)
    options = Options(explain=explain)
    _, part = predict_upload(model, Upload(shown, data), options, LIMITS["pixels"])
    command = ["kindsight", "predict", f"{RUNS_FOLDER}/{run}", shown, "--json"]
    return {
        "model": {"name": run, "version": model.version},
        "predictions": [json.loads(part)],
        "command": shlex.join(command),
    }


_UPLOADS = ServerSettings(
    files=LIMITS["files"],
    queue=LIMITS["files"],
    body_bytes=LIMITS["request_bytes"],
)

FOR_EVER = "private, max-age=31536000, immutable"

_BROWSER_FORMATS = {
    "JPEG": "image/jpeg", "PNG": "image/png", "GIF": "image/gif", "WebP": "image/webp",
    "BMP": "image/bmp", "AVIF": "image/avif",
}  # fmt: skip
"""Formats that browsers show; others are converted."""

REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content security policy of reports: separate pages without access to the studio."""


def create_app(studio: Studio, token: str, port: int) -> Guard:
    """Return the ASGI application of a studio.

    Parameters
    ----------
    studio : Studio
    token : str
        The token with which its page authenticates itself.
    port : int
        Port that the server listens on.
    """
    app = FastAPI(title="kindsight studio", docs_url=None, redoc_url=None, openapi_url=None)
    for router in (_project(studio), _news(studio), _images(studio), _jobs(studio), _runs(studio)):
        app.include_router(router, prefix="/api")
    _answer_errors(app)

    @app.get("/assets/{path:path}")
    def assets(path: str) -> Response:
        return asset(path)

    @app.get("/{path:path}")
    def any_page(path: str) -> Response:
        if path.startswith("api/"):
            raise KeyError("There is nothing at this address.")
        return page(token)

    return Guard(app, token, port, LIMITS["request_bytes"])


def _answer_errors(app: FastAPI) -> None:
    def answer(status: int, text: str) -> Response:
        return JSONResponse({"detail": printable(text)}, status)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return answer(400, f"The request is not valid: {where}: {first['msg']}.")

    async def missing(request: Request, error: Exception) -> Response:
        return answer(404, str(error.args[0] if error.args else error))

    async def refused(request: Request, error: Exception) -> Response:
        return answer(400, str(error))

    async def failed(request: Request, error: Exception) -> Response:
        return answer(500, str(error) or type(error).__name__)

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return answer(error.status_code, str(error.detail))

    async def problem(request: Request, error: Exception) -> Response:
        assert isinstance(error, ProblemError)
        return answer(error.kind.status, error.detail)

    async def gone(request: Request, error: Exception) -> Response:
        return answer(400, "The request ended early.")

    handlers: dict[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        RequestValidationError: invalid, KeyError: missing, KindsightError: refused,
        OSError: failed, HTTPException: http, ProblemError: problem, ClientGoneError: gone,
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)


def _project(studio: Studio) -> APIRouter:
    router, project = APIRouter(), studio.project

    @router.get("/project")
    def describe() -> Response:
        return _json(studio.describe())

    @router.post("/classes")
    def classes(request: ClassRequest) -> Response:
        given = [request.add, request.rename, request.remove, request.merge]
        if sum(value is not None for value in given) != 1:
            raise HTTPException(400, "Give one of add, rename, remove and merge.")
        if request.add is not None:
            return _json(project.add_class(request.add))
        if request.remove is not None:
            return _json(project.remove_class(request.remove))
        if request.to is None:
            raise HTTPException(400, "Give the new name as `to`.")
        if request.rename is not None:
            return _json(project.rename_class(request.rename, request.to))
        return _json(project.merge_classes(request.merge or [], request.to))

    @router.post("/label")
    def label(request: LabelRequest) -> Response:
        return _json(project.label(request.ids, request.label))

    @router.post("/exclude")
    def exclude(request: ExcludeRequest) -> Response:
        return _json(project.exclude(request.ids, request.excluded))

    @router.post("/undo")
    def undo() -> Response:
        return _json(project.undo())

    @router.post("/redo")
    def redo() -> Response:
        return _json(project.redo())

    @router.post("/import")
    def import_(request: ImportRequest) -> Response:
        return _json(import_dataset(project, request.path))

    @router.get("/sources")
    def sources() -> Response:
        return _json(find_new_images(project))

    return router


def _news(studio: Studio) -> APIRouter:
    router, project = APIRouter(), studio.project

    @router.get("/findings")
    def findings() -> Response:
        return _json(studio.findings.shape())

    @router.post("/findings/apply")
    def apply_findings() -> Response:
        return _json(studio.findings.apply())

    @router.get("/events")
    async def events(request: Request) -> Response:
        last = request.headers.get("last-event-id", "")[:60]
        stream = studio.events.listen(last, {"revision": project.revision})
        return StreamingResponse(stream, media_type="text/event-stream")

    return router


def _images(studio: Studio) -> APIRouter:
    router, project = APIRouter(), studio.project

    @router.get("/images")
    def images(filters: Annotated[Filters, Query()]) -> Response:
        with project.lock:
            flags = studio.findings.flags()
            rows = select(project, flags, filters)
            part = rows[filters.offset : filters.offset + filters.limit]
            found = {
                "total": len(rows), "images": image_rows(project.images, part, flags),
                "revision": project.revision,
            }  # fmt: skip
        return _json(found)

    @router.get("/images/ids")
    def image_ids(filters: Annotated[Filters, Query()]) -> Response:
        with project.lock:
            rows = select(project, studio.findings.flags(), filters)
            found = {"total": len(rows), "ids": rows.tolist(), "revision": project.revision}
        return JSONResponse(found)

    @router.get("/images/columns")
    def image_columns() -> Response:
        with project.lock:
            found = image_table(project, studio.findings.flags())
        return JSONResponse(found)

    @router.post("/images")
    async def add(request: Request) -> Response:
        form = await read_form(request, _UPLOADS)
        fields = form.values
        if not form.files or len(form.files) > LIMITS["files"]:
            raise HTTPException(400, f"Send 1 to {LIMITS['files']} files in a request.")
        added = await asyncio.to_thread(
            add_uploads, project, [upload for _, upload in form.files], studio.thumbnails,
            label=fields.get("label") or None,
            label_from_folder=fields.get("label_from") == "folder",
            source=fields.get("source", "drop")[:20], batch=fields.get("batch", "")[:40],
        )  # fmt: skip
        return _json(added)

    @router.get("/images/{image}")
    def image_file(image: int) -> Response:
        path, _ = _file_of(studio, image)
        data = read_bytes(path)
        kind = _BROWSER_FORMATS.get(detect_format(data))
        if kind is None:
            data, kind = _as_jpeg(data), "image/jpeg"
        return Response(data, media_type=kind, headers={"Cache-Control": FOR_EVER})

    @router.get("/thumbnails/{image}")
    def thumbnail(image: int) -> Response:
        path, digest = _file_of(studio, image)
        digest, data = studio.thumbnails.of_file(path, digest)
        project.images.digest[image] = digest
        return Response(data, media_type="image/jpeg", headers={"Cache-Control": FOR_EVER})

    return router


def _file_of(studio: Studio, image: int) -> tuple[Path, str]:
    """Return the file of an image, and its digest if known; KeyError if there is no such image."""
    images = studio.project.images
    if not 0 <= image < len(images):
        raise KeyError(f"There is no image {image}.")
    return studio.folder / images.path[image], images.digest[image]


def _as_jpeg(data: bytes) -> bytes:
    from kindsight.explain.overlay import encode, shrink

    return encode(shrink(read_image(data), 2048), "jpeg")


def _jobs(studio: Studio) -> APIRouter:
    router, jobs = APIRouter(), studio.jobs

    @router.get("/jobs")
    def all_jobs() -> Response:
        return _json([job.shape() for job in jobs.all()])

    @router.get("/jobs/{number}")
    def one_job(number: int) -> Response:
        return _json(jobs.get(number).shape(whole=True))

    @router.delete("/jobs/{number}")
    def stop(number: int) -> Response:
        return _json(jobs.stop(number).shape())

    @router.post("/jobs/{number}/continue")
    def again(number: int) -> Response:
        return _json(jobs.again(number).shape())

    @router.post("/check")
    def check(request: CheckRequest) -> Response:
        return _json(studio.check(full=request.full).shape())

    @router.post("/train")
    def train(request: TrainRequest) -> Response:
        return _json(studio.train(request).shape())

    @router.post("/train/preview")
    def preview(request: TrainRequest) -> Response:
        arguments = studio.train_arguments(request)
        return _json({"command": shlex.join(["kindsight", *arguments])})

    @router.post("/export")
    def export(request: ExportRequest) -> Response:
        return _json(studio.export(request.run, request.to).shape())

    return router


def _runs(studio: Studio) -> APIRouter:
    router, folder = APIRouter(), studio.folder

    @router.get("/runs")
    def all_runs() -> Response:
        return _json(runs.list_runs(folder))

    @router.get("/runs/{name}")
    def one_run(name: str) -> Response:
        return _json(runs.describe_run(folder, name, studio.ids()))

    @router.get("/exports")
    def exports() -> Response:
        return _json(runs.list_exports(folder))

    @router.get("/exports/{run}/{target}/{name:path}")
    def export_file(run: str, target: str, name: str) -> Response:
        path = runs.export_file(folder, run, target, name)
        return FileResponse(path, filename=path.name, media_type="application/octet-stream")

    @router.get("/reports/check")
    def check_report() -> Response:
        return _report(studio.findings.report())

    @router.get("/reports/runs/{name}")
    def run_report(name: str) -> Response:
        return _report(runs.run_folder(folder, name) / "report.html")

    @router.post("/predict")
    async def predict(
        request: Request, run: str, name: str = "image", explain: bool = False
    ) -> Response:
        body = await read_body(request)
        found = await asyncio.to_thread(
            predict_image, studio, run, name[:300], body, explain=explain
        )
        return _json(found)

    return router


def _report(path: Path | None) -> Response:
    if path is None or not path.is_file():
        raise KeyError("There is no report.")
    headers = {"Content-Security-Policy": REPORT_POLICY, "X-Frame-Options": "SAMEORIGIN"}
    return FileResponse(path, media_type="text/html", headers=headers)


def _json(value: Any) -> Response:
    return JSONResponse(valid_json(value))
