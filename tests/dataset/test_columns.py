"""Compact columns: they behave as the tuples of the same values do."""

import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import DataOptions, ImageDataset, SplitSettings, from_folder, from_table
from kindsight.dataset.columns import convert
from kindsight.dataset.columns.build import ColumnBuilder
from kindsight.dataset.columns.codes import CodeColumn, NumberColumn
from kindsight.dataset.columns.convert import (
    as_codes,
    as_column,
    concatenate,
    count_pairs,
    count_values,
    first_equal,
    is_equal,
    sort_order,
    take_rows,
)  # fmt: skip
from kindsight.dataset.columns.texts import BytesColumn, TextColumn
from kindsight.dataset.splits.groups import connected_components
from kindsight.errors import DatasetError

TEXT = st.text(st.sampled_from("ab/é漢\udc80.\\"), max_size=5)
DIGEST = st.sampled_from(["00ff", "0a0b", "ffff", "1234"])
NONE_OR = {"path": TEXT, "label": TEXT | st.none(), "digest": DIGEST | st.none()}
VALUES = st.one_of(
    st.tuples(st.just("path"), st.lists(TEXT)),
    st.tuples(st.just("label"), st.lists(TEXT | st.none())),
    st.tuples(st.just("digest"), st.lists(DIGEST | st.none())),
    st.tuples(st.just("digest"), st.lists(TEXT | st.none())),
    st.tuples(st.just("size"), st.lists(st.integers(0, 2**62))),
)


@pytest.fixture
def compact(monkeypatch):
    """Make the columns of all datasets compact, whatever their rows."""
    monkeypatch.setattr(convert, "COMPACT_ROWS", 0)


