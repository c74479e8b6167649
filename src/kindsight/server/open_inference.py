"""The Open Inference Protocol (KServe V2, REST): the routes below ``/v2``.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md,
with the extension for binary tensors. A request has one input: ``images``, the contents of files
(BYTES), or ``pixels`` (UINT8). Errors are ``{"error": ...}``, with the same statuses as elsewhere.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version as version_of
from typing import Annotated, Any, Literal, TypeAlias

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from kindsight.encoding import short, valid_json
from kindsight.predictor import Prediction
from kindsight.server.models import LoadedModel
from kindsight.server.problems import (
    BAD_REQUEST,
    FAILED,
    FULL,
    NOT_FOUND,
    OTHER_HOST,
    OTHER_SITE,
    SLOW,
    STOPPING,
    TIMEOUT,
    TOO_LARGE,
    UNAUTHORIZED,
    UNPROCESSABLE,
    Kind,
    ProblemError,
)
from kindsight.server.serving import Serving
from kindsight.server.settings import ServerSettings
from kindsight.server.uploads import decode_base64, invalid_json, read_body

__all__ = ["InferenceRequest", "inference_router"]

Image: TypeAlias = "bytes | NDArray[np.uint8]"

HEADER_LENGTH = "Inference-Header-Content-Length"
"""Header with the length of the JSON in bytes; the bytes of the tensors follow it."""

IMAGES, PIXELS = "images", "pixels"
"""The two inputs; a request has one of them."""

OUTPUTS = ("probabilities", "label", "best", "reason")
"""The outputs of every model; a missing text is empty."""

SCORE = "ood_score"
"""The output that only some models have."""

_Parameters: TypeAlias = dict[str, bool | int | float | str]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True)


class InferenceError(BaseModel):
    """What went wrong."""

    error: str = Field(examples=["There is no model 'dogs'. Models: cats-dogs."])


class ServerMetadata(BaseModel):
    """The server."""

    name: Literal["kindsight"]
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the process is running."""

    live: bool


class Ready(BaseModel):
    """Whether images are accepted."""

    ready: bool


class ModelReady(Ready):
    """Whether a model accepts images."""

    name: str


class TensorMetadata(BaseModel):
    """A tensor; -1 in its shape is any size."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, Any] | None = None


class ModelMetadata(BaseModel):
    """A model's inputs (a request has one of them) and outputs."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class InputTensor(_Strict):
    """Images: files in base64, or pixels; without `data`, they follow the JSON."""

    name: Literal["images", "pixels"]
    datatype: Literal["BYTES", "UINT8"] = Field(
        description="BYTES for `images`, UINT8 for `pixels`."
    )
    shape: list[Annotated[int, Field(ge=1)]] = Field(
        min_length=1, max_length=4, description="[N] for `images`, [N, height, width, 3] for both."
    )
    parameters: _Parameters | None = Field(
        None, description="`binary_data_size`: bytes of this tensor after the JSON."
    )
    data: list[Any] | None = Field(
        None, description="Base64 (RFC 4648) of each file; or values from 0 to 255, RGB."
    )


class RequestedOutput(_Strict):
    """An output by name."""

    name: str
    parameters: _Parameters | None = Field(
        None, description="`binary_data`: whether it follows the JSON."
    )


class InferenceRequest(_Strict):
    """Images to classify."""

    id: str | None = None
    parameters: _Parameters | None = Field(
        None, description="`binary_data_output`: whether outputs follow the JSON."
    )
    inputs: list[InputTensor] = Field(min_length=1, max_length=1)
    outputs: list[RequestedOutput] | None = Field(None, description="All by default.")


class OutputTensor(BaseModel):
    """A result for all images, flat in row-major order."""

    name: str
    datatype: Literal["FP32", "BYTES"]
    shape: list[int]
    parameters: dict[str, Any] | None = None
    data: list[Any] | None = None


