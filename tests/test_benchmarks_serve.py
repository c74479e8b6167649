"""Tests of the load generator, and of the tables of benchmarks/serve.py. Nothing is timed."""

from __future__ import annotations

import importlib
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def on_the_path():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


class Handler(BaseHTTPRequestHandler):
    """Answers the length of a body; refuses those of three bytes."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps([len(body), self.headers["Content-Type"].partition(";")[0]]).encode()
        self.send_response(429 if len(body) == 3 else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def address() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/predict?top_k=1"
    finally:
        server.shutdown()
        server.server_close()


def generate(address: str, files: list[Path], form: str = "raw") -> dict:
    generator = module("load_generator")
    requests = [generator.request(address, file, form) for file in files]
    return generator.Load(address, requests, 3, 0.0, 0.5).run()


def test_every_request_is_answered_and_counted(address, tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    for number, file in enumerate(files):
        file.write_bytes(bytes(10 + number))
    found = generate(address, files)
    assert found["failures"] == {} and 0 < found["answered"] <= found["sent"]
    assert found["requests/s"] == found["answered"] / 0.5
    assert 0 < found["p50"] <= found["p99"]
    assert [list(map(json.loads, bodies)) for bodies in found["answers"]] == [
        [[10, "image/jpeg"]], [[11, "image/jpeg"]],
    ]  # fmt: skip


def test_a_form_has_one_file(address, tmp_path):
    (tmp_path / "a.jpg").write_bytes(bytes(10))
    (bodies,) = generate(address, [tmp_path / "a.jpg"], "images")["answers"]
    (length, kind) = json.loads(bodies[0])
    assert kind == "multipart/form-data" and length > 10


def test_refused_requests_are_failures(address, tmp_path):
    files = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    files[0].write_bytes(bytes(10))
    files[1].write_bytes(bytes(3))
    found = generate(address, files)
    assert set(found["failures"]) == {"429"} and found["answers"][1] == []


def answer(**probabilities: float) -> str:
    return json.dumps({"predictions": [{"probabilities": probabilities}]})


def test_a_wrong_answer_ends_the_benchmark():
    serve = module("serve")
    expected = [{"cat": 0.25, "dog": 0.75}]
    right = {"failures": {}, "answers": [[answer(cat=0.25, dog=0.75)]]}
    serve.check_answers(serve.OURS, right, expected)
    for name, found in (
        (serve.OURS, {"failures": {}, "answers": [[answer(cat=0.25, dog=0.7500001)]]}),
        (serve.OURS, {"failures": {"429": 1}, "answers": [[]]}),
        (serve.PLAIN["def"], {"failures": {"500": 1}, "answers": [[]]}),
    ):
        with pytest.raises(SystemExit):
            serve.check_answers(name, found, expected)


def test_the_ratios_are_to_bare_litert_and_to_the_plain_server():
    serve = module("serve")
    figures = {"p50": [0.01], "p99": [0.03], "client seconds": [0.0001]}
    rates = {
        serve.OURS: (90.0, 0.02), serve.RAW: (95.0, 0.018), serve.CEILING: (9000.0, 0.0001),
        serve.PLAIN["async"]: (10.0, 0.1), serve.PLAIN["def"]: (15.0, 0.07),
    }  # fmt: skip
    found = {
        (name, count): {"requests/s": [rate], "seconds": [seconds], **figures}
        for name, (rate, seconds) in rates.items()
        for count in (1, 8)
    }
    bare = {"images/s": [100.0], "seconds": [0.016]}
    throughput, latencies, generator = serve.tables(bare, found, [1, 8])
    ratios = [(row.rival, round(row.ratio, 4), row.met) for row in throughput.rows]
    assert ratios == [
        (serve.BARE, 0.9, True), (serve.BARE, 0.95, None), (serve.BARE, 0.8, False),
        (serve.BARE, 0.8889, None), (serve.PLAIN["async"], 9.0, True),
        (serve.PLAIN["def"], 6.0, False),
    ]  # fmt: skip
    assert [row.what for row in latencies.rows][:3] == ["1 client, p50"] * 2 + ["1 client, p99"]
    assert generator.rows[0].ratio == pytest.approx(0.01)


def test_arguments_are_checked(tmp_path, monkeypatch):
    serve = module("serve")
    assert serve.numbers("1,8") == [1, 8]
    monkeypatch.setattr(sys, "argv", ["serve.py", str(tmp_path), str(tmp_path)])
    with pytest.raises(SystemExit, match="no JPEG files"):
        serve.main()
