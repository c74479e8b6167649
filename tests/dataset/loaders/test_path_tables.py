"""Tables of paths: CSV and Parquet."""

import csv
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kindsight.dataset import DataOptions, ImageDataset, from_files, from_table, open_dataset
from kindsight.dataset.loaders import csv_table, parquet_table
from kindsight.errors import DatasetError, MissingExtraError


@pytest.fixture
def table(make_tree):
    """Return a function that writes a table beside images in/1.jpg to in/9.jpg."""
    root = make_tree(*(f"in/{k}.jpg" for k in range(1, 10)))

    def write(text, name="table.csv", **encoding):
        file = root / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode(**encoding))
        return file

    return write


def test_a_row_is_a_file(table):
    file = table("path,label\nin/1.jpg,cat\nin/2.jpg,dog\n")
    dataset = from_table(file)
    assert dataset.path == ("in/1.jpg", "in/2.jpg")
    assert dataset.label == ("cat", "dog") and dataset.classes == ("cat", "dog")
    assert dataset.root == file.parent and dataset.size == (8, 8)
    assert dataset.load(1) == b"in/2.jpg"
    assert dataset.notes == () and dataset.ignored == {}


@pytest.mark.parametrize(
    "header",
    [
        "filename,class", "File Name,Class Name", "image_path,target", "IMG,y", "id,category",
        "image,label_name", "filepath,labels", "photo,classes",
    ],
)  # fmt: skip
def test_the_usual_names_of_columns(table, header):
    dataset = from_table(table(f"{header}\nin/1.jpg,cat\n"))
    assert (dataset.path, dataset.label) == (("in/1.jpg",), ("cat",))


def test_the_preferred_name_wins(table):
    text = "id,class_id,path,label,width\n7,1,in/1.jpg,cat,100\n"
    dataset = from_table(table(text))
    assert (dataset.path, dataset.label) == (("in/1.jpg",), ("cat",))


def test_columns_can_be_named(table):
    file = table("where,species,path,label\nin/1.jpg,cat,x,y\n")
    dataset = from_table(file, DataOptions(columns={"path": "where", "label": "species"}))
    assert (dataset.path, dataset.label) == (("in/1.jpg",), ("cat",))
    with pytest.raises(DatasetError, match=r"no column 'specis'.*Did you mean 'species'"):
        from_table(file, DataOptions(columns={"label": "specis"}))
    with pytest.raises(DatasetError, match=r"no column '1'.*'where', 'species'"):
        from_table(file, DataOptions(columns={"label": "1"}))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_separators_line_ends_and_the_mark_of_utf_8(table, separator, end, encoding):
    rows = [["path", "label"], ["in/1.jpg", "Käfer; , groß"], ["in/2.jpg", " dog "]]
    text = end.join(separator.join(f'"{cell}"' for cell in row) for row in rows) + end
    dataset = from_table(table(text, encoding=encoding))
    assert dataset.label == ("Käfer; , groß", "dog")


def test_blanks_blank_lines_and_empty_columns_at_the_end(table):
    dataset = from_table(table("path, label\n\nin/1.jpg, cat\n,\nin/2.jpg, dog,,\n\n"))
    assert dataset.path == ("in/1.jpg", "in/2.jpg") and dataset.label == ("cat", "dog")


def test_bytes_that_are_not_utf_8_are_preserved(make_tree):
    root = make_tree("caf\udce9.jpg")
    (root / "t.csv").write_bytes(b"path,label\ncaf\xe9.jpg,a\n")
    assert from_table(root / "t.csv").load(0) == b"caf\xe9.jpg"


def test_splits_and_groups(table):
    rows = [
        "in/1.jpg,a,train,p1", "in/2.jpg,a,Validation,p2", "in/3.jpg,b,TEST,",
        "in/4.jpg,b,,p1", "in/5.jpg,a,predict,p3",
    ]  # fmt: skip
    dataset = from_table(table("\n".join(["path,label,split,patient_id", *rows])))
    assert dataset.split == ("train", "validation", "test", None)
    assert dataset.group == ("p1", "p2", None, "p1")
    assert dataset.notes == (
        "Images of one group (column 'patient_id') stay in one split.",
        "Ignored unlabelled images: 1 image of 'table.csv', line 6.",
    )
    assert dataset.ignored == {"unlabelled row": 1}


