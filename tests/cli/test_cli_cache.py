from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kindsight.cache.folder import Cache
from kindsight.cli.cache import bytes_text
from kindsight.training.frozen.feature_cache import FeatureTable


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache of two tables of features (the second used last) and a backbone."""
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "cache"))
    cache = Cache()
    for age, (name, size) in enumerate({"old": 3000, "new": 2000}.items()):
        path = cache.features_file(name)
        path.write_bytes(bytes(size))
        os.utime(path, (1e9 + age, 1e9 + age))
    (cache.folder("backbones") / "net.tflite").write_bytes(bytes(1500))
    return cache


def test_show_is_what_the_group_does_by_itself(run, cache):
    both = [json.loads(run("cache", *words, "--json").stdout) for words in ([], ["show"])]
    assert both[0] == both[1]
    shown = both[0]
    assert list(shown) == ["folder", "size", "limit", "notes", "entries"]
    assert (shown["folder"], shown["size"], shown["limit"]) == (str(cache.root), 6500, 10**10)
    found = {(entry["kind"], entry["name"], entry["size"]) for entry in shown["entries"]}
    assert found == {
        ("features", "old", 3000),
        ("features", "new", 2000),
        ("backbone", "net", 1500),
    }


def test_show_as_text(run, cache):
    lines = run("cache").stdout.splitlines()
    assert lines[0] == f"6.5 KB in {cache.root}"
    assert "10.0 GB (KINDSIGHT_CACHE_LIMIT)" in lines[1]
    assert any(line.split()[:3] == ["features", "3.0", "KB"] for line in lines)
    assert all(any(name in line for line in lines) for name in ("old.sqlite", "net.tflite"))


def test_an_empty_cache_is_shown_and_not_made(run, tmp_path, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path / "none"))
    assert run("cache").stdout.startswith(f"0 bytes in {tmp_path / 'none'}")
    assert not (tmp_path / "none").exists()


def test_clear_deletes_one_kind(run, cache):
    result = run("cache", "clear", "--kind", "features", "--json")
    assert json.loads(result.stdout) == {"folder": str(cache.root), "freed": 5000, "in_use": []}
    assert [entry.kind for entry in cache.entries()] == ["backbone"]


def test_clear_deletes_everything(run, cache):
    result = run("cache", "clear")
    assert (result.exit_code, result.stdout) == (0, f"6.5 KB freed in {cache.root}\n")
    assert cache.entries() == []


def test_clear_says_what_is_in_use(run, cache):
    path = cache.features_file("open")
    with contextlib.closing(FeatureTable(path, 3)):
        result = run("cache", "clear")
        shown = json.loads(run("cache", "clear", "--json").stdout)
    assert result.exit_code == 0 and result.stdout.startswith("6.5 KB freed")
    assert "1 file not deleted: a running process uses it" in result.stderr
    assert [entry["name"] for entry in shown["in_use"]] == ["open"]
    run("cache", "clear")
    assert cache.entries() == []


HOLDER = """
import sys
from pathlib import Path
from kindsight.cache.folder import mark_used
mark_used(Path(sys.argv[1]))
print("marked", flush=True)
sys.stdin.readline()
"""


def test_clear_spares_backbones_that_another_process_uses(run, cache):
    folder = cache.folder("backbones")
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"marked\n"
    result = run("cache", "clear", "--kind", "backbone")
    assert "1 file not deleted" in result.stderr and (folder / "net.tflite").exists()
    child.kill()
    child.communicate()
    assert run("cache", "clear", "--kind", "backbone").stderr == ""
    assert not (folder / "net.tflite").exists()


def test_clear_touches_no_folder_that_is_not_a_cache(run, tmp_path, monkeypatch):
    (tmp_path / "backbones").mkdir()
    (tmp_path / "backbones" / "mine.tflite").write_bytes(b"mine")
    monkeypatch.setenv("KINDSIGHT_CACHE", str(tmp_path))
    result = run("cache", "clear")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing was deleted" in result.stderr
    assert (tmp_path / "backbones" / "mine.tflite").exists()


def test_an_unknown_kind_is_a_misuse(run, cache):
    result = run("cache", "clear", "--kind", "feature")
    assert result.exit_code == 2
    assert "features, measurements, images, activations, backbone, shards, files" in result.stderr
    assert len(cache.entries()) == 3


def test_prune_keeps_to_the_limit_and_to_what_was_used_last(run, cache, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "2KB")
    shown = json.loads(run("cache", "prune", "--json").stdout)
    assert shown["freed"] == 3000
    assert [entry["name"] for entry in shown["deleted"]] == ["old"]
    assert run("cache", "prune").stdout == f"0 bytes freed, 3.5 KB left in {cache.root}\n"


def test_a_limit_that_is_no_size_is_a_misuse(run, cache, monkeypatch):
    monkeypatch.setenv("KINDSIGHT_CACHE_LIMIT", "much")
    result = run("cache")
    assert result.exit_code == 2
    assert "got 'much'" in result.stderr


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 KB"), (14_349_000, "14.3 MB"),
        (10**10, "10.0 GB"), (2.5e15, "2,500.0 TB"),
    ],
)  # fmt: skip
def test_bytes_in_words(size, text):
    assert bytes_text(int(size)) == text
