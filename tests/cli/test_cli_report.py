"""``kindsight report``: writes the pages, overwrites nothing of the user's, names what failed."""

from __future__ import annotations

import json
import shutil

import pytest


@pytest.fixture
def folder(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(trained.run, tmp_path / "one")


def test_the_pages_of_a_run_are_written_again(folder, run):
    for name in ("report.html", "model_card.md"):
        (folder / name).unlink()
    done = run("report", "one", "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["runs"] == ["one"]
    assert found["bytes"] == (folder / "report.html").stat().st_size
    assert found["images"] > 0
    assert (folder / "model_card.md").is_file()
    assert run("report", "one", "--quiet").exit_code == 0  # replaces its own page


def test_a_file_of_the_user_is_not_overwritten(folder, run, tmp_path):
    (tmp_path / "page.md").write_text("mine")
    refused = run("report", "one", "--out", "page.html")
    assert refused.exit_code == 2
    assert "page.md exists" in refused.stderr
    assert not (tmp_path / "page.html").exists()
    assert run("report", "one", "--out", "page.html", "--force", "--quiet").exit_code == 0
    assert (tmp_path / "page.md").read_text("utf-8") != "mine"


def test_two_runs_are_shown_side_by_side(folder, run, tmp_path):
    shutil.copytree(folder, tmp_path / "two")
    done = run("report", "one", "two", "--json", "--quiet")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["report"] == "runs.html"
    (difference,) = found["comparison"]["differences"]
    assert difference["run"] == "two"
    assert difference["difference"] == 0
    assert run("report", "one", "two").exit_code == 2  # runs.html exists


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing"], 1, "nothing"),
        (["one", "one"], 2, "twice"),
        (["one"] * 7, 2, "2 to 6"),
    ],
)
def test_errors_are_short(folder, run, arguments, code, message):
    done = run("report", *arguments)
    assert done.exit_code == code
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2
