"""Features are computed once and cached, whatever happens to files and processes."""

import contextlib
import subprocess
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading import process_files, process_images
from kindsight.digest import content_digest
from kindsight.errors import CacheError, ImageError, KindsightError
from kindsight.images import InputSpec, read_image, resize_image
from kindsight.models.runtime import Interpreter, InterpreterPool
from kindsight.training.frozen import features
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable, row_bytes
from kindsight.training.frozen.features import compute_features, feature_table_path
from kindsight.training.frozen.stored_images import read_greys, read_images, read_stored
from shapes import encoded, shape, write_shapes

SPEC = InputSpec(64, 64)


def settle():
    """Wait until a later change of the files would show in their times."""
    time.sleep(0.1)


@pytest.fixture
def folder(tmp_path):
    """Thirty images of three classes."""
    root = write_shapes(tmp_path / "photos", {"bar": 12, "chequer": 10, "ring": 8})
    settle()
    return root


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@pytest.fixture
def compute(backbone, cache):
    def compute(images, **options):
        dataset = images if isinstance(images, ImageDataset) else ImageDataset.from_folder(images)
        return compute_features(dataset, backbone, options.pop("spec", SPEC), cache, **options)

    return compute


@contextlib.contextmanager
def forbidden(*what):
    """Make opening files, decoding them or running the network fail."""

    def fail(*_, **__):
        raise AssertionError("this must not happen")

    with pytest.MonkeyPatch.context() as patch:
        if "open" in what:
            patch.setattr("kindsight.images.read.read_bytes", fail)
            patch.setattr("pathlib.Path.open", fail)
        if "decode" in what:
            patch.setattr(process_images, "read_loaded", fail)
        if "run" in what:
            patch.setattr(InterpreterPool, "run", fail)
        yield


@contextlib.contextmanager
def counted_runs():
    """Count how often the network is run."""
    runs, real = [], InterpreterPool.run

    def run(pool, image):
        runs.append(image.copy())
        return real(pool, image)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterPool, "run", run)
        yield runs


def test_features_are_the_output_of_the_backbone(folder, compute, backbone):
    found = compute(folder)
    assert found.vectors.shape == (30, backbone.layout.width)
    assert found.vectors[:].dtype == np.float32
    dataset = ImageDataset.from_folder(folder)
    assert found.dataset.path == dataset.path and found.dataset.label == dataset.label
    network = Interpreter(backbone.tflite)
    for row in (0, 13, 29):
        pixels = resize_image(read_image(dataset.file(row), target=(64, 64)), SPEC)
        np.testing.assert_array_equal(found.vectors[row], network(pixels))
        assert found.dataset.digest[row] == content_digest(dataset.file(row).read_bytes())
    assert (found.computed, found.reused, found.problems) == (30, 0, ())
    assert len(np.unique(found.vectors, axis=0)) == 30


def test_cached_features_need_no_file(folder, compute):
    first = compute(folder)
    with forbidden("open", "decode", "run"):
        second = compute(folder)
    assert (second.computed, second.reused) == (0, 30)
    assert second.vectors[:].tobytes() == first.vectors[:].tobytes()
    assert second.dataset == first.dataset


def test_features_of_large_datasets_are_stored_in_half_precision(folder, compute, backbone):
    large, exact = compute(folder, half=True), compute(folder)
    assert (large.computed, exact.computed) == (30, 30)
    assert exact.table.name == large.table.name.replace("-float16", "")
    largest = np.abs(exact.vectors[:]).max()
    assert 0 < np.abs(large.vectors[:] - exact.vectors[:]).max() < 1e-3 * largest
    with forbidden("open", "decode", "run"):
        assert compute(folder, half=True).vectors[:].tobytes() == large.vectors[:].tobytes()
        assert compute(folder).vectors[:].tobytes() == exact.vectors[:].tobytes()
    # No JPEGs, but what the search for near-duplicates needs; images are read again.
    digests, width = [*exact.dataset.digest], backbone.layout.width
    assert read_stored(large.table, width, digests) == [None] * 30
    found = read_images(large.table, width, exact.dataset, SPEC, [digests[4], "of no image"])
    wanted = resize_image(read_image(exact.dataset.file(4), target=(64, 64)), SPEC)
    np.testing.assert_array_equal(found[0].pixels, wanted)
    assert found[1] is None
    with contextlib.closing(FeatureTable(large.table, width)) as table:
        greys = table.similarity("grey", digests, np.dtype((np.uint8, (64, 64))))
    np.testing.assert_array_equal(
        [greys[digest] for digest in digests], read_greys(exact.table, width, digests, 64)
    )
    assert row_bytes(width, True) < 0.6 * row_bytes(width, False)


