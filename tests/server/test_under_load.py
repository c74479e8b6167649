"""Many clients at once: nothing is lost or wrong, whatever else happens to the server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from running_server import RunningServer, metric, receive, request, serving, wait_for
from tiny_bundle import write_bundle

pytestmark = pytest.mark.slow

LOAD_SECONDS = float(os.environ.get("KINDSIGHT_LOAD_SECONDS", "8"))
"""Time of the test with 200 clients."""

PREDICT = "/v1/predict"


def write_images(folder: Path, count: int, size: tuple[int, int] = (120, 160)) -> list[Path]:
    """Write JPEG files that differ."""
    folder.mkdir()
    paths = []
    for number in range(count):
        colours = np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8)
        image = Image.fromarray(colours).resize((size[1], size[0]), Image.Resampling.BICUBIC)
        paths.append(folder / f"{number:03}.jpg")
        image.save(paths[-1], quality=90)
    return paths


def requests_of(paths: Sequence[Path], path: str = PREDICT) -> list[bytes]:
    return [request("POST", path, each.read_bytes(), "image/jpeg") for each in paths]


def predicted(bundle: Path, paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Return the rows of `kindsight predict --json`, without their paths."""
    command = [sys.executable, "-m", "kindsight", "predict", str(bundle), *map(str, paths)]
    done = subprocess.run(
        [*command, "--json", "--quiet"], capture_output=True, encoding="utf-8", check=True
    )
    rows = list(map(json.loads, done.stdout.splitlines()))
    return [{name: value for name, value in row.items() if name != "path"} for row in rows]


class Clients:
    """Clients on keep-alive connections, each with one request at a time, until they are stopped.

    A request that was sent completely and has no whole answer is lost.
    """

    def __init__(self, server: RunningServer, requests: Sequence[bytes], count: int) -> None:
        self.server, self.requests = server, requests
        self.statuses: Counter[int] = Counter()
        self.bodies: list[set[bytes]] = [set() for _ in requests]
        self.lost: list[str] = []
        # When a request was sent whose connection was closed without an answer.
        self.unanswered: list[float] = []
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(each,)) for each in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(90)
            assert not thread.is_alive(), "a client waits without end"

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def _run(self, number: int) -> None:
        turn = number
        while not self._stopping.is_set():
            try:
                connection = self.server.connect()
            except OSError:  # the server has ended
                return
            with connection:
                while not self._stopping.is_set():
                    turn = (turn + 1) % len(self.requests)
                    if not self._exchange(connection, turn):
                        break

    def _exchange(self, connection: socket.socket, turn: int) -> bool:
        """Send a request and take its answer; return whether the connection can be used again."""
        sent = time.monotonic()
        try:
            connection.sendall(self.requests[turn])
        except OSError:
            return False
        try:
            answer = receive(connection)
        except (OSError, AssertionError) as error:
            self.lost.append(repr(error))
            return False
        if answer is None:
            # Closed while idle: HTTP lets a client send the request again.
            self.unanswered.append(sent)
            return False
        self.statuses[answer.status] += 1
        if answer.status == 200:
            self.bodies[turn].add(answer.body)
        elif answer.status == 429:
            time.sleep(0.05)  # less than Retry-After, so that the queue stays full
        return answer.headers.get("connection") != "close"


def check_bodies(bodies: Sequence[set[bytes]], *expected: Sequence[dict[str, Any]]) -> Counter[str]:
    """Hold that each answer is that of one of the classifiers; return the versions' counts."""
    versions: Counter[str] = Counter()
    for turn, answers in enumerate(bodies):
        allowed = [rows[turn] for rows in expected]
        for body in answers:
            content = json.loads(body)
            (prediction,) = content["predictions"]
            found = {name: prediction[name] for name in allowed[0]}
            assert found in allowed
            versions[content["model"]["version"]] += 1
    return versions


def test_200_clients_get_every_answer_to_the_bit(tmp_path):
    bundle = write_bundle(tmp_path / "colours")
    paths = write_images(tmp_path / "images", 50)
    expected = predicted(bundle, paths)
    with serving(bundle) as server:
        clients = Clients(server, requests_of(paths), 200)
        time.sleep(LOAD_SECONDS)
        clients.stop()
        assert set(clients.statuses) == {200}
        assert clients.lost == [] and clients.unanswered == []
        assert clients.answered >= 200
        check_bodies(clients.bodies, expected)
        assert all(clients.bodies)
        assert metric(server, "kindsight_images_total") == clients.answered
        assert metric(server, "kindsight_queue_images") == 0
        assert "Traceback" not in server.errors()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM")
