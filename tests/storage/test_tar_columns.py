"""Tar files become columns: the same dataset as tuples and as compact columns."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight import ImageDataset
from kindsight.dataset.columns import convert
from kindsight.dataset.columns.base import Column
from kindsight.dataset.loaders import shards
from kindsight.dataset.names import IgnoredFile
from kindsight.errors import DatasetError
from kindsight.storage.members import Member, Members

JSON = b'{"label": "red", "split": "test", "group": "g1", "kind": "k1"}'
OTHER = b'{"label": ["red", "blue"], "split": "val", "group": 7, "kind": "k2"}'
# Files of one sample that are far apart, repeated names, names with several dots, a label file
# whose ending is in capitals, ignored names and folders, and images without a label.
MIXED = [
    ("a.jpg", b"1"), ("b.jpg", b"22"), ("desktop.ini", b"x"), ("b.txt", b"a caption"),
    ("b.json", JSON), ("a.png", b"333"), ("c.01.jpg", b"4"), ("c.02.jpg", b"5"),
    ("a.CLS", b"capitals"), ("a.cls", b"blue\n"), ("a.JPG", b"6"), ("c.cls", b" "),
    ("c.json", OTHER), ("desktop.jpg", b"7"), ("desktop.cls", b""), ("a.cls", b"again"),
    ("d.npy", b"x"), (".e.jpg", b"x"), (".f/e.jpg", b"x"), ("x/a.jpg", b"8"), ("x/a.cls", b"red"),
    ("no", b"x"), ("y.seg.png", b"9"), ("y.jpg", b"10"), ("\udcff.jpg", b"11"),
]  # fmt: skip
FOLDERS = [
    (f"{folder}/{k}.jpg", bytes(k))
    for k in range(3)
    for folder in ("train/cat/deep", "test/dog", "train/dog", "test/cat", "pred/cat", "test")
]


def write(path: Path, files: Sequence[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def opened(path: Path, **options: object) -> ImageDataset | str:
    """Return the dataset, or the message of its error."""
    try:
        return ImageDataset.open(path, min_classes=1, **options)  # type: ignore[arg-type]
    except DatasetError as error:
        return str(error)


@pytest.mark.parametrize("names", [("s-0",), ("train-0", "val-0"), ("train-0", "pred-0", "test-0")])
@pytest.mark.parametrize("files", [MIXED, FOLDERS])
@pytest.mark.parametrize(
    "options",
    [
        {}, {"multi_label": "skip"}, {"multi_label": "combine"}, {"labelled": False},
        {"columns": {"label": "txt"}}, {"columns": {"label": "kind"}, "multi_label": "first"},
        {"columns": {"split": "kind"}, "multi_label": "first"}, {"label_from": r"(\w)\.[^/]*$"},
    ],
)  # fmt: skip
def test_compact_columns_are_the_same_dataset(
    names: tuple[str, ...],
    files: list[tuple[str, bytes]],
    options: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for k, name in enumerate(names):
        write(tmp_path / f"{name}.tar", files[k:] + files[:k])
    expected = opened(tmp_path, **options)
    monkeypatch.setattr(convert, "COMPACT_ROWS", 0)
    monkeypatch.setattr(shards, "_BLOCK", 2)
    dataset = opened(tmp_path, **options)
    assert dataset == expected
    if isinstance(dataset, ImageDataset):
        assert isinstance(expected, ImageDataset) and isinstance(expected.path, tuple)
        columns = (dataset.path, dataset.label, dataset.split, dataset.group, dataset.size)
        assert all(isinstance(column, Column) for column in columns)


def test_samples_are_in_the_order_of_their_first_files(tmp_path: Path) -> None:
    write(tmp_path / "s.tar", MIXED)
    dataset = ImageDataset.open(tmp_path / "s.tar", multi_label="combine", min_classes=1)
    names = ("a.jpg", "b.jpg", "c.01.jpg", "c.02.jpg", "x/a.jpg")
    assert dataset.path == tuple(f"s.tar!{name}" for name in names)
    assert dataset.label == ("blue", "red", "blue+red", "blue+red", "red")
    assert dataset.split == (None, "test", "validation", "validation", None)
    assert dataset.group == (None, "g1", "7", "7", None)
    assert dataset.size == (1, 2, 1, 1, 1)
    assert [file[:2] for file in dataset.ignored_files] == [
        ("s.tar!desktop.ini", "system file"),
        ("s.tar!a.cls", "repeated name in an archive"),
        ("s.tar!a.JPG", "repeated name in an archive"),
        ("s.tar!a.cls", "repeated name in an archive"),
        ("s.tar!.e.jpg", "hidden file"),
        ("s.tar!.f/e.jpg", "hidden folder"),
        ("s.tar!a.png", "further image of a sample"),
        ("s.tar!d.npy", "not an image (.npy)"),
        ("s.tar!no", "not an image"),
        ("s.tar!y.seg.png", "further image of a sample"),
        ("s.tar!desktop.jpg", "image without a label"),
        ("s.tar!y.jpg", "image without a label"),
        ("s.tar!\udcff.jpg", "image without a label"),
    ]
    assert IgnoredFile("s.tar!a.png", "further image of a sample", size=3) in dataset.ignored_files


def test_tar_files_of_unlabelled_images_alone_are_an_error_with_the_reason(tmp_path: Path) -> None:
    write(tmp_path / "s.tar", [("a.jpg", b"1"), ("a.json", b'{"split": "pred"}')])
    message = opened(tmp_path, label_from=r"(\w)\.jpg$")
    assert "0 images. Ignored, unlabelled or excluded image: 1 image" in str(message)


NAMES = st.text(st.sampled_from("ab./漢\udc80\0"), max_size=6)
FILES = st.lists(
    st.tuples(
        NAMES, st.integers(0, 2**62), st.integers(0, 2**62), st.none() | st.binary(max_size=4)
    )
)


@given(FILES)
def test_members_return_what_was_added(files: list[tuple[str, int, int, bytes | None]]) -> None:
    members = Members()
    for file in files:
        members.add(*file)
    assert list(members) == [Member(*file[:3]) for file in files]
    assert [members.text(row) for row in range(len(members))] == [file[3] for file in files]
    assert members.ranges().tolist() == [list(file[1:3]) for file in files]
    assert Members.from_bytes(members.to_bytes()) == members


@pytest.mark.parametrize("name", ["_names", "_texts", "_has_text", "_name_ends", "_sizes"])
def test_members_are_not_restored_from_damaged_bytes(name: str) -> None:
    members = Members()
    members.add("a.cls", 512, 3, b"cat")
    stored = members.to_bytes()
    with pytest.raises(ValueError):
        Members.from_bytes({**stored, name: stored[name] + bytes(8)})