def test_a_column_named_like_splits_that_contains_none(table):
    file = table("path,label,set\nin/1.jpg,a,A\nin/2.jpg,b,B\n")
    dataset = from_table(file)
    assert dataset.split == (None, None)
    assert dataset.notes == ("Ignored the column 'set', which contains no splits.",)
    with pytest.raises(DatasetError, match=r"2 rows, line 2 \('A'\), line 3 \('B'\)"):
        from_table(file, DataOptions(columns={"split": "set"}))
    file = table("path,label,Split\nin/1.jpg,a,\nin/2.jpg,b,tset\n")
    with pytest.raises(
        DatasetError, match=r"must be train, validation, test or excluded.*line 3 \('tset'\)"
    ):
        from_table(file)


def test_rows_without_a_label_are_ignored_and_named(table):
    lines = [f"in/{k}.jpg,{'' if k > 2 else 'cat'}" for k in range(1, 10)]
    dataset = from_table(table("\n".join(["path,label", *lines])))
    assert len(dataset) == 2 and dataset.ignored == {"row without a label": 7}
    assert dataset.notes == (
        "Ignored rows without a label: 7 images of 'table.csv', lines 4, 5, 6, 7, 8 and 2 more.",
    )


def test_repeated_rows_count_once(table):
    dataset = from_table(table("path,label\nin/1.jpg,a\nin/2.jpg,b\nin/1.jpg,a\n./in/2.jpg,b\n"))
    assert dataset.path == ("in/1.jpg", "in/2.jpg")
    assert "2 images of 'table.csv', lines 4, 5" in dataset.notes[0]
    assert dataset.ignored == {"duplicate row": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\nin/1.jpg,a\nin/1.jpg,b\n", "line 3 ('in/1.jpg' is 'b', and 'a' in line 2)"),
        ("path,label,split\nin/1.jpg,a,train\nin/1.jpg,a,test\n", "must have only one split"),
        ("path,label\n,a\nin/1.jpg,a\n", "must have a path. Invalid: 1 row, line 2"),
        ("path,label\nin/1.jpg\n", "like the first line. Invalid: 1 row, line 2"),
        ("path,label\nin/1.jpg,a,b\n", "line 2 (3 cells)"),
        ("path,label\nhttps://x.org/1.jpg,a\n", "must be files, not URLs"),
        ("path,label\nout/1.jpg,a\nout/2.jpg,b\n", "exists; the first is 'out/1.jpg'"),
        ("path,colour\nin/1.jpg,a\n", "'table.csv' has no column of labels"),
        ("where,label\nin/1.jpg,a\n", "has no column of paths or columns of pixels"),
        ("path,label\n", "has no rows"),
        ("path,path,label\nin/1.jpg,b,a\n", "2 columns named 'path'"),
        ('path,label\n"in/1.jpg,a\nin/2.jpg,b\n', "Is a quotation mark missing"),
        ("path,label\nin/1.jpg," + "x" * 200_000 + "\n", "cannot be separated into cells"),
        ("path,label\nin/1.jpg,Cat\nin/2.jpg,cat\nin/3.jpg,cat\n",
         "first in line 3), 'Cat' (1, first in line 2). Use one"),
        ("path,label\nin/1.jpg,great tit\nin/2.jpg,great  tit\n", "differ only in case"),
        ("path,label\nin/1.jpg,caf\u00e9\nin/2.jpg,cafe\u0301\n", "differ only in case"),
    ],
)  # fmt: skip
def test_faulty_tables_are_named(table, text, message):
    with pytest.raises(DatasetError) as caught:
        from_table(table(text))
    assert message in str(caught.value)


def test_letters_may_differ_by_case_and_numbers_lose_their_points(table):
    assert from_table(table("path,label\nin/1.jpg,a\nin/2.jpg,A\n")).classes == ("A", "a")
    dataset = from_table(table("path,label\nin/1.jpg,3.0\nin/2.jpg,10\nin/3.jpg,\n"))
    assert dataset.label == ("3", "10") and dataset.classes == ("3", "10")
    assert from_table(table("path,label\nin/1.jpg,3.0\nin/2.jpg,v3\n")).label == ("3.0", "v3")


def test_missing_files_are_found_when_they_are_read(table):
    dataset = from_table(table("path,label\nin/1.jpg,a\nin/gone.jpg,b\nin/\0.jpg,b\n"))
    assert dataset.size == (8, 0, 0)
    with pytest.raises(Exception, match="There is no such file"):
        dataset.load(1)