class InferenceResponse(BaseModel):
    """The results."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferenceRequest"}}
        },
    }
}


def inference_router(serving: Serving) -> APIRouter:
    """Return the routes of the protocol."""
    router = APIRouter(
        prefix="/v2",
        tags=["Open Inference Protocol"],
        responses=_documented(UNAUTHORIZED, OTHER_HOST, FAILED),
    )
    _add_health(router, serving)
    _add_models(router, serving)
    return router


def _add_health(router: APIRouter, serving: Serving) -> None:
    """Add the routes on the server as a whole."""

    @router.get("", response_model=ServerMetadata)
    async def server_metadata() -> dict[str, Any]:
        """Name the server, its version, and its extensions of the protocol."""
        extensions = ["binary_tensor_data"]
        return {"name": "kindsight", "version": version_of("kindsight"), "extensions": extensions}

    @router.get("/health/live", response_model=Live)
    async def server_live() -> dict[str, bool]:
        """Return 200 while the process is running."""
        return {"live": True}

    @router.get("/health/ready", response_model=Ready, responses={503: {"model": Ready}})
    async def server_ready() -> Response:
        """Return 200 while images are accepted, 503 while the server stops."""
        return JSONResponse(
            {"ready": not serving.stopping}, STOPPING.status if serving.stopping else 200
        )


def _add_models(router: APIRouter, serving: Serving) -> None:
    """Add the routes of a model, each with and without its version."""
    missing = _documented(NOT_FOUND)
    not_ready: dict[int | str, dict[str, Any]] = {503: {"model": ModelReady}}
    address, of_version = "/models/{model}", "/models/{model}/versions/{version}"

    @router.get(address, response_model=ModelMetadata, responses=missing)
    async def model_metadata(model: str) -> Response:
        """Describe a model's inputs and outputs."""
        return _metadata(serving.model(model))

    @router.get(of_version, response_model=ModelMetadata, responses=missing)
    async def version_metadata(model: str, version: str) -> Response:
        """Describe the inputs and outputs of a model's version."""
        return _metadata(_of_version(serving, model, version))

    @router.get(f"{address}/ready", response_model=ModelReady, responses=missing | not_ready)
    async def model_ready(model: str) -> Response:
        """Return 200 while a model accepts images, 503 while the server stops."""
        return _ready(serving, serving.model(model))

    @router.get(f"{of_version}/ready", response_model=ModelReady, responses=missing | not_ready)
    async def version_ready(model: str, version: str) -> Response:
        """Return 200 while a model's version accepts images, 503 while the server stops."""
        return _ready(serving, _of_version(serving, model, version))

    @router.post(f"{address}/infer", **_INFER)
    async def infer(request: Request, model: str) -> Response:
        """Classify images: `images`, the contents of files, or `pixels`, RGB.

        If one of them cannot be read, the error names it, and there are no results.
        """
        return await _infer(serving, request, serving.model(model))

    @router.post(f"{of_version}/infer", **_INFER)
    async def infer_with_version(request: Request, model: str, version: str) -> Response:
        """Classify images with a model's version."""
        return await _infer(serving, request, _of_version(serving, model, version))


def _of_version(serving: Serving, name: str, version: str) -> LoadedModel:
    """Return a model of a version; ProblemError if another version is served."""
    model = serving.model(name)
    if version != model.version:
        detail = f"{model.name} has only version {model.version}; got {version[:80]!r}."
        raise ProblemError(NOT_FOUND, detail)
    return model


def _metadata(model: LoadedModel) -> Response:
    classes = valid_json(list(model.predictor.classes))
    outputs = [
        _tensor("probabilities", "FP32", [-1, len(classes)], parameters={"classes": classes}),
        *(_tensor(name, "BYTES", [-1]) for name in ("label", "best", "reason")),
    ]
    if model.scores:
        outputs.append(_tensor("ood_score", "FP32", [-1]))
    return JSONResponse(
        {
            "name": valid_json(model.name),
            "versions": [model.version],
            "platform": "kindsight_litert",
            "inputs": [
                _tensor(IMAGES, "BYTES", [-1]),
                _tensor(PIXELS, "UINT8", [-1, -1, -1, 3]),
            ],
            "outputs": outputs,
        }
    )


def _ready(serving: Serving, model: LoadedModel) -> Response:
    answer = {"name": valid_json(model.name), "ready": not serving.stopping}
    return JSONResponse(answer, STOPPING.status if serving.stopping else 200)


def _tensor(name: str, datatype: str, shape: list[int], **more: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, **more}


async def _infer(serving: Serving, request: Request, model: LoadedModel) -> Response:
    """Answer a request for inference."""
    # A request that would be rejected anyway is rejected before its upload.
    serving.check_room()
    body = await read_body(request)
    length = request.headers.get(HEADER_LENGTH)
    # Decoding takes long for a large body, and the event loop must not wait for it.
    query, images = await asyncio.to_thread(_read, body, length, serving.settings)
    wanted = _wanted(query, model)
    predict = partial(_predict, model, serving.settings.pixels)
    works = [partial(predict, number, image) for number, image in enumerate(images)]
    found = await serving.run(request, works)
    serving.metrics.count(model.name, found)
    _check_readable(found)
    return await asyncio.to_thread(_answer, query, wanted, model, found)


