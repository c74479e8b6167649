"""Odd and broken files get, in every form of request, the answers of `kindsight predict`."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from running_server import RunningServer, multipart, serving
from tiny_bundle import write_bundle


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def odd_files() -> dict[str, bytes]:
    """Return image files of many kinds, each with a photograph-like image, and broken ones."""
    y, x = np.mgrid[0:37, 0:53]
    waves = [127 + 120 * np.sin((x * a + y * b) / 9) for a, b in ((1, 2), (3, 1), (0, 1))]
    image = Image.fromarray(np.stack(waves, 2).astype(np.uint8))
    grey, alpha = image.convert("L"), image.convert("RGBA")
    alpha.putalpha(grey)
    turned = Image.Exif()
    turned[0x0112] = 6
    sixteen = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    jpeg = encode(image, "JPEG", quality=85)
    png = encode(image, "PNG")
    files = {
        "plain.jpg": jpeg,
        "progressive.jpg": encode(image, "JPEG", progressive=True),
        "grey.jpg": encode(grey, "JPEG"),
        "cmyk.jpg": encode(image.convert("CMYK"), "JPEG"),
        "turned.jpg": encode(image, "JPEG", exif=turned),
        "rough.jpg": encode(image, "JPEG", quality=1, subsampling=2),
        "with data after its end.jpg": jpeg + bytes(999),
        "plain.png": png,
        "alpha.png": encode(alpha, "PNG"),
        "palette.png": encode(image.convert("P"), "PNG"),
        "transparent palette.png": encode(image.convert("P"), "PNG", transparency=3),
        "one bit.png": encode(image.convert("1"), "PNG"),
        "grey and alpha.png": encode(alpha.convert("LA"), "PNG"),
        "16 bits.png": encode(sixteen, "PNG"),
        "one pixel.png": encode(image.crop((0, 0, 1, 1)), "PNG"),
        "a row.png": encode(image.crop((0, 0, 53, 1)), "PNG"),
        "plain.gif": encode(image, "GIF"),
        "moving.gif": encode(image, "GIF", save_all=True, append_images=[image.rotate(90)]),
        "plain.webp": encode(image, "WEBP"),
        "lossless.webp": encode(alpha, "WEBP", lossless=True),
        "plain.bmp": encode(image, "BMP"),
        "plain.tiff": encode(image, "TIFF"),
        "packed.tiff": encode(image, "TIFF", compression="tiff_lzw"),
        "16 bits.tiff": encode(sixteen, "TIFF"),
        "32 bits.tiff": encode(Image.fromarray(np.asarray(grey).astype(np.float32)), "TIFF"),
        "plain.ppm": encode(image, "PPM"),
        "png named.jpg": png,
        "empty.jpg": b"",
        "text.jpg": b"This is no image.",
        "page.html": b"<!doctype html><img src=x onerror=alert(1)>",
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "zeros.png": bytes(5000),
        "noise.jpg": np.random.default_rng(1).bytes(5000),
        "signature alone.png": png[:8],
        "header alone.png": png[:33],
        "wrong checksum.png": png[:40] + bytes([png[40] ^ 255]) + png[41:],
        "header of a phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0heicmif1" + bytes(100),
        "document.pdf": b"%PDF-1.7\n" + bytes(100),
        "archive.zip": b"PK\3\4" + bytes(100),
    }
    for part in (2, 3, 50, 98):
        files[f"{part}%.jpg"] = jpeg[: len(jpeg) * part // 100]
        files[f"{part}%.png"] = png[: len(png) * part // 100]
    damaged = np.frombuffer(jpeg, np.uint8).copy()
    damaged[300::97] ^= 85
    files["damaged.jpg"] = damaged.tobytes()
    return files


def predicted(bundle: Path, files: dict[str, bytes], folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `kindsight predict --json` says of each file."""
    paths = []
    for number, content in enumerate(files.values()):
        # A name without ending: the content alone decides, as it does for the server.
        paths.append(folder / f"{number:03}")
        paths[-1].write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-m", "kindsight", "predict", str(bundle), "-", "--json", "--quiet"],
        input="\n".join(map(str, paths)), capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    rows = list(map(json.loads, done.stdout.splitlines()))
    assert len(rows) == len(files), done.stderr
    for row in rows:
        del row["path"]
    return dict(zip(files, rows, strict=True))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("served") / "colours")


@pytest.fixture(scope="module")
def server(bundle: Path) -> Iterator[RunningServer]:
    with serving(bundle) as running:
        yield running


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return odd_files()


@pytest.fixture(scope="module")
def expected(
    bundle: Path, files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    return predicted(bundle, files, tmp_path_factory.mktemp("files"))


def compare(prediction: dict[str, Any], expected: dict[str, Any], name: str) -> None:
    """Hold that a prediction is that of the command, every float32 to the bit."""
    found = {key: prediction[key] for key in expected}
    assert found == expected, name


def test_the_files_are_of_both_kinds(expected: dict[str, dict[str, Any]]) -> None:
    codes = {row["error"]["code"] for row in expected.values() if row["error"]}
    assert {"empty", "not-an-image", "truncated", "unsupported"} <= codes
    assert sum(row["error"] is None for row in expected.values()) >= 27


def test_raw_bodies(server, files, expected):
    for name, content in files.items():
        answer = server.post("/v1/predict", content, "application/octet-stream")
        assert answer.status == 200, name
        (prediction,) = answer.json()["predictions"]
        compare(prediction, expected[name], name)


def test_one_form_of_all_files(server, files, expected):
    body, kind = multipart(list(files.items()))
    answer = server.post("/v1/models/colours/predict", body, kind)
    predictions = answer.json()["predictions"]
    assert [each["name"] for each in predictions] == list(files)
    for prediction in predictions:
        compare(prediction, expected[prediction["name"]], prediction["name"])


def test_base64(server, files, expected):
    images = [
        {"name": name, "base64": base64.b64encode(content).decode()}
        for name, content in files.items()
    ]
    answer = server.post("/v1/predict", json.dumps({"images": images}).encode(), "application/json")
    predictions = answer.json()["predictions"]
    assert [each["name"] for each in predictions] == list(files)
    for prediction in predictions:
        compare(prediction, expected[prediction["name"]], prediction["name"])


def test_heat_maps_change_no_prediction(server, files, expected):
    body, kind = multipart(list(files.items()))
    answer = server.post("/v1/predict?explain=true&thumbnail=64", body, kind)
    for prediction in answer.json()["predictions"]:
        compare(prediction, expected[prediction["name"]], prediction["name"])
        assert (prediction["thumbnail"] is None) == (prediction["error"] is not None)


def test_the_open_inference_protocol(server, files, expected):
    for name, content in files.items():
        data = [base64.b64encode(content).decode()]
        tensor = {"name": "images", "datatype": "BYTES", "shape": [1], "data": data}
        body = json.dumps({"inputs": [tensor]}).encode()
        answer = server.post("/v2/models/colours/infer", body, "application/json")
        row = expected[name]
        if row["error"]:
            assert answer.status == 422 and row["error"]["message"] in answer.json()["error"], name
            continue
        outputs = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        assert outputs["probabilities"] == list(row["probabilities"].values()), name
        assert outputs["best"] == [row["best"]] and outputs["label"] == [row["label"] or ""]
