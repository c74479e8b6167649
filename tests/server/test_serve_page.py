"""The requests of docs/serve.md, sent to a running server."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from run_page import blocks, commands, run_python
from running_server import RunningServer, serving
from tiny_bundle import SETS, write_bundle, write_image

PAGE = Path(__file__).resolve().parents[2] / "docs" / "serve.md"
ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_image(tmp_path / "new" / "a.jpg", (0, 0, 255))
    write_image(tmp_path / "new" / "b.jpg", (0, 255, 0))
    (tmp_path / "photos" / "dog").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def server(folder: Path) -> Iterator[RunningServer]:
    # The classes of the page, for the mean blue and green.
    run = folder / "runs" / "photos-1"
    bundle = write_bundle(
        run, ("cat", "dog"), uncertainty={"sets": SETS | {"scores": SETS["scores"][:2]}}
    )
    with serving(bundle, options=("--keep", folder / "corrections")) as running:
        yield running


def shape(value: Any) -> Any:
    """Return the names in a JSON value; those of classes and problems do not matter."""
    if isinstance(value, dict):
        return {
            name: None if name == "probabilities" else shape(each) for name, each in value.items()
        }
    return [shape(value[0])] if isinstance(value, list) and value else None


def test_the_page_of_a_server_is_true(server: RunningServer, folder: Path) -> None:
    if shutil.which("curl") is None or shutil.which("bash") is None:
        pytest.skip("the requests are sent with curl")
    text = PAGE.read_text("utf-8").replace(ADDRESS, server.address)
    namespace: dict[str, object] = {}
    curls, printed = 0, ""
    for block in blocks(text):
        if block.language == "python":
            printed += run_python(block, PAGE, namespace)
        elif block.language == "console":
            for command, shown in commands(block.text):
                if command.startswith("curl ") and server.address in command:
                    check_curl(command, shown)
                    curls += 1
    assert curls >= 10
    assert "new/a.jpg cat None\nnew/b.jpg dog None\n" in printed and "['cat']" in printed
    table = (folder / "corrections" / "corrections.csv").read_text("utf-8")
    assert ",dog,cat,photos-1 " in table
    (copy,) = (folder / "photos" / "dog").iterdir()
    assert copy.read_bytes() == (folder / "new" / "a.jpg").read_bytes()


def check_curl(command: str, shown: str) -> None:
    """Hold that a request succeeds, or has the error that is shown, and what it answers."""
    silent = re.sub("^curl ", "curl -sS -w '\\\\n%{http_code}' ", command)
    done = subprocess.run(
        ["bash", "-c", silent], capture_output=True, encoding="utf-8", check=False, timeout=200
    )
    body, _, status = done.stdout.rpartition("\n")
    expected = json.loads(shown) if shown.strip() else None
    allowed = {(expected or {}).get("status", 200), 200, 201}
    assert int(status) in allowed, done.stdout
    if expected is not None:
        assert shape(json.loads(body)) == shape(expected)
