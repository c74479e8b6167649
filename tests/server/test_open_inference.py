"""The Open Inference Protocol gives the results of `kindsight predict`, as JSON and as bytes."""

from __future__ import annotations

import base64
import io
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kindsight import Predictor
from running_server import Answer, RunningServer, request, serving
from tiny_bundle import COLOURS, probabilities, write_bundle

INFER = "/v2/models/colours/infer"
TEXTS = ("label", "best", "reason")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in which the most probable class of grey images is below the threshold."""
    folder = tmp_path_factory.mktemp("served") / "colours"
    return write_bundle(folder, uncertainty={"unsure": {"threshold": 0.5}})


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[RunningServer]:
    with serving(bundle) as running:
        yield running


def image(colour: tuple[int, int, int], kind: str = "PNG", side: int = 20) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, kind)
    return file.getvalue()


FILES = [
    *(image(colour) for colour in COLOURS.values()),
    image((90, 90, 90)),
    image((3, 200, 77), "JPEG"),
]


def infer(server: RunningServer, query: dict[str, Any], path: str = INFER) -> dict[str, Any]:
    answer = server.post(path, json.dumps(query).encode(), "application/json")
    assert answer.status == 200, answer
    return answer.json()  # type: ignore[no-any-return]


def by_name(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {output["name"]: output for output in answer["outputs"]}


def in_base64(files: list[bytes]) -> dict[str, Any]:
    data = [base64.b64encode(file).decode() for file in files]
    return {"name": "images", "datatype": "BYTES", "shape": [len(files)], "data": data}


def test_the_server_and_its_models_describe_themselves(server):
    about = server.get("/v2").json()
    assert about["name"] == "kindsight" and about["extensions"] == ["binary_tensor_data"]
    assert server.get("/v2/health/live").json() == {"live": True}
    assert server.get("/v2/health/ready").json() == {"ready": True}
    assert server.get("/v2/models/colours/ready").json() == {"name": "colours", "ready": True}
    found = server.get("/v2/models/colours").json()
    (version,) = found["versions"]
    assert version == server.get("/v1/models/colours").json()["version"]
    assert found["inputs"] == [
        {"name": "images", "datatype": "BYTES", "shape": [-1]},
        {"name": "pixels", "datatype": "UINT8", "shape": [-1, -1, -1, 3]},
    ]
    first, *others = found["outputs"]
    classes = ["blue", "green", "red"]
    assert first == {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3],
                     "parameters": {"classes": classes}}  # fmt: skip
    assert [(each["name"], each["datatype"], each["shape"]) for each in others] == [
        (name, "BYTES", [-1]) for name in TEXTS
    ]
    assert server.get(f"/v2/models/colours/versions/{version}").json() == found
    assert server.get(f"/v2/models/colours/versions/{version}/ready").status == 200
    assert server.get("/v2/models/colours/versions/1/ready").status == 404


def test_images_have_the_probabilities_of_the_network(server):
    answer = infer(server, {"id": "seven", "inputs": [in_base64(FILES)]})
    assert answer["model_name"] == "colours" and answer["id"] == "seven"
    outputs = by_name(answer)
    assert list(outputs) == ["probabilities", *TEXTS]
    assert outputs["probabilities"]["shape"] == [5, 3]
    for row, colour in enumerate([*COLOURS.values(), (90, 90, 90)]):
        found = outputs["probabilities"]["data"][3 * row : 3 * row + 3]
        assert found == pytest.approx(list(probabilities(colour).values()), abs=1e-6)
    assert outputs["label"]["data"] == ["blue", "green", "red", "", "green"]
    assert outputs["best"]["data"][4] == "green"
    assert outputs["reason"]["data"] == ["", "", "", "unsure", ""]


def test_results_are_those_of_the_predictor_to_the_bit(server, bundle):
    noise = np.random.default_rng(7).integers(0, 256, (40, 33, 50, 3), np.uint8)
    files = []
    for each in noise:
        file = io.BytesIO()
        Image.fromarray(each).save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    expected = [each.probabilities for each in Predictor(bundle).predict(files)]
    outputs = by_name(infer(server, {"inputs": [in_base64(files)]}))
    found = np.array(outputs["probabilities"]["data"], np.float32).reshape(40, 3)
    assert found.tobytes() == np.stack(expected).tobytes()


@pytest.mark.parametrize("flat", [True, False])
def test_pixels_are_resized_as_arrays_are(server, bundle, flat):
    noise = np.random.default_rng(3).integers(0, 256, (3, 11, 23, 3), np.uint8)
    expected = [each.probabilities for each in Predictor(bundle).predict(noise)]
    data = noise.ravel().tolist() if flat else noise.tolist()
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [3, 11, 23, 3], "data": data}
    outputs = by_name(infer(server, {"inputs": [tensor]}))
    found = np.array(outputs["probabilities"]["data"], np.float32).reshape(3, 3)
    assert found.tobytes() == np.stack(expected).tobytes()


def binary(server: RunningServer, tensor: dict[str, Any], content: bytes, **query: Any) -> Answer:
    tensor["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps({"inputs": [tensor], **query}).encode()
    headers = {"Inference-Header-Content-Length": str(len(text))}
    answer = server.send(
        request("POST", INFER, text + content, "application/octet-stream", headers)
    )
    assert answer is not None and answer.status == 200, answer
    return answer


def test_files_and_pixels_as_bytes_give_the_same(server):
    expected = by_name(infer(server, {"inputs": [in_base64(FILES[:4])]}))
    content = b"".join(struct.pack("<I", len(file)) + file for file in FILES[:4])
    tensor = {"name": "images", "datatype": "BYTES", "shape": [4]}
    assert by_name(binary(server, tensor, content).json()) == expected
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(file))) for file in FILES[:4]])
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape)}
    assert by_name(binary(server, tensor, pixels.tobytes()).json()) == expected


def test_outputs_are_chosen_and_come_as_bytes(server):
    inputs = [in_base64(FILES[2:4])]
    only = infer(server, {"inputs": inputs, "outputs": [{"name": "label"}]})
    assert [output["name"] for output in only["outputs"]] == ["label"]
    query = {"inputs": inputs, "parameters": {"binary_data_output": True}}
    answer = server.post(INFER, json.dumps(query).encode(), "application/json")
    length = int(answer.headers["inference-header-content-length"])
    outputs = json.loads(answer.body[:length])["outputs"]
    rest, contents = answer.body[length:], {}
    for output in outputs:
        size = output["parameters"]["binary_data_size"]
        contents[output["name"]], rest = rest[:size], rest[size:]
    assert not rest
    values = np.frombuffer(contents["probabilities"], "<f4").reshape(2, 3)
    expected = [list(probabilities(colour).values()) for colour in ((255, 0, 0), (90, 90, 90))]
    assert values == pytest.approx(np.array(expected), abs=1e-6)
    assert contents["label"] == b"\3\0\0\0red\0\0\0\0"
    assert contents["reason"] == b"\0\0\0\0\6\0\0\0unsure"


def test_an_unreadable_image_is_named(server):
    query = {"inputs": [in_base64([FILES[0], FILES[1][:30], b"no image"])]}
    answer = server.post(INFER, json.dumps(query).encode(), "application/json")
    assert answer.status == 422
    error = answer.json()["error"]
    assert error.startswith("2 of 3 images could not be read. image 1: ") and "image 2: " in error
