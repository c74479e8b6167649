"""A local object store that speaks S3, and a web server of a folder, for tests."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


@contextmanager
def object_store(monkeypatch: pytest.MonkeyPatch, bucket: str = "photos") -> Iterator[str]:
    """Yield the URL of a store with an empty bucket; addresses lead to it through the environment.

    Nothing of an earlier server's connections is used.
    """
    from moto.server import ThreadedMotoServer

    from kindsight.storage import access

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "*")
    access.forget_file_systems()
    try:
        import boto3

        boto3.client("s3", endpoint_url=url).create_bucket(Bucket=bucket)
        yield url
    finally:
        server.stop()
        access.forget_file_systems()


class _Quiet(SimpleHTTPRequestHandler):
    """Serves files without a line on the terminal."""

    def log_message(self, *_: object) -> None:
        """Do nothing."""


@contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Yield the URL of a server of a folder's files."""
    handler = functools.partial(_Quiet, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def upload(folder: Path, address: str) -> None:
    """Write the files below a folder to an address."""
    from kindsight.storage.files import write_file

    for path in sorted(folder.rglob("*")):
        if path.is_file():
            write_file(f"{address}/{path.relative_to(folder).as_posix()}", path.read_bytes())