def _predict(model: LoadedModel, pixels: int, number: int, image: Image) -> Prediction:
    """Return the prediction for an image, on the engine's thread."""
    (found,) = model.predictor.predict_here([(f"image {number}", image)], max_pixels=pixels)
    return found


def _read(
    body: bytes, length: str | None, settings: ServerSettings
) -> tuple[InferenceRequest, list[Image]]:
    """Return a request and its images; ProblemError for a body that does not follow the protocol.

    `length` is the length of the JSON at its start.
    """
    size = len(body)
    if length is not None:
        size = int(length[:20]) if length.isascii() and length.isdigit() else -1
        if not 0 <= size <= len(body):
            raise ProblemError(
                BAD_REQUEST,
                f"{HEADER_LENGTH} must be the number of bytes of JSON, at most those of the body "
                f"({len(body)}); got {length[:80]!r}.",
            )
    try:
        query = InferenceRequest.model_validate_json(body[:size])
    except ValidationError as error:
        raise invalid_json(error) from None
    (tensor,) = query.inputs
    after = memoryview(body)[size:]
    stated = (tensor.parameters or {}).get("binary_data_size")
    if (stated is None) == (tensor.data is None):
        raise _fault("inputs.0 must have either data or the parameter binary_data_size")
    if stated is None and after.nbytes:
        raise _fault(f"{after.nbytes} bytes after the JSON belong to no tensor")
    if stated is not None and (type(stated) is not int or stated != after.nbytes):
        raise _fault(
            f"binary_data_size of inputs.0 must be {after.nbytes}, the bytes after the JSON"
        )
    _check_shape(tensor, settings)
    binary = None if stated is None else after
    if tensor.name == IMAGES:
        return query, list(_files(tensor, binary))
    return query, list(_pixels(tensor, binary))


def _check_shape(tensor: InputTensor, settings: ServerSettings) -> None:
    """Raise ProblemError for a datatype or shape that the input does not have."""
    shape, kind = tensor.shape, "BYTES" if tensor.name == IMAGES else "UINT8"
    if tensor.datatype != kind:
        raise _fault(f"{tensor.name} must have the datatype {kind}; got {tensor.datatype}")
    if tensor.name == IMAGES and len(shape) != 1:
        raise _fault(f"images must have the shape [N]; got {shape}")
    if tensor.name == PIXELS and (len(shape) != 4 or shape[3] != 3):
        raise _fault(f"pixels must have the shape [N, height, width, 3]; got {shape}")
    if shape[0] > settings.files:
        raise ProblemError(
            TOO_LARGE, f"A request may have {settings.files} images; this one has {shape[0]}."
        )
    if tensor.name == PIXELS and shape[1] * shape[2] > settings.pixels:
        raise ProblemError(
            TOO_LARGE, f"An image may have {settings.pixels:,} pixels; these are {shape[1:3]}."
        )


def _files(tensor: InputTensor, binary: memoryview | None) -> Iterator[bytes]:
    """Yield the content of each file."""
    if binary is None:
        data = tensor.data or []
        _check_count(len(data), tensor.shape[0])
        for number, text in enumerate(data):
            yield _decoded(text, number)
        return
    place = 0
    for number in range(tensor.shape[0]):
        length = int.from_bytes(binary[place : place + 4], "little")
        end = place + 4 + length
        if end > binary.nbytes:
            raise _fault(f"The bytes after the JSON end within element {number} of images")
        yield bytes(binary[place + 4 : end])
        place = end
    if place != binary.nbytes:
        raise _fault(f"{binary.nbytes - place} bytes come after the last element of images")


def _decoded(text: Any, number: int) -> bytes:
    where = f"Element {number} of images"
    if not isinstance(text, str):
        raise _fault(f"{where} must be a text in base64")
    return decode_base64(text, where)


def _pixels(tensor: InputTensor, binary: memoryview | None) -> Iterable[NDArray[np.uint8]]:
    """Return the images of an array, each uint8 (height, width, 3)."""
    shape, size = tuple(tensor.shape), math.prod(tensor.shape)
    if binary is not None:
        _check_count(binary.nbytes, size)
        return np.frombuffer(binary, np.uint8).reshape(shape)
    try:
        values = np.asarray(tensor.data)
    except ValueError:  # rows of different lengths, or too many levels
        raise _fault("The rows of pixels must have the same length") from None
    if values.shape not in (shape, (size,)):
        raise _fault(f"The data of pixels must have the shape {list(shape)}, or be flat")
    if values.dtype.kind != "i" or values.min() < 0 or values.max() > 255:
        raise _fault("The data of pixels must be whole numbers from 0 to 255")
    return values.astype(np.uint8).reshape(shape)