def test_a_dataset_that_has_become_large_is_not_computed_again(folder, compute, backbone):
    exact = compute(folder)
    (folder / "bar" / "bad.png").write_bytes(b"no image")
    settle()
    broken = compute(folder)
    with forbidden("open", "decode", "run"):
        adopted = compute(folder, half=True)
    assert (adopted.computed, len(adopted.vectors), len(adopted.problems)) == (0, 30, 1)
    assert [str(error) for error in adopted.problems] == [str(error) for error in broken.problems]
    width, digests = backbone.layout.width, [*exact.dataset.digest]
    with contextlib.closing(FeatureTable(adopted.table, width)) as table:
        rows = {row.digest: row for row in table.rows(digests)}
        greys = table.similarity("grey", digests, np.dtype((np.uint8, (64, 64))))
        sizes = table.sizes(digests)
    assert not any(row.jpeg for row in rows.values()) and len(sizes) == 30
    fresh = compute_features(
        exact.dataset, backbone, SPEC, Cache(folder.parent / "other"), half=True
    )
    assert fresh.computed == 30
    assert fresh.vectors[:].tobytes() == adopted.vectors[:].tobytes()
    with contextlib.closing(FeatureTable(fresh.table, width)) as table:
        again = table.similarity("grey", digests, np.dtype((np.uint8, (64, 64))))
    assert all((again[digest] == greys[digest]).all() for digest in digests)


def test_a_dataset_is_large_by_its_number_of_images(folder, compute, monkeypatch):
    monkeypatch.setattr(features, "LARGE_DATASET", 30)
    assert compute(folder).table.stem.endswith("-float16")
    few = ImageDataset.from_folder(folder)[np.arange(29)]
    assert not compute(few).table.stem.endswith("-float16")


def test_any_order_and_subset_is_cached(folder, compute):
    first = compute(folder)
    rows = np.random.default_rng(0).permutation(30)[:17]
    with forbidden("open", "run"):
        part = compute(ImageDataset.from_folder(folder)[rows])
    assert part.vectors[:].tobytes() == first.vectors[rows].tobytes()
    assert (part.computed, part.reused) == (0, 17)


def test_moved_and_renamed_files_are_cached(folder, compute, tmp_path):
    first = compute(folder)
    moved = tmp_path / "elsewhere"
    folder.rename(moved)
    (moved / "ring" / "ring 003.jpg").rename(moved / "ring" / "new name.jpeg")
    (moved / "bar").rename(moved / "zebra")
    with forbidden("decode", "run"):
        second = compute(moved)
    assert (second.computed, second.reused) == (0, 30)
    by_digest = dict(zip(first.dataset.digest, first.vectors, strict=True))
    wanted = np.stack([by_digest[digest] for digest in second.dataset.digest])
    assert second.vectors[:].tobytes() == wanted.tobytes()


def test_a_changed_file_is_computed_again(folder, compute):
    import os

    first = compute(folder)
    file = folder / "bar" / "bar 000.png"
    row = first.dataset.path.index("bar/bar 000.png")
    before, content = file.stat(), file.read_bytes()
    # Other pixels in a file of the same name, size and time of modification: a PNG may be
    # followed by anything.
    other = encoded(np.full((8, 8, 3), 200, np.uint8), "png")
    file.write_bytes(other + b"\0" * (len(content) - len(other)))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    settle()
    second = compute(folder)
    assert (second.computed, second.reused) == (1, 29)
    assert np.abs(second.vectors[row] - first.vectors[row]).max() > 0.1
    same = np.delete(second.vectors, row, 0) == np.delete(first.vectors, row, 0)
    assert same.all()


