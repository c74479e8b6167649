"""``kindsight serve``: what is refused, what is printed, a swap while it answers, a stop."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from kindsight.cli.app import app
from kindsight.cli.serve import addresses, host_names
from running_server import RunningServer, receive, request, serving, wait_for
from tiny_bundle import write_bundle, write_image

OCTETS = "application/octet-stream"
TOKEN = "0123456789abcdef"

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")


def refused(*arguments: object, code: int = 2) -> str:
    """Run the command, which must fail; return the message."""
    # The port of the default may be another program's.
    free = () if "--port" in arguments else ("--port", "0")
    done = CliRunner().invoke(app, ["serve", *map(str, arguments), *free])
    assert done.exit_code == code
    text: str = done.output
    return text


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_any_host_but_loopback_needs_a_token(tmp_path: Path, host: str) -> None:
    text = refused(write_bundle(tmp_path / "m"), "--host", host)
    assert "--token-file" in text
    assert "secrets.token_urlsafe" in text


@pytest.mark.parametrize("content", ["", "short", "two words of many letters", "caf\u00e9 " * 9])
def test_a_token_is_one_long_word(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content, "utf-8")
    text = refused(tmp_path / "m", "--token-file", tmp_path / "token")
    assert "--token-file must contain one word of 16" in text
    assert content[:3] not in text or len(content) < 3


def test_what_cannot_be_served_is_refused_before_the_start(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "m")
    assert "must be a readable file" in refused(bundle, "--token-file", tmp_path / "none")
    assert "--queue must be at least" in refused(bundle, "--queue", 2)
    assert "different folder names" in refused(bundle, write_bundle(tmp_path / "a" / "m"))
    assert "does not exist" in refused(tmp_path / "none", "--port", 0, code=1)
    assert "--host must be an address" in refused(bundle, "--host", "127.0.0.1x", "--token-file",
                                                  _token(tmp_path))  # fmt: skip


def _token(folder: Path) -> Path:
    path = folder / "token.txt"
    path.write_text(f"{TOKEN}\n", "utf-8")
    return path


def test_a_port_that_is_used_is_named_with_a_cure(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        text = refused(write_bundle(tmp_path / "m"), "--port", port, code=1)
    assert f"Port {port}" in text
    assert f"--port {port + 1}" in text


def test_a_missing_extra_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec",
        lambda name, *rest: None if name == "fastapi" else find(name, *rest),
    )  # fmt: skip
    assert "pip install 'kindsight[serve]'" in refused(tmp_path / "m")


def test_the_message_has_the_address_and_a_command_to_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def announce(app: Any, sock: socket.socket, on_ready: Any) -> bool:
        on_ready()
        return True

    monkeypatch.setattr("kindsight.server.run.run_server", announce)
    arguments = ["serve", str(write_bundle(tmp_path / "m")), "--port", "0", "--keep"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "kept")])
    assert done.exit_code == 0
    assert "-F images=@photo.jpg http://127.0.0.1:" in done.stdout
    assert "m (3 classes)" in done.stdout
    assert str(tmp_path / "kept") in done.stdout


def test_names_of_hosts_follow_from_the_options() -> None:
    local = ("localhost", "127.0.0.1", "::1")
    assert host_names("127.0.0.1", [], local=True) == local
    assert host_names("::1", ["Photos.example"], local=True) == (*local, "photos.example")
    assert host_names("0.0.0.0", [], local=False) is None


def test_a_server_on_all_addresses_states_how_to_reach_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-7")
    assert addresses("127.0.0.1", 80, []) == ["http://127.0.0.1:80"]
    assert addresses("::1", 80, ["x.org"]) == ["http://[::1]:80"]
    assert addresses("0.0.0.0", 80, []) == ["http://127.0.0.1:80", "http://lab-7:80"]
    assert addresses("::", 80, []) == ["http://[::1]:80", "http://lab-7:80"]
    # A request with another host name is rejected.
    assert addresses("0.0.0.0", 80, ["x.org"]) == ["http://x.org:80"]
    monkeypatch.setattr(
        "kindsight.server.run.run_server", lambda app, sock, on_ready: on_ready() or True
    )
    arguments = ["--host", "0.0.0.0", "--port", "0", "--token-file", str(_token(tmp_path))]
    done = CliRunner().invoke(app, ["serve", str(write_bundle(tmp_path / "m")), *arguments])
    assert re.search(r"http://lab-7:\d+/ from other machines\n", done.stdout)
    assert "0.0.0.0" not in done.stdout


def predict(server: RunningServer, data: bytes) -> str:
    answer = server.post("/v1/predict", data, OCTETS)
    assert answer.status == 200
    label: str = answer.json()["predictions"][0]["label"]
    return label


@needs_signals
def test_a_bundle_is_swapped_while_images_are_predicted(tmp_path: Path) -> None:
    red = write_image(tmp_path / "red.png", (255, 0, 0)).read_bytes()
    write_bundle(tmp_path / "1")
    write_bundle(tmp_path / "2", ("bleu", "vert", "rouge"))
    link = tmp_path / "current"
    link.symlink_to("1")
    labels: list[str] = []
    ended = threading.Event()
    with serving(link, options=("--watch", 0.1)) as server:

        def ask() -> None:
            while not ended.is_set():
                labels.append(predict(server, red))

        asking = threading.Thread(target=ask)
        asking.start()
        try:
            wait_for(lambda: len(labels) > 20)
            (tmp_path / "next").symlink_to("2")
            (tmp_path / "next").replace(link)
            wait_for(lambda: labels[-1] == "rouge")
            (tmp_path / "2" / "bundle.json").write_text("{", "utf-8")
            wait_for(lambda: server.get("/readyz").json()["models"][0]["fault"])
            count = len(labels)
            wait_for(lambda: len(labels) > count + 5)
        finally:
            ended.set()
            asking.join(60)
        assert server.stop() == 0
        assert "the new bundle cannot be served" in server.errors()
    # Never an error, never back.
    assert set(labels) == {"red", "rouge"}
    assert labels == sorted(labels, key=["red", "rouge"].index)


def refuses(server: RunningServer) -> bool:
    """Return whether a server takes no new connections."""
    try:
        server.connect().close()
    except ConnectionError:
        return True
    return False


@needs_signals
def test_an_open_connection_may_send_its_last_request_after_the_signal(tmp_path: Path) -> None:
    red = write_image(tmp_path / "red.png", (255, 0, 0)).read_bytes()
    with serving(write_bundle(tmp_path / "m")) as server, server.connect() as connection:
        posted = request("POST", "/v1/predict", red, OCTETS)
        connection.sendall(posted)
        first = receive(connection)
        assert first is not None
        assert first.headers.get("connection") != "close"
        server.process.send_signal(signal.SIGINT)
        wait_for(lambda: refuses(server))  # it has the signal, and waits for half a second
        connection.sendall(posted)
        last = receive(connection)
        assert last is not None
        assert (last.status, last.headers["connection"]) == (200, "close")
        assert server.process.wait(60) == 0
        assert server.errors() == ""
