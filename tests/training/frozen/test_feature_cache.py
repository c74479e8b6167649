"""The feature cache and the file index: rows are returned as stored; damage costs time only."""

import contextlib
import os
import sqlite3
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from kindsight.cache import sqlite_table as sqlite_file
from kindsight.cache.sqlite_table import DamagedTableError, LostTableError
from kindsight.dataset.reading.process_files import FileIndex, FileStamp
from kindsight.errors import CacheError
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.near_duplicates import SIMILARITY, measure_similarity


def vector(*numbers):
    return np.array(numbers, np.float32)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "net.sqlite"


@pytest.fixture
def table(path):
    with contextlib.closing(FeatureTable(path, 3)) as table:
        yield table


def test_features_are_returned_in_the_order_of_the_digests(table):
    table.put([FeatureRow("a", vector(1, 2, 3)), FeatureRow("b", vector(4, 5, 6))])
    found = table.vectors(["b", "a", "b"])
    assert found.dtype == np.float32
    assert found.tolist() == [[4, 5, 6], [1, 2, 3], [4, 5, 6]]
    assert table.vectors([]).shape == (0, 3)


def test_features_are_stored_exactly(table):
    random = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32) * 1e-20
    table.put([FeatureRow(f"{row}", random[row]) for row in range(5)])
    assert table.vectors(["0", "1", "2", "3", "4"]).tobytes() == random.tobytes()
    # Every second number of an array is no array of neighbours.
    table.put([FeatureRow("x", np.arange(6, dtype=np.float32)[::2])])
    assert table.vectors(["x"]).tolist() == [[0, 2, 4]]


@pytest.mark.parametrize("size", [1e-30, 3e-7, 1.0, 1e6, 1e30])
def test_half_precision_holds_features_of_any_size(tmp_path, size):
    random = np.random.default_rng(4).normal(size=(9, 150)).astype(np.float32)
    values = random * np.float32(size)
    values[:, 64:128] *= 1e-4  # another layer
    values[3] = 0
    values[4, :64] = 0
    digests = [f"{row}" for row in range(9)]
    with contextlib.closing(FeatureTable(tmp_path / "net-float16.sqlite", 150)) as half:
        half.put([FeatureRow(*pair) for pair in zip(digests, values, strict=True)])
        found = half.vectors(digests)
        assert half.known([*digests, "x"]) == {*digests}
        half.put([FeatureRow("3", values[5])])
        np.testing.assert_array_equal(half.vectors(["3"]), found[5:6])  # whatever else is stored
    for columns in (slice(0, 64), slice(64, 128), slice(128, 150)):
        largest = np.abs(values[:, columns]).max(axis=1, keepdims=True)
        error = np.abs(found - values)[:, columns]
        assert (error <= 2.0**-11 * np.abs(values[:, columns]) + 2.0**-24 * largest).all()
    assert found.dtype == np.float32 and not found[3].any()


def test_tables_of_both_precisions_do_not_read_each_other(tmp_path):
    with contextlib.closing(FeatureTable(tmp_path / "net.sqlite", 3)) as table:
        table.put([FeatureRow("a", vector(1, 2, 3))])
    (tmp_path / "net.sqlite").rename(tmp_path / "net-float16.sqlite")
    with contextlib.closing(FeatureTable(tmp_path / "net-float16.sqlite", 3)) as half:
        assert half.known(["a"]) == set()
        with pytest.raises(LostTableError):
            half.vectors(["a"])
        half.put([FeatureRow("a", vector(1, 2, 3))])
        assert half.vectors(["a"]).tolist() == [[1, 2, 3]]


def test_a_row_is_replaced(table):
    table.put([FeatureRow("a", None, code="corrupt", reason="Broken.")])
    table.put([FeatureRow("a", vector(1, 1, 1)), FeatureRow("a", vector(2, 2, 2))])
    assert table.vectors(["a"]).tolist() == [[2, 2, 2]]
    assert table.problems(["a"]) == {}


def test_known_digests(table):
    table.put([FeatureRow("a", vector(1, 2, 3)), FeatureRow("b", None, code="empty", reason="It.")])
    assert table.known(["a", "b", "c", "a"]) == {"a", "b"}
    assert table.known([]) == set()
    assert table.problems(["a", "b", "c"]) == {"b": ("empty", "It.")}
    for digest in ("b", "c"):
        with pytest.raises(LostTableError, match=r"net\.sqlite was deleted or emptied"):
            table.vectors(["a", digest])


