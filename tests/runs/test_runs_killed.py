"""Trainings killed at any moment, or running at the same time, end with the same result."""

import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kindsight.runs.settings import TrainSettings
from shapes import CLASSES, write_shapes

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")

# Count file operations and images run, and kill the process before number `stop`.
CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from fake_keras import use_fake_keras
import pytest
import kindsight.runs.train
from kindsight.models.runtime import InterpreterPool
from kindsight.runs.settings import TrainSettings
from kindsight.dataset.reading import process_files

data, runs, stop = sys.argv[1:]
use_fake_keras(pytest.MonkeyPatch())
process_files.FLUSH_SECONDS = 0.0
count = 0

def note():
    global count
    count += 1
    if count == int(stop):
        os.kill(os.getpid(), signal.SIGKILL)

real = InterpreterPool.run
def run(pool, image):
    note()
    return real(pool, image)
InterpreterPool.run = run

def watch(event, arguments):
    if event == "open":
        path, _, flags = arguments
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            note()
    elif event in ("os.mkdir", "os.rename", "os.remove", "sqlite3.connect", "os.utime"):
        note()

sys.addaudithook(watch)
result = kindsight.runs.train.train(TrainSettings(data, runs=runs, size=64, validation=0.4))
print(count, result.run.name, result.cache["computed"])
"""


@pytest.fixture
def data(tmp_path):
    return write_shapes(tmp_path / "photos", dict.fromkeys(CLASSES, 8), first=800)


@pytest.fixture
def own_cache(tmp_path, backbone, environment):
    """A cache with the built backbone in it, and nothing else."""
    folder = tmp_path / "cache" / "backbones"
    folder.mkdir(parents=True)
    for ending in ("tflite", "keras", "json"):
        source = backbone.tflite.with_suffix(f".{ending}")
        (folder / source.name).hardlink_to(source)
    return {**environment, "KINDSIGHT_CACHE": str(tmp_path / "cache")}


def start(data, runs, environment, stop=0):
    code = CHILD.format(tests=str(Path(__file__).parents[1]))
    return subprocess.Popen(
        [sys.executable, "-c", code, str(data), str(runs), str(stop)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def finish(child):
    out, err = child.communicate(timeout=280)
    assert child.returncode == 0, err
    count, name, computed = out.split()
    return int(count), name, int(computed)


@pytest.mark.slow
def test_killed_several_times_the_run_ends_the_same(data, tmp_path, own_cache, environment):
    events, name, _ = finish(start(data, tmp_path / "undisturbed", environment))
    wanted = tmp_path / "undisturbed" / name
    assert name == "photos-1" and events > 40
    runs = tmp_path / "runs"
    # Random moments in each quarter of the run, early ones first, so that work is left each time.
    draw = random.Random(0)
    stops = [draw.randint(1 + events * n // 4, events * (n + 1) // 4) for n in range(4)]
    killed = 0
    for stop in stops:
        child = start(data, runs, own_cache, stop)
        child.communicate(timeout=280)
        if child.returncode == 0:  # finished before the moment
            break
        assert child.returncode == -signal.SIGKILL
        killed += 1
        assert not list(runs.rglob("bundle.json"))
    assert killed >= 2
    if child.returncode != 0:
        _, name, computed = finish(start(data, runs, own_cache))
        assert name == "photos-1" and computed < 24
    assert [path.name for path in runs.iterdir()] == ["photos-1"]
    run = runs / "photos-1"
    assert {path.name for path in run.iterdir()} == {path.name for path in wanted.iterdir()}
    for name in ("validation.csv", "problems.csv", "model.tflite"):
        assert (run / name).read_bytes() == (wanted / name).read_bytes(), name
    assert not list((tmp_path / "cache").rglob("*.damaged"))


@pytest.mark.slow
def test_killed_once_at_any_moment(data, tmp_path, own_cache):
    # With cached features, so that every moment is after them.
    events, _, _ = finish(start(data, tmp_path / "first", own_cache))
    wanted = (tmp_path / "first" / "photos-1" / "validation.csv").read_bytes()
    events, _, computed = finish(start(data, tmp_path / "second", own_cache))
    assert computed == 0
    children, done = {}, set()
    for stop in range(1, events + 1, max(1, events // 2)):
        runs = tmp_path / f"runs {stop}"
        child = start(data, runs, own_cache, stop)
        child.communicate(timeout=280)
        assert child.returncode == -signal.SIGKILL
        if (runs / "photos-1" / "bundle.json").exists():
            done.add(runs)
        children[runs] = start(data, runs, own_cache)
        if len(children) % 2 == 0:  # two at a time, on one cache
            for one in children.values():
                one.wait(280)
    assert len(children) >= 2 and len(done) <= 1
    for runs, child in children.items():
        name = finish(child)[1]
        # Killed after its very last file was in place, a run is finished.
        assert name == ("photos-2" if runs in done else "photos-1")
        assert len(list(runs.iterdir())) == 1 + (runs in done)
        for run in runs.iterdir():
            assert (run / "validation.csv").read_bytes() == wanted
            left = {path.name for path in run.iterdir()} - {".lock"}
            assert not [name for name in left if name.startswith(".")] and "bundle.json" in left


@pytest.mark.slow
def test_two_trainings_at_the_same_time(data, tmp_path, own_cache):
    children = [start(data, tmp_path / "runs", own_cache) for _ in range(2)]
    found = [finish(child) for child in children]
    assert sorted(name for _, name, _ in found) == ["photos-1", "photos-2"]
    tables = {(tmp_path / "runs" / name / "validation.csv").read_bytes() for _, name, _ in found}
    assert len(tables) == 1
    # Together they computed all features, some perhaps twice.
    assert sum(computed for _, _, computed in found) >= 24
    settings = TrainSettings.from_toml(tmp_path / "runs" / "photos-2" / "settings.toml")
    assert settings.validation == 0.4
