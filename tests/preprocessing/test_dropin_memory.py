"""What is kept of images: in memory, on disk, or not; read again when a file changes."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from side_by_side import OURS, compare

from kindsight.errors import SettingsError
from kindsight.preprocessing import _batches as _threads
from kindsight.preprocessing import _files
from kindsight.preprocessing import _files as _memory
from kindsight.preprocessing._files import Limits, Shelf, shelf_for
from kindsight.preprocessing._loading import Loading, load_pixels

LOADING = Loading("rgb", (6, 7), "nearest", False)
PLACE = 6 * 7 * 3


@pytest.fixture
def limits(monkeypatch):
    gc.collect()  # other tests' shelves count too
    found = Limits()
    monkeypatch.setattr(_memory, "_limits", found)
    monkeypatch.setattr(_memory, "_shelves", type(_memory._shelves)())
    return found


@pytest.fixture
def files(tmp_path):
    rng = np.random.RandomState(0)
    paths = []
    for number in range(6):
        path = tmp_path / f"{number}.png"
        Image.fromarray(rng.randint(0, 256, (9, 9, 3), dtype=np.uint8)).save(path)
        paths.append(str(path))
    return paths


@pytest.fixture
def reads(monkeypatch):
    """Which files were decoded, in order."""
    seen: list[str] = []

    def load(path, loading):
        seen.append(Path(path).name)
        return load_pixels(path, loading)

    monkeypatch.setattr(_files, "load_pixels", load)
    return seen


def take_all(shelf, paths, seen):
    def read(path):
        seen.append(path)
        return load_pixels(path, shelf.loading)

    return [shelf.take(path, read) for path in paths]


@pytest.mark.parametrize(
    ("memory", "disk", "kept"),
    [(10, 0, 6), (3, 10, 6), (0, 10, 6), (2, 2, 4), (0, 0, 0), (2.5, 1.5, 3)],
)
def test_images_are_kept_within_the_limits(files, limits, memory, disk, kept):
    limits.memory, limits.disk = int(memory * PLACE), int(disk * PLACE)
    shelf = Shelf(files, LOADING)
    assert shelf.in_memory == min(6, int(memory))
    seen: list[str] = []
    right = [load_pixels(path, LOADING) for path in files]
    for epoch in range(3):
        found = take_all(shelf, files[::-1], seen)
        assert all(
            np.array_equal(one, other) for one, other in zip(right[::-1], found, strict=True)
        )
        assert len(seen) == 6 + epoch * (6 - kept)


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_file_that_changed_is_read_again(files, limits, on_disk):
    limits.memory, limits.disk = (0, 10**6) if on_disk else (10**6, 0)
    shelf = Shelf(files, LOADING)
    seen: list[str] = []
    before = [image.copy() for image in take_all(shelf, files, seen)]
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(files[2])
    os.utime(files[4], ns=(1, 1))
    after = take_all(shelf, files, seen)
    assert seen[6:] == [files[2], files[4]]
    assert (after[2] == 200).all()
    assert np.array_equal(before[4], after[4])
    Path(files[1]).unlink()
    with pytest.raises(FileNotFoundError):
        take_all(shelf, files[1:2], seen)


def test_another_way_of_loading_is_another_shelf(files, limits):
    shelf = shelf_for(files, LOADING)
    assert shelf_for(files[:3], LOADING) is shelf
    others = [
        Loading("grayscale", (6, 7), "nearest", False),
        Loading("rgb", (7, 6), "nearest", False),
        Loading("rgb", (6, 7), "bilinear", False),
        Loading("rgb", (6, 7), "nearest", True),
    ]
    assert len({id(shelf), *(id(shelf_for(files, other)) for other in others)}) == 1 + len(others)
    assert shelf_for([*files, "more.png"], LOADING) is not shelf


def test_a_shelf_that_nobody_uses_gives_its_memory_back(files, limits):
    limits.memory, limits.disk = 6 * PLACE, 0
    first = Shelf(files, LOADING)
    assert Shelf(files, LOADING).in_memory == 0
    del first
    gc.collect()
    assert Shelf(files, LOADING).in_memory == 6


def test_a_full_disk_is_no_error(files, limits, monkeypatch):
    limits.memory, limits.disk = 0, 10**6
    shelf = Shelf(files, LOADING)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full, raising=False)
    monkeypatch.setattr(shelf, "_file", None) if not hasattr(os, "preadv") else None
    seen: list[str] = []
    for _ in range(2):
        assert len(take_all(shelf, files, seen)) == 6
    assert len(seen) == 12


def test_where_a_file_cannot_be_read_at_a_place_it_is_read_in_turn(files, limits, monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    limits.memory, limits.disk = 0, 10**6
    shelf = Shelf(files, LOADING)
    seen: list[str] = []
    first = take_all(shelf, files, seen)
    assert (
        compare([p[None] for p in first], [p[None] for p in take_all(shelf, files, seen)]).most == 0
    )
    assert len(seen) == 6


def test_memory_that_the_system_refuses_is_done_without(files, limits, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    right = _memory.mmap.mmap
    monkeypatch.setattr(
        _memory.mmap, "mmap", lambda f, n: refuse() if n >= 6 * PLACE else right(f, n)
    )
    shelf = Shelf(files, LOADING)
    assert shelf.in_memory == 0


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("KINDSIGHT_IMAGE_MEMORY", "3GB")
    monkeypatch.setenv("KINDSIGHT_IMAGE_DISK", "0")
    found = Limits()
    assert (found.memory, found.disk) == (3 * 10**9, 0)
    monkeypatch.setenv("KINDSIGHT_IMAGE_MEMORY", "plenty")
    with pytest.raises(SettingsError, match="plenty"):
        Limits()


def test_a_group_of_processes_may_have_less_memory_than_the_machine(tmp_path, monkeypatch):
    group = tmp_path / "memory.max"
    monkeypatch.setattr(_memory, "_CGROUP", group)
    monkeypatch.delenv("KINDSIGHT_IMAGE_MEMORY", raising=False)
    whole = Limits().memory
    for text, expected in (("max\n", whole), ("1000000\n", 250_000)):
        group.write_text(text)
        assert Limits().memory == expected


def test_limits_can_be_set(limits):
    OURS.set_memory_limit("2MB", disk=5)
    assert (limits.memory, limits.disk) == (2_000_000, 5)
    OURS.set_memory_limit(0)
    assert (limits.memory, limits.disk) == (0, 5)
    with pytest.raises(SettingsError):
        OURS.set_memory_limit("much")


def test_an_iterator_decodes_each_image_once(class_folders, limits, reads, monkeypatch):
    # Two batches under way at once may both read an image that neither has kept yet.
    monkeypatch.setattr(_threads._pool, "helpers", 0)
    generator = OURS.ImageDataGenerator(rotation_range=20)
    options = {"target_size": (8, 8), "batch_size": 5, "class_mode": "binary"}
    iterator = generator.flow_from_directory(class_folders, **options)
    for _ in range(3 * len(iterator)):
        next(iterator)
    assert len(reads) == len(set(reads)) + 1 == 16  # two are called p00.jpg
    # A notebook's cell that is run again finds what is there.
    again = OURS.ImageDataGenerator(rescale=0.1).flow_from_directory(class_folders, **options)
    for _ in range(len(again)):
        next(again)
    assert len(reads) == 16


def test_what_is_kept_is_never_handed_out(class_folders, limits):
    generator = OURS.ImageDataGenerator()
    iterator = generator.flow_from_directory(class_folders, (8, 8), batch_size=20, shuffle=False)
    first, _ = next(iterator)
    right = first.copy()
    first[:] = -1
    assert np.array_equal(next(iterator)[0], right)