def test_rows_of_another_width_count_as_absent(path):
    with contextlib.closing(FeatureTable(path, 2)) as other:
        other.put([FeatureRow("a", vector(1, 2)), FeatureRow("b", None, code="empty", reason="I.")])
    with contextlib.closing(FeatureTable(path, 3)) as table:
        assert table.known(["a", "b"]) == {"b"}
        with pytest.raises(LostTableError):
            table.vectors(["a"])


def test_an_unknown_error_code_counts_as_absent(table):
    table.put([FeatureRow("a", None, code="bewitched", reason="By a newer program.")])
    assert table.known(["a"]) == set() and table.problems(["a"]) == {}


def test_more_digests_than_an_sql_statement_takes(table):
    digests = [f"{number:05d}" for number in range(2500)]
    table.put([FeatureRow(name, vector(row, 0, 0)) for row, name in enumerate(digests)])
    assert table.known(digests) == set(digests)
    assert table.vectors(digests[::-1])[:, 0].tolist() == list(range(2499, -1, -1))


def test_resized_images_are_stored_with_the_features(table):
    table.put(
        [
            FeatureRow("a", vector(1, 2, 3), b"jpeg of a", 480, 640),
            FeatureRow("b", vector(1, 2, 3)),
            FeatureRow("c", None, code="empty", reason="It."),
        ]
    )
    found = table.images(["a", "b", "c", "d"])
    assert found == {"a": FeatureRow("a", None, b"jpeg of a", 480, 640)}


def test_measured_similarity_is_stored_exactly(table, path):
    greys = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    numbers = measure_similarity(greys)
    table.put_similarity(["a", "b", "c"], numbers, greys)
    with contextlib.closing(FeatureTable(path, 3)) as again:
        assert again.similarity("numbers", ["c", "x", "a"], SIMILARITY).keys() == {"a", "c"}
        assert again.similarity("numbers", ["b"], SIMILARITY)["b"] == numbers[1]
        grey = again.similarity("grey", ["b"], np.dtype((np.uint8, (64, 64))))["b"]
        np.testing.assert_array_equal(grey, greys[1])
        assert again.similarity("grey", ["b"], SIMILARITY) == {}


def test_rows_survive_closing(path):
    with contextlib.closing(FeatureTable(path, 3)) as table:
        table.put([FeatureRow("a", vector(1, 2, 3))])
    with contextlib.closing(FeatureTable(path, 3)) as table:
        assert table.vectors(["a"]).tolist() == [[1, 2, 3]]
    assert {file.name for file in path.parent.iterdir()} == {".lock", path.name}


def test_opening_marks_a_table_as_used(path):
    FeatureTable(path, 3).close()
    os.utime(path, (1000, 1000))
    FeatureTable(path, 3).close()
    assert path.stat().st_mtime > time.time() - 60


def test_two_connections_share_rows(table, path):
    with contextlib.closing(FeatureTable(path, 3)) as other:
        other.put([FeatureRow("a", vector(1, 2, 3))])
        assert table.known(["a"]) == {"a"}
        table.put([FeatureRow("b", vector(1, 2, 3))])
        assert other.known(["a", "b"]) == {"a", "b"}


def test_a_failed_write_leaves_nothing_behind(table):
    rows = [FeatureRow("a", vector(1, 2, 3)), replace(FeatureRow("b", None), digest=object())]
    with pytest.raises(sqlite3.Error):
        table.put(rows)
    assert table.known(["a"]) == set()
    table.put(rows[:1])
    assert table.known(["a"]) == {"a"}


def test_a_full_disk_is_one_clear_error(table, path):
    table._connection.execute("PRAGMA max_page_count=4")
    with pytest.raises(CacheError, match=r"net\.sqlite.*full.*another folder as `cache`"):
        table.put([FeatureRow("a", vector(1, 2, 3), b"\0" * 100_000)])
    assert path.exists() and not path.with_suffix(".damaged").exists()
    table.put([FeatureRow("b", vector(1, 2, 3))])
    assert table.known(["a", "b"]) == {"b"}