def test_a_file_written_just_before_reading_is_read_again(folder, compute, monkeypatch):
    # Changed once more within the same tick of the clock, it would have the same times.
    modified = (folder / "bar" / "bar 000.png").stat().st_mtime
    dataset, reads = ImageDataset.from_folder(folder).where(path="bar/bar 000.png"), []
    real = ImageDataset.load
    monkeypatch.setattr(ImageDataset, "load", lambda c, row: reads.append(row) or real(c, row))
    with monkeypatch.context() as patch:
        patch.setattr(process_files.time, "time", lambda: modified + 0.02)
        compute(dataset)
    with forbidden("run"):
        assert compute(dataset).computed == 0
        assert reads == [0, 0]
        compute(dataset)
    assert reads == [0, 0]


def test_copies_are_computed_once(folder, compute):
    content = (folder / "ring" / "ring 000.png").read_bytes()
    for number in range(40):
        (folder / "ring" / f"copy {number}.png").write_bytes(content)
    with counted_runs() as runs:
        found = compute(folder, workers=4)
    assert len(runs) == 30 and (found.computed, found.reused) == (30, 0)
    assert len(found.dataset) == 70
    rows = [row for row, path in enumerate(found.dataset.path) if "copy" in path]
    rows.append(found.dataset.path.index("ring/ring 000.png"))
    assert len(np.unique(found.vectors[rows], axis=0)) == 1 and len(rows) == 41


