"""The image cache: images are decoded once, whatever happens to files and processes."""

import contextlib
import shutil
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest

from kindsight.cache.array_file import BLOCK, SlotRow, SlotTable
from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading import process_images
from kindsight.dataset.reading.image_cache import cache_images, map_pixels
from kindsight.errors import CacheError
from kindsight.images import InputSpec, read_image, resize_image
from shapes import encoded, shape, write_shapes

SPEC = InputSpec(20, 24)
BYTES = 20 * 24 * 3


@pytest.fixture
def folder(tmp_path):
    """Thirty images of three classes."""
    root = write_shapes(tmp_path / "photos", {"bar": 12, "chequer": 10, "ring": 8})
    time.sleep(0.1)  # until a later change of the files would show in their times
    return root


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "cache")


@contextlib.contextmanager
def no_image_is_read():
    def fail(*_, **__):
        raise AssertionError("this must not happen")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kindsight.images.read.read_bytes", fail)
        patch.setattr(process_images, "read_loaded", fail)
        yield


def cached(folder, cache, **options):
    with cache_images(ImageDataset.from_folder(folder), SPEC, cache, **options) as found:
        return found, found.pixels(np.arange(len(found)))


def table_of(found):
    """Return the table of a file of pixels: the same name without the generation."""
    return found.file.with_suffix("").with_suffix(".sqlite")


def expected(dataset):
    read = (read_image(dataset.load(row), target=SPEC.size) for row in range(len(dataset)))
    return np.stack([resize_image(image, SPEC) for image in read])


def test_pixels_are_decoded_and_resized(folder, cache):
    seen = []
    found, pixels = cached(folder, cache, workers=3, progress=lambda *news: seen.append(news))
    assert pixels.dtype == np.uint8 and pixels.shape == (30, 20, 24, 3)
    assert (pixels == expected(found.dataset)).all()
    assert (found.computed, found.reused, found.problems) == (30, 0, ())
    assert seen[0] == (0, 30) and seen[-1] == (30, 30)
    # In one file, without space that was reserved but not used.
    assert sorted(found.offsets) == list(range(30)) and found.file.stat().st_size == 30 * BYTES
    some = np.array([7, 3, 3])
    with cache_images(ImageDataset.from_folder(folder), SPEC, cache) as again:
        assert (again.pixels(some) == pixels[some]).all()


def test_the_second_time_no_image_is_read(folder, cache):
    first, pixels = cached(folder, cache)
    with no_image_is_read():
        again, same = cached(folder, cache)
    assert (again.computed, again.reused) == (0, 30) and (same == pixels).all()
    (folder / "ring" / "ring 000.png").rename(folder / "ring" / "z.png")
    moved, _ = cached(folder, cache)  # read, not decoded
    assert (moved.computed, moved.reused) == (0, 30) and moved.file == first.file


def test_each_input_spec_has_its_own_file(folder, cache):
    first, _ = cached(folder, cache)
    with cache_images(ImageDataset.from_folder(folder), InputSpec(8, 8), cache) as found:
        assert found.file != first.file and found.computed == 30
        assert found.pixels(np.array([0])).shape == (1, 8, 8, 3)


def test_copies_are_stored_once(folder, cache):
    for name in ("a.png", "b.png"):
        (folder / "bar" / name).write_bytes((folder / "ring" / "ring 000.png").read_bytes())
    found, pixels = cached(folder, cache)
    assert found.computed == 30 and len(found) == 32 and len(set(found.offsets)) == 30
    rows = [found.dataset.path.index(f"bar/{name}.png") for name in "ab"]
    assert (pixels[rows[0]] == pixels[rows[1]]).all()