@pytest.mark.parametrize(
    "content",
    [
        b"not a database, and longer than the hundred bytes of the heading" * 9,
        b"SQLite format 3\0" + b"\xff" * 5000,
        b"SQLite format 3\0",
        np.random.default_rng(0).bytes(20_000),
    ],
)
def test_a_damaged_file_is_moved_aside(path, content):
    path.write_bytes(content)
    path.with_name(path.name + "-wal").write_bytes(content)
    with contextlib.closing(FeatureTable(path, 3)) as table:
        table.put([FeatureRow("a", vector(1, 2, 3))])
        assert table.known(["a"]) == {"a"}
    assert path.with_suffix(".damaged").read_bytes() == content
    assert {found.name for found in path.parent.iterdir()} == {".lock", "net.damaged", "net.sqlite"}


def test_another_database_is_moved_aside(path):
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE images (name TEXT, painter TEXT)")
        connection.execute("INSERT INTO images VALUES ('Night Watch', 'Rembrandt')")
        connection.commit()
    with contextlib.closing(FeatureTable(path, 3)) as table:
        assert table.known(["a"]) == set()
    with contextlib.closing(sqlite3.connect(path.with_suffix(".damaged"))) as connection:
        assert connection.execute("SELECT * FROM images").fetchone()[1] == "Rembrandt"


def test_damage_found_while_reading_is_reported(path):
    with contextlib.closing(FeatureTable(path, 3)) as table:
        table.put([FeatureRow(f"{n:04d}", vector(n, 0, 0), b"x" * 3000) for n in range(200)])
    content = bytearray(path.read_bytes())
    content[4096:-4096] = b"\x5a" * (len(content) - 8192)
    path.write_bytes(content)
    table = FeatureTable(path, 3)
    with pytest.raises(DamagedTableError, match="Run the command again to create a new one"):
        table.vectors([f"{n:04d}" for n in range(200)])
    assert path.with_suffix(".damaged").exists() and not path.exists()
    # Other users of the same table get the same error.
    with pytest.raises(DamagedTableError):
        table.known(["0001"])
    with pytest.raises(DamagedTableError):
        table.put([FeatureRow("a", vector(1, 2, 3))])
    with contextlib.closing(FeatureTable(path, 3)) as table:
        assert table.known(["0001"]) == set()


def test_an_empty_file_is_filled(path):
    path.write_bytes(b"")
    with contextlib.closing(FeatureTable(path, 3)) as table:
        assert table.known(["a"]) == set()
    assert not path.with_suffix(".damaged").exists()


def test_a_path_where_no_file_can_be_created(tmp_path):
    with pytest.raises(CacheError, match="give a folder on a local disk as `cache`"):
        (tmp_path / "file").touch()
        FeatureTable(tmp_path / "file" / "net.sqlite", 3)
    (tmp_path / "folder.sqlite").mkdir()
    with pytest.raises(CacheError, match=r"folder\.sqlite"):
        FeatureTable(tmp_path / "folder.sqlite", 3)


@pytest.mark.parametrize("waits", [True, False])
def test_it_waits_for_another_process_that_makes_the_table(path, monkeypatch, waits):
    # While a table is created, SQLite sometimes does not wait at all, whatever its timeout.
    real = sqlite3.connect
    if not waits:
        monkeypatch.setattr(sqlite3, "connect", lambda *a, **o: real(*a, **{**o, "timeout": 0}))
    with contextlib.closing(real(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE other (x)")
        holder.execute("BEGIN EXCLUSIVE")
        opened = []
        thread = threading.Thread(target=lambda: opened.append(FeatureTable(path, 3)))
        thread.start()
        thread.join(0.3)
        assert opened == [] and thread.is_alive()
        holder.execute("COMMIT")
        thread.join(60)
    (table,) = opened
    assert table.known(["a"]) == set()
    table.close()


def test_waiting_for_another_process_ends(path, monkeypatch):
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.2)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("CREATE TABLE other (x)")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CacheError, match=r"net\.sqlite: database is locked"):
            FeatureTable(path, 3)