def test_absolute_paths_paths_outside_and_another_root(table, tmp_path):
    other = tmp_path / "other" / "tables"
    other.mkdir(parents=True)
    root = table("").parent
    (other / "t.csv").write_text(f"path,label\n{root}/in/1.jpg,a\n../../root/in/2.jpg,b\n")
    dataset = from_table(other / "t.csv")
    assert [dataset.load(row) for row in range(2)] == [b"in/1.jpg", b"in/2.jpg"]
    (other / "t.csv").write_text("path,label\n1.jpg,a\n2.jpg,b\n")
    dataset = from_table(other / "t.csv", DataOptions(root=str(root / "in")))
    assert dataset.root == root / "in" and dataset.load(1) == b"in/2.jpg"


@pytest.mark.skipif(sys.platform == "win32", reason="there a backslash is no letter of a name")
def test_paths_from_windows(table):
    assert from_table(table("path,label\nin\\1.jpg,a\nin\\2.jpg,b\n")).path == (
        "in/1.jpg",
        "in/2.jpg",
    )
    file = table("path,label\na\\b.jpg,a\n")
    (file.parent / "a\\b.jpg").write_bytes(b"x")
    assert from_table(file).path == ("a\\b.jpg",)


def test_the_size_of_a_table_is_bounded(table, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_TABLE_BYTES", 20)
    with pytest.raises(DatasetError, match="the limit for a table of paths is 20"):
        from_table(table("path,label\nin/1.jpg,cat\n"))


def test_unlabelled(table):
    dataset = from_table(table("path\nin/1.jpg\nin/2.jpg\n"), labelled=False)
    assert dataset.path == ("in/1.jpg", "in/2.jpg") and dataset.label == (None, None)


# Parquet ------------------------------------------------------------------------------------------


def test_parquet_is_the_same_as_csv(table):
    text = "path,label,split,patient\nin/1.jpg,3,train,p1\nin/2.jpg,4,val,\nin/3.jpg,,test,p2\n"
    columns = {
        "path": ["in/1.jpg", "in/2.jpg", "in/3.jpg"],
        "label": pa.array([3.0, 4.0, None]),
        "split": pa.array(["train", "val", "test"]).dictionary_encode(),
        "patient": ["p1", None, "p2"],
        "image": [b"\xff", b"", b""],
    }
    file = table("").parent / "table.parquet"
    parquet.write_table(pa.table(columns), file)
    one, other = from_table(file), from_table(table(text))
    assert one.notes[1].endswith("1 image of 'table.parquet', row 3.")
    names = ("path", "label", "split", "group", "size", "root", "classes", "ignored")
    assert all(getattr(one, name) == getattr(other, name) for name in names)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["a"], "label": [[1, 2]]}, "The column 'label' in"),
        (
            {"image": [{"bytes": b"x", "path": "a"}], "label": [1]},
            "'image' in 'x.parquet' has the type",
        ),
        ({"where": ["a"], "label": ["b"]}, "no column of paths"),
    ],
)
def test_parquet_that_is_not_a_table_of_paths(tmp_path, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=message):
        from_table(tmp_path / "x.parquet")


