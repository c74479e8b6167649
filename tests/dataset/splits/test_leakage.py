"""Leakage: duplicates across splits, in each of the three modes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import SPLITS, ImageDataset
from kindsight.dataset.splits.leakage import LEAKAGE_MODES, resolve_leakage, write_leakage
from kindsight.errors import DatasetError


def result(*splits, labels=None) -> ImageDataset:
    n = len(splits)
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(labels or "a" * n),
        split=splits,
    )


SPLIT = ("train", "train", "validation", "test", "train", "validation", None)
GROUPS = [(1, 2), (3, 4, 5), (0, 6)]


def test_drop_from_all_but_the_last_split():
    resolved, leakage = resolve_leakage(result(*SPLIT), GROUPS, "drop")
    assert resolved.split == ("train", None, "validation", "test", None, None, None)
    assert leakage.groups == ((1, 2), (3, 4, 5)) and leakage.changed == (1, 4, 5)
    assert leakage.leaking_rows == ()
    assert leakage.note == (
        "Dropped 2 images of the train split and 1 image of the validation split with a duplicate "
        "or near-duplicate in a later split: '1.jpg', '4.jpg', '5.jpg'. See leakage.csv and "
        "--leakage."
    )
    assert leakage.to_dict() == {"mode": "drop", "groups": 2, "images": 3}


def test_leakage_file(tmp_path):
    splits = ("train", "train", "test", "validation", "train", "train", "train")
    dataset = result(*splits, labels="abaaaab").with_columns(digest="dedfghi")
    _, leakage = resolve_leakage(dataset, [(0, 1, 2), (3, 4)], "drop")
    write_leakage(leakage, tmp_path / "leakage.csv")
    assert (tmp_path / "leakage.csv").read_text("utf-8").splitlines() == [
        "group,path,label,split_before,split_after,match",
        "1,0.jpg,a,train,excluded,identical",
        "1,1.jpg,b,train,excluded,near-duplicate",
        "1,2.jpg,a,test,test,identical",
        "2,3.jpg,a,validation,validation,near-duplicate",
        "2,4.jpg,a,train,excluded,near-duplicate",
    ]


def test_move_to_the_first_split():
    resolved, leakage = resolve_leakage(result(*SPLIT), GROUPS, "move")
    assert resolved.split == ("train", "train", "train", "train", "train", "train", None)
    assert leakage.changed == (2, 3, 5) and leakage.leaking_rows == ()
    assert leakage.note.startswith(
        "Moved 2 images of the validation split and 1 image of the test split to"
    )


def test_keep():
    dataset = result(*SPLIT)
    resolved, leakage = resolve_leakage(dataset, GROUPS, "keep")
    assert resolved == dataset and leakage.leaking_rows == (2, 3, 5)
    assert "The measured accuracy is too high." in leakage.note


def test_without_duplicates_across_splits():
    dataset = result(*SPLIT)
    for mode in LEAKAGE_MODES:
        resolved, leakage = resolve_leakage(dataset, [(0, 1), (2, 5), (6,)], mode)
        assert resolved == dataset and leakage.note == "" and leakage.groups == ()


def test_a_class_without_images_to_train_on_is_an_error():
    dataset = result("train", "test", "train", labels="aab")
    with pytest.raises(
        DatasetError, match=r"`leakage=\"drop\"` leaves no images to train on for 'a'"
    ):
        resolve_leakage(dataset, [(0, 1)], "drop")
    assert resolve_leakage(dataset, [(0, 1)], "move")[0].split == ("train", "train", "train")


@given(
    st.lists(st.sampled_from([*SPLITS, None]), min_size=2, max_size=30),
    st.lists(st.integers(0, 9), min_size=30, max_size=30),
    st.sampled_from(["drop", "move"]),
)
@settings(max_examples=60, deadline=None)
def test_afterwards_no_group_is_in_two_splits_and_nothing_else_has_changed(splits, numbers, mode):
    dataset = result(*splits)
    groups = [[i for i in range(len(splits)) if numbers[i] == k] for k in range(10)]
    try:
        resolved, leakage = resolve_leakage(dataset, groups, mode)
    except DatasetError:
        return
    for group in groups:
        assert len({resolved.split[row] for row in group} - {None}) <= 1
    changed = {i for i in range(len(splits)) if resolved.split[i] != splits[i]}
    assert changed == set(leakage.changed)
    assert all(any(row in group for group in leakage.groups) for row in changed)