def test_unreadable_images_are_skipped_and_the_reason_cached(folder, compute):
    jpeg = (folder / "bar" / "bar 003.jpg").read_bytes()
    (folder / "bar" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "bar" / "cut again.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "ring" / "letter.png").write_bytes(b"Dear reader, no image. " * 20)
    settle()
    dataset = ImageDataset.from_folder(folder)
    first = compute(dataset)
    listed = [(error.path, error.code) for error in first.problems]
    assert listed == [
        ("bar/cut again.jpg", "truncated"),
        ("bar/cut.jpg", "truncated"),
        ("ring/letter.png", "not-an-image"),
    ]
    assert first.problem_labels == ("bar", "bar", "ring")
    assert all(error.reason and "cut" not in error.reason for error in first.problems)
    assert len(first.dataset) == len(first.vectors) == 30
    assert not {path for path, _ in listed} & set(first.dataset.path)
    assert (first.computed, first.reused) == (30, 0)
    with forbidden("open", "decode", "run"):
        second = compute(dataset)
    assert [(e.path, e.code, e.reason) for e in second.problems] == [
        (e.path, e.code, e.reason) for e in first.problems
    ]
    assert (second.computed, second.reused) == (0, 30)
    # Mended, it counts.
    (folder / "ring" / "letter.png").write_bytes(encoded(shape("ring", 99), "png"))
    assert (len(compute(dataset).dataset), len(compute(dataset).problems)) == (31, 2)


def test_a_missing_file_is_skipped_until_it_exists_again(folder, compute):
    dataset = ImageDataset.from_folder(folder)
    file = folder / "ring" / "ring 002.png"
    away = file.rename(folder.parent / "away.png")
    found = compute(dataset)
    assert [(e.path, e.code) for e in found.problems] == [("ring/ring 002.png", "missing")]
    assert found.problem_labels == ("ring",) and len(found.dataset) == 29
    away.rename(file)
    again = compute(dataset)
    assert (again.problems, again.computed, again.reused) == ((), 1, 29)
    # Read once more, its features are still there but the image is not.
    settle()
    compute(dataset)
    file.unlink()
    assert [e.code for e in compute(dataset).problems] == ["missing"]


def test_an_empty_file_is_skipped_and_the_reason_cached(folder, compute):
    for name in ("empty.png", "empty too.jpg"):
        (folder / "ring" / name).write_bytes(b"")
    settle()
    wanted = [("ring/empty too.jpg", "empty"), ("ring/empty.png", "empty")]
    assert [(e.path, e.code) for e in compute(folder).problems] == wanted
    with forbidden("open", "decode", "run"):
        found = compute(folder)
    assert [(e.path, e.code) for e in found.problems] == wanted
    assert (found.computed, found.reused) == (0, 30)


def test_impossible_file_names(folder, compute):
    good = folder / "bar" / "bar 000.png"
    found = compute(ImageDataset.from_files([str(good), "a\0b.jpg", "\ud800.jpg"], ["x", "x", "y"]))
    assert [error.code for error in found.problems] == ["missing", "missing"]
    assert [error.path for error in found.problems] == ["a\0b.jpg", "\ud800.jpg"]
    assert len(found.vectors) == 1


def test_nothing_readable_gives_no_rows(tmp_path, compute, backbone):
    (tmp_path / "a.jpg").write_bytes(b"")
    found = compute(ImageDataset.from_files([tmp_path / "a.jpg", tmp_path / "b.jpg"]))
    assert found.vectors.shape == (0, backbone.layout.width) and len(found.dataset) == 0
    assert [error.code for error in found.problems] == ["empty", "missing"]
    assert (found.computed, found.reused) == (0, 0)


def test_arrays_are_cached_by_their_pixels(compute, backbone):
    grey = shape("ring", 5)[:, :, 0]
    images = [shape("bar", 1), shape("bar", 2, side=40), grey, shape("bar", 1)]
    first = compute(ImageDataset.from_arrays(images, ["x", "x", "y", "x"]))
    assert (first.computed, first.reused, len(first.dataset)) == (3, 0, 4)
    network = Interpreter(backbone.tflite)
    for row, image in enumerate(images):
        rgb = image if image.ndim == 3 else np.stack([image] * 3, axis=-1)
        np.testing.assert_array_equal(first.vectors[row], network(resize_image(rgb, SPEC)))
    with forbidden("run"):
        second = compute(ImageDataset.from_arrays(images[::-1]))
    assert (second.computed, second.reused) == (0, 3)
    assert second.vectors[:].tobytes() == first.vectors[::-1].tobytes()


def test_each_input_spec_has_its_own_features(folder, compute):
    ways = [SPEC, InputSpec(64, 64, fit="crop"), InputSpec(64, 64, interpolation="linear")]
    found = [compute(folder, spec=spec) for spec in ways]
    assert [one.computed for one in found] == [30, 30, 30]
    assert len({one.table for one in found}) == 3
    assert not np.array_equal(found[0].vectors, found[1].vectors)
    assert [compute(folder, spec=spec).computed for spec in ways] == [0, 0, 0]


def test_rows_of_another_width_are_computed_again(folder, compute, backbone, cache):
    first = compute(folder)
    with contextlib.closing(FeatureTable(first.table, 7)) as table:
        table.put([FeatureRow(str(d), np.ones(7, np.float32)) for d in first.dataset.digest[:10]])
    second = compute(folder)
    assert (second.computed, second.reused) == (10, 20)
    assert second.vectors[:].tobytes() == first.vectors[:].tobytes()


@pytest.mark.parametrize("damaged", ["features", "files", "both"])
@pytest.mark.parametrize("late", [False, True])
def test_damaged_tables_are_computed_again(folder, compute, cache, damaged, late):
    first = replace(compute(folder), open_tables=())  # otherwise the table stays open
    files = {"features": [first.table], "files": [cache.files_file]}
    files["both"] = files["features"] + files["files"]
    for file in files[damaged]:
        content = bytearray(file.read_bytes())
        # Late: the header is sound, and only the rows are not.
        start = 4096 if late else 0
        content[start:] = np.random.default_rng(1).bytes(len(content) - start)
        file.write_bytes(content)
    second = compute(folder)
    assert second.vectors[:].tobytes() == first.vectors[:].tobytes()
    assert second.computed == (0 if damaged == "files" else 30)
    for file in files[damaged]:
        assert file.with_suffix(".damaged").exists()
    with forbidden("run"):
        assert compute(folder).computed == 0


def test_a_cache_cleared_during_use_is_an_error(folder, compute, monkeypatch):
    compute(folder)
    monkeypatch.setattr(FeatureTable, "known", lambda table, digests: set(digests))
    monkeypatch.setattr(FeatureTable, "_select", lambda *_: iter(()))
    with pytest.raises(CacheError, match="was deleted or emptied while it was used"):
        compute(folder)


def test_progress_counts_to_the_end(folder, compute, monkeypatch):
    monkeypatch.setattr(process_files, "FLUSH_SECONDS", 0.0)
    seen = []
    (folder / "bar" / "bad.jpg").write_bytes(b"no image, but a file all the same")
    compute(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[0] == (0, 31) and seen[-1] == (31, 31)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and len(seen) > 5
    settle()
    compute(folder)
    again = []
    compute(folder, progress=lambda done, total: again.append((done, total)))
    assert set(again) == {(31, 31)}


def test_progress_is_called_from_the_calling_thread(folder, compute):
    threads = set()
    compute(folder, progress=lambda *_: threads.add(threading.get_ident()))
    assert threads == {threading.get_ident()}


def test_features_computed_before_an_interruption_are_cached(folder, compute, monkeypatch):
    monkeypatch.setattr(process_files, "FLUSH_SECONDS", 0.0)

    def stop(done, total):
        if done >= 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compute(folder, progress=stop, workers=1)
    with counted_runs() as runs:
        found = compute(folder)
    assert found.computed == len(runs) <= 20 and found.computed + found.reused == 30


def test_images_with_features_that_are_not_finite_are_skipped(folder, compute, monkeypatch):
    real = InterpreterPool.run

    def run(pool, image):
        result = real(pool, image).copy()
        if image.mean() > 240:
            result[7] = np.nan
        return result

    monkeypatch.setattr(InterpreterPool, "run", run)
    (folder / "bar" / "white.png").write_bytes(encoded(np.full((9, 9, 3), 255, np.uint8), "png"))
    found = compute(folder)
    assert [(e.path, e.code) for e in found.problems] == [("bar/white.png", "corrupt")]
    assert np.isfinite(found.vectors).all()


def test_resized_images_are_stored_for_reports(folder, compute, backbone):
    found = compute(folder)
    digests = [str(found.dataset.digest[4]), "unknown", str(found.dataset.digest[0])]
    one, none, other = read_stored(found.table, backbone.layout.width, digests)
    assert none is None
    for kept, row in ((one, 4), (other, 0)):
        pixels = resize_image(read_image(found.dataset.file(row)), SPEC)
        assert kept.pixels.shape == (64, 64, 3) and (kept.height, kept.width) == (72, 80)
        # A JPEG is not exact; noise is the worst for it. Swapped colours would be far off.
        assert np.abs(kept.pixels.astype(int) - pixels).mean() < 12
        assert np.abs(kept.pixels.mean((0, 1)) - pixels.mean((0, 1))).max() < 3


def test_a_small_limit_keeps_the_table_in_use(folder, backbone, tmp_path):
    cache = Cache(tmp_path / "small", limit=1)
    dataset = ImageDataset.from_folder(folder)
    first = compute_features(dataset, backbone, SPEC, cache)
    assert first.table.exists()
    assert compute_features(dataset, backbone, SPEC, cache).computed == 0
    other = compute_features(dataset, backbone, InputSpec(64, 64, fit="pad"), cache)
    assert other.table.exists() and first.table.exists()
    # It may be deleted once nobody uses it any more.
    first = replace(first, open_tables=())
    cache.prune(keep=other.table)
    assert other.table.exists() and not first.table.exists()


# Several processes ------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
import numpy as np
from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading import process_files
from kindsight.images import InputSpec
from kindsight.training.frozen import features
from kindsight.training.frozen.settings import FrozenTrainer

folder, cache, out, stop = sys.argv[1:]
process_files.FLUSH_SECONDS = 0.0
features.IMAGES_PER_TASK = 1  # so that images can be counted
real = process_files.map_ordered

def stopping(*arguments):
    for number, outcome in enumerate(real(*arguments)):
        if number == int(stop):
            print("stopped", flush=True)
            time.sleep(600)
        yield outcome

if int(stop):
    process_files.map_ordered = stopping
found = features.compute_features(
    ImageDataset.from_folder(folder), FrozenTrainer(size=64).backbone(), InputSpec(64, 64),
    Cache(cache)
)
np.save(out, found.vectors[:])
print("computed", found.computed, flush=True)
"""


def start(environment, folder, cache, out, stop=0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, (folder, cache.root, out, stop))],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_two_processes_at_once(folder, compute, backbone, environment, tmp_path):
    shared = Cache(tmp_path / "shared")
    children = [start(environment, folder, shared, tmp_path / f"{n}.npy") for n in range(3)]
    said = [child.communicate(timeout=280)[0].split() for child in children]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert all(words[0] == "computed" for words in said)
    alone = compute(folder)
    for number in range(3):
        assert np.load(tmp_path / f"{number}.npy").tobytes() == alone.vectors[:].tobytes()
    with forbidden("run"):
        again = compute_features(ImageDataset.from_folder(folder), backbone, SPEC, shared)
    assert again.computed == 0


@pytest.mark.slow
def test_a_killed_process_is_resumed(folder, compute, backbone, environment, tmp_path):
    shared = Cache(tmp_path / "shared")
    for stop in (8, 11):
        child = start(environment, folder, shared, tmp_path / "never.npy", stop)
        assert child.stdout.readline() == "stopped\n"
        child.kill()
        child.wait()
        child.stdout.close()
    assert not (tmp_path / "never.npy").exists()
    found = compute_features(ImageDataset.from_folder(folder), backbone, SPEC, shared)
    # The first got 8 images done, the second 11 more; each may lose the last of them.
    assert 11 <= found.computed <= 13 and found.computed + found.reused == 30
    assert found.vectors[:].tobytes() == compute(folder).vectors[:].tobytes()
    path = feature_table_path(shared, backbone, SPEC)
    assert found.table == path and not path.with_suffix(".damaged").exists()


def test_an_error_in_a_worker_thread_is_raised(folder, compute, monkeypatch):
    # Only what an image does is set aside; a fault of the program must not look like one.
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(InterpreterPool, "run", fail)
    with pytest.raises(MemoryError):
        compute(folder)
    monkeypatch.undo()
    assert compute(folder).computed == 30


def test_errors_keep_their_kind(folder, compute):
    (folder / "bar" / "bad.jpg").write_bytes(b"no image, but a file all the same")
    (error,) = compute(folder).problems
    assert isinstance(error, ImageError) and str(error).startswith("bar/bad.jpg: ")


class Gpu:
    """A worker process with a GPU, for which LiteRT computes."""

    def __init__(self, backbone, worked=10**6):
        self.network, self.worked = Interpreter(backbone.tflite), worked
        self.batches, self.reasons, self.asked = [], [], []

    def wants_gpu(self, images):
        self.asked.append(images)
        return True

    def find_gpu(self):
        return True

    def run_network(self, model, pixels, stage):
        assert model.suffix == ".keras" and stage == ""
        self.batches.append(len(pixels))
        if sum(self.batches) > self.worked:
            raise KindsightError("The GPU is lost.")
        return np.stack([self.network(image) for image in pixels])

    def record_difference(self, difference):
        assert difference == 0

    def leave_gpu(self, reason):
        self.reasons.append(str(reason))


@pytest.mark.parametrize("worked", [10**6, 20])
def test_features_of_a_gpu_are_those_of_litert_and_share_their_cache(
    compute, folder, backbone, cache, tmp_path, worked
):
    gpu = Gpu(backbone, worked)
    found = compute(folder, keras=gpu)
    assert found.computed == 30
    # All images are looked up before the threads start, the missing ones again before the network.
    assert gpu.asked == [30, 30]
    first, *batches = gpu.batches
    assert first == 8  # the comparison
    if worked == 20:
        assert gpu.reasons == ["The GPU is lost."]
    else:
        assert sum(batches) == 30 and gpu.reasons == []
    with forbidden("open", "decode", "run"):
        again = compute(folder)
    assert again.reused == 30
    dataset = ImageDataset.from_folder(folder)
    alone = compute_features(dataset, backbone, SPEC, Cache(tmp_path / "other"))
    np.testing.assert_array_equal(found.vectors[:], alone.vectors[:])
