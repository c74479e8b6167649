"""The routes ``/v1/predict``: images in, predictions out."""

from __future__ import annotations

import base64
import json
from functools import partial
from types import SimpleNamespace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from kindsight.encoding import valid_json
from kindsight.errors import ImageError, KindsightError
from kindsight.explain.overlay import encode, shrink
from kindsight.predictor import Prediction
from kindsight.server import uploads
from kindsight.server.models import LoadedModel
from kindsight.server.problems import (
    NOT_FOUND,
    OF_IMAGES,
    UNPROCESSABLE,
    ProblemError,
    documented,
)
from kindsight.server.serving import Serving
from kindsight.server.uploads import REQUEST_BODY, ClientGoneError, Upload

__all__ = ["ModelName", "Options", "PlainPredictions", "predict_router", "predict_upload"]

PREDICT = "/v1/predict"
PREDICT_WITH_MODEL = "/v1/models/{model}/predict"


class ModelName(BaseModel):
    """A model and its version."""

    name: str = Field(description="Name of its folder.", examples=["photos-1"])
    version: str = Field(
        description="Digest of the bundle; it changes when the bundle is swapped.",
        examples=["1f0c2a9b7d3e"],
    )


class ImageFault(BaseModel):
    """Why there is no prediction or no heat map."""

    code: str = Field(examples=["truncated"])
    message: str = Field(examples=["The file ends early."])


class ImagePrediction(BaseModel):
    """The prediction for one image."""

    name: str = Field(description="Name of the file as sent.", examples=["cat.jpg"])
    label: str | None = Field(
        description="Most probable class; null if the prediction has no label.",
        examples=["cat"],
    )
    reason: Literal["unsure", "unknown"] | None = Field(
        description="Why there is no label: the confidence is below the threshold, or the image "
        "is unlike the training images."
    )
    best: str | None = Field(description="Most probable class, in any case.", examples=["cat"])
    confidence: float | None = Field(
        description="Probability of the most probable class, 0 to 1.", examples=[0.994]
    )
    ood_score: float | None = Field(
        description="Out-of-distribution score; null if the classifier has none."
    )
    prediction_set: list[str] | None = Field(
        description="Classes that contain the true one at the level of `sets`, most probable "
        "first; null without `sets`."
    )
    probabilities: dict[str, float] | None = Field(
        description="Calibrated probability of each class, or of the `top_k` most probable.",
        examples=[{"cat": 0.994, "dog": 0.006}],
    )
    error: ImageFault | None = Field(description="Why the image could not be read.")
    heat_map: str | None = Field(
        None,
        description="With `explain`: the heat map of the most probable class, a transparent PNG "
        "over the whole image, as a data URI.",
    )
    heat_map_error: ImageFault | None = Field(
        None, description="With `explain`: why there is no heat map."
    )
    size: list[int] | None = Field(
        None,
        description="With `explain` or `thumbnail`: height and width of the image in pixels.",
        examples=[[480, 640]],
    )
    thumbnail: str | None = Field(
        None, description="With `thumbnail`: the image as a JPEG, as a data URI."
    )


class Predictions(BaseModel):
    """The predictions for the images of a request, in their order."""

    model: ModelName
    predictions: list[ImagePrediction]


class Options(BaseModel):
    """Options of a prediction: the content of the response."""

    model_config = ConfigDict(extra="forbid")

    # Not a FastAPI dependency, which would run on another thread in every request.
    top_k: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Number of most probable classes; all by default.",
    )
    sets: float | None = Field(
        default=None, gt=0, lt=1, allow_inf_nan=False,
        description="Confidence level of prediction sets, such as 0.9; none by default.",
    )  # fmt: skip
    explain: bool = Field(default=False, description="Heat maps (Grad-CAM).")
    thumbnail: int | None = Field(
        default=None,
        ge=16,
        le=1024,
        description="Longer side of thumbnails in pixels; none by default.",
    )


