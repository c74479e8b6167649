"""The application: it assembles models, engine, routes and middleware."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import Response
from pydantic import BaseModel, Field

from kindsight.server.corrections import Correction, corrections_router
from kindsight.server.engine import Engine
from kindsight.server.guard import Guard, UploadLimits
from kindsight.server.metrics import CONTENT_TYPE, MetricsMiddleware
from kindsight.server.models import Models, ServedModel
from kindsight.server.open_inference import InferenceRequest, inference_router
from kindsight.server.page import page_router
from kindsight.server.predicting import ModelName, PlainPredictions, predict_router
from kindsight.server.problems import (
    FAILED,
    NOT_FOUND,
    OTHER_HOST,
    STOPPING,
    UNAUTHORIZED,
    Problem,
    documented,
    handle_problems,
)
from kindsight.server.serving import Serving
from kindsight.server.settings import ServerSettings
from kindsight.server.uploads import ClientGoneError, EncodedImages

__all__ = ["create_app"]


class ServedModelName(ModelName):
    """A model, its version, and what is wrong with a newer bundle."""

    fault: str | None = Field(
        description="Why a newer bundle in the folder is not served; null if there is none."
    )


class ModelList(BaseModel):
    """All models; the first is the default."""

    models: list[ServedModelName]


class ModelInput(BaseModel):
    """The network's input."""

    name: str
    shape: list[int | None] = Field(examples=[[None, 224, 224, 3]])
    values: str
    resize: dict[str, Any] = Field(description="How images are resized.")


class Thresholds(BaseModel):
    """Thresholds of the rules by which a prediction has no label; null without the rule."""

    unsure: float | None = Field(description="Lowest confidence at which an image gets a label.")
    unknown: float | None = Field(
        description="Highest out-of-distribution score at which an image gets a label."
    )


class ModelDetails(ServedModelName):
    """A model: its classes, input and thresholds, as in an export's ``model.json``."""

    format: int
    classes: list[str] = Field(examples=[["cat", "dog"]])
    input: ModelInput
    outputs: list[str]
    temperature: float
    thresholds: Thresholds
    backbone: str
    has_sets: bool = Field(description="Whether there are prediction sets.")
    explains: bool = Field(description="Whether there are heat maps.")


class Health(BaseModel):
    """The process is running."""

    status: Literal["ok"]


class Status(BaseModel):
    """Whether the server accepts images."""

    status: Literal["ready", "stopping"]
    models: list[ServedModelName]


def create_app(
    runs: Sequence[str | os.PathLike[str]], settings: ServerSettings | None = None
) -> FastAPI:
    """Return the application that serves some runs; ``app.state.serving`` has its parts.

    Parameters
    ----------
    runs : sequence of path
        Run folders or other bundles; the first is the default model.
    settings : ServerSettings, optional

    Raises
    ------
    SettingsError
        If there are no runs, or two have the same name.
    BundleError
        For a bundle that cannot be served.
    """
    settings = settings or ServerSettings()
    engine = Engine(settings.workers, settings.queue)
    models = Models([Path(run) for run in runs], engine.workers)
    serving = Serving(settings, models, engine)
    app = FastAPI(
        title="kindsight",
        version=version("kindsight"),
        description="Image classifiers over HTTP.",
        lifespan=partial(_lifespan, serving),
        # FastAPI's documentation pages load scripts from other hosts.
        docs_url=None,
        redoc_url=None,
        # A URL with an extra slash is a mistake, not another address.
        redirect_slashes=False,
        responses=documented(UNAUTHORIZED, OTHER_HOST, FAILED),
    )
    app.state.serving = serving
    handle_problems(app)
    app.add_exception_handler(ClientGoneError, _no_answer)
    _add_state_routes(app, serving)
    app.include_router(predict_router(serving))
    app.include_router(corrections_router(serving))
    app.include_router(inference_router(serving))
    app.include_router(page_router(settings))
    # The last one added is the first to see a request.
    app.add_middleware(PlainPredictions, serving=serving)
    app.add_middleware(Guard, settings=settings, is_stopping=lambda: serving.stopping)
    app.add_middleware(UploadLimits, settings=settings)
    app.add_middleware(MetricsMiddleware, metrics=serving.metrics)
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    return app


@contextlib.asynccontextmanager
async def _lifespan(serving: Serving, app: FastAPI) -> AsyncIterator[None]:
    serving.engine.start()
    watching = None
    if serving.settings.watch:
        watching = asyncio.create_task(serving.models.watch(serving.settings.watch))
    try:
        yield
    finally:
        serving.stopping = True
        if watching is not None:
            watching.cancel()
        await asyncio.to_thread(serving.engine.close)


async def _no_answer(request: Request, error: Exception) -> Response:
    return Response(status_code=499)


def _add_state_routes(app: FastAPI, serving: Serving) -> None:
    """Add the routes that describe the models and the state of the server."""

    @app.get("/v1/models", response_model=ModelList, tags=["models"])
    async def list_models() -> dict[str, Any]:
        """List the models; the first is the default."""
        return {"models": list(map(_entry, serving.models.all))}

    @app.get(
        "/v1/models/{model}",
        response_model=ModelDetails,
        responses=documented(NOT_FOUND),
        tags=["models"],
    )
    async def describe_model(model: str) -> dict[str, Any]:
        """Describe a model: classes, input, thresholds."""
        loaded = serving.model(model)
        (served,) = (each for each in serving.models.all if each.name == model)
        return {
            **_entry(served),
            "version": loaded.version,
            **loaded.description,
            "has_sets": loaded.has_sets,
            "explains": not loaded.unexplained,
        }

    @app.get("/healthz", response_model=Health, tags=["state"])
    async def healthz() -> dict[str, Any]:
        """Return 200 while the process is running."""
        return {"status": "ok"}

    @app.get("/readyz", response_model=Status, responses={503: {"model": Status}}, tags=["state"])
    async def readyz(response: Response) -> dict[str, Any]:
        """Return 200 while the server accepts images, 503 while it stops."""
        if serving.stopping:
            response.status_code = STOPPING.status
        status = "stopping" if serving.stopping else "ready"
        return {"status": status, "models": list(map(_entry, serving.models.all))}

    @app.get(
        "/metrics",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        tags=["state"],
    )
    async def metrics() -> Response:
        """Return metrics for Prometheus."""
        text = await asyncio.to_thread(serving.metrics.text)
        return Response(text, headers={"content-type": CONTENT_TYPE})


def _entry(served: ServedModel) -> dict[str, Any]:
    return {
        "name": served.name,
        "version": served.current.version,
        "fault": served.public_fault or None,
    }


def _openapi(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI document, with the schemas that no route declares."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        # FastAPI adds a response for invalid parameters, even to routes whose parameters cannot be
        # invalid.
        for operations in document["paths"].values():
            for operation in operations.values():
                if "HTTPValidationError" in str(operation["responses"].get("422")):
                    del operation["responses"]["422"]
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        for model in (Problem, EncodedImages, InferenceRequest, Correction):
            schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= schema.pop("$defs", {})
            schemas[model.__name__] = schema
        app.openapi_schema = document
    return app.openapi_schema
