"""``kindsight serve`` in a process of its own, and requests as bytes, whole or broken."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

START_SECONDS = 120
"""Limit of the time from the start of the process until it is ready."""

SECONDS = 60.0
"""Limit of the time of a whole answer."""

BOUNDARY = "------------------------boundary"


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class RunningServer:
    """The process, and connections to it."""

    def __init__(self, process: subprocess.Popen[bytes], address: str, errors: Any) -> None:
        self.process = process
        self.address = address
        self.port = int(address.rpartition(":")[2])
        self._errors = errors

    def connect(self, seconds: float = SECONDS) -> socket.socket:
        """Open a connection whose every operation has a time limit."""
        connection = socket.create_connection(("127.0.0.1", self.port), seconds)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(self, data: bytes, seconds: float = SECONDS) -> Answer | None:
        """Send bytes on a new connection; return the answer, None if there is none."""
        with self.connect(seconds) as connection:
            # It may answer, and close, before it has read everything.
            with suppress(OSError):
                connection.sendall(data)
            return receive(connection)

    def get(self, path: str, **headers: str) -> Answer:
        answer = self.send(request("GET", path, headers=headers))
        assert answer is not None
        return answer

    def post(self, path: str, body: bytes, kind: str, **headers: str) -> Answer:
        answer = self.send(request("POST", path, body, kind, headers))
        assert answer is not None
        return answer

    def stop(self, seconds: float = SECONDS) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def errors(self) -> str:
        """Return what the server wrote to standard error."""
        self._errors.seek(0)
        text: str = self._errors.read().decode()
        return text


def receive(connection: socket.socket) -> Answer | None:
    """Return the next answer of a connection; None if it is closed without one."""
    data = b""
    while b"\r\n\r\n" not in data:
        try:
            # Further bytes of the same packet belong to the next response.
            part = connection.recv(1)
        except ConnectionError:
            part = b""
        if not part:
            assert not data, f"the answer ends within its headers: {data[:200]!r}"
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    assert "transfer-encoding" not in headers
    length = int(headers.get("content-length", 0))
    while len(body) < length:
        part = connection.recv(length - len(body))
        assert part, "the answer is shorter than its Content-Length"
        body += part
    return Answer(int(first.split()[1]), headers, body)


def request(
    method: str,
    path: str,
    body: bytes | None = None,
    kind: str | None = None,
    headers: dict[str, str] | None = None,
) -> bytes:
    """Return a request; headers may replace Host and Content-Length, or ("") leave them out."""
    found = {"Host": "127.0.0.1"}
    if body is not None:
        found["Content-Length"] = str(len(body))
    if kind is not None:
        found["Content-Type"] = kind
    found |= {name.replace("_", "-"): value for name, value in (headers or {}).items()}
    lines = [f"{method} {path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in found.items() if value]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")


def multipart(files: Sequence[tuple[str, bytes]], field: str = "images") -> tuple[bytes, str]:
    """Return a form with files of these names and contents, and its content type."""
    parts = []
    for name, content in files:
        head = f'Content-Disposition: form-data; name="{field}"; filename="{name}"'
        parts.append(f"--{BOUNDARY}\r\n{head}\r\n\r\n".encode() + content + b"\r\n")
    form = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return form, f"multipart/form-data; boundary={BOUNDARY}"


@contextmanager
def serving(*runs: Path | str, options: Sequence[object] = ()) -> Iterator[RunningServer]:
    """Start ``kindsight serve`` on a free port for the block, and end it."""
    command = [sys.executable, "-m", "kindsight", "serve", *map(str, runs), "--port", "0", "--json"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [*command, *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONUTF8": "1"},
        )
        killing = threading.Timer(START_SECONDS, process.kill)
        killing.start()
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            killing.cancel()
            if not line:
                errors.seek(0)
                raise AssertionError(f"the server did not start: {errors.read().decode()[-2000:]}")
            yield RunningServer(process, json.loads(line)["address"], errors)
        finally:
            killing.cancel()
            process.terminate()
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()  # type: ignore[union-attr]


def metric(server: RunningServer, name: str) -> float:
    """Return the sum of a figure of /metrics over its labels."""
    text = server.get("/metrics").body.decode()
    values = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([-+.\deE]+)$", text, re.M)
    assert values, f"{name} is not in {text}"
    return sum(map(float, values))


def wait_for(condition: Any, seconds: float = SECONDS) -> None:
    """Wait until a function returns something true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)
