"""A studio that is killed loses nothing: labels, and jobs that run on or continue."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from kindsight.studio.jobs import LOCK_VARIABLE, Job
from studio_page import png

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes are killed by signals"),
]

SECONDS = 200
"""Limit of anything that is waited for."""


class Server:
    """``kindsight studio`` in a process."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, "-m", "kindsight", "studio", str(folder)]
        self.process = subprocess.Popen(
            [*command, "--no-browser", "--port", "0", "--json"], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        line = json.loads(self.process.stdout.readline())
        address, _, token = line["address"].partition("/?token=")
        self.client = httpx.Client(
            base_url=f"{address}/api", headers={"X-Kindsight-Token": token}, timeout=SECONDS
        )

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Return the JSON of an answer."""
        answer = self.client.request(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def wait(self, path: str, over: Callable[[Any], bool]) -> Any:
        """Return the first answer that passes a condition."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            if over(found := self.ask("GET", path)):
                return found
            time.sleep(0.1)
        raise AssertionError(f"{path} is still {found}")

    def kill(self) -> None:
        """Kill the process, as the system does when memory is short."""
        self.process.kill()
        self.process.wait(SECONDS)

    def end(self) -> int:
        """Stop the process by Ctrl-C; return its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(SECONDS)


@contextmanager
def serving(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()
        server.client.close()


def add(server: Server, count: int) -> None:
    files = [
        ("files", (f"{'ab'[k % 2]}/{k}.png", png(k, 24 + 8 * (k % 2)), "image/png"))
        for k in range(count)
    ]
    server.ask("POST", "/images", files=files, data={"label_from": "folder"})


def test_every_answered_label_is_there_after_a_kill(tmp_path: Path):
    folder = tmp_path / "project"
    with serving(folder) as server:
        add(server, 20)
        for k in range(30):
            body = {"ids": [k % 20], "label": f"class {k}"}
            revision = server.ask("POST", "/label", json=body)["revision"]
        expected = server.ask("GET", "/images/columns")
        server.kill()
    with serving(folder) as server:
        found = server.ask("GET", "/images/columns")
        assert found == expected
        assert found["revision"] == revision
        assert server.ask("POST", "/undo")["title"] == "Undo: Label 1 image 'class 29'"
        with server.client.stream("GET", "/events") as stream:
            assert "event: hello" in next(stream.iter_text())
            assert server.end() == 0
    assert "class 28" in (folder / "dataset.csv").read_text("utf-8")


def test_a_training_goes_on_without_the_server_and_after_a_kill_of_its_own(tmp_path: Path):
    folder = tmp_path / "project"
    options = {"epochs": 10, "size": 24, "batch_size": 4, "learning_rate": 0.01}
    with serving(folder) as server:
        add(server, 40)
        job = server.ask("POST", "/train", json={"model": "small-cnn", "options": options})
        address = f"/jobs/{job['id']}"
        server.wait(address, lambda found: len(found["epochs"]) >= 1)
        facts = json.loads(next(folder.glob(".studio/jobs/*/job.json")).read_text("utf-8"))
        os.killpg(facts["pid"], signal.SIGSTOP)  # it would be done before the next server is there
        server.kill()
    try:
        with serving(folder) as server:
            found = server.ask("GET", address)
            assert found["state"] == "running"
            assert len(found["epochs"]) >= 1
            server.kill()
    finally:
        os.killpg(facts["pid"], signal.SIGKILL)  # now the training itself
    with serving(folder) as server:
        server.wait(address, lambda found: found["state"] == "interrupted")
        again = server.ask("POST", f"{address}/continue")
        assert again["command"] == job["command"]
        done = server.wait(
            f"/jobs/{again['id']}", lambda found: found["state"] not in ("queued", "running")
        )
        assert done["state"] == "done", done
        assert [row["epoch"] for row in done["epochs"]] == list(range(1, 11))
        (run,) = server.ask("GET", "/runs")
        assert run["finished"]
        assert run["name"] == done["run"]
        whole = server.ask("GET", f"/runs/{done['run']}")
        assert len(whole["epochs"]) == 10
        assert sum(map(sum, whole["confusion"])) == whole["total"]


def test_a_command_holds_its_lock_until_it_is_killed(tmp_path: Path):
    # The way of Windows, which has no locks that are inherited.
    job = Job(tmp_path, {})
    assert not job.holds_lock()
    command = [sys.executable, "-m", "kindsight", "studio", str(tmp_path / "project"), "--json"]
    with subprocess.Popen(
        [*command, "--no-browser", "--port", "0"], stdout=subprocess.PIPE,
        env={**os.environ, LOCK_VARIABLE: str(tmp_path / "lock")},
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None and process.stdout.readline()
            assert job.holds_lock()
        finally:
            process.kill()
    assert not job.holds_lock()


def test_a_job_is_stopped_and_its_command_continues(tmp_path: Path):
    options = {"epochs": 4000, "size": 24, "batch_size": 4}
    with serving(tmp_path / "project") as server:
        add(server, 40)
        job = server.ask("POST", "/train", json={"model": "small-cnn", "options": options})
        address = f"/jobs/{job['id']}"
        server.wait(address, lambda found: len(found["epochs"]) >= 1)
        assert server.client.post("/train", json={}).status_code == 400  # one at a time
        server.ask("DELETE", address)
        stopped = server.wait(address, lambda found: found["state"] not in ("running", "stopping"))
        assert stopped["state"] == "stopped"
        assert stopped["log"][-1].endswith("run the same command again to continue.")
        server.ask("POST", f"{address}/continue")
        least = len(stopped["epochs"])
        server.wait("/jobs/2", lambda found: len(found["epochs"]) >= least)
        assert server.end() == 0
    jobs = sorted((tmp_path / "project/.studio/jobs").glob("*/job.json"))
    states = [json.loads(path.read_text("utf-8"))["state"] for path in jobs]
    assert states == ["stopped", "interrupted"]
