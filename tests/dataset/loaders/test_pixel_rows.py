"""Rows of pixels as text: the same numbers as Python's own csv and int, whatever the layout."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import DataOptions, ImageDataset, from_table
from kindsight.dataset.loaders import pixel_rows
from kindsight.dataset.loaders import pixel_rows as blocks
from kindsight.dataset.loaders import table_files as csv_table
from kindsight.errors import DatasetError


def rows_of(n, pixels, seed=0):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (n, pixels)), random.integers(0, 3, n)


def write(path, header, rows, *, end="\n", separator=","):
    lines = [separator.join(map(str, row)) for row in ([header] if header else []) + list(rows)]
    path.write_bytes((end.join(lines) + end).encode())
    return path


@pytest.fixture
def signs(tmp_path):
    """Five images of 3 x 3, as the sign-language data set has them: label, pixel1, ..."""
    pixels, labels = rows_of(5, 9)
    header = ["label", *(f"pixel{k}" for k in range(1, 10))]
    file = write(tmp_path / "train.csv", header, np.column_stack([labels, pixels]).tolist())
    return file, pixels, labels


def test_a_row_is_a_square_image(signs):
    file, pixels, labels = signs
    dataset = from_table(file)
    assert dataset.path[0] == f"{file.as_posix()}:2" and dataset.path[-1].endswith(":6")
    assert dataset.label == tuple(map(str, labels))
    assert dataset.split == (None,) * 5 and dataset.root is None
    for row in range(5):
        assert dataset.arrays[row].tolist() == pixels[row].reshape(3, 3).tolist()
        assert dataset.arrays[row].dtype == np.uint8
        assert dataset.load(row).shape == (3, 3, 3)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_separators_and_the_mark_of_utf_8(tmp_path, end, separator, mark):
    header = ["label", *(f"pixel{k}" for k in range(4))]
    rows = [["a", 0, 9, 10, 99], ["b", 100, 255, 7, 1]]
    file = write(tmp_path / "x.csv", header, rows, end=end, separator=separator)
    file.write_bytes(mark + file.read_bytes())
    dataset = from_table(file)
    assert dataset.label == ("a", "b")
    assert [array.ravel().tolist() for array in dataset.arrays] == [row[1:] for row in rows]


@pytest.mark.parametrize(
    ("header", "order"),
    [
        (["pixel0", "pixel1", "pixel2", "pixel3", "label"], [0, 1, 2, 3]),
        (["pixel3", "label", "pixel1", "pixel2", "pixel4"], [2, 3, 0, 4]),
        (["1x1", "1x2", "2x1", "2x2", "class"], [0, 1, 2, 3]),
        (["0", "1", "2", "3", "label"], [0, 1, 2, 3]),
        (["Pixel_10", "Pixel_9", "Pixel_8", "Pixel_7", "Class"], [3, 2, 1, 0]),
        (["pixel0000", "pixel0001", "pixel0002", "pixel0003", "label"], [0, 1, 2, 3]),
    ],
)
def test_pixels_are_ordered_by_the_names_of_their_columns(tmp_path, header, order):
    row = [11, 12, 13, 14, 15]
    dataset = from_table(write(tmp_path / "x.csv", header, [row]))
    assert dataset.arrays[0].ravel().tolist() == [row[k] for k in order]
    label = next(k for k, name in enumerate(header) if name.lower() in ("label", "class"))
    assert dataset.label == (str(row[label]),)


def test_without_a_header_the_label_comes_first(tmp_path):
    file = write(tmp_path / "mnist.csv", None, [[7, 0, 50, 100, 250], [2, 1, 2, 3, 4]])
    dataset = from_table(file)
    assert dataset.label == ("7", "2") and dataset.classes == ("2", "7")
    assert dataset.arrays[0].tolist() == [[0, 50], [100, 250]]
    assert dataset.path[0].endswith("mnist.csv:1")


def test_numbers_of_columns_as_names(tmp_path):
    file = write(tmp_path / "x.csv", [0, 1, 2, 3, 4], [[7, 0, 50, 100, 250]])
    dataset = from_table(file)
    assert dataset.label == ("7",) and dataset.path[0].endswith(":2")


def test_pixels_without_labels_are_for_predictions(tmp_path):
    named = write(tmp_path / "x.csv", [f"pixel{k}" for k in range(4)], [[1, 2, 3, 4]])
    bare = write(tmp_path / "y.csv", None, [[1, 2, 3, 4]])
    for file in (named, bare):
        dataset = from_table(file, labelled=False)
        assert dataset.arrays[0].tolist() == [[1, 2], [3, 4]]
        assert dataset.label == (None,)
    with pytest.raises(DatasetError, match=r'has no column of labels.*`columns={"label": "NAME"}`'):
        from_table(named)


def test_colours_and_other_shapes(tmp_path):
    header = ["label", *(f"pixel{k}" for k in range(12))]
    file = write(tmp_path / "rgb.csv", header, [["a", *range(12)]])
    assert from_table(file).arrays[0].tolist() == np.arange(12).reshape(2, 2, 3).tolist()
    grey = from_table(file, DataOptions(pixel_shape="3x4"))
    assert grey.arrays[0].tolist() == np.arange(12).reshape(3, 4).tolist()
    planes = from_table(file, DataOptions(pixel_shape="3x2x2"))
    assert planes.arrays[0][:, :, 1].tolist() == [[4, 5], [6, 7]]
    with pytest.raises(DatasetError, match=r"3x5 has 15 pixels, but 'rgb.csv' has 12"):
        from_table(file, DataOptions(pixel_shape="3x5"))
    header = ["label", *(f"pixel{k}" for k in range(6))]
    file = write(tmp_path / "x.csv", header, [["a", *range(6)]])
    with pytest.raises(DatasetError, match=r"'x.csv' has 6 pixels per image.*`pixel_shape="):
        from_table(file)


def test_splits_and_groups_beside_pixels(tmp_path):
    header = ["label", "split", "patient", *(f"pixel{k}" for k in range(4))]
    rows = [["a", "Training", "p1", 1, 2, 3, 4], ["b", "val", "", 5, 6, 7, 8]]
    dataset = from_table(write(tmp_path / "x.csv", header, rows))
    assert dataset.split == ("train", "validation")
    assert dataset.group == ("p1", None)
    assert dataset.notes == ("Images of one group (column 'patient') stay in one split.",)


@pytest.mark.parametrize("quote", ["", '"'])
def test_all_pixels_in_one_column(tmp_path, quote):
    """As FER-2013 has them."""
    lines = [
        "emotion,pixels,Usage",
        f"0,{quote}70 80 82 255{quote},Training",
        f"3,{quote}1 2 3 4 {quote},PublicTest",
        f"0, {quote}5  6 7 8{quote},PrivateTest",
    ]
    (tmp_path / "fer.csv").write_text("\n".join(lines))
    dataset = from_table(tmp_path / "fer.csv")
    assert dataset.label == ("0", "3", "0")
    assert dataset.split == ("train", "validation", "test")
    assert [array.ravel().tolist() for array in dataset.arrays] == [
        [70, 80, 82, 255],
        [1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    (tmp_path / "fer.csv").write_text("\n".join([*lines, "1,1 2 3,Training"]))
    with pytest.raises(DatasetError, match=r"line 5 \(5 values\)"):
        from_table(tmp_path / "fer.csv")


def test_labels_in_order_of_their_numbers_and_with_names(tmp_path):
    header = ["label", *(f"pixel{k}" for k in range(4))]
    file = write(tmp_path / "x.csv", header, [[label, 1, 2, 3, 4] for label in (10, 2, 0, 2)])
    assert from_table(file).classes == ("0", "2", "10")
    letters = [chr(ord("A") + k) for k in range(11)]
    named = from_table(file, DataOptions(label_names=letters))
    assert named.label == ("K", "C", "A", "C") and named.classes == ("A", "C", "K")
    with pytest.raises(DatasetError, match=r"numbers from 0 to 1.*got '10', first in line 2"):
        from_table(file, DataOptions(label_names=["a", "b"]))


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.0", "2.", "255.0", "0"], [1, 2, 255, 0]),
        ([" 1", "2 ", "003", '"4"'], [1, 2, 3, 4]),
        (["0.5", "1", "0.0", "1.0"], [128, 255, 0, 255]),
        (["1e2", "0", "0", "0"], [100, 0, 0, 0]),
    ],
)
def test_numbers_in_other_notations(tmp_path, cells, expected):
    header = ["label", *(f"pixel{k}" for k in range(4))]
    dataset = from_table(write(tmp_path / "x.csv", header, [["a", *cells], ["b", 0, 1, 0, 1]]))
    assert dataset.arrays[0].ravel().tolist() == expected
    scaled = 255 if ".5" in cells[0] else 1
    assert dataset.arrays[1].ravel().tolist() == [0, scaled, 0, scaled]
    assert bool(dataset.notes) == (scaled == 255)
    if dataset.notes:
        assert "floats from 0 to 1 and were multiplied by 255" in dataset.notes[0]


FAULTS = [
    (["a,1,2,3"], "must have 5 values, like the first line. Invalid: 1 row, line 2 (4 values)"),
    (["a,1,2,3,4", "b,1,2,3,4,5"], "Invalid: 1 row, line 3 (6 values)"),
    (["a,1,2,3,4", "", "b,1,2"], "Invalid: 1 row, line 4 (3 values)"),
    (["a,256,2,3,4"], "whole numbers from 0 to 255. Invalid: 1 row, line 2 ('256' in column 2)"),
    (["a,1,-2,3,4"], "line 2 ('-2' in column 3)"),
    (["a,1,2,3,"], "line 2 ('' in column 5)"),
    (["a,1,x,3,4"], "line 2 ('x' in column 3)"),
    (["a,1,2_0,3,4"], "line 2 ('2_0' in column 3)"),
    (["a,1,nan,3,4"], "line 2 ('nan' in column 3)"),
    (["a,1,1e999,3,4"], "line 2 ('1e999' in column 3)"),
    (["a,1,2.5,3,4"], "line 2 ('2.5' in column 3)"),
    (["a,1,99999999999999999999,3,4"], "column 3)"),
    (["a,1,0.5,0,1", "b,1,2,3,4"], "Invalid: 1 row, line 2 (fractions). Line 3 has numbers above"),
    (['a,1,"2,3,4'], "must"),
    (['"a",1,2,3', '"b",1,2,3,4'], "line 2 (4 values)"),
    (["a,1,2,\x1b[31m,4"], r"'\x1b[31m'"),
]


@pytest.mark.parametrize(("lines", "message"), FAULTS)
def test_faulty_rows_are_named(tmp_path, lines, message):
    file = tmp_path / "x.csv"
    file.write_text("\n".join(["label,pixel1,pixel2,pixel3,pixel4", *lines]) + "\n")
    with pytest.raises(DatasetError) as caught:
        from_table(file)
    assert message in str(caught.value)
    assert str(caught.value).isprintable()


def test_many_faulty_rows_are_one_sentence(tmp_path):
    header = ["label", *(f"pixel{k}" for k in range(4))]
    rows = [["a", 1, 2, 3, 300 if k % 2 else 3] for k in range(2000)]
    with pytest.raises(DatasetError) as caught:
        from_table(write(tmp_path / "x.csv", header, rows))
    assert "Invalid: 1,000 rows, line 3 (" in str(caught.value)
    assert "line 11 ('300' in column 5) and 995 more." in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("label,pixel1,pixel2,pixel4,pixel5", "'pixel4' follows number 2"),
        ("label,pixel1,pixel2,pixel2,pixel3", "'pixel2' follows number 2"),
        ("label,1x1,1x2,2x2,2x3", "'2x2' follows number 1x2"),
        ("name,pixel1,pixel2,pixel3,pixel4", "columns are 'name'"),
        ("label,label,pixel1,pixel2,pixel3,pixel4", "2 columns named 'label'"),
    ],
)
def test_columns_that_are_missing_or_twice(tmp_path, header, message):
    file = tmp_path / "x.csv"
    file.write_text(header + "\na,1,2,3,4\n")
    with pytest.raises(DatasetError, match=message):
        from_table(file)


@pytest.mark.parametrize("content", [b"", b"\n", b"\0\0\0\0", "label;pixel1".encode("utf-16")])
def test_files_that_are_not_tables(tmp_path, content):
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=r"'x.csv'"):
        from_table(tmp_path / "x.csv")


def test_a_header_alone_has_no_rows(tmp_path):
    file = write(tmp_path / "x.csv", ["label", *(f"pixel{k}" for k in range(4))], [])
    with pytest.raises(DatasetError, match="has no rows"):
        from_table(file)


def test_a_line_that_never_ends_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "MAX_LINE_BYTES", 1000)
    file = write(tmp_path / "x.csv", ["label", *(f"pixel{k}" for k in range(4))], [])
    file.write_bytes(file.read_bytes() + b"1" * 10**6)
    with pytest.raises(DatasetError, match="line longer than 1,000 bytes"):
        from_table(file)


def test_the_number_of_columns_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(csv_table, "MAX_COLUMNS", 4)
    file = write(tmp_path / "x.csv", ["label", *(f"pixel{k}" for k in range(4))], [])
    with pytest.raises(DatasetError, match="the limit is 4"):
        from_table(file)


def test_the_size_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pixel_rows, "MAX_PIXEL_BYTES", 40)
    header = ["label", *(f"pixel{k}" for k in range(4))]
    from_table(write(tmp_path / "x.csv", header, [["a", 1, 2, 3, 4]] * 10))
    with pytest.raises(DatasetError, match="more than 40 bytes of pixels"):
        from_table(write(tmp_path / "x.csv", header, [["a", 1, 2, 3, 4]] * 11))


cell = st.one_of(
    st.integers(0, 255).map(str),
    st.sampled_from(["", " 7", "007", "12.0", '"9"', "256", "-1", "x", "1e1", "0.25", "é"]),
)
label = st.sampled_from(["a", "b c", "é", '"x, y"', "", "3"])
line = st.one_of(st.lists(cell, min_size=4, max_size=4), st.lists(cell, min_size=0, max_size=6))


@settings(max_examples=200, deadline=None)
@given(lines=st.lists(st.tuples(label, line), max_size=8), block=st.integers(1, 60))
def test_the_same_as_python_s_own_csv(tmp_path_factory, lines, block):
    """For any cells and any size of blocks."""
    file = tmp_path_factory.getbasetemp() / "any.csv"
    text = "label,pixel0,pixel1,pixel2,pixel3\n" + "".join(
        ",".join([name, *cells]) + "\n" for name, cells in lines
    )
    file.write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK", block)
        try:
            found = from_table(file)
        except DatasetError:
            found = None
    expected = by_hand(text)
    if expected is None or not expected:
        assert found is None
    else:
        assert found is not None
        kept = [row for row in expected if row[0]]
        assert [tuple(a.ravel().tolist()) for a in found.arrays] == [row[1] for row in kept]
        assert [name for name, _ in kept] == list(found.label)


def by_hand(text):
    """Return (label, pixels) of each row, or None where a row is faulty."""
    rows = list(csv.reader(io.StringIO(text), skipinitialspace=True))[1:]
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if any(len(row) != 5 for row in rows):
        return None
    numbers = []
    for row in rows:
        try:
            numbers.append([float(cell) for cell in row[1:]])
        except ValueError:
            return None
    flat = [number for row in numbers for number in row]
    if any(not 0 <= number <= 255 for number in flat):
        return None
    fractions = any(number % 1 for number in flat)
    if fractions and max(flat) > 1:
        return None
    scale = 255 if fractions else 1
    return [
        (row[0].strip(), tuple(round(number * scale) for number in values))
        for row, values in zip(rows, numbers, strict=True)
    ]


def test_all_functions_return_the_same_dataset(signs):
    file, _, _ = signs
    assert ImageDataset.open(file) == ImageDataset.open(str(file)) == from_table(file)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_pixels_in_other_encodings(tmp_path, encoding):
    text = "label,pixel1,pixel2,pixel3,pixel4\nKäfer,1,2,3,4\nWal,5,6,7,8\n"
    (tmp_path / "t.csv").write_text(text, encoding=encoding)
    if encoding == "cp1252":
        with pytest.raises(DatasetError, match=r"Line 2 of 't.csv' is not UTF-8.*`encoding="):
            from_table(tmp_path / "t.csv")
    options = DataOptions(encoding=None if encoding != "cp1252" else encoding)
    dataset = from_table(tmp_path / "t.csv", options)
    assert dataset.label == ("Käfer", "Wal") and dataset.arrays[1].tolist() == [[5, 6], [7, 8]]


def test_one_hot_columns_beside_pixels(tmp_path):
    text = "cat,dog,pixel1,pixel2,pixel3,pixel4\n1,0,1,2,3,4\n0,1,5,6,7,8\n"
    (tmp_path / "t.csv").write_text(text)
    assert from_table(tmp_path / "t.csv").label == ("cat", "dog")