def test_unreadable_images_are_skipped_and_remembered(folder, cache):
    jpeg = encoded(shape("bar", 1), "jpg")
    (folder / "bar" / "cut.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (folder / "ring" / "empty.png").write_bytes(b"")
    time.sleep(0.1)
    for attempt in range(2):
        with no_image_is_read() if attempt else contextlib.nullcontext():
            found, pixels = cached(folder, cache)
        assert [(error.path, error.code) for error in found.problems] == [
            ("bar/cut.jpg", "truncated"),
            ("ring/empty.png", "empty"),
        ]
        assert found.problem_labels == ("bar", "ring") and len(found) == len(pixels) == 30


def test_images_in_memory(cache):
    arrays = np.stack([shape("ring", n) for n in range(5)])
    with cache_images(ImageDataset.from_arrays(arrays), SPEC, cache) as found:
        pixels = found.pixels(np.arange(5))
    assert all((pixels[n] == resize_image(arrays[n], SPEC)).all() for n in range(5))


def test_original_sizes_are_cached(folder, cache):
    with cache_images(ImageDataset.from_folder(folder), SPEC, cache) as found:
        # A JPEG may have been decoded at a half of its size.
        assert len(found.sizes()) == 30
        assert set(found.sizes()) == {(72, 80), (36, 40)}


def test_cache_entry(folder, cache):
    found, _ = cached(folder, cache)
    entry = next(entry for entry in cache.entries() if entry.kind == "images")
    assert entry.size > 30 * BYTES and entry.path == table_of(found)
    assert cache.clear("images") == entry.size
    assert not found.file.exists() and not entry.path.exists()
    assert cached(folder, cache)[0].computed == 30


def test_images_in_use_are_not_pruned(folder, cache):
    small = Cache(cache.root, limit=10)
    with cache_images(ImageDataset.from_folder(folder), SPEC, small) as found:
        assert small.prune() == [] and found.file.exists()
    assert [entry.kind for entry in small.prune()] == ["images"]
    assert not found.file.exists()


def test_missing_or_truncated_pixels_are_computed_again(folder, cache):
    found, pixels = cached(folder, cache)
    for damage in (lambda f: f.unlink(), lambda f: f.write_bytes(f.read_bytes()[: 12 * BYTES + 5])):
        damage(found.file)
        again, same = cached(folder, cache)
        assert again.computed > 0 and (same == pixels).all()


def test_a_damaged_table_is_renamed(folder, cache):
    found, pixels = cached(folder, cache)
    table = table_of(found)
    table.write_bytes(b"no database at all " * 300)
    again, same = cached(folder, cache)
    assert again.computed == 30 and (same == pixels).all()
    assert table.with_suffix(".damaged").exists()


def test_invalid_positions_in_the_table_are_ignored(folder, cache):
    found, pixels = cached(folder, cache)
    with closing(sqlite3.connect(table_of(found))) as connection:
        for value in (-1, 1000, 2**40, "x", None):
            connection.execute(
                "UPDATE images SET slot = ? WHERE digest = ?", (value, found.dataset.digest[4])
            )
            connection.commit()
            again, same = cached(folder, cache)
            assert again.computed == 1 and (same == pixels).all()


def test_a_full_disk_is_an_error(folder, cache):
    path = cache.images_file("full")
    with closing(SlotTable(path, SPEC.height * SPEC.width * 3)) as table:
        table.pixels.unlink()
        table.pixels.symlink_to("/dev/full")
        from kindsight.cache.array_file import SlotWriter

        with closing(SlotWriter(table)) as maker, pytest.raises(CacheError, match="disk"):
            maker.make("digest", np.zeros((20, 24, 3), np.uint8), (1, 1))


def test_threads_share_one_table(tmp_path):
    # Some threads reserve places while another names those that are written.
    with closing(SlotTable(tmp_path / "t.sqlite", 4)) as table, ThreadPoolExecutor(4) as threads:
        table.pixels.touch()
        table.put([SlotRow("first", 0)])

        def work(number):
            found = []
            for turn in range(60):
                found.append(table.reserve(2))
                table.put([SlotRow(f"{number}-{turn}", found[-1])])
            return found

        firsts = [first for found in threads.map(work, range(4)) for first in found]
        assert sorted(firsts) == list(range(0, 480, 2))
        assert len(table.known(f"{n}-{t}" for n in range(4) for t in range(60))) == 240


def test_an_empty_file_can_be_mapped(tmp_path):
    (tmp_path / "none.pixels").write_bytes(b"")
    assert map_pixels(tmp_path / "none.pixels", (4, 6)).shape == (0, 4, 6, 3)


# Several processes ------------------------------------------------------------------------------

CHILD = """
import sys, time
import numpy as np
from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading import process_files
from kindsight.dataset.reading.image_cache import cache_images
from kindsight.images import InputSpec

folder, cache, out, stop = sys.argv[1:]
process_files.FLUSH_SECONDS = 0.0
real = process_files.map_ordered

def stopping(*arguments):
    for number, outcome in enumerate(real(*arguments)):
        if number == int(stop):
            print("stopped", flush=True)
            time.sleep(600)
        yield outcome

if int(stop):
    process_files.map_ordered = stopping
found = cache_images(ImageDataset.from_folder(folder), InputSpec(20, 24), Cache(cache))
np.save(out, found.pixels(np.arange(len(found))))
print("computed", found.computed, flush=True)
"""


def start(folder, cache, out, stop=0):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, (folder, cache.root, out, stop))],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_killed_process_loses_only_its_last_second(folder, cache, tmp_path):
    for stop in (8, 11):
        child = start(folder, cache, tmp_path / "never.npy", stop)
        assert child.stdout.readline() == "stopped\n"
        child.kill()
        child.wait()
        child.stdout.close()
    found, pixels = cached(folder, cache)
    # The first got 8 images done, the second 11 more; each may lose the last of them.
    assert 11 <= found.computed <= 13 and found.computed + found.reused == 30
    assert (pixels == expected(found.dataset)).all()
    # What the killed ones had reserved stays empty; nobody writes where another may have.
    assert found.offsets.max() >= 2 * BLOCK


