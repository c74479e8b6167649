"""Tables of paths: CSV and Parquet."""

import csv
import os
import subprocess
import sys

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from kindsight.dataset import DataOptions, ImageDataset, from_files, from_table, open_dataset
from kindsight.dataset.loaders import table_files as csv_table
from kindsight.dataset.loaders import table_files as parquet_table
from kindsight.errors import DatasetError, MissingExtraError, SettingsError


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


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "cp1252", "gb18030"])
def test_other_encodings(table, encoding):
    text = 'path;label\r\nin/1.jpg;Käfer\r\nin/2.jpg;"Bär; groß"\r\n'
    file = table(text, encoding=encoding)
    labels = ("Käfer", "Bär; groß")
    if encoding == "utf-16":
        assert from_table(file).label == labels
    else:
        line = 1 if "16" in encoding else 2
        with pytest.raises(
            DatasetError, match=f"Line {line} of 'table.csv' is not UTF-8.*`encoding"
        ):
            from_table(file)
    assert from_table(file, DataOptions(encoding=encoding)).label == labels


def test_a_wrong_encoding_is_reported(table):
    file = table(b"path,label\nin/1.jpg,cat\nin/2.jpg," + b"\x81\n")
    with pytest.raises(DatasetError, match=r"Line 3 of .* not cp1252\. Give another `encoding`"):
        from_table(file, DataOptions(encoding="cp1252"))
    with pytest.raises(DatasetError, match=r"Line 1 of .*`encoding=.utf-32"):
        from_table(table("path,label\nin/1.jpg,a\n", encoding="utf-32"))
    with pytest.raises(DatasetError, match=r"Line 1 of .*not UTF-8.*utf-16-le"):
        from_table(table("path,label\nin/1.jpg,a\n", encoding="utf-16-le"))
    for name in ("no-such", "rot13", "", 7):
        with pytest.raises(SettingsError, match="`encoding` must be the name of a text encoding"):
            from_table(file, DataOptions(encoding=name))


@pytest.mark.skipif(sys.platform != "linux", reason="names that are not UTF-8 exist there only")
def test_names_that_are_not_utf_8_come_back(make_tree):
    names = ("caf\udce9.jpg", "caf\\xe9.jpg", "a\\x5cxe9.jpg", "\\x41.jpg", "d\udcff/\udc80.jpg")
    root = make_tree(*names)
    dataset = from_files([root / name for name in names], ["a", "b", "a", "b", "a"])
    for table_file in (root / "t.csv", root.parent / "t.csv"):
        dataset.write_csv(table_file)
        table_file.read_text("utf-8")
        found = from_table(table_file)
        assert [found.load(k) for k in range(5)] == [os.fsencode(name) for name in names]
    assert from_table(root / "t.csv").path == names
    assert r"caf\xe9.jpg" in (root / "t.csv").read_text("utf-8")
    (root / "w.csv").write_text("path,label\nd\\x41.jpg,a\nd\\xab.jpg,b\n")
    for name in ("x41.jpg", "xab.jpg"):
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / name).write_bytes(b"x")
    assert from_table(root / "w.csv").path == ("d/x41.jpg", "d/xab.jpg")


