"""Files that are whole or absent, and tables that any reader takes apart as they were."""

import csv
import json
import os

import pytest

from kindsight.encoding import unescape_name
from kindsight.files import replacing, write_csv, write_json, write_text


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
