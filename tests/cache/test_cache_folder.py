"""The cache folder: location, content, pruning and clearing."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from kindsight.cache.folder import Cache, parse_size
from kindsight.cache.sqlite_table import delete_unused
from kindsight.errors import CacheError, SettingsError


def write(path, size, used=None):
    """Make a file of `size` bytes, last used `used` seconds after 1970."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0" * size)
    if used is not None:
        os.utime(path, (used, used))
    return path


@pytest.fixture
def cache(tmp_path):
    """A cache with one backbone, three tables of 1000 bytes, and the index of files."""
    cache = Cache(tmp_path / "cache", limit=10_000)
    cache.folder()
    write(cache.root / "backbones" / "net.tflite", 500, 900)
    write(cache.root / "backbones" / "net.keras", 600, 800)
    write(cache.root / "backbones" / "net.json", 10)
    for used, name in ((300, "old"), (100, "oldest"), (500, "new")):
        write(cache.features_file(name), 1000, used)
    write(cache.files_file, 50, 700)
    return cache


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("20GB", 20_000_000_000),
        ("20 gb", 20_000_000_000),
        (" 1.5 MB ", 1_500_000),
        ("3k", 3000),
        ("2T", 2 * 10**12),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "1e9", "1,5 GB", "1 XB", "1 GBB", "nan", "1 G B"]
)
def test_invalid_sizes(text):
    with pytest.raises(SettingsError, match="such as 20GB"):
        parse_size(text)


def test_folder_and_limit_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "x"))
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "3 MB")
    assert (Cache().root, Cache().limit) == (tmp_path / "x", 3_000_000)
    given = Cache(tmp_path / "y", limit=5)
    assert (given.root, given.limit) == (tmp_path / "y", 5)
    monkeypatch.delenv("KINDSIGHT_CACHE_LIMIT")
    assert Cache().limit == 10_000_000_000
    monkeypatch.delenv("KINDSIGHT_CACHE")
    assert Cache().root.name == "kindsight" and Cache().root.is_absolute()
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "much")
    with pytest.raises(SettingsError, match="much"):
        Cache()


def test_creating_a_cache_object_writes_nothing(tmp_path):
    cache = Cache(tmp_path / "cache")
    assert (cache.entries(), cache.size(), cache.prune(), cache.clear()) == ([], 0, [], 0)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_marked_as_a_cache(tmp_path):
    assert Cache(tmp_path / "a" / "b").folder("features") == tmp_path / "a" / "b" / "features"
    # The first 43 bytes are what https://bford.info/cachedir/ prescribes.
    tag = (tmp_path / "a" / "b" / "CACHEDIR.TAG").read_bytes()
    assert tag[:43] == b"Signature: 8a477f597d28d172789f06886806bc55"


def test_a_folder_that_cannot_be_made(tmp_path):
    write(tmp_path / "file", 1)
    with pytest.raises(CacheError, match="give a folder as `cache`"):
        Cache(tmp_path / "file" / "cache").folder()


def test_entries_most_recently_used_first(cache):
    found = [(entry.kind, entry.name, entry.size, entry.used) for entry in cache.entries()]
    assert found == [
        ("backbone", "net", 500, 900),
        ("backbone", "net", 600, 800),
        ("files", "files", 50, 700),
        ("features", "new", 1000, 500),
        ("features", "old", 1000, 300),
        ("features", "oldest", 1000, 100),
    ]
    assert cache.size() == 4150


def test_journals_count_with_their_table(cache):
    write(cache.root / "features" / "old.sqlite-wal", 200)
    write(cache.root / "features" / "old.sqlite-shm", 30)
    write(cache.root / "features" / "old.damaged", 4)
    assert {entry.name: entry.size for entry in cache.entries()}["old"] == 1234
    assert len(cache.entries()) == 6


def left(cache):
    return sorted(path.stem for path in (cache.root / "features").glob("*.sqlite"))


def test_nothing_is_pruned_within_the_limit(cache):
    assert cache.prune() == [] and left(cache) == ["new", "old", "oldest"]


