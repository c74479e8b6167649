from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import tiny_bundle


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a bundle that tells blue, green and red apart; see tiny_bundle."""
    return str(tiny_bundle.write_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


@pytest.fixture
def colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with new/blue.png, new/green.png, new/red.png and new/broken.png."""
    monkeypatch.chdir(tmp_path)
    for name, colour in tiny_bundle.COLOURS.items():
        tiny_bundle.write_image(tmp_path / "new" / f"{name}.png", colour)
    (tmp_path / "new" / "broken.png").write_bytes(b"no image at all")
    return tmp_path


@pytest.fixture
def runner() -> CliRunner:
    """A runner that keeps the two streams apart, as newer ones always do."""
    older = "mix_stderr" in inspect.signature(CliRunner).parameters
    return CliRunner(mix_stderr=False) if older else CliRunner()


@pytest.fixture
def run(runner: CliRunner) -> Callable[..., object]:
    """Return a function that runs ``kindsight`` in this process: run("predict", ..., input=...)."""
    from kindsight.cli.app import app

    def call(*arguments: str, input: str | bytes | None = None) -> object:
        return runner.invoke(app, list(arguments), input=input)

    return call


@pytest.fixture
def start(machine_cache: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Return a function that starts ``kindsight`` as a process of its own, with pipes."""

    def call(*arguments: str, **options: object) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "KINDSIGHT_CACHE": str(machine_cache)}
        environment.update(options.pop("environment", {}))  # type: ignore[arg-type]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [sys.executable, "-m", "kindsight", *arguments],
            env=environment,
            **{**pipes, **options},  # type: ignore[arg-type]
        )

    return call