def test_splits_and_groups(table):
    rows = [
        "in/1.jpg,a,train,p1", "in/2.jpg,a,Validation,p2", "in/3.jpg,b,TEST,",
        "in/4.jpg,a,,p1", "in/5.jpg,a,predict,p3",
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


@pytest.mark.parametrize(
    "text", ["nan", "NaN", "None", "null", "NULL", "N/A", "NA", "<NA>", "#N/A", " - ", ""]
)
def test_texts_that_mean_a_missing_label(table, text):
    file = table(f"path,label\nin/1.jpg,cat\nin/2.jpg,{text}\nin/3.jpg,dog\n")
    dataset = from_table(file)
    assert dataset.label == ("cat", "dog") and dataset.ignored == {"row without a label": 1}
    assert "1 image of 'table.csv', line 3." in dataset.notes[0]
    if text:
        assert f"Some have '{text.strip()}'" in dataset.notes[0]
        kept = from_table(file, DataOptions(keep_na_labels=True))
        assert kept.label == ("cat", text.strip(), "dog") and kept.notes == ()


def test_missing_groups_and_splits(table):
    rows = ["in/1.jpg,a,nan,NA", "in/2.jpg,b,train,NaN", "in/3.jpg,b,,p1"]
    dataset = from_table(table("\n".join(["path,label,split,patient", *rows])))
    assert dataset.split == (None, "train", None)
    assert dataset.group == (None, None, "p1")


@pytest.mark.parametrize(
    "numbers", [("0.25", "0.5", "3"), ("1,5", "2,0", "3,0"), ("1e-3", "2", "3")]
)
def test_numbers_with_fractions_are_regression(table, numbers):
    rows = [f"in/{k}.jpg;{number}" for k, number in enumerate(numbers, 1)]
    with pytest.raises(
        DatasetError, match=r"'table.csv' are numbers .* line 2: this is regression"
    ):
        from_table(table("\n".join(["path;label", *rows])))


# Several labels -----------------------------------------------------------------------------------


ONE_HOT = "image,MEL,NV,BCC\nin/1.jpg,1.0,0.0,0.0\nin/2.jpg,0,0,1\nin/3.jpg,0.0,1.0,0.0\n"


@pytest.mark.parametrize(
    "text", [ONE_HOT, ONE_HOT.replace("1.0", "True").replace("0.0", "FALSE"),
             ONE_HOT.replace("MEL", "person").replace("NV", "set"),
             ",image,MEL,NV,BCC\n0,in/1.jpg,1,,\n1,in/2.jpg,,,1\n2,in/3.jpg,,1,\n"],
)  # fmt: skip
def test_one_hot_columns_are_recognised(table, text):
    dataset = from_table(table(text))
    names = text.split("\n")[0].split(",")[-3:]
    assert dataset.label == (names[0], names[2], names[1])
    assert dataset.classes == tuple(sorted(names)) and dataset.group == (None,) * 3
    quoted = ", ".join(f"'{name}'" for name in names)
    assert dataset.notes == (f"The columns {quoted} of 'table.csv' are one-hot labels.",)


def test_one_hot_columns_beside_others_are_named(table):
    text = "image,MEL,NV,age\nin/1.jpg,1,0,50\nin/2.jpg,0,1,60\nin/3.jpg,0,0,70\n"
    file = table(text)
    with pytest.raises(
        DatasetError, match=r"no column of labels.*`columns=\{\"label\": \"MEL,NV\"\}`"
    ):
        from_table(file)
    dataset = from_table(file, DataOptions(columns={"label": "MEL,NV"}))
    assert dataset.label == ("MEL", "NV") and dataset.ignored == {"row without a label": 1}
    with pytest.raises(DatasetError, match=r"got '50' in line 2, column 'age'"):
        from_table(file, DataOptions(columns={"label": "MEL,age"}))
    with pytest.raises(DatasetError, match=r"no column 'MEN'\. Did you mean 'MEL'"):
        from_table(file, DataOptions(columns={"label": "MEL,MEN"}))
    assert from_table(file, labelled=False).path == ("in/1.jpg", "in/2.jpg", "in/3.jpg")


def test_one_of_several_one_hot_columns_is_noted(table):
    dataset = from_table(table(ONE_HOT), DataOptions(columns={"label": "MEL"}))
    assert dataset.classes == ("0", "1")
    assert '`columns={"label": "MEL,NV,BCC"}`' in dataset.notes[0]
    comma = table('path,"a,b"\nin/1.jpg,0\nin/2.jpg,1\n')
    assert from_table(comma, DataOptions(columns={"label": "a,b"})).label == ("0", "1")


SEVERAL = {
    "bars": ["b|a", "a", "b", "c"],
    "bars without single ones": ["b|a", "a|c", "c|d", "c"],
    "semicolons": ["b; a", "a", "b", "c"],
    "commas": ["b,a", "a", "b", "c"],
    "blanks": ["b a", "a", "b", "c"],
    "JSON": ['["b", "a"]', '["a"]', '["b"]', '["c"]'],
    "Python": ["['b', 'a']", "['a']", "['b']", "['c']"],
    "NumPy": ["['b' 'a']", "['a']", "['b']", "['c']"],
}


@pytest.mark.parametrize("cells", SEVERAL.values(), ids=SEVERAL)
def test_cells_with_several_labels(table, cells):
    rows = [
        f"in/{k}.jpg\t" + '"' + cell.replace('"', '""') + '"' for k, cell in enumerate(cells, 1)
    ]
    file = table("\n".join(["path\tlabel", *rows]))
    with pytest.raises(
        DatasetError, match=r"line 2 \('b', 'a'\).*multi_label=.first.*skip.*combine"
    ):
        from_table(file)
    first = from_table(file, DataOptions(multi_label="first"))
    skip = from_table(file, DataOptions(multi_label="skip"))
    combined = from_table(file, DataOptions(multi_label="combine"))
    assert first.label[0] == "b" and combined.label[0] == "a+b"
    assert skip.path[0] != "in/1.jpg" and skip.ignored["several labels"] >= 1
    assert skip.label[-1] == first.label[-1] == "c"
    assert len(skip) + skip.ignored["several labels"] == 4


def test_one_hot_rows_with_several_labels(table):
    file = table(ONE_HOT.replace("in/2.jpg,0,0,1", "in/2.jpg,1,0,1"))
    with pytest.raises(DatasetError, match=r"1 of 3 images has several .*line 3 \('MEL', 'BCC'\)"):
        from_table(file)
    for mode, label in (("first", "MEL"), ("combine", "BCC+MEL")):
        assert from_table(file, DataOptions(multi_label=mode)).label[1] == label
    skipped = from_table(file, DataOptions(multi_label="skip"))
    assert skipped.label == ("MEL", "NV")
    assert "Ignored rows with several labels: 1 image of 'table.csv', line 3." in skipped.notes


@pytest.mark.parametrize(
    "cells",
    [
        ["great tit", "blue tit", "tit"], ["hot dog", "dog"], ["Paris, France", "Rome, Italy"],
        ["tomato|healthy", "tomato|blight", "potato|healthy"], ["[x]", "x"], ["a+b", "a", "b"],
    ],
)  # fmt: skip
def test_single_labels_of_several_words(table, cells):
    rows = [f'in/{k}.jpg,"{cell}"' for k, cell in enumerate(cells, 1)]
    assert from_table(table("\n".join(["path,label", *rows]))).label == tuple(cells)


def test_lists_of_one_label_and_of_zeros_and_ones(table):
    file = table("path\tlabel\nin/1.jpg\t['b']\nin/2.jpg\t['a']\nin/3.jpg\t[]\n")
    assert from_table(file).label == ("b", "a")
    file = table("path\tlabel\nin/1.jpg\t[0, 1, 0]\nin/2.jpg\t[1, 0, 0]\nin/3.jpg\t[0, 0, 0]\n")
    options = DataOptions(label_names=["ant", "bee", "cow"])
    assert from_table(file).label == ("1", "0") and from_table(file, options).label == (
        "bee",
        "ant",
    )
    file = table("path,label\nin/1.jpg,0 2\nin/2.jpg,0\nin/3.jpg,2\n")
    options = DataOptions(label_names=["ant", "bee", "cow"], multi_label="combine")
    assert from_table(file, options).label == ("ant+cow", "ant", "cow")


def test_a_table_in_another_encoding_is_not_printed_whole(table):
    with pytest.raises(DatasetError) as caught:
        from_table(table("where" + "x" * 5000 + ",label\nin/1.jpg,a\n"))
    assert "no column of paths" in str(caught.value) and len(str(caught.value)) < 500


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
        ("path,label\nout/1.jpg,a\nout/2.jpg,b\n", "exists; the first is 'out/1.jpg'"),
        ("path,colour\nin/1.jpg,a\n", "'table.csv' has no column of labels"),
        ("path\nin/1.jpg\n", "columns are 'path'. Add a column named label."),
        ("in/1.jpg,a\nin/2.jpg,b\n", "names of the columns; got 'in/1.jpg'. Insert"),
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


def test_names_without_folder_or_extension(make_tree):
    root = make_tree(
        "train/1.jpg", "train/2.5.png", "test/1.jpg", "x/p/7.jpg", "y/p/7.jpg", "z/8.gif"
    )
    rows = ["1,a", "2.5,b", "8.gif,b", "p/7,a", "x/p/7,a", "gone,b", "train/1.jpg,a"]
    (root / "t.csv").write_text("\n".join(["id,label", *rows]))
    dataset = from_table(root / "t.csv")
    assert dataset.path == ("train/1.jpg", "train/2.5.png", "z/8.gif", "x/p/7.jpg", "gone")
    assert dataset.size[-1] == 0
    assert dataset.ignored == {"ambiguous name": 1, "duplicate row": 1}
    assert dataset.notes[1] == (
        "Ambiguous names in 't.csv', line 5 (1 image): 'p/7' matches 'x/p/7.jpg', 'y/p/7.jpg'."
    )
    (root / "test.csv").write_text("id,label\n1,a\n")
    assert from_table(root / "test.csv").path == ("test/1.jpg",)
    assert from_table(root / "t.csv", DataOptions(root=str(root / "train"))).path[0] == "1.jpg"
    (root / "t.csv").write_text("id,label\n7,a\n")
    with pytest.raises(DatasetError, match=r"'7' matches .*`root=.FOLDER.`"):
        from_table(root / "t.csv")


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
        ({"path": ["a"], "label": [[[1, 2]]]}, "The column 'label' in"),
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


def test_parquet_with_one_hot_columns_and_lists_of_labels(table):
    file = table("").parent / "x.parquet"
    paths = ["in/1.jpg", "in/2.jpg", "in/3.jpg"]
    flags = {"cat": [True, False, False], "dog": [False, True, False], "image": paths}
    parquet.write_table(pa.table(flags), file)
    assert from_table(file).label == ("cat", "dog")
    lists = {"path": paths, "label": [["cat"], ["dog", "cat"], None]}
    parquet.write_table(pa.table(lists), file)
    with pytest.raises(DatasetError, match=r"row 2 \('dog', 'cat'\)"):
        from_table(file)
    assert from_table(file, DataOptions(multi_label="first")).label == ("cat", "dog")


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
        found = from_table(folder / "t.csv", DataOptions(keep_na_labels=True))
    except DatasetError as error:
        if "are multi-label" in str(error):
            assert any(set(label) & set("|;, ") for label in given_labels)
            return
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