@pytest.mark.parametrize(
    ("limit", "keep", "stays"),
    [
        (3000, None, ["new", "old", "oldest"]),
        (2999, None, ["new", "old"]),
        (1000, None, ["new"]),
        (0, None, []),
        (2999, "oldest", ["new", "oldest"]),
        (1000, "oldest", ["oldest"]),
        (0, "new", ["new"]),
    ],
)
def test_least_recently_used_tables_are_pruned(cache, limit, keep, stays):
    cache.limit = limit
    deleted = cache.prune(keep=cache.features_file(keep) if keep else None)
    assert left(cache) == stays
    assert sorted(entry.name for entry in deleted) == sorted({"new", "old", "oldest"} - set(stays))
    # Neither backbones nor the index of files are tables of features.
    assert len(cache.entries()) == 3 + len(stays)


def test_a_table_that_is_open_is_not_pruned(cache):
    cache.limit = 0
    path = cache.features_file("oldest")
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE images (digest)")
        cache.prune()
        assert left(cache) == ["oldest"] and not delete_unused(path) and path.exists()
        connection.execute("INSERT INTO images VALUES ('a')")
        connection.commit()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM images").fetchall() == [("a",)]
    assert delete_unused(path) and left(cache) == []


def test_pruning_deletes_journals_too(cache):
    cache.limit = 2000
    write(cache.root / "features" / "oldest.sqlite-wal", 200)
    write(cache.root / "features" / "oldest.damaged", 200)
    cache.prune()
    assert not list((cache.root / "features").glob("oldest*"))


def test_a_table_that_vanishes_meanwhile(cache, monkeypatch):
    real = Path.stat

    def stat(path, **options):
        if path.name == "old.sqlite":
            raise FileNotFoundError(path)
        return real(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    assert "old" not in [entry.name for entry in cache.entries()] and len(cache.entries()) == 5


@pytest.mark.parametrize(
    ("kind", "freed", "stays"),
    [
        ("features", 3000, {"backbone", "files"}),
        ("backbone", 1100, {"features", "files"}),
        ("files", 50, {"features", "backbone"}),
        (None, 4150, set()),
    ],
)
def test_clearing(cache, kind, freed, stays):
    assert cache.clear(kind) == freed
    assert {entry.kind for entry in cache.entries()} == stays
    if kind in (None, "backbone"):
        assert not (cache.root / "backbones" / "net.json").exists()


def test_clearing_leaves_other_files(cache):
    ours = cache.root / "features"
    foreign = [write(ours / "thesis.docx", 5), write(ours / "mine" / "data.csv", 5)]
    foreign += [write(cache.root / "backbones" / "bone.png", 5), write(cache.root / "x.txt", 5)]
    cache.clear()
    assert all(path.exists() for path in foreign)
    assert not list(ours.glob("*.sqlite"))


def test_a_folder_that_is_no_cache_is_not_cleared(tmp_path):
    kept = [
        write(tmp_path / "features" / "results.sqlite", 5),
        write(tmp_path / "backbones" / "x.keras", 5),
        write(tmp_path / "files.sqlite", 5),
    ]
    with pytest.raises(CacheError, match=r"CACHEDIR\.TAG.*nothing was deleted"):
        Cache(tmp_path).clear()
    assert all(path.exists() for path in kept)


def test_too_little_space_is_an_error_before_the_work(tmp_path, monkeypatch):
    cache, table = Cache(tmp_path / "cache"), tmp_path / "table.sqlite"
    usage = shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr("kindsight.cache.folder.shutil.disk_usage", lambda _: usage)
    cache.require_space(10, 100_000, table)
    with pytest.raises(CacheError, match=r"20 images need 0\.0 GB.*on another disk as `cache`"):
        cache.require_space(20, 100_000, table)
    # Images that the table holds need no room.
    with contextlib.closing(sqlite3.connect(table)) as rows, rows:
        rows.execute("CREATE TABLE images (digest TEXT)")
        rows.executemany("INSERT INTO images VALUES (?)", [(str(n),) for n in range(12)])
    cache.require_space(20, 100_000, table)
