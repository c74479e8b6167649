"""``kindsight studio``: what it says before it serves."""

from __future__ import annotations

import importlib.util
import socket

import pytest

pytest.importorskip("fastapi")

from kindsight.studio import assets


@pytest.fixture
def find_spec(monkeypatch):
    real = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a: None if name in names else real(name, *a)
        )

    return hide


@pytest.mark.parametrize("missing", ["fastapi", "uvicorn", "multipart", "tensorflow"])
def test_a_missing_extra_is_named_with_its_command(run, find_spec, tmp_path, missing):
    find_spec(missing)
    done = run("studio", str(tmp_path / "project"), "--no-browser")
    assert done.exit_code == 2
    assert "pip install 'kindsight[studio]'" in done.stderr
    assert not (tmp_path / "project").exists()


def test_a_missing_library_of_the_page_is_named_with_its_cure(run, monkeypatch, tmp_path):
    monkeypatch.setattr(assets, "_VENDOR", ("preact/none.js",))
    done = run("studio", str(tmp_path / "project"), "--no-browser")
    assert done.exit_code == 1
    assert "needs Preact and htm, which this installation lacks. Run: " in done.stderr
    assert not (tmp_path / "project").exists()


def test_a_port_in_use_is_named(run, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("studio", str(tmp_path / "project"), "--no-browser", "--port", str(port))
    assert done.exit_code == 1
    assert f"Port {port} of 127.0.0.1 is used by another program" in done.stderr


def test_data_need_a_folder_for_the_project(run, photos, tmp_path):
    done = run("studio", str(photos), "--data", str(photos), "--no-browser")
    assert done.exit_code == 2
    assert "--data needs a project or a new folder" in done.stderr.replace("\n", " ")
