"""Run the studio's server on this machine, until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from kindsight.errors import KindsightError
from kindsight.server.run import bind
from kindsight.studio.app import create_app
from kindsight.studio.security import load_token
from kindsight.studio.state.table import hidden_folder
from kindsight.studio.studio import Studio

__all__ = ["DEFAULT_PORT", "bind_port", "serve"]

HOST = "127.0.0.1"
DEFAULT_PORT = 8710
"""The same port after a restart, so that an open page still works."""

STOP_SECONDS = 3


def bind_port(port: int | None) -> socket.socket:
    """Return a socket that is bound to this machine only.

    - `port`: None for :data:`DEFAULT_PORT`, or a free port if that is in use; 0 for a free port.
    """
    if port is not None:
        return bind(HOST, port)
    try:
        return bind(HOST, DEFAULT_PORT)
    except KindsightError:
        return bind(HOST, 0)


class _Server(uvicorn.Server):
    """A server that ends the page's event connections when it is stopped."""

    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._stopping()
        super().handle_exit(sig, frame)


def serve(studio: Studio, listener: socket.socket, ready: Callable[[str], None]) -> None:
    """Serve a studio until it is stopped, then close it.

    - `ready`: called with the URL, which contains the token, once pages can be loaded.
    """
    port = listener.getsockname()[1]
    token = load_token(hidden_folder(studio.folder) / "token")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        create_app(studio, token, port), log_level="warning", access_log=False, lifespan="off",
        server_header=False, date_header=True, timeout_graceful_shutdown=STOP_SECONDS,
        ws="none",
    )  # fmt: skip
    server = _Server(config, studio.events.close)
    try:
        studio.start()
        listener.listen(128)
        # Connections wait in the listening socket until the server takes them.
        ready(f"http://{HOST}:{port}/?token={token}")
        with contextlib.suppress(KeyboardInterrupt):  # Uvicorn raises Ctrl-C again at its end.
            server.run(sockets=[listener])
    finally:
        studio.close()
