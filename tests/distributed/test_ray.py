"""A Ray cluster on this machine: the same rows as local ones, whatever dies."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from kindsight.cache.folder import Cache
from kindsight.checks.measurements import MeasuringObserver, measure_dataset
from kindsight.dataset import ImageDataset, from_arrays
from kindsight.dataset.reading import on_cluster
from kindsight.distributed import LostTask, open_executor
from kindsight.errors import ImageError
from kindsight.images import InputSpec
from kindsight.predictor import Predictor
from kindsight.training.frozen.features import compute_features
from shapes import write_shapes
from tiny_bundle import write_bundle

ray = pytest.importorskip("ray")
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.slow

SPEC = InputSpec(64, 64)


@pytest.fixture(scope="module")
def executor():
    """An executor on a cluster of two cores, which all tests of this module share."""
    folder = tempfile.mkdtemp(prefix="ks", dir="/tmp")  # the path of a socket must be short
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_TMPDIR", folder)
        patch.delenv("RAY_ADDRESS", raising=False)
        patch.setattr("kindsight.distributed.ray_cluster.count_cores", lambda: 2)
        try:
            with open_executor("ray") as executor:
                yield executor
        finally:
            ray.shutdown()
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Sixty images of two kinds, a copy, an empty file and one that is no image."""
    folder = write_shapes(tmp_path_factory.mktemp("ray") / "photos", {"bar": 30, "ring": 30})
    first = sorted(folder.glob("bar/*"))[0]
    shutil.copy(first, first.with_name("copy" + first.suffix))
    (folder / "ring" / "empty.png").write_bytes(b"")
    (folder / "ring" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    time.sleep(0.1)  # until a later change of the files would show in their times
    return folder


def stored_rows(cache: Cache) -> list[str]:
    """Return all rows of the tables of a cache, but the stamps of files."""
    rows = []
    for path in sorted(cache.root.rglob("*.sqlite")):
        with sqlite3.connect(path) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            for (name,) in tables.fetchall():
                found = connection.execute(f"SELECT * FROM {name}").fetchall()
                rows += [f"{path.name} {name} {row}" for row in found]
    return sorted(rows)


def test_results_are_in_the_order_of_the_tasks(executor):
    shared = executor.share(np.arange(100))

    def make():
        numbers = shared.get()

        def work(task):
            time.sleep(0.02 if task % 3 else 0.0)
            return int(numbers[task]) ** 2, os.getpid()

        return work

    results = list(executor.map(make, range(60)))
    assert [square for square, _ in results] == [n * n for n in range(60)]
    assert len({process for _, process in results}) == 2


def test_a_task_that_ends_its_process_is_lost_alone_and_errors_are_raised(executor):
    def make():
        def work(task):
            if task == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            if task == 9:
                raise ImageError("corrupt", "It is no image.", "a.jpg")
            return task

        return work

    results = executor.map(make, range(12))
    assert [next(results) for _ in range(9)] == [0, 1, 2, 3, 4, LostTask(), 6, 7, 8]
    with pytest.raises(ImageError, match=r"a\.jpg: It is no image\.") as raised:
        next(results)
    assert raised.value.code == "corrupt"


def test_rows_are_equal_to_the_local_ones_and_a_killed_worker_changes_nothing(
    executor, images, backbone, tmp_path, monkeypatch
):
    dataset = ImageDataset.from_folder(images)
    caches = {on: Cache(tmp_path / on) for on in ("local", "ray")}
    killed = []

    def kill(done, total):
        """Kill a worker once some results are here."""
        if 0 < done < total and not killed:
            killed.extend(kill_workers(1))

    monkeypatch.setattr(on_cluster, "MIN_BLOCK", 2)
    monkeypatch.setattr("kindsight.dataset.reading.process_files.FLUSH_SECONDS", 0.0)
    found = {}
    for on, cache in caches.items():
        with MeasuringObserver(cache, dataset) as observer:
            found[on] = compute_features(
                dataset, backbone, SPEC, cache, observer=observer, on=on,
                progress=kill if on == "ray" else None,
            )  # fmt: skip
        measure_dataset(dataset, cache, on=on)
    assert killed
    assert stored_rows(caches["ray"]) == stored_rows(caches["local"])
    assert found["ray"].computed == found["local"].computed == 60
    assert found["ray"].dataset == found["local"].dataset
    assert np.array_equal(found["ray"].vectors[:], found["local"].vectors[:])
    assert [(e.path, e.code) for e in found["ray"].problems] == [
        ("ring/broken.png", "truncated"), ("ring/empty.png", "empty"),
    ]  # fmt: skip


def test_images_in_memory(executor, backbone, tmp_path):
    arrays = np.random.default_rng(0).integers(0, 256, (12, 40, 50, 3), np.uint8)
    dataset = from_arrays(arrays, ["a", "b"] * 6)
    caches = {on: Cache(tmp_path / on) for on in ("local", "ray")}
    for on, cache in caches.items():
        compute_features(dataset, backbone, SPEC, cache, on=on)
    assert stored_rows(caches["ray"]) == stored_rows(caches["local"])
    assert compute_features(dataset, backbone, SPEC, caches["ray"], on="ray").computed == 0


def test_an_image_that_ends_each_process_is_named_and_the_others_are_read(executor, images):
    dataset = ImageDataset.from_folder(images)
    poison = dataset.path[7]

    class Processor:
        def read(self, digest, data):
            if len(data) == size:
                os.kill(os.getpid(), signal.SIGSEGV)
            return digest

        def failed(self, digest, error):
            return digest

        def collected(self):
            return []

    (images / "bar" / "poison.png").write_bytes((images / poison).read_bytes() + bytes(1234))
    try:
        dataset = ImageDataset.from_folder(images)
        size = (images / "bar" / "poison.png").stat().st_size
        cluster = on_cluster.Cluster("ray", lambda share: Processor)
        rows = list(
            on_cluster.process_on_cluster(cluster, dataset, range(12), [], lambda row: None)
        )
    finally:
        (images / "bar" / "poison.png").unlink()
    assert [row.row for row in rows] == list(range(12))
    failed = [dataset.path[row.row] for row in rows if row.error is not None]
    assert failed == [path for path in dataset.path[:12] if "poison" in path]


def kill_workers(count: int) -> list[int]:
    """Kill processes that compute tasks; return their numbers."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline"]):
        if len(found) < count and "TaskWorker" in " ".join(process.info["cmdline"] or ()):
            process.send_signal(signal.SIGKILL)
            found.append(process.pid)
    return found


# Train, and with a number of images end this process when so many are done.
CHILD = """
import os, signal, sys
sys.path.insert(0, {tests!r})
from fake_keras import use_fake_keras
import pytest
import kindsight.runs.train
from kindsight.dataset.reading import on_cluster, process_files
from kindsight.runs.settings import TrainSettings

data, runs, on, stop = sys.argv[1:]
use_fake_keras(pytest.MonkeyPatch())
process_files.FLUSH_SECONDS = 0.0
on_cluster.MIN_BLOCK = 2

def progress(stage, done, total):
    if stage == "features" and done < total and 0 < int(stop) <= done:
        os.kill(os.getpid(), signal.SIGKILL)

settings = TrainSettings(data, runs=runs, size=64, validation=0.4, on=on)
result = kindsight.runs.train.train(settings, progress=progress)
print(result.run.name, result.cache["computed"])
"""


def train(data, runs, environment, on, stop=0):
    code = CHILD.format(tests=str(Path(__file__).parents[1]))
    command = [sys.executable, "-c", code, str(data), str(runs), on, str(stop)]
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=280, check=False
    )


def test_a_training_that_was_killed_on_ray_ends_as_one_here(
    executor, images, backbone, environment, tmp_path
):
    caches = {}
    for name in ("here", "ray"):
        folder = tmp_path / name / "backbones"
        folder.mkdir(parents=True)
        for ending in ("tflite", "keras", "json"):
            source = backbone.tflite.with_suffix(f".{ending}")
            (folder / source.name).hardlink_to(source)
        caches[name] = {**environment, "KINDSIGHT_CACHE": str(folder.parent)}
    caches["ray"]["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address

    killed = train(images, tmp_path / "runs", caches["ray"], "ray", stop=20)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (table,) = (tmp_path / "ray" / "features").glob("*.sqlite")
    with sqlite3.connect(table) as connection:
        (done,) = connection.execute("SELECT count(*) FROM images WHERE code = ''").fetchone()
    assert 10 <= done < 60

    continued = train(images, tmp_path / "runs", caches["ray"], "ray")
    assert continued.returncode == 0, continued.stderr
    assert continued.stdout.split() == ["photos-1", str(60 - done)]
    assert "ray" not in continued.stderr.replace(str(tmp_path), "").lower()

    local = train(images, tmp_path / "local", caches["here"], "local")
    assert local.returncode == 0, local.stderr
    for name in ("validation.csv", "problems.csv", "model.tflite"):
        found, wanted = (tmp_path / runs / "photos-1" / name for runs in ("runs", "local"))
        assert found.read_bytes() == wanted.read_bytes(), name


def test_a_node_that_is_cut_off_costs_its_unfinished_blocks(images, tmp_path):
    code = NODE.format(benchmarks=str(BENCHMARKS), data=str(images), log=str(tmp_path / "log"))
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    if done.stdout == "no":
        pytest.skip("needs network namespaces")
    found = json.loads(done.stdout)
    assert found["equal"] and found["images"] == 61
    # Tasks of four images: three that were at the node, and those whose results had not left it.
    assert found["measured again"] <= 24


NODE = """
import json, sys
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
from kindsight.dataset import ImageDataset
from ray_failures import can_cut_nodes, run, two_nodes

if not can_cut_nodes():
    print("no", end="")
    sys.exit()
dataset = ImageDataset.from_folder({data!r})
bad = ("ring/empty.png", "ring/broken.png")
dataset = dataset[[row for row, path in enumerate(dataset.path) if path not in bad]]
with two_nodes() as (address, cut):
    print(json.dumps(run(address, dataset, Path({log!r}), cut, 0.1)))
"""


def test_predictions_and_an_evaluation_are_those_of_this_machine(executor, images, tmp_path):
    bundle = write_bundle(tmp_path / "tiny")
    files = [*sorted(images.rglob("*.*")), images / "absent.png"]
    arrays = ImageDataset.from_arrays([np.full((9, 9, 3), 9 * k, np.uint8) for k in range(7)])
    names = [("red", "blue")[number % 2] for number in range(len(files))]
    labelled = ImageDataset.from_files(files, names)
    local = Predictor(bundle)
    with Predictor(bundle, on="ray") as remote:
        for here, there in (
            (local.predict(files), remote.predict(files)),
            (local.predict_dataset(arrays), remote.predict_dataset(arrays)),
        ):
            for one, other in zip(here, there, strict=True):
                assert one.to_dict() == other.to_dict() and str(one.error) == str(other.error)
                if one.error is None:
                    assert one.logits.tobytes() == other.logits.tobytes()
                    assert one.probabilities.tobytes() == other.probabilities.tobytes()
        expected, found = local.evaluate(labelled), remote.evaluate(labelled)
    assert found.evaluation.to_dict() == expected.evaluation.to_dict()
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert list(found.digests) == list(expected.digests) and len(found.problems) == 3