def test_a_stop_under_load_finishes_every_request(tmp_path):
    bundle = write_bundle(tmp_path / "colours")
    paths = write_images(tmp_path / "images", 20, (900, 1200))
    expected = predicted(bundle, paths)
    with serving(bundle) as server:
        clients = Clients(server, requests_of(paths), 60)
        wait_for(lambda: clients.answered > 100)
        signalled = time.monotonic()
        assert server.stop() == 0
        clients.stop()
        assert set(clients.statuses) <= {200, 503}
        assert clients.lost == []
        # Open connections may send one more request within half a second, and a busy machine
        # needs some of it to read the request.
        assert [moment for moment in clients.unanswered if moment < signalled + 0.1] == []
        assert clients.answered > 100
        check_bodies(clients.bodies, expected)
        assert server.errors() == ""
        with pytest.raises(ConnectionError):
            server.connect()


def replace_files(new: Path, folder: Path) -> None:
    """Put the files of a bundle into a folder, one after the other, as a training does."""
    for name in ("model.tflite", "bundle.json"):
        shutil.copy(new / name, folder / f"{name}.new")
        (folder / f"{name}.new").replace(folder / name)


def switch_link(new: Path, link: Path) -> None:
    """Point a link to another run."""
    second = link.with_name("second")
    second.symlink_to(new)
    second.replace(link)


@pytest.mark.parametrize("swap", [replace_files, switch_link])
def test_a_swap_under_load_fails_no_request(tmp_path, swap: Callable[[Path, Path], None]):
    old = write_bundle(tmp_path / "old")
    new = write_bundle(tmp_path / "new", temperature=4.0)
    paths = write_images(tmp_path / "images", 20)
    before, after = predicted(old, paths), predicted(new, paths)
    assert before != after
    served = tmp_path / "current"
    if swap is switch_link:
        served.symlink_to(old)
    else:
        shutil.copytree(old, served)
    with serving(served, options=("--watch", 0.2)) as server:
        first = server.get("/v1/models/current").json()["version"]
        clients = Clients(server, requests_of(paths), 20)
        wait_for(lambda: clients.answered > 100)
        swap(new, served)
        wait_for(lambda: server.get("/v1/models/current").json()["version"] != first)
        reached = clients.answered
        wait_for(lambda: clients.answered > reached + 100)
        clients.stop()
        assert set(clients.statuses) == {200}
        assert clients.lost == [] and clients.unanswered == []
        versions = check_bodies(clients.bodies, before, after)
        second = server.get("/v1/models/current").json()["version"]
        assert set(versions) == {first, second}
        last = Clients(server, requests_of(paths), 2)
        wait_for(lambda: last.answered > 60)
        last.stop()
        assert set(check_bodies(last.bodies, after)) == {second}


def test_a_broken_bundle_changes_nothing(tmp_path):
    served = write_bundle(tmp_path / "current")
    (path,) = write_images(tmp_path / "images", 1)
    (expected,) = predicted(served, [path])
    with serving(served, options=("--watch", 0.1)) as server:
        (served / "model.tflite.new").write_bytes(b"no network")
        (served / "model.tflite.new").replace(served / "model.tflite")
        wait_for(lambda: metric(server, "kindsight_model_fault") == 1)
        answer = server.send(requests_of([path])[0])
        assert answer is not None
        assert {name: answer.json()["predictions"][0][name] for name in expected} == expected
        assert server.get("/readyz").status == 200


def test_a_full_queue_answers_429_and_the_rest_works(tmp_path):
    bundle = write_bundle(tmp_path / "colours")
    paths = write_images(tmp_path / "images", 2, (2000, 3000))
    expected = predicted(bundle, paths)
    # Nothing is reduced while it is read: each image takes a while.
    queries = requests_of(paths, f"{PREDICT}?thumbnail=640")
    options = ("--queue", 8, "--max-images", 8, "--workers", 1)
    with serving(bundle, options=options) as server:
        clients = Clients(server, queries, 40)
        wait_for(lambda: clients.statuses[429] > 20)
        for _ in range(20):
            assert server.get("/healthz").status == 200
            assert server.get("/readyz").status == 200
            assert server.get("/v2/health/ready").status == 200
            assert metric(server, "kindsight_queue_images") <= 8
        refused = clients.statuses[429]
        clients.stop()
        assert refused > 20 and clients.statuses[200] > 0
        assert set(clients.statuses) == {200, 429}
        assert clients.lost == [] and clients.unanswered == []
        check_bodies(clients.bodies, expected)
        wait_for(lambda: metric(server, "kindsight_queue_images") == 0)
        answer = server.send(queries[0])
        assert answer is not None and answer.status == 200


def test_a_refused_request_says_when_to_come_again(tmp_path):
    bundle = write_bundle(tmp_path / "colours")
    paths = write_images(tmp_path / "images", 1, (2000, 3000))
    with serving(bundle, options=("--queue", 1, "--max-images", 1, "--workers", 1)) as server:
        clients = Clients(server, requests_of(paths, f"{PREDICT}?thumbnail=640"), 10)
        refused = None
        try:
            while refused is None or refused.status != 429:
                refused = server.send(requests_of(paths)[0])
        finally:
            clients.stop()
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["type"] == "urn:kindsight:problem:queue-full"
