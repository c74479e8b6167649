"""Tests of the benchmark of two versions: turns, and the verdict on its figures."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def versions():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("versions")


@pytest.fixture(scope="module")
def processes(versions):
    return sys.modules["processes"]


def version(versions, processes, name, seconds):
    runs = [processes.CompletedRun(value, "", cpu=2 * value) for value in seconds]
    return versions.Version(name, Path(), Path(), {versions.SECOND: runs})


def test_each_version_begins_half_of_the_turns(versions):
    turns = list(versions.in_turns(["old", "new"], 3))
    assert turns == [(0, "old"), (0, "new"), (1, "new"), (1, "old"), (2, "old"), (2, "new")]


@pytest.mark.parametrize(("seconds", "met"), [((4.2, 9.0, 4.4), True), ((4.5, 4.4, 4.6), False)])
def test_the_medians_are_compared(versions, processes, seconds, met):
    old = version(versions, processes, "old", (4.0, 4.0, 1.0))
    wall, cpu = versions.sections(old, version(versions, processes, "new", seconds))
    (row,), (busy,) = wall.rows, cpu.rows
    assert row.ratio == pytest.approx(sorted(seconds)[1] / 4.0)
    assert row.met is met
    assert (busy.figure, busy.rival_figure, busy.met) == (2 * sorted(seconds)[1], 8.0, None)


def test_another_package_is_refused(versions, tmp_path):
    other = tmp_path / "src" / "kindsight"
    other.parent.mkdir()
    wrong = versions.Version("old", tmp_path, tmp_path / "folder")
    other.mkdir()
    with pytest.raises(SystemExit, match="must be a source tree"):
        wrong.prepare()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not report it")
def test_processor_time_includes_children(processes):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    assert processes.run([sys.executable, "-c", child]).cpu > 0.3
