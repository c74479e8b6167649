"""split.csv: written, read back, and applied to data whose files were moved or added."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import ImageDataset, open_dataset, random_split
from kindsight.dataset.splits.from_file import read_split, write_split
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.errors import DatasetError, SettingsError


def dataset_of(labels="ab" * 10, paths=None, digests=None, **columns) -> ImageDataset:
    n = len(labels)
    return ImageDataset(
        path=tuple(paths or (f"{label}/{i}.jpg" for i, label in enumerate(labels))),
        label=tuple(labels),
        digest=tuple(digests or (f"{i:04}" for i in range(n))),
        **columns,
    )


def file_of(tmp_path, text: str):
    path = tmp_path / "split.csv"
    path.write_text(text)
    return path


def test_round_trip(tmp_path):
    result = random_split(dataset_of(), validation=0.3, test=0.2, seed=4)
    path = tmp_path / "split.csv"
    write_split(result, path)
    lines = path.read_text().splitlines()
    assert lines[0] == "path,label,split,digest"
    assert lines[1] == f"a/0.jpg,a,{result.split[0]},0000"
    assert read_split(path).apply(dataset_of()).split == result.split


splits = st.sampled_from(["train", "validation", "test", None])
names = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(names, splits), min_size=1, unique_by=lambda pair: pair[0].strip()))
@settings(max_examples=40, deadline=None)
def test_round_trip_of_any_names(tmp_path_factory, rows):
    """Also names with commas, quotes and line ends; blanks at their ends are stripped."""
    rows = [(name.strip(), split) for name, split in rows if name.strip()]
    if not rows:
        return
    path = tmp_path_factory.mktemp("any") / "split.csv"
    paths, split = zip(*rows, strict=True)
    write_split(ImageDataset(path=paths, split=split), path)
    assert read_split(path).apply(ImageDataset(path=paths)).split == split


def test_a_moved_image_is_matched_by_its_digest(tmp_path):
    path = file_of(tmp_path, "path,split,digest\nold/1.jpg,test,0001\na/0.jpg,train,0000\n")
    moved = dataset_of("ab", ["a/0.jpg", "new/1.jpg"])
    assert read_split(path).apply(moved).split == ("train", "test")


def test_copies_in_several_splits_are_matched_by_path_only(tmp_path):
    path = file_of(tmp_path, "path,split,digest\nx.jpg,test,0000\ny.jpg,train,0000\n")
    found = read_split(path).apply(dataset_of("aaa", ["x.jpg", "y.jpg", "z.jpg"], ["0000"] * 3))
    assert found.split == ("test", "train", "train")


def test_new_images_are_train_images_and_noted(tmp_path):
    path = file_of(tmp_path, "path,split\na/0.jpg,validation\nb/1.jpg,train\ngone.jpg,test\n")
    found = read_split(path).apply(dataset_of("abab"))
    assert found.split == ("validation", "train", "train", "train")
    assert found.notes == (
        "Split as in 'split.csv'.",
        "Not in 'split.csv', so in the train split unless the data have another: 2 images, "
        "first 'a/2.jpg'.",
    )


def test_the_file_overrides_the_splits_of_the_data(tmp_path):
    path = file_of(tmp_path, "path,split\na/0.jpg,test\n")
    stated = dataset_of("ab", split=("train", "validation"))
    assert read_split(path).apply(stated).split == ("test", "validation")


def test_excluded_images_have_no_split(tmp_path):
    path = file_of(tmp_path, "path,split\na/0.jpg,excluded\nb/1.jpg,val\n")
    chosen = SplitSettings(file=str(path))
    found = chosen.split(dataset_of("abab"))
    assert found.split == (None, "validation", "train", "train")
    assert "Excluded by 'split.csv': 1 image." in found.notes


def test_images_that_the_file_leaves_open_are_split(tmp_path):
    """The file has only test images: the validation split is drawn from the rest."""
    path = file_of(tmp_path, "path,split\na/0.jpg,test\nb/1.jpg,test\n")
    found = SplitSettings(validation=0.5, file=str(path)).split(dataset_of())
    assert found.split[:2] == ("test", "test")
    assert found.split_counts() == {"train": 9, "validation": 9, "test": 2}


def test_a_split_file_can_be_opened_as_a_table(tmp_path):
    for name in ("a/0.jpg", "b/1.jpg", "a/2.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    write_split(dataset_of("aba", split=("train", "train", None)), tmp_path / "split.csv")
    found = open_dataset(tmp_path / "split.csv")
    assert found.path == ("a/0.jpg", "b/1.jpg") and found.split == ("train", "train")
    assert found.ignored == {"excluded row": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na/0.jpg,a\n", "lacks split and has 'path', 'label'"),
        ("path,split\na/0.jpg,tran\n", r"must be train, validation, test or excluded.*'tran'"),
        ("path,split\nelsewhere.jpg,train\n", "contains none of the 20 images"),
        ("path,split\n", "contains none of the 20 images"),
    ],
)
def test_invalid_files(tmp_path, text, message):
    with pytest.raises(DatasetError, match=message):
        read_split(file_of(tmp_path, text)).apply(dataset_of())


def test_split_settings_select_the_kind_of_split(tmp_path):
    dataset = dataset_of()
    assert SplitSettings(0.3, 0.2, seed=4).split(dataset) == random_split(
        dataset, validation=0.3, test=0.2, seed=4
    )
    newest = SplitSettings(validation=4, by="date").split(dataset, lambda: np.arange(20.0))
    assert newest.split == ("train",) * 16 + ("validation",) * 4
    folds = [SplitSettings(fold=f"{k}/4").split(dataset).split for k in (1, 2, 3, 4)]
    assert [sum(fold[i] == "validation" for fold in folds) for i in range(20)] == [1] * 20


def test_dates_of_excluded_images_do_not_count(tmp_path):
    path = file_of(tmp_path, "path,split\nb/19.jpg,excluded\n")
    chosen = SplitSettings(validation=2, by="date", file=str(path))
    found = chosen.split(dataset_of(), lambda: np.arange(20.0))
    assert found.split == ("train",) * 17 + ("validation",) * 2 + (None,)


def test_invalid_settings():
    faults = SplitSettings(by="month", fold="9", file="").faults()
    assert [fault.split("`")[1] for fault in faults] == ["split_by", "fold", "split"]
    assert (
        '`fold` cannot be combined with `split_by="date"`'
        in SplitSettings(by="date", fold="1/2").faults()[0]
    )
    with pytest.raises(SettingsError, match="`split_by` must be"):
        SplitSettings(by="month").split(dataset_of())


def test_names_that_are_not_utf_8_come_back(tmp_path):
    paths = ["a\udce9.jpg", r"a\xe9.jpg", "b.jpg", "c.jpg"]
    split = ["train", "validation", "test", "train"]
    dataset = dataset_of("abab", paths, ["0000"] * 4, split=tuple(split))
    write_split(dataset, tmp_path / "split.csv")
    assert r"a\xe9.jpg,a,train" in (tmp_path / "split.csv").read_text("utf-8")
    assert read_split(tmp_path / "split.csv").apply(dataset_of("abab", paths)).split == tuple(split)
    (tmp_path / "split.csv").write_bytes(b"path,split\na.jpg,train\n\xe9.jpg,test\n")
    with pytest.raises(DatasetError, match=r"Line 3 of 'split.csv' is not UTF-8. Save it as UTF-8"):
        read_split(tmp_path / "split.csv")
