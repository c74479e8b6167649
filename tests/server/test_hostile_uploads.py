"""Broken, slow, oversized and lying requests, sent as bytes to a running server.

After each of them, the server must answer an ordinary request as before.
"""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import numpy as np
import psutil
import pytest
from PIL import Image

from running_server import (
    BOUNDARY,
    RunningServer,
    metric,
    multipart,
    receive,
    request,
    serving,
    wait_for,
)
from tiny_bundle import write_bundle

LIMIT = 200_000
"""Bytes of a request in these tests."""

SECONDS = 4
"""Time of an upload in these tests."""

PREDICT = "/v1/predict"
OCTETS = "application/octet-stream"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    bundle = write_bundle(tmp_path_factory.mktemp("server") / "colours")
    options = (
        "--max-size", LIMIT / 1e6, "--timeout", SECONDS, "--max-images", 4, "--max-pixels", 1,
    )  # fmt: skip
    with serving(bundle, options=options) as running:
        yield running


def png(colour: tuple[int, int, int] = (255, 0, 0), side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(autouse=True)
def still_works(server: RunningServer) -> Iterator[None]:
    """Hold that the server predicts after the test, and that no upload is left in its memory."""
    yield
    answer = server.post(PREDICT, png(), OCTETS)
    assert answer.status == 200
    assert answer.json()["predictions"][0]["label"] == "red"
    assert server.process.poll() is None
    assert "Traceback" not in server.errors()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def head(*headers: str, path: str = PREDICT, method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def json_body(value: object) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request("POST", PREDICT, body, "application/json")


def encoded(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


FORM = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a"\r\n\r\n'
RAW = f"Content-Type: {OCTETS}"


def form(text: str | bytes, kind: str = FORM) -> bytes:
    body = text if isinstance(text, bytes) else text.encode()
    return head(kind, f"Content-Length: {len(body)}") + body


MANY_PARTS = (PART + "x\r\n") * 2000 + f"--{BOUNDARY}--\r\n"
MANY_FIELDS = "".join(
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f{number}"\r\n\r\nx\r\n'
    for number in range(1500)
)
LONG_PART_HEADER = PART.replace("\r\n\r\n", f"\r\nX-Long: {'x' * 100_000}\r\n\r\n")

# Requests that are refused, with the statuses by which they may be.
REFUSED: dict[str, tuple[bytes, set[int]]] = {
    # Sizes
    "stated size above the limit, nothing sent": (head(RAW, "Content-Length: 999999999"), {413}),
    "stated size of 40 digits": (head(RAW, "Content-Length: " + "9" * 40), {400, 413}),
    "a consent is asked for too much": (
        head(RAW, "Content-Length: 999999999", "Expect: 100-continue"), {413},
    ),
    "chunks above the limit": (
        head(RAW, "Transfer-Encoding: chunked") + chunk(bytes(50_000)) * 5 + b"0\r\n\r\n", {413},
    ),
    "body above the limit": (request("POST", PREDICT, bytes(LIMIT + 1), OCTETS), {413}),
    # Framing
    "negative size": (head(RAW, "Content-Length: -5"), {400}),
    "size that is no number": (head(RAW, "Content-Length: many"), {400}),
    "two different sizes": (
        head(RAW, "Content-Length: 5", "Content-Length: 6") + b"12345", {400},
    ),
    "size and chunks": (
        head(RAW, "Content-Length: 5", "Transfer-Encoding: chunked") + b"0\r\n\r\n", {400},
    ),
    "chunk of an invalid size": (head(RAW, "Transfer-Encoding: chunked") + b"zz\r\n", {400}),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200), {400}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 505}),
    "a header with NUL": (head("X-Zero: a\0b", "Content-Length: 0"), {400}),
    "a header without colon": (head("nonsense", "Content-Length: 0"), {400}),
    "a header of 200 kB": (head("X-Long: " + "x" * 200_000, "Content-Length: 0"), {431}),
    "5,000 headers": (
        head(*(f"X-{number}: {'x' * 50}" for number in range(5000)), "Content-Length: 0"),
        {431},
    ),
    "an address of 200 kB": (head(path="/" + "x" * 200_000, method="GET"), {431}),
    # Content
    "no content type": (request("POST", PREDICT, png()), {415}),
    "text": (request("POST", PREDICT, png(), "text/plain"), {415}),
    "form without boundary": (form(PART, "Content-Type: multipart/form-data"), {400}),
    "form with an empty boundary": (
        form(PART, "Content-Type: multipart/form-data; boundary="), {400, 422},
    ),
    "form of another boundary": (form(PART.replace("boundary", "other")), {400, 422}),
    "truncated form": (form(PART.encode() + png()), {400}),
    "form truncated after its first file": (
        form(PART.encode() + png() + b"\r\n" + PART.encode() + png()), {400},
    ),
    "form cut within a header": (form(PART[:60]), {400}),
    "empty form": (form(f"--{BOUNDARY}--\r\n"), {422}),
    "a part without name": (
        form(f"--{BOUNDARY}\r\nContent-Disposition: form-data\r\n\r\nx\r\n--{BOUNDARY}--\r\n"),
        {400},
    ),
    "a part without headers": (form(f"--{BOUNDARY}\r\n\r\nx\r\n--{BOUNDARY}--\r\n"), {400}),
    "a field in place of a file": (
        form(
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"\r\n\r\nx\r\n'
            f"--{BOUNDARY}--\r\n"
        ),
        {422},
    ),
    "2,000 files": (form(MANY_PARTS), {413}),
    "5 files, one too many": (
        form((PART + "x\r\n") * 5 + f"--{BOUNDARY}--\r\n"), {413},
    ),
    "1,500 fields": (form(MANY_FIELDS + f"--{BOUNDARY}--\r\n"), {400, 413, 422}),
    "a part's header of 100 kB": (form(LONG_PART_HEADER), {400}),
    "no JSON": (json_body(b"{"), {400}),
    "empty JSON body": (json_body(b""), {400}),
    "JSON that is not UTF-8": (json_body(b'{"images": [{"base64": "\xff\xfe"}]}'), {400}),
    "deep JSON": (json_body(b'{"images": ' + b"[" * 90_000 + b"]" * 90_000 + b"}"), {400, 422}),
    "another JSON": (json_body({"instances": [1, 2]}), {422}),
    "JSON list": (json_body([encoded(png())]), {422}),
    "an unknown member": (json_body({"images": [encoded(png())], "url": "http://x"}), {422}),
    "an address in place of base64": (
        json_body({"images": [{"url": "http://127.0.0.1:1/x.png"}]}), {422},
    ),
    "no images": (json_body({"images": []}), {422}),
    "5 images in JSON": (json_body({"images": [encoded(png())] * 5}), {413}),
    "a number in place of base64": (json_body({"images": [{"base64": 5}]}), {422}),
    "invalid base64": (json_body({"images": [{"base64": "a*b?"}]}), {422}),
    "base64 of a wrong length": (json_body({"images": [{"base64": "abcde"}]}), {422}),
    "base64 outside of ASCII": (json_body({"images": [{"base64": "äöü="}]}), {422}),
    "a number of 10,000 digits": (json_body(b'{"images": ' + b"1" * 10_000 + b"}"), {400, 422}),
    # Addresses and queries
    "no such address": (request("GET", "/v1/nothing"), {404}),
    "no such model": (request("POST", "/v1/models/x/predict", png(), OCTETS), {404}),
    "a path upwards": (request("GET", "/assets/../../../../etc/passwd"), {404}),
    "a coded path upwards": (request("GET", "/assets/..%2f..%2f..%2fetc%2fpasswd"), {404}),
    "a model's path upwards": (request("GET", "/v1/models/..%2f..%2fetc"), {404}),
    "a model with NUL": (request("GET", "/v1/models/%00"), {404}),
    "a model of bytes": (request("GET", "/v1/models/%ff%fe"), {404}),
    "a header without end": (head()[:-4] + b"\r\nX-Long: " + b"x" * 300_000, {431}),
    "another method": (request("DELETE", PREDICT), {405}),
    "TRACE": (request("TRACE", PREDICT), {405}),
    "CONNECT": (
        b"CONNECT example.invalid:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", {400, 404, 405},
    ),
    "top_k=0": (request("POST", f"{PREDICT}?top_k=0", png(), OCTETS), {422}),
    "top_k of 400 digits": (request("POST", f"{PREDICT}?top_k={'9' * 400}", png(), OCTETS), {422}),
    "sets=nan": (request("POST", f"{PREDICT}?sets=nan", png(), OCTETS), {422}),
    "sets=1": (request("POST", f"{PREDICT}?sets=1", png(), OCTETS), {422}),
    "sets without held-out images": (request("POST", f"{PREDICT}?sets=0.9", png(), OCTETS), {422}),
    # Other sites
    "another host": (request("GET", "/v1/models", headers={"Host": "evil.invalid"}), {421}),
    "no host": (request("GET", "/v1/models", headers={"Host": ""}), {400, 421}),
    "another origin": (
        request("POST", PREDICT, png(), OCTETS, {"Origin": "http://evil.invalid"}), {403},
    ),
    "a null origin": (request("POST", PREDICT, png(), OCTETS, {"Origin": "null"}), {403}),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_broken_request_is_refused_with_a_problem(server: RunningServer, name: str) -> None:
    data, statuses = REFUSED[name]
    answer = server.send(data)
    assert answer is not None and answer.status in statuses, answer
    # What is not even HTTP never reaches the application.
    if answer.headers.get("content-type") != "application/problem+json":
        assert answer.status == 400 and answer.body == b"Invalid HTTP request received."
        return
    problem = answer.json()
    assert problem["status"] == answer.status
    assert problem["title"] and problem["detail"]
    assert len(answer.body) < 3000


def test_a_slow_upload_ends_after_its_time(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(head(RAW, "Content-Length: 100000"))
        answer = _dribble(connection, b"x")
    assert answer is not None and answer.status == 408
    assert answer.json()["detail"].startswith(f"An upload may take {SECONDS} seconds")


def test_a_slow_form_in_chunks_ends_after_its_time(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(head(FORM, "Transfer-Encoding: chunked") + chunk(PART.encode()))
        answer = _dribble(connection, chunk(b"x"))
    assert answer is not None and answer.status == 408


def _dribble(connection: socket.socket, piece: bytes):  # type: ignore[no-untyped-def]
    """Send a piece again and again until an answer comes."""
    connection.settimeout(0.1)
    for _ in range(600):
        try:
            first = connection.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            # By now, the server may have answered and closed the connection.
            with suppress(OSError):
                connection.sendall(piece)
            continue
        assert first
        connection.settimeout(30)
        return receive(connection)
    raise AssertionError("the server reads on and on")


def test_many_slow_uploads_do_not_keep_others_waiting(server: RunningServer) -> None:
    connections = [server.connect() for _ in range(100)]
    try:
        for connection in connections:
            connection.sendall(head(RAW, "Content-Length: 100000") + b"x" * 100)
        assert (
            server.post(PREDICT, png((0, 255, 0)), OCTETS).json()["predictions"][0]["best"]
            == "green"
        )
        assert server.get("/healthz").status == 200
        for connection in connections:
            answer = receive(connection)
            assert answer is not None and answer.status == 408
    finally:
        for connection in connections:
            connection.close()


def test_clients_that_go_away_leave_nothing_behind(server: RunningServer) -> None:
    whole = request("POST", PREDICT, png(), OCTETS)
    for length in (1, 30, len(whole) - 40, len(whole) - 1, len(whole)):
        for _ in range(10):
            with server.connect() as connection:
                connection.sendall(whole[:length])
                # Closing with a reset, as a program that is killed.
                linger = struct.pack("ii", 1, 0)
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    wait_for(lambda: metric(server, "kindsight_queue_images") == 0)


def test_a_body_shorter_than_stated_has_no_answer(server: RunningServer) -> None:
    with server.connect() as connection:
        connection.sendall(head(RAW, "Content-Length: 500") + b"x" * 100)
        connection.shutdown(socket.SHUT_WR)
        answer = receive(connection)
    assert answer is None or answer.status in (400, 408, 499)


def test_a_body_longer_than_stated_is_not_read_as_a_part_of_the_image(
    server: RunningServer,
) -> None:
    image = png((0, 0, 255))
    with server.connect() as connection:
        connection.sendall(head(RAW, f"Content-Length: {len(image)}") + image + b"more" * 50)
        answers = [receive(connection), receive(connection)]
    # The rest is no request: it may end the connection before the answer.
    assert [answer.status for answer in answers if answer] in ([200, 400], [400])


def test_requests_in_one_packet_are_answered_in_order(server: RunningServer) -> None:
    colours = {"red": (255, 0, 0), "blue": (0, 0, 255), "green": (0, 255, 0)}
    packet = b"".join(request("POST", PREDICT, png(each), OCTETS) for each in colours.values())
    with server.connect() as connection:
        connection.sendall(packet)
        answers = [receive(connection) for _ in colours]
    assert [each.json()["predictions"][0]["label"] for each in answers if each] == list(colours)


def test_an_image_in_single_byte_chunks_is_predicted(server: RunningServer) -> None:
    body = b"".join(chunk(bytes([byte])) for byte in png((0, 255, 0))) + b"0\r\n\r\n"
    answer = server.send(head(RAW, "Transfer-Encoding: chunked") + body)
    assert answer is not None and answer.json()["predictions"][0]["label"] == "green"


def test_a_websocket_is_not_opened(server: RunningServer) -> None:
    answer = server.send(
        head(
            "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", path="/v1/models", method="GET",
        )
    )  # fmt: skip
    assert answer is not None and answer.status in (200, 400)


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd", "a" * 3000, "\udcff\udcfe", "<script>alert(1)</script>", "naïve 图.png"],
)
def test_a_name_is_repeated_and_never_used(server: RunningServer, name: str) -> None:
    raw = name.encode("utf-8", "surrogateescape")
    body = form(PART.encode().replace(b'filename="a"', b'filename="%b"' % raw) + png() + b"\r\n"
                + f"--{BOUNDARY}--\r\n".encode())  # fmt: skip
    answer = server.send(body)
    assert answer is not None and answer.status == 200
    prediction = answer.json()["predictions"][0]
    assert prediction["label"] == "red" and len(prediction["name"]) <= 500


# Images that are bombs


def png_header(width: int, height: int, data: bytes = b"") -> bytes:
    """Return a PNG of a stated size with this compressed data."""

    def piece(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + piece(b"IHDR", header) + piece(b"IDAT", data) + piece(b"IEND", b"")
    )


def large_png() -> bytes:
    """Return 6,000 x 6,000 black pixels, 108 MB, in some 100 kB."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 3 * 6000)
    data = b"".join(packer.compress(row) for _ in range(6000)) + packer.flush()
    return png_header(6000, 6000, data)


def large_gif() -> bytes:
    file = io.BytesIO()
    Image.new("L", (5000, 5000)).save(file, "GIF")
    return file.getvalue()


def large_tiff() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.zeros((5000, 5000), np.uint8)).save(file, "TIFF", compression="tiff_deflate")
    return file.getvalue()


BOMBS: dict[str, Callable[[], bytes]] = {
    "a stated size of 4 billion pixels": lambda: png_header(65_000, 65_000),
    "a stated size of no pixels": lambda: png_header(0, 0),
    "a stated size above 2^31": lambda: png_header(2**31 - 1, 2**31 - 1),
    "36 million pixels in a PNG": large_png,
    "25 million pixels in a GIF": large_gif,
    "25 million pixels in a TIFF": large_tiff,
    "a BMP of 2 billion pixels": lambda: (
        b"BM" + struct.pack("<IHHI", 54, 0, 0, 54)
        + struct.pack("<IiiHHIIiiII", 40, 46_000, 46_000, 1, 24, 0, 0, 0, 0, 0, 0)
    ),
    "a PPM of 10^18 pixels": lambda: b"P6 1000000000 1000000000 255\n" + bytes(100),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_decompression_bomb_is_named_and_uses_no_memory(server: RunningServer, name: str) -> None:
    bomb = BOMBS[name]()
    assert len(bomb) < LIMIT
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    body, kind = multipart([("bomb", bomb), ("red.png", png())])
    answer = server.post(PREDICT, body, kind)
    assert answer.status == 200
    first, second = answer.json()["predictions"]
    assert first["error"]["code"] in ("too-large", "corrupt", "truncated", "not-an-image")
    assert first["error"]["message"] and first["label"] is None and first["probabilities"] is None
    assert second["label"] == "red" and second["error"] is None
    # The least of them has 25 million pixels.
    assert process.memory_info().rss - before < 20e6


# The Open Inference Protocol

INFER = "/v2/models/colours/infer"


def infer(value: object, **headers: str) -> bytes:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return request("POST", INFER, body, "application/json", headers)


def tensor(data: object, shape: list[int], **more: object) -> dict[str, object]:
    return {"name": "images", "datatype": "BYTES", "shape": shape, "data": data, **more}


def pixels(data: object, shape: list[int]) -> dict[str, object]:
    return {"name": "pixels", "datatype": "UINT8", "shape": shape, "data": data}


TEXT = base64.b64encode(png()).decode()
INVALID: dict[str, tuple[bytes, set[int]]] = {
    "no JSON": (infer(b"{"), {400}),
    "deep JSON": (infer(b'{"inputs": [{"data": ' + b"[" * 90_000), {400}),
    "no inputs": (infer({"inputs": []}), {422}),
    "two inputs": (infer({"inputs": [tensor([TEXT], [1])] * 2}), {422}),
    "another input": (infer({"inputs": [tensor([TEXT], [1]) | {"name": "x"}]}), {422}),
    "another datatype": (infer({"inputs": [tensor([TEXT], [1]) | {"datatype": "FP32"}]}), {422}),
    "the other's datatype": (
        infer({"inputs": [tensor([TEXT], [1]) | {"datatype": "UINT8"}]}), {422},
    ),
    "a shape of 0": (infer({"inputs": [tensor([], [0])]}), {422}),
    "a negative shape": (infer({"inputs": [tensor([TEXT], [-1])]}), {422}),
    "a shape that is too long": (infer({"inputs": [tensor([TEXT], [1, 1])]}), {422}),
    "a shape that says more": (infer({"inputs": [tensor([TEXT], [2])]}), {422}),
    "too many images": (infer({"inputs": [tensor([TEXT] * 5, [5])]}), {413}),
    "a number in place of base64": (infer({"inputs": [tensor([5], [1])]}), {422}),
    "invalid base64": (infer({"inputs": [tensor(["a*b?"], [1])]}), {422}),
    "a file that is no image": (infer({"inputs": [tensor(["YWJj"], [1])]}), {422}),
    "no data": (infer({"inputs": [tensor(None, [1])]}), {422}),
    "an output that does not exist": (
        infer({"inputs": [tensor([TEXT], [1])], "outputs": [{"name": "x"}]}), {422},
    ),
    "pixels above 255": (infer({"inputs": [pixels([256, 0, 0], [1, 1, 1, 3])]}), {422}),
    "negative pixels": (infer({"inputs": [pixels([-1, 0, 0], [1, 1, 1, 3])]}), {422}),
    "fractional pixels": (infer({"inputs": [pixels([0.5, 0, 0], [1, 1, 1, 3])]}), {422}),
    "pixels of text": (infer({"inputs": [pixels(["a", "b", "c"], [1, 1, 1, 3])]}), {422}),
    "true pixels": (infer({"inputs": [pixels([True, True, True], [1, 1, 1, 3])]}), {422}),
    "huge pixels": (infer({"inputs": [pixels([10**30, 0, 0], [1, 1, 1, 3])]}), {400, 422}),
    "ragged pixels": (infer({"inputs": [pixels([[[[1, 2, 3], [1, 2]]]], [1, 1, 2, 3])]}), {422}),
    "deep pixels": (
        infer(b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1, 1, 1, 3], "data": '
              + b"[" * 100 + b"]" * 100 + b"}]}"), {422},
    ),
    "four channels": (infer({"inputs": [pixels([1, 2, 3, 4], [1, 1, 1, 4])]}), {422}),
    "more pixels than an image may have": (
        infer({"inputs": [pixels([1], [1, 10**9, 10**9, 3])]}), {413},
    ),
    "a length of JSON above the body's": (
        infer({"inputs": []}, Inference_Header_Content_Length="99999"), {400},
    ),
    "a negative length of JSON": (infer({}, Inference_Header_Content_Length="-1"), {400}),
    "a length of JSON that is no number": (infer({}, Inference_Header_Content_Length="x"), {400}),
    "an unknown model": (request("POST", "/v2/models/x/infer", b"{}", "application/json"), {404}),
    "an unknown version": (
        request("POST", "/v2/models/colours/versions/1/infer", b"{}", "application/json"), {404},
    ),
    "too much": (request("POST", INFER, bytes(LIMIT + 1), "application/json"), {413}),
    "another host": (request("GET", "/v2", headers={"Host": "evil.invalid"}), {421}),
    "no such address": (request("GET", "/v2/nothing"), {404}),
    "another method": (request("GET", INFER), {405}),
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_errors_of_the_open_inference_protocol(server: RunningServer, name: str) -> None:
    data, statuses = INVALID[name]
    answer = server.send(data)
    assert answer is not None and answer.status in statuses, answer
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"] and answer.json()["error"]
    assert len(answer.body) < 3000


@pytest.mark.parametrize("extra", [-1, 1, 3, 1000])
def test_a_binary_tensor_that_lies_about_its_length(server: RunningServer, extra: int) -> None:
    image = png()
    content = struct.pack("<I", len(image) + extra) + image
    spec = {"name": "images", "datatype": "BYTES", "shape": [1]}
    spec["parameters"] = {"binary_data_size": len(content)}
    text = json.dumps({"inputs": [spec]}).encode()
    length = {"Inference-Header-Content-Length": str(len(text))}
    answer = server.send(request("POST", INFER, text + content, OCTETS, length))
    assert answer is not None and answer.status == 422
    assert "images" in answer.json()["error"]


def test_nothing_waits_at_the_end(server: RunningServer) -> None:
    wait_for(lambda: metric(server, "kindsight_queue_images") == 0)
    assert server.get("/healthz").json()["status"] == "ok"