def test_damaged_parquet(tmp_path):
    file = tmp_path / "x.parquet"
    for content in (b"", b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1"):
        file.write_bytes(content)
        with pytest.raises(DatasetError, match="cannot be read as a Parquet file"):
            from_table(file)


def test_parquet_is_bounded(tmp_path, monkeypatch):
    file = tmp_path / "x.parquet"
    parquet.write_table(pa.table({"path": ["a" * 100] * 50, "label": ["b"] * 50}), file)
    monkeypatch.setattr(parquet_table, "MAX_ROWS", 49)
    with pytest.raises(DatasetError, match="the limit is 49 rows"):
        from_table(file)
    monkeypatch.setattr(parquet_table, "MAX_ROWS", 50)
    monkeypatch.setattr(parquet_table, "MAX_BYTES", 60)
    with pytest.raises(DatasetError, match="and 60 bytes"):
        from_table(file)


def test_without_pyarrow_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kindsight\[parquet\]'"):
        from_table(tmp_path / "x.parquet")


def test_pyarrow_is_imported_for_parquet_only():
    code = "import sys, kindsight.dataset; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# Written and read back ----------------------------------------------------------------------------


def test_a_written_table_is_read_back(make_tree, tmp_path):
    root = make_tree("train/cat/1.jpg", "train/dog/2, 3.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    dataset = ImageDataset.from_folder(root).with_columns(group=["g", None, "h", None])
    dataset.write_csv(root / "all.csv")
    # A table's rows keep their order, and the classes theirs.
    assert from_table(root / "all.csv").with_columns() == dataset.with_notes(
        "Images of one group (column 'group') stay in one split."
    )
    dataset.write_csv(tmp_path / "elsewhere" / "all.csv")
    moved = from_table(tmp_path / "elsewhere" / "all.csv")
    assert moved.path[0] == "../root/test/cat/1.jpg"
    assert [moved.load(row) for row in range(4)] == [dataset.load(row) for row in range(4)]
    with (root / "all.csv").open(newline="") as file:
        assert next(csv.reader(file)) == ["path", "label", "split", "group"]


def test_files_without_a_root_are_written_from_the_table_on(make_tree, tmp_path):
    root = make_tree("a/1.jpg", "b/2.jpg")
    dataset = from_files([root / "a" / "1.jpg", root / "b" / "2.jpg"], ["x", "y"])
    dataset.write_csv(tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "path,label\nroot/a/1.jpg,x\nroot/b/2.jpg,y\n"


def test_images_in_memory_cannot_be_written_as_paths(tmp_path):
    import numpy as np

    with pytest.raises(DatasetError, match="Images in memory"):
        ImageDataset.from_arrays(np.zeros((2, 3, 3, 1), np.uint8)).write_csv(tmp_path / "t.csv")


names = st.text(st.characters(exclude_characters="\0/\\", exclude_categories=["Cs"]), min_size=1)
labels = names.map(str.strip).filter(bool)


@settings(deadline=None)
@given(data=st.data())
def test_any_names_are_read_as_they_were_written(tmp_path_factory, data):
    paths = data.draw(
        st.lists(names.filter(lambda n: n not in (".", "..")), min_size=1, unique=True)
    )
    given_labels = data.draw(st.lists(labels, min_size=len(paths), max_size=len(paths)))
    folder = tmp_path_factory.mktemp("any")
    dataset = ImageDataset(path=tuple(paths), label=tuple(given_labels), root=folder)
    dataset.write_csv(folder / "t.csv")
    (folder / "there.jpg").write_bytes(b"x")
    with (folder / "t.csv").open("a", encoding="utf-8", newline="") as file:
        file.write(f"there.jpg,{'zz-there'}\n")
    try:
        found = from_table(folder / "t.csv")
    except DatasetError as error:
        assert "differ only in case, blanks or accents" in str(error)
        assert len({" ".join(n.casefold().split()) for n in given_labels}) <= len(set(given_labels))
        return
    assert found.path == (*paths, "there.jpg")
    assert found.label[:-1] == tuple(given_labels)


WHOLE = (
    b'path,label,split\n1.jpg,x,train\n2.jpg,"y",test\n',
    b'label,pixel1,pixel2,pixel3,pixel4\na,1,2,3,4\nb,"5",6,7,0.5\n',
    b"emotion,pixels,Usage\n0,1 2 3 4,Training\n1,5 6 7 8,PublicTest\n",
)
changes = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 4), st.binary(max_size=3)
              | st.lists(st.sampled_from(b',;\n\r"\0\t |/.-09e\xff\xef'), max_size=4).map(bytes)),
    max_size=6,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(whole=st.sampled_from(WHOLE), changes=changes)
def test_changed_bytes_give_a_table_or_an_error(tmp_path_factory, whole, changes):
    folder = tmp_path_factory.getbasetemp() / "changed"
    folder.mkdir(exist_ok=True)
    (folder / "1.jpg").write_bytes(b"x")
    content = bytearray(whole)
    for start, gone, new in changes:
        content[start : start + gone] = new
    (folder / "t.csv").write_bytes(bytes(content))
    try:
        dataset = open_dataset(folder / "t.csv", min_classes=1)
    except DatasetError as error:
        assert all(line.isprintable() for line in str(error).split("\n"))
    else:
        assert len(dataset) and None not in dataset.label


def test_twenty_thousand_rows_open_quickly(make_tree):
    """Work that grows with the square of the rows would be noticed by everybody."""
    root = make_tree("0.jpg")
    lines = [f"{k}.jpg,{k % 7},p{k // 3}" for k in range(20_000)]
    (root / "t.csv").write_text("\n".join(["path,label,patient", *lines]))
    dataset = open_dataset(root / "t.csv")
    assert len(dataset) == 20_000 and dataset.classes == tuple("0123456")
    assert dataset.group[-1] == "p6666" and dataset.size[0] == 5
