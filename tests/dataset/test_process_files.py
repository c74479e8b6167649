"""process_files: each content is processed once, for every batch size and number of threads."""

from __future__ import annotations

import threading
import time

import pytest

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading import process_files as reading
from kindsight.dataset.reading.process_files import process_files
from kindsight.digest import content_digest
from kindsight.errors import ImageError


class MemoryTable:
    """A table in memory."""

    def __init__(self):
        self.rows = {}

    def known(self, digests):
        return {digest for digest in digests if digest in self.rows}

    def problems(self, digests):
        return {}

    def put(self, rows):
        for digest, length in rows:
            assert length < 0 or digest not in self.rows, "computed twice"
            self.rows[digest] = length


class Lengths:
    """Computes the number of bytes of a file; files that end in x are unusable."""

    def __init__(self, seconds=0.0):
        self.seconds, self.threads = seconds, set()

    def read(self, digest, data):
        end = time.thread_time() + self.seconds
        while time.thread_time() < end:
            pass
        self.threads.add(threading.get_ident())
        if data.endswith(b"x"):
            raise ImageError("corrupt", "It ends in x.")
        return digest, len(data)

    def failed(self, digest, error):
        return digest, -1


@pytest.fixture
def dataset(tmp_path):
    """120 files: 40 contents of 1 to 40 bytes, three of each; ten empty ones; one missing."""
    folder = tmp_path / "files"
    folder.mkdir()
    for number in range(120):
        (folder / f"{number:03}.png").write_bytes(b"a" * (1 + number % 40))
    for number in range(10):
        (folder / f"empty {number}.png").touch()
    (folder / "x.png").write_bytes(b"abcx")
    (folder / "gone.png").write_bytes(b"?")
    names = sorted(file.name for file in folder.iterdir())
    found = ImageDataset(path=names, root=folder)
    (folder / "gone.png").unlink()
    return found


@pytest.mark.parametrize("batch", [1, 7, 32])
@pytest.mark.parametrize("bounds", [(0.05, 1 << 20, 0.0008), (0.0, 1, 0.0), (9.0, 50, 9.0)])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_content_is_processed_once(dataset, tmp_path, monkeypatch, batch, bounds, threads):
    for name, value in zip(("BATCH_SECONDS", "AHEAD_BYTES", "FAST_SECONDS"), bounds, strict=True):
        monkeypatch.setattr(reading, name, value)
    table, seen = MemoryTable(), []
    table.rows[content_digest(b"a" * 5)] = 5  # from an earlier call
    found = process_files(
        dataset, Cache(tmp_path / "cache"), table, table, lambda _: Lengths(), threads,
        lambda done, total: seen.append((done, total)), batch=batch,
    )  # fmt: skip
    expected = {content_digest(b"a" * length): length for length in range(1, 41)}
    assert table.rows == expected | {content_digest(b""): -1, content_digest(b"abcx"): -1}
    assert found.computed == 39
    assert seen[0] == (0, 132) and seen[-1] == (132, 132)
    for row, name in enumerate(dataset.path):
        if name[0].isdigit():
            assert found.digests[row] == content_digest(b"a" * (1 + int(name[:3]) % 40))
    assert {dataset.path[row]: error.code for row, error in found.errors.items()} == {
        "gone.png": "missing"
    }


@pytest.mark.parametrize(("seconds", "several"), [(0.0, False), (0.005, True)])
def test_fast_images_are_processed_on_one_thread(dataset, tmp_path, monkeypatch, seconds, several):
    # On any machine.
    monkeypatch.setattr(reading, "FAST_SECONDS", 0.004)
    monkeypatch.setattr(reading, "WAITING_RATIO", 1e9)
    table, lengths = MemoryTable(), Lengths(seconds)
    process_files(dataset, Cache(tmp_path / "cache"), table, table, lambda _: lengths, 3, batch=4)
    assert (lengths.threads != {threading.get_ident()}) == several
    assert len(table.rows) == 42