def column_of(name, values):
    """Return the compact column of some values."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "COMPACT_ROWS", 0)
        return as_column(name, values, 0 if name == "size" else None, len(values))


@given(VALUES, st.data())
@settings(max_examples=200, deadline=None)
def test_a_column_is_as_the_tuple_of_its_values(named, data):
    name, values = named
    column, expected = column_of(name, values), tuple(values)
    if values:
        assert not isinstance(column, tuple)
    assert column == expected and expected == column and hash(column) == hash(expected)
    assert (*column,) == expected and len(column) == len(expected)
    assert pickle.loads(pickle.dumps(column)) == expected  # noqa: S301
    assert column + expected == expected + column == expected + expected
    assert concatenate([column, expected, column]) == 3 * expected
    assert count_values(column) == Counter(expected)
    start, stop, step = (data.draw(st.integers(-5, 5) | st.none()) for _ in range(3))
    rows = slice(start, stop, step or None)
    assert column[rows] == expected[rows]
    picked = data.draw(
        st.lists(st.integers(0, len(values) - 1), max_size=9) if values else st.just([])
    )
    assert take_rows(column, np.array(picked, np.int64)) == tuple(expected[k] for k in picked)
    for value in (*expected[:2], None, "no value"):
        assert (value in column) == (value in expected)
        assert is_equal(column, value).tolist() == [one == value for one in expected]
        if value in expected:
            assert column.index(value) == expected.index(value)
    for row in {-len(values), 0, len(values) - 1} if values else ():
        assert column[row] == expected[row]
    with pytest.raises(IndexError):
        column[len(values)]
    assert column != (*expected, "more")


@given(st.lists(TEXT | st.none()), st.lists(TEXT | st.none()))
@settings(deadline=None)
def test_codes_and_pairs_of_values(one, two):
    n = min(len(one), len(two))
    texts = TextColumn.of(one)
    codes = as_codes(texts)
    assert codes == tuple(one)
    assert codes.names == tuple(dict.fromkeys(text for text in one if text is not None))
    assert first_equal(texts).tolist() == [one.index(text) for text in one]
    assert codes.mapped(lambda text: text and text[:1]) == tuple(text and text[:1] for text in one)
    expected = Counter(zip(one[:n], two[:n], strict=True))
    assert count_pairs(as_codes(one[:n]), as_codes(two[:n])) == expected


@given(st.lists(st.text(st.sampled_from("ab/é漢\udc80"), max_size=9)))
def test_texts_are_sorted_by_code_point(texts):
    assert TextColumn.of(texts).take(sort_order(TextColumn.of(texts))) == tuple(sorted(texts))


@pytest.mark.parametrize("sought", ["\\", "./", "://"])
@given(texts=st.lists(st.text(st.sampled_from("a./:\\é"), max_size=6)))
def test_rows_that_contain_a_text(sought, texts):
    assert TextColumn.of(texts).contains(sought).tolist() == [sought in text for text in texts]


def test_equal_hashes_do_not_make_texts_equal(monkeypatch):
    monkeypatch.setattr(TextColumn, "hashes", lambda self: np.zeros(len(self), np.uint64))
    texts = ("b", "a", "b", "c", "a")
    assert first_equal(TextColumn.of(texts)).tolist() == [0, 1, 0, 3, 1]
    assert as_codes(TextColumn.of(texts)).codes.tolist() == [0, 1, 0, 2, 1]


def test_a_builder_changes_from_codes_to_texts(monkeypatch):
    monkeypatch.setattr("kindsight.dataset.columns.build.FEW_NAMES", 3)
    texts = ["a", "b", "a", "é", "", "d", "a", "e"]
    few, many = ColumnBuilder(), ColumnBuilder()
    few.add(texts[:3])
    many.add(texts[:3])
    assert many.add_coded(["a", "é", "", "d"], np.array([1, 2, 3, 0]), 1000) > 0
    before = many.nbytes
    assert many.add_coded(["x" * 100], np.zeros(50, np.int64), 4999) > 4999
    assert many.nbytes == before  # they would take too much
    many.add(texts[7:])
    assert (type(few.finish()), type(many.finish())) == (CodeColumn, TextColumn)
    assert few.finish() == tuple(texts[:3]) and many.finish() == tuple(texts)


@given(
    st.lists(
        st.tuples(*[st.none() | st.integers(0, 4)] * 2, st.none() | DIGEST), min_size=1, max_size=12
    )
)
@settings(deadline=None)
def test_components_are_those_of_a_search(rows):
    """Compared with a search from row to row."""

    def linked(a, b):
        return any(x is not None and x == y for x, y in zip(rows[a], rows[b], strict=True))

    expected = [-1] * len(rows)
    for first in range(len(rows)):
        found, waiting = max(expected) + 1, [first]
        while expected[first] < 0 or waiting:
            row = waiting.pop()
            if expected[row] < 0:
                expected[row] = found
                waiting += [k for k in range(len(rows)) if linked(row, k)]
            if not waiting:
                break
    one, two, digests = zip(*rows, strict=True)
    columns = one, two, column_of("digest", digests)
    assert connected_components(*columns).tolist() == expected


def small():
    """Return a dataset with all columns."""
    return ImageDataset(
        path=("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/é.jpg", "c/1.jpg", "c/2.jpg") * 4,
        label=("a", "a", "b", "b", None, "a") * 4,
        split=("train", "test", "train", "validation", None, None) * 4,
        group=("g", None, "h", "h", None, None) * 4,
        digest=tuple(f"{k % 23:032x}" for k in range(24)),
        size=tuple(range(24)),
        root=Path("/images"),
        classes=("b", "a"),
    )


def test_a_compact_dataset_says_the_same(monkeypatch):
    few = small()
    monkeypatch.setattr(convert, "COMPACT_ROWS", 0)
    many = small()
    assert isinstance(few.path, tuple) and isinstance(many.path, TextColumn)
    assert (type(many.digest), type(many.size)) == (BytesColumn, NumberColumn)
    assert few == many and many == few and repr(few) == repr(many)
    assert pickle.loads(pickle.dumps(many)) == few  # noqa: S301
    for name in ("counts", "split_counts", "present_classes", "dataset_digest"):
        assert getattr(few, name)() == getattr(many, name)()
    assert few.targets.tolist() == many.targets.tolist() == [1, 1, 0, 0, -1, 1] * 4
    assert few.where(split="train", group="g") == many.where(split="train", group="g")
    assert few.labels_in(None) == many.labels_in(None) == {None, "a"}
    assert many[[5, -1, 0]] == few[[5, -1, 0]] and many[::-2] == few[::-2]
    assert many.rows_in("test", None).tolist() == few.rows_in("test", None).tolist()


@pytest.mark.parametrize(
    "options", [{"test": 0.2}, {"fold": "2/3"}, {"group_near_duplicates": True}]
)
def test_a_compact_dataset_is_split_the_same(monkeypatch, options):
    path = tuple(f"{k}.jpg" for k in range(60))
    columns = {
        "label": tuple("ab"[k % 2] for k in range(60)),
        "group": tuple(f"g{k // 4}" if k < 24 else None for k in range(60)),
        "digest": tuple(f"{k if k % 9 else 7:032x}" for k in range(60)),
    }
    near = [[1, 30], [2, 33, 40]]
    few = SplitSettings(**options).split_without_leakage(ImageDataset(path, **columns), near)
    monkeypatch.setattr(convert, "COMPACT_ROWS", 0)
    many = SplitSettings(**options).split_without_leakage(ImageDataset(path, **columns), near)
    assert few == many and len({*few[0].split}) >= 2


@pytest.mark.parametrize("name", ["all.csv", "all.parquet", "parts", "deep/parts"])
def test_a_written_dataset_reads_back_equal(tmp_path, compact, name, monkeypatch):
    monkeypatch.setattr("kindsight.dataset.write.PART_ROWS", 4)
    for k in range(10):
        file = tmp_path / "photos" / "ab"[k % 2] / f"é{k}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes(k))
    dataset = from_folder(tmp_path / "photos")
    dataset = dataset.with_columns(split=["train", "test", None, "train", "train"] * 2)
    if name.endswith(".csv"):
        dataset.write_csv(tmp_path / name)
    else:
        dataset.write_parquet(tmp_path / name)
    if name.endswith("parts"):
        assert len(list((tmp_path / name).iterdir())) == 3
        with pytest.raises(DatasetError, match="new or empty folder"):
            dataset.write_parquet(tmp_path / name)
    again = ImageDataset.open(tmp_path / name)
    assert [again.file(k).resolve() for k in range(10)] == [dataset.file(k) for k in range(10)]
    for column in ("label", "split", "group", "size", "classes"):
        assert getattr(again, column) == getattr(dataset, column)


def test_parts_have_the_same_columns(tmp_path):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table({"path": ["1.jpg"], "label": ["a"]}), tmp_path / "part-0.parquet")
    parquet.write_table(pa.table({"path": ["2.jpg"], "class": ["b"]}), tmp_path / "part-1.parquet")
    with pytest.raises(DatasetError, match=r"the same columns; those of 'part-1\.parquet' differ"):
        from_table(tmp_path)


def test_of_very_many_rows_a_sample_of_files_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr("kindsight.dataset.loaders.find_files.MAX_CHECKED", 8)
    monkeypatch.setattr("kindsight.dataset.loaders.find_files.SAMPLE", 4)
    rows = [f"{k}.jpg,{'ab'[k % 2]}" for k in range(10)]
    (tmp_path / "t.csv").write_text("\n".join(["path,label", *rows]))
    with pytest.raises(DatasetError, match="None of the files"):
        from_table(tmp_path / "t.csv")
    for k in (0, 3):
        (tmp_path / f"{k}.jpg").write_bytes(b"x")
    dataset = from_table(tmp_path / "t.csv")
    assert len(dataset) == 10 and dataset.size == (0,) * 10
    assert dataset.notes == (
        "Of 4 files in 't.csv' that were checked, 2 do not exist; the first is '6.jpg'. They "
        "are reported when they are read.",
    )


def test_many_one_hot_columns_and_groups_of_a_compact_table(tmp_path, compact):
    rows = ["path,cat,dog,patient", "1.jpg,1,0, p1 ", "2.jpg,0,1,NA", "3.jpg,0,1,p1"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    for k in (1, 2, 3):
        (tmp_path / f"{k}.jpg").write_bytes(b"x")
    dataset = from_table(tmp_path / "t.csv", DataOptions())
    assert dataset.label == ("cat", "dog", "dog") and dataset.group == ("p1", None, "p1")
