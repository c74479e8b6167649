from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from kindsight.cache.folder import Cache
from kindsight.cli.cache import bytes_text


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
    assert list(shown) == ["folder", "size", "limit", "entries"]
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
    assert json.loads(result.stdout) == {"folder": str(cache.root), "freed": 5000}
    assert [entry.kind for entry in cache.entries()] == ["backbone"]


def test_clear_deletes_everything(run, cache):
    result = run("cache", "clear")
    assert (result.exit_code, result.stdout) == (0, f"6.5 KB freed in {cache.root}\n")
    assert cache.entries() == []


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
    assert "features, measurements, images, activations, backbone, files" in result.stderr
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
