"""Files that are whole or absent, and tables that any reader takes apart as they were."""

import csv
import json
import os
from contextlib import closing
from pathlib import Path

import pytest

from kindsight.cache.array_file import SlotTable
from kindsight.cache.folder import Cache
from kindsight.encoding import unescape_name
from kindsight.files import (
    FileHeldError,
    delete_file,
    replace_file,
    replacing,
    write_csv,
    write_json,
    write_text,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_put_in_place_at_the_end(tmp_path):
    target = tmp_path / "new folder" / "deep" / "model.tflite"
    with replacing(target) as temporary:
        assert temporary.parent == target.parent and temporary.suffix == ".tflite"
        temporary.write_bytes(b"half")
        assert not target.exists()
        temporary.write_bytes(b"whole")
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == ["model.tflite"]


def test_a_reader_sees_the_old_content_until_the_new_is_whole(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"


def test_an_error_leaves_the_old_content_and_nothing_else(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("half of")
        raise ZeroDivisionError
    assert target.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_block_that_writes_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="modes of files")
def test_others_may_read_as_the_umask_says(tmp_path):
    before = os.umask(0o022)
    try:
        write_text(tmp_path / "a.txt", "for all")
    finally:
        os.umask(before)
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_text_is_utf8_with_the_line_ends_given(tmp_path):
    write_text(tmp_path / "a.txt", "Käse\nund Brot\r\n")
    assert (tmp_path / "a.txt").read_bytes() == b"K\xc3\xa4se\nund Brot\r\n"


def test_every_file_is_valid_utf8(tmp_path):
    name = b"caf\xe9".decode("utf-8", "surrogateescape")
    write_text(tmp_path / "a.txt", name)
    assert (tmp_path / "a.txt").read_text("utf-8") == r"caf\xe9"
    write_text(tmp_path / "b.txt", "half a character \ud83d.")
    assert (tmp_path / "b.txt").read_text("utf-8") == r"half a character \ud83d."
    write_json(tmp_path / "c.json", {name: [name, {"a": name}]})
    found = json.loads((tmp_path / "c.json").read_text("utf-8"))
    assert found == {r"caf\xe9": [r"caf\xe9", {"a": r"caf\xe9"}]}
    names = [name, r"caf\xe9", "\\", "a/b"]
    write_json(tmp_path / "d.json", {"paths": names, "rows": [{"path": names[1]}]})
    found = json.loads((tmp_path / "d.json").read_text("utf-8"))
    if os.name == "posix":
        assert [unescape_name(text) for text in found["paths"]] == names
        assert found["rows"] == [{"path": r"caf\x5cxe9"}]


def test_json_is_readable_and_refuses_what_json_has_not(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"Käse": [1, 2.5, None]})
    assert json.loads(target.read_text("utf-8")) == {"Käse": [1, 2.5, None]}
    assert "Käse" in target.read_text("utf-8") and target.read_text("utf-8").count("\n") > 3
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match="JSON"):
            write_json(target, {"loss": value})
    assert json.loads(target.read_text("utf-8")) == {"Käse": [1, 2.5, None]}
    assert names(tmp_path) == ["a.json"]


def test_csv_by_hand(tmp_path):
    rows = [("a.jpg", 1, 0.5), ("b, c.jpg", 2, ""), ('say "x".jpg', 3, None)]
    write_csv(tmp_path / "a.csv", ("path", "n", "p"), rows)
    assert (tmp_path / "a.csv").read_bytes() == (
        b'path,n,p\na.jpg,1,0.5\n"b, c.jpg",2,\n"say ""x"".jpg",3,\n'
    )


def test_any_name_comes_back_from_a_table(tmp_path):
    rows = [
        [name, "x"] for name in ("two\nlines", "old\rMac", "\r", '"', ",", " a ", "'", "", "=1")
    ]
    write_csv(tmp_path / "a.csv", ("path", "label\r"), iter(rows))
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["path", "label\r"], *rows]


def test_a_table_that_fails_leaves_the_old_one(tmp_path):
    write_csv(tmp_path / "a.csv", ("n",), [(1,)])
    with pytest.raises(ZeroDivisionError):
        write_csv(tmp_path / "a.csv", ("n",), ((1 / n,) for n in (1, 0)))
    assert (tmp_path / "a.csv").read_text() == "n\n1\n" and names(tmp_path) == ["a.csv"]


# Windows ----------------------------------------------------------------------------------------


@pytest.fixture
def held(monkeypatch):
    """Return a list; as long as it has entries, each replacing or deleting of a file fails."""
    refusals = []
    monkeypatch.setattr("kindsight.files.HELD_SECONDS", 0.3)
    monkeypatch.setattr("kindsight.files.RETRY_SECONDS", 0.01)

    def refusing(real):
        def act(path, *arguments, **options):
            if refusals and path.name.startswith((".held-", "held")):
                error = PermissionError(13, "The process cannot access the file", str(path))
                error.winerror = refusals.pop()
                raise error
            return real(path, *arguments, **options)

        return act

    for name in ("replace", "unlink"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    return refusals


@pytest.mark.parametrize("code", [5, 32, 33, 1224])
def test_a_file_that_is_held_for_a_moment_is_replaced_and_deleted(tmp_path, held, code):
    file = tmp_path / "held.csv"
    for text in ("old", "new"):
        held[:] = [code] * 3
        write_text(file, text)
        assert (file.read_text(), held) == (text, [])
    held[:] = [code] * 3
    delete_file(file)
    assert not file.exists()


def test_a_file_that_stays_held_is_left_and_named(tmp_path, held):
    file = tmp_path / "held.csv"
    write_text(file, "old")
    for act in (lambda: replace_file(tmp_path / "held new", file), lambda: delete_file(file)):
        held[:] = [32] * 1000
        with pytest.raises(FileHeldError, match="Close it there, and run the same command") as info:
            act()
        assert info.value.filename == str(file) and file.read_text() == "old"


def test_a_refusal_for_another_reason_is_not_repeated(tmp_path, held):
    held[:] = [None] * 2
    with pytest.raises(PermissionError, match="cannot access"):
        delete_file(tmp_path / "held.csv")
    assert len(held) == 1


def test_a_held_table_is_not_deleted_and_stops_no_pruning(tmp_path, held):
    cache = Cache(tmp_path / "cache", limit=0)
    for name in ("held", "free"):
        with closing(SlotTable(cache.images_file(name), 4)):
            pass
    held[:] = [1224] * 1000
    assert [entry.name for entry in cache.prune()] == ["free"]
    assert [entry.name for entry in cache.entries()] == ["held"]
    held.clear()
    assert [entry.name for entry in cache.prune()] == ["held"]


def test_long_json_is_the_same_as_in_one_part(tmp_path):
    """Long JSON is written in parts that end before an object."""
    names = ("a", "b\udcff", "[\n1,\n2\n]")
    rows = [{"rows": [i, -i, 0.5], "paths": [*names, str(i)], "none": []} for i in range(3000)]
    write_json(tmp_path / "a.json", {"rows": rows, "numbers": list(range(20_000))})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    read = json.loads(text)
    assert read["numbers"] == list(range(20_000))
    assert [row["rows"] for row in read["rows"]] == [row["rows"] for row in rows]
    assert [row["paths"][3] for row in read["rows"]] == [str(i) for i in range(3000)]
    assert text.count("\n") < 3000 * 12
    assert text.count('"rows": [') == 3001
