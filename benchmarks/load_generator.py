"""Send image files to a server over keep-alive connections, and time every response.

    python benchmarks/load_generator.py http://127.0.0.1:8000/v1/predict IMAGE... --clients 8

Every client is a thread with one connection, which sends its next request when it has the response
to the last one. The requests are prepared beforehand. The last line of the output is JSON: requests
per second, latencies, the processor time that this process used, and the distinct responses to
every file. It imports only the standard library.
"""

from __future__ import annotations

import argparse
import collections
import json
import socket
import statistics
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

BOUNDARY = "----------------------------kindsightbenchmark"
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as failed."""


def request(url: str, file: Path, form: str) -> bytes:
    """Return a whole request: the file as the body, or as a multipart form's only field."""
    parts = urlsplit(url)
    body, kind = file.read_bytes(), "image/jpeg"
    if form != "raw":
        before = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{form}"; '
            f'filename="{file.name}"\r\nContent-Type: {kind}\r\n\r\n'
        )
        body = before.encode() + body + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    head = (
        f"POST {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nAccept: */*\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Connection:
    """A keep-alive connection, with as little work per response as possible."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port or 80), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, message: bytes) -> tuple[int, bytes]:
        """Send a request; return the status and the body of the response."""
        self._socket.sendall(message)
        received = b""
        while (end := received.find(b"\r\n\r\n")) < 0:
            received += self._receive()
        head = received[:end].lower()
        place = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[place:].split(b"\r\n", 1)[0])
        body = received[end + 4 :]
        while len(body) < length:
            body += self._receive()
        return int(head.split(b" ", 2)[1]), body

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("The server closed the connection.")
        return data

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Load:
    """Clients that send the same requests for some seconds.

    Parameters
    ----------
    url : str
    requests : sequence of bytes
        Whole requests; client number c starts with number c.
    clients : int
    warm, seconds : float
        Seconds of warm-up, which are not counted, and of the measurement.
    """

    def __init__(
        self, url: str, requests: Sequence[bytes], clients: int, warm: float, seconds: float
    ) -> None:
        self.url, self.requests, self.clients = url, requests, clients
        self.warm, self.seconds = warm, seconds
        self.latencies: list[float] = []
        self.failures: collections.Counter[str] = collections.Counter()
        self.answers: list[set[bytes]] = [set() for _ in requests]
        self.sent = 0

    def run(self) -> dict[str, object]:
        """Run all clients and return the figures."""
        before = time.process_time()
        start = time.perf_counter()
        threads = [
            threading.Thread(target=self._client, args=(c, start)) for c in range(self.clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu = time.process_time() - before
        return {
            "sent": self.sent,
            "answered": len(self.latencies),
            "requests/s": len(self.latencies) / self.seconds,
            **quantiles(self.latencies),
            "client seconds": cpu / max(1, self.sent),
            "failures": dict(self.failures),
            "answers": [sorted(body.decode() for body in bodies) for bodies in self.answers],
        }

    def _client(self, number: int, start: float) -> None:
        counted, end = start + self.warm, start + self.warm + self.seconds
        connection, turn = Connection(self.url), number
        latencies = []
        sent = 0
        while (begun := time.perf_counter()) < end:
            turn = (turn + 1) % len(self.requests)
            sent += 1
            try:
                status, body = connection.send(self.requests[turn])
            except OSError as error:
                self.failures[type(error).__name__] += 1
                connection.close()
                connection = Connection(self.url)
                continue
            ended = time.perf_counter()
            if status != 200:
                self.failures[str(status)] += 1
                continue
            self.answers[turn].add(body)
            if counted <= ended <= end:
                latencies.append(ended - begun)
        connection.close()
        self.latencies += latencies
        self.sent += sent


def quantiles(latencies: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile of latencies in seconds."""
    if len(latencies) < 2:
        raise SystemExit("Fewer than two requests were answered in time. Use more --seconds.")
    cuts = statistics.quantiles(latencies, n=100, method="inclusive")
    return {"p50": cuts[49], "p99": cuts[98]}


def main(arguments: Sequence[str] | None = None) -> None:
    """Send the requests and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("url", metavar="URL")
    parser.add_argument("files", type=Path, nargs="+", metavar="IMAGE")
    parser.add_argument("--form", default="raw", help="raw, or the name of a multipart field")
    parser.add_argument("--clients", type=int, default=1, metavar="N")
    parser.add_argument("--warm", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--seconds", type=float, default=10.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    requests = [request(options.url, file, options.form) for file in options.files]
    load = Load(options.url, requests, options.clients, options.warm, options.seconds)
    print(json.dumps(load.run()))


if __name__ == "__main__":
    main()