def _check_count(given: int, expected: int) -> None:
    if given != expected:
        raise _fault(f"The shape says {expected} elements; there are {given}")


def _wanted(query: InferenceRequest, model: LoadedModel) -> dict[str, bool]:
    """Return the requested outputs, each with whether it is binary."""
    binary = bool((query.parameters or {}).get("binary_data_output", False))
    names = [*OUTPUTS, *([SCORE] if model.scores else [])]
    if not query.outputs:
        return dict.fromkeys(names, binary)
    wanted = {}
    for output in query.outputs:
        if output.name not in names:
            raise _fault(f"outputs must be of {', '.join(names)}; got {output.name[:80]!r}")
        wanted[output.name] = bool((output.parameters or {}).get("binary_data", binary))
    return wanted


def _check_readable(found: Sequence[Prediction]) -> None:
    """Raise ProblemError if an image could not be read: the protocol has no partial results."""
    errors = [f"{each.path}: {each.error.reason}" for each in found if each.error is not None]
    if errors:
        more = f" {len(errors) - 3} more have errors." if len(errors) > 3 else ""
        raise ProblemError(
            UNPROCESSABLE,
            f"{len(errors)} of {len(found)} images could not be read. {' '.join(errors[:3])}{more}",
        )


def _answer(
    query: InferenceRequest,
    wanted: Mapping[str, bool],
    model: LoadedModel,
    found: Sequence[Prediction],
) -> Response:
    """Return the results; binary ones follow the JSON."""
    tensors, binary = [], []
    for name, is_binary in wanted.items():
        tensor, values = _output(name, found)
        if is_binary:
            content = _to_bytes(values)
            binary.append(content)
            tensor["parameters"] = {"binary_data_size": len(content)}
        elif isinstance(values, np.ndarray):
            tensor["data"] = list(map(short, values.ravel().tolist()))
        else:
            tensor["data"] = values
        tensors.append(tensor)
    answer: dict[str, Any] = {"model_name": valid_json(model.name), "model_version": model.version}
    if query.id is not None:
        answer["id"] = query.id
    head = json.dumps({**answer, "outputs": tensors}, ensure_ascii=False).encode()
    if not binary:
        return Response(head, media_type="application/json")
    headers = {HEADER_LENGTH: str(len(head))}
    return Response(b"".join([head, *binary]), 200, headers, "application/octet-stream")


def _output(
    name: str, found: Sequence[Prediction]
) -> tuple[dict[str, Any], NDArray[np.float32] | list[str]]:
    """Return the head and the values of an output."""
    if name == "probabilities":
        rows = np.stack([each.probabilities for each in found if each.probabilities is not None])
        return _tensor(name, "FP32", list(rows.shape)), rows
    if name == SCORE:
        scores = np.array([each.ood_score for each in found], np.float32)
        return _tensor(name, "FP32", [len(found)]), scores
    texts = [valid_json(getattr(each, name) or "") for each in found]
    return _tensor(name, "BYTES", [len(found)]), texts


def _to_bytes(values: NDArray[np.float32] | list[str]) -> bytes:
    """Return the elements as bytes, little-endian, as the protocol's extension specifies."""
    if isinstance(values, np.ndarray):
        return values.astype("<f4").tobytes()
    texts = [text.encode() for text in values]
    return b"".join(len(text).to_bytes(4, "little") + text for text in texts)


def _fault(rule: str) -> ProblemError:
    return ProblemError(UNPROCESSABLE, f"{rule}.")


def _documented(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for its documentation, as FastAPI's ``responses``."""
    found: dict[int | str, dict[str, Any]] = {}
    for kind in kinds:
        found[kind.status] = {"description": kind.title, "model": InferenceError}
    return found


_INFER: dict[str, Any] = {
    "response_model": InferenceResponse,
    "openapi_extra": REQUEST_BODY,
    "responses": _documented(
        BAD_REQUEST, NOT_FOUND, SLOW, TOO_LARGE, UNPROCESSABLE, FULL, STOPPING, TIMEOUT, OTHER_SITE
    ),
}