def test_many_open_a_new_table_at_once(tmp_path):
    errors = []

    def use(path, name, barrier):
        barrier.wait()
        try:
            with contextlib.closing(FeatureTable(path, 3)) as table:
                for n in range(5):
                    table.put([FeatureRow(f"{name}-{n}", vector(n, n, n))])
        except CacheError as error:
            errors.append(error)

    for trial in range(8):
        path, barrier = tmp_path / f"{trial}.sqlite", threading.Barrier(6)
        threads = [threading.Thread(target=use, args=(path, n, barrier)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with contextlib.closing(FeatureTable(path, 3)) as table:
            names = [f"{name}-{n}" for name in range(6) for n in range(5)]
            assert errors == [] and table.known(names) == set(names)


# The index of files ----------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path):
    with contextlib.closing(FileIndex(tmp_path / "files.sqlite")) as index:
        yield index


@pytest.fixture
def file(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(b"content")
    return file


def remember(index, *files):
    index.put([(str(file), FileStamp.of(file), f"digest of {file.name!a}") for file in files])


def test_an_unchanged_file_is_known(index, file):
    remember(index, file)
    assert index.lookup([str(file), str(file) + "x"]) == {str(file): "digest of 'a.jpg'"}


@pytest.mark.parametrize("change", ["content", "size", "time", "another", "gone"])
def test_a_changed_file_is_not_known(index, file, change):
    remember(index, file)
    before = file.stat()
    time.sleep(0.02)
    if change == "content":  # same size, and the time of modification put back
        file.write_bytes(b"CONTENT")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "size":
        file.write_bytes(b"content and more")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "time":
        os.utime(file)
    elif change == "another":
        other = file.with_name("b.jpg")
        other.write_bytes(b"CONTENT")
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
        other.replace(file)
    else:
        file.unlink()
    assert index.lookup([str(file)]) == {}


def test_names_of_any_bytes(index, tmp_path):
    names = [
        "ä.jpg",
        "two\nlines.jpg",
        os.fsdecode(b"\xff\xfe.jpg"),
        "%s?.jpg",
        "'; DROP TABLE.jpg",
    ]
    files = [tmp_path / name for name in names]
    for file in files:
        file.write_bytes(b"x")
    remember(index, *files)
    found = index.lookup([str(file) for file in files])
    assert found == {str(file): f"digest of {file.name!a}" for file in files}


def test_impossible_file_names(index):
    assert index.lookup(["a\0b", "\ud800.jpg", ""]) == {}
    index.put([("a\0b", FileStamp(1, 2, 3, 4), "d")])
    assert index.lookup(["a\0b"]) == {}


@pytest.mark.parametrize("inode", [2**63, 2**64 - 1, 2**127 + 5])
def test_numbers_of_files_beyond_63_bits(index, file, monkeypatch, inode):
    real = file.stat()

    class Stat:
        st_size, st_mtime_ns, st_ctime_ns = real.st_size, real.st_mtime_ns, real.st_ctime_ns
        st_ino = inode

    stat = os.stat
    monkeypatch.setattr(
        "kindsight.dataset.reading.process_files.os.stat",
        lambda path, **options: Stat if str(path) == str(file) else stat(path, **options),
    )
    remember(index, file)
    assert index.lookup([str(file)]) == {str(file): "digest of 'a.jpg'"}
    Stat.st_ino = inode - 1
    assert index.lookup([str(file)]) == {}


SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("modified", "changed", "now", "settled"),
    [
        # Nanoseconds in the stamp: a change shows within some hundredths of a second.
        (100 * SECOND + 1, 100 * SECOND + 1, 100.04, False),
        (100 * SECOND + 1, 100 * SECOND + 1, 100.06, True),
        (100 * SECOND + 1, 200 * SECOND + 1, 100.06, os.name != "posix"),
        (100 * SECOND + 1, 200 * SECOND + 1, 200.06, True),
        # Whole seconds: perhaps a file system that counts in twos.
        (100 * SECOND, 100 * SECOND, 102.4, False),
        (100 * SECOND, 100 * SECOND, 102.6, True),
        # A file from the future.
        (900 * SECOND + 1, 900 * SECOND + 1, 100.0, False),
    ],
)
def test_a_file_changed_just_now_is_not_trusted(modified, changed, now, settled):
    assert FileStamp(7, modified, changed, 1).settled(now) is settled