def predict_router(serving: Serving) -> APIRouter:
    """Return the routes that predict."""
    router = APIRouter(tags=["predictions"])

    @router.post(
        PREDICT,
        response_model=Predictions,
        responses=OF_IMAGES,
        openapi_extra=REQUEST_BODY,
        operation_id="predict",
    )
    async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
        """Classify images with the first model.

        An unreadable image has an `error` in its prediction; the others are not affected.
        """
        return await _respond(serving, request, serving.model(), options)

    @router.post(
        PREDICT_WITH_MODEL,
        response_model=Predictions,
        responses=OF_IMAGES | documented(NOT_FOUND),
        openapi_extra=REQUEST_BODY,
        operation_id="predict_with_model",
    )
    async def predict_with_model(
        request: Request, model: str, options: Annotated[Options, Query()]
    ) -> Response:
        """Classify images with a model."""
        return await _respond(serving, request, serving.model(model), options)

    return router


class PlainPredictions:
    """Middleware that handles requests for predictions without options, bypassing FastAPI.

    FastAPI's routing, parsing of options and contexts take a quarter of the processor time of HTTP.
    The responses equal those of the routes of :func:`predict_router`.

    Parameters
    ----------
    app : ASGI application
    serving : Serving
    """

    def __init__(self, app: ASGIApp, serving: Serving) -> None:
        self._app = app
        self._serving = serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        is_plain = scope["type"] == "http" and scope["method"] == "POST"
        if not is_plain or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        match scope["path"].split("/"):
            case ["", "v1", "predict"]:
                route, name = PREDICT, None
            case ["", "v1", "models", name, "predict"] if name:
                route = PREDICT_WITH_MODEL
            case _:
                await self._app(scope, receive, send)
                return
        scope["route"] = SimpleNamespace(path=route)  # the metrics count by route
        try:
            model = self._serving.model(name)
            response = await _respond(self._serving, Request(scope, receive), model, Options())
        except ClientGoneError:
            response = Response(status_code=499)
        await response(scope, receive, send)


async def _respond(
    serving: Serving, request: Request, model: LoadedModel, options: Options
) -> Response:
    """Return the response to a request for predictions."""
    if options.sets is not None and not model.has_sets:
        raise ProblemError(
            UNPROCESSABLE,
            f"sets: {model.name} has no held-out predictions to calibrate prediction sets "
            "with. Leave out sets, or train again.",
        )
    # A request that would be rejected anyway is rejected before its upload.
    serving.check_room()
    images = await uploads.read_uploads(request, serving.settings)
    pixels = serving.settings.pixels
    works = [partial(predict_upload, model, upload, options, pixels) for upload in images]
    found = await serving.run(request, works)
    serving.metrics.count(model.name, (prediction for prediction, _ in found))
    head = _to_json({"name": model.name, "version": model.version})
    body = b'{"model": %b, "predictions": [%b]}' % (head, b", ".join(row for _, row in found))
    return Response(body, media_type="application/json")


def predict_upload(
    model: LoadedModel, upload: Upload, options: Options, pixels: int
) -> tuple[Prediction, bytes]:
    """Return a prediction and its part of the response, computed on the calling thread."""
    prediction = model.predict(upload.name, upload.data, model.decisions(options.sets), pixels)
    values = prediction.to_dict(options.top_k)
    values = {"name": values.pop("path"), **values}
    if options.explain or options.thumbnail:
        values |= _seen(model, upload, prediction, options, pixels)
    return prediction, _to_json(values)


def _seen(
    model: LoadedModel, upload: Upload, prediction: Prediction, options: Options, pixels: int
) -> dict[str, Any]:
    """Return the heat map, thumbnail and size of an image."""
    found: dict[str, Any] = {"size": None}
    found |= {"heat_map": None, "heat_map_error": None} if options.explain else {}
    found |= {"thumbnail": None} if options.thumbnail else {}
    if prediction.best is None:
        return found
    try:
        image = model.read(upload.data, pixels)
    except ImageError:  # only its reduced size could be read
        return found
    found["size"] = list(image.shape[:2])
    if options.thumbnail:
        found["thumbnail"] = _data_uri(
            "image/jpeg", encode(shrink(image, options.thumbnail), "jpeg")
        )
    if options.explain:
        try:
            found["heat_map"] = _data_uri("image/png", model.heat_map(image, prediction.best))
        except KindsightError as error:
            message = model.public(str(error))
            found["heat_map_error"] = {"code": "no-heat-map", "message": message}
    return found


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _to_json(values: dict[str, Any]) -> bytes:
    return json.dumps(valid_json(values), ensure_ascii=False, allow_nan=False).encode()
