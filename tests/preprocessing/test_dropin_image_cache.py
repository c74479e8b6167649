"""The cache of decoded images: memory, disk, limits, changed files."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from side_by_side import OURS, compare

from kindsight.errors import SettingsError
from kindsight.preprocessing import _batches, _file_batches
from kindsight.preprocessing._file_batches import DecodedImages, Limits, decoded_images_for
from kindsight.preprocessing._loading import LoadSettings, load_pixels

LOADING = LoadSettings("rgb", (6, 7), "nearest", False)
SLOT = 6 * 7 * 3


@pytest.fixture
def limits(monkeypatch):
    gc.collect()  # frees the caches of other tests
    found = Limits()
    monkeypatch.setattr(_file_batches, "_limits", found)
    monkeypatch.setattr(_file_batches, "_caches", type(_file_batches._caches)())
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
    """Return the list of decoded files."""
    seen: list[str] = []

    def load(path, loading):
        seen.append(Path(path).name)
        return load_pixels(path, loading)

    monkeypatch.setattr(_file_batches, "load_pixels", load)
    return seen


def take_all(cache, paths, seen):
    def read(path):
        seen.append(path)
        return load_pixels(path, cache.loading)

    return [cache.take(path, read) for path in paths]


@pytest.mark.parametrize(
    ("memory", "disk", "cached"),
    [(10, 0, 6), (3, 10, 6), (0, 10, 6), (2, 2, 4), (0, 0, 0), (2.5, 1.5, 3)],
)
def test_images_are_cached_within_the_limits(files, limits, memory, disk, cached):
    limits.memory, limits.disk = int(memory * SLOT), int(disk * SLOT)
    cache = DecodedImages(files, LOADING)
    assert cache.in_memory == min(6, int(memory))
    seen: list[str] = []
    expected = [load_pixels(path, LOADING) for path in files]
    for epoch in range(3):
        found = take_all(cache, files[::-1], seen)
        assert all(
            np.array_equal(one, other) for one, other in zip(expected[::-1], found, strict=True)
        )
        assert len(seen) == 6 + epoch * (6 - cached)


@pytest.mark.parametrize("on_disk", [False, True])
def test_changed_file_is_read_again(files, limits, on_disk):
    limits.memory, limits.disk = (0, 10**6) if on_disk else (10**6, 0)
    cache = DecodedImages(files, LOADING)
    seen: list[str] = []
    before = [image.copy() for image in take_all(cache, files, seen)]
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(files[2])
    os.utime(files[4], ns=(1, 1))
    after = take_all(cache, files, seen)
    assert seen[6:] == [files[2], files[4]]
    assert (after[2] == 200).all()
    assert np.array_equal(before[4], after[4])
    Path(files[1]).unlink()
    with pytest.raises(FileNotFoundError):
        take_all(cache, files[1:2], seen)


def test_other_settings_have_another_cache(files, limits):
    cache = decoded_images_for(files, LOADING)
    assert decoded_images_for(files[:3], LOADING) is cache
    others = [
        LoadSettings("grayscale", (6, 7), "nearest", False),
        LoadSettings("rgb", (7, 6), "nearest", False),
        LoadSettings("rgb", (6, 7), "bilinear", False),
        LoadSettings("rgb", (6, 7), "nearest", True),
    ]
    assert len({id(cache), *(id(decoded_images_for(files, other)) for other in others)}) == 1 + len(
        others
    )
    assert decoded_images_for([*files, "more.png"], LOADING) is not cache


def test_unused_cache_frees_its_memory(files, limits):
    limits.memory, limits.disk = 6 * SLOT, 0
    first = DecodedImages(files, LOADING)
    assert DecodedImages(files, LOADING).in_memory == 0
    del first
    gc.collect()
    assert DecodedImages(files, LOADING).in_memory == 6


def test_full_disk_is_not_an_error(files, limits, monkeypatch):
    limits.memory, limits.disk = 0, 10**6
    cache = DecodedImages(files, LOADING)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwritev", full, raising=False)
    monkeypatch.setattr(cache, "_file", None) if not hasattr(os, "preadv") else None
    seen: list[str] = []
    for _ in range(2):
        assert len(take_all(cache, files, seen)) == 6
    assert len(seen) == 12


def test_without_preadv(files, limits, monkeypatch):
    monkeypatch.delattr(os, "preadv", raising=False)
    limits.memory, limits.disk = 0, 10**6
    cache = DecodedImages(files, LOADING)
    seen: list[str] = []
    first = take_all(cache, files, seen)
    assert (
        compare([p[None] for p in first], [p[None] for p in take_all(cache, files, seen)]).most == 0
    )
    assert len(seen) == 6


def test_memory_that_cannot_be_allocated(files, limits, monkeypatch):
    def refuse(*_):
        raise OSError(12, "Cannot allocate memory")

    original = _file_batches.mmap.mmap
    monkeypatch.setattr(
        _file_batches.mmap, "mmap", lambda f, n: refuse() if n >= 6 * SLOT else original(f, n)
    )
    cache = DecodedImages(files, LOADING)
    assert cache.in_memory == 0


def test_limits_come_from_the_environment(monkeypatch):
    monkeypatch.setenv("KINDSIGHT_IMAGE_MEMORY", "3GB")
    monkeypatch.setenv("KINDSIGHT_IMAGE_DISK", "0")
    found = Limits()
    assert (found.memory, found.disk) == (3 * 10**9, 0)
    monkeypatch.setenv("KINDSIGHT_IMAGE_MEMORY", "plenty")
    with pytest.raises(SettingsError, match="plenty"):
        Limits()


def test_control_group_limits_the_memory(tmp_path, monkeypatch):
    group = tmp_path / "memory.max"
    monkeypatch.setattr(_file_batches, "_CGROUP", group)
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
    # Two batches at once may both decode an image that is not cached yet.
    monkeypatch.setattr(_batches._pool, "helpers", 0)
    generator = OURS.ImageDataGenerator(rotation_range=20)
    options = {"target_size": (8, 8), "batch_size": 5, "class_mode": "binary"}
    iterator = generator.flow_from_directory(class_folders, **options)
    for _ in range(3 * len(iterator)):
        next(iterator)
    assert len(reads) == len(set(reads)) + 1 == 16  # two are called p00.jpg
    # A second iterator uses the same cache.
    again = OURS.ImageDataGenerator(rescale=0.1).flow_from_directory(class_folders, **options)
    for _ in range(len(again)):
        next(again)
    assert len(reads) == 16


def test_batches_are_copies_of_the_cache(class_folders, limits):
    generator = OURS.ImageDataGenerator()
    iterator = generator.flow_from_directory(class_folders, (8, 8), batch_size=20, shuffle=False)
    first, _ = next(iterator)
    expected = first.copy()
    first[:] = -1
    assert np.array_equal(next(iterator)[0], expected)
