"""The OpenAPI document says what the server does: requests made from it get the stated answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from running_server import RunningServer, serving
from tiny_bundle import SETS, write_bundle

EXAMPLES = int(os.environ.get("KINDSIGHT_API_EXAMPLES", "10"))
"""Most generated requests for each operation."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("openapi")
    bundle = write_bundle(folder / "colours", uncertainty={"sets": SETS})
    with serving(bundle, options=("--keep", folder / "kept")) as running:
        yield running


CONFIGURATION = """
# A shape says how much data there must be, which a schema cannot.
[[operations]]
include-tag = "Open Inference Protocol"
checks.positive_data_acceptance.enabled = false

# Which models and classes there are, and what an image is, a schema cannot say, either.
[[operations]]
include-tag = "corrections"
checks.positive_data_acceptance.enabled = false
"""


def test_answers_are_as_documented(server: RunningServer, tmp_path: Path) -> None:
    # Schemathesis as a program: its results do not depend on the version of pytest.
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION, "utf-8")
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run", f"{server.address}/openapi.json",
        "--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES),
        "--generation-deterministic", "--request-timeout", "30",
        "--continue-on-failure", "--warnings", "off", "--no-color",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, encoding="utf-8", check=False, timeout=600
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "Traceback" not in server.errors()


def test_every_route_is_documented(server: RunningServer) -> None:
    document = server.get("/openapi.json").json()
    paths = set(document["paths"])
    assert {
        "/v1/predict",
        "/v1/models",
        "/v1/models/{model}",
        "/v1/models/{model}/predict",
    } <= paths
    assert {"/healthz", "/readyz", "/metrics"} <= paths
    for version in ("", "/versions/{version}"):
        model = "/v2/models/{model}" + version
        assert {model, f"{model}/ready", f"{model}/infer"} <= paths
    for operations in document["paths"].values():
        for operation in operations.values():
            assert operation["summary"] and operation["description"]
            assert not {"401", "500"} - set(operation["responses"])