def test_rows_added_while_the_table_is_opened_stay(cache, monkeypatch):
    path = cache.images_file("one")
    with closing(SlotTable(path, SPEC.height * SPEC.width * 3)) as first:
        real = SlotTable._writing

        def after_the_other(table):
            # The last moment at which another process can still be faster.
            monkeypatch.setattr(SlotTable, "_writing", real)
            first.pixels.write_bytes(bytes(BYTES))
            first.put([SlotRow("of the other", 0, 20, 24)])
            return real(table)

        monkeypatch.setattr(SlotTable, "_writing", after_the_other)
        with closing(SlotTable(path, SPEC.height * SPEC.width * 3)) as second:
            assert second.slots(["of the other"]).tolist() == [0]
        assert first.slots(["of the other"]).tolist() == [0]


def test_two_processes_at_once(folder, cache, tmp_path):
    children = [start(folder, cache, tmp_path / f"{n}.npy") for n in range(2)]
    assert [child.communicate(timeout=200)[0].split()[0] for child in children] == ["computed"] * 2
    wanted = expected(ImageDataset.from_folder(folder))
    for n in range(2):
        assert (np.load(tmp_path / f"{n}.npy") == wanted).all()
    assert cached(folder, cache)[0].computed == 0


def command(folder, cache, out, text):
    """Start a process that caches a folder's images, waits for a line, and runs `text`."""
    code = CHILD.replace(
        "np.save(", f"print('cached', flush=True)\nsys.stdin.readline()\n{text}\nnp.save("
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, (folder, cache.root, out, 0))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout.readline() == "cached\n", child.communicate()[1]
    return child


READ_AGAIN = """
from kindsight.dataset.reading.image_cache import map_pixels
from kindsight.errors import CacheError
try:  # as a worker process does
    mapped = map_pixels(found.file, (20, 24))[found.offsets]
    assert (mapped == found.pixels(np.arange(len(found)))).all()
except CacheError as error:
    print(error)
"""


@pytest.fixture
def others(tmp_path):
    """As many images with other content."""
    return write_shapes(tmp_path / "others", {"chequer": 18, "ring": 12}, first=100)


def test_clearing_spares_what_another_process_uses(folder, others, cache, tmp_path):
    child = command(folder, cache, tmp_path / "child.npy", READ_AGAIN)
    assert cache.clear("images") == 0
    assert [entry.kind for entry in cache.entries() if entry.kind == "images"] == ["images"]
    _, pixels = cached(others, cache)
    out, errors = child.communicate("\n", timeout=200)
    assert (child.returncode, out) == (0, "computed 30\n"), errors
    assert (np.load(tmp_path / "child.npy") == expected(ImageDataset.from_folder(folder))).all()
    assert (pixels == expected(ImageDataset.from_folder(others))).all()
    assert cache.clear("images") > 0 and not list((cache.root / "images").glob("*.pixels"))


def test_a_cache_that_is_deleted_by_force_never_gives_pixels_of_other_images(
    folder, others, cache, tmp_path
):
    child = command(folder, cache, tmp_path / "child.npy", READ_AGAIN)
    shutil.rmtree(cache.root)
    _, pixels = cached(others, cache)
    assert (pixels == expected(ImageDataset.from_folder(others))).all()
    out, errors = child.communicate("\n", timeout=200)
    assert child.returncode == 0, errors
    # Mapped pixels stay; opening the file now is an error.
    assert "was deleted or emptied while it was used" in out
    assert (np.load(tmp_path / "child.npy") == expected(ImageDataset.from_folder(folder))).all()


@pytest.mark.parametrize("gone", ["images", "."])
def test_a_cache_that_vanishes_while_images_are_read_is_created_again(
    folder, others, cache, monkeypatch, gone
):
    real, calls = process_images.resize_image, []

    def resize(*arguments):
        calls.append(1)
        if len(calls) == 20:  # another process deletes everything and starts anew
            shutil.rmtree(cache.root / gone)
            child = start(others, cache, folder.parent / "other.npy")
            assert child.communicate(timeout=200)[0] == "computed 30\n"
        return real(*arguments)

    monkeypatch.setattr(process_images, "resize_image", resize)
    found, pixels = cached(folder, cache, workers=1)
    assert (pixels == expected(found.dataset)).all() and len(found) == 30
    with cache_images(ImageDataset.from_folder(others), SPEC, cache) as again:
        assert again.computed == 0
        assert (again.pixels(np.arange(30)) == expected(again.dataset)).all()


def test_array_files_of_a_deleted_table_are_deleted(folder, cache):
    found, _ = cached(folder, cache)
    table_of(found).unlink()
    assert cache.entries() and found.file.exists()
    cache.prune()
    assert not found.file.exists()
