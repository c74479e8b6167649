"""Leakage: what becomes of images that several parts have, by each of the three ways."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import SPLITS, ImageDataset
from kindsight.dataset.splits.leakage import LEAKAGE_MODES, resolve_leakage, write_leakage
from kindsight.errors import DatasetError


def divided(*parts, labels=None) -> ImageDataset:
    n = len(parts)
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(labels or "a" * n),
        split=parts,
    )


PARTS = ("train", "train", "validation", "test", "train", "validation", None)
GROUPS = [(1, 2), (3, 4, 5), (0, 6)]


def test_dropped_from_all_but_the_last_part():
    mended, leakage = resolve_leakage(divided(*PARTS), GROUPS, "drop")
    assert mended.split == ("train", None, "validation", "test", None, None, None)
    assert leakage.groups == ((1, 2), (3, 4, 5)) and leakage.rows == (1, 4, 5)
    assert leakage.leaking_rows == ()
    assert leakage.note == (
        "Left out, as a later part has the same or nearly the same: 2 images of the train part "
        "and 1 image of the validation part ('1.jpg', '4.jpg', '5.jpg'). leakage.csv "
        "names all, --leakage says what becomes of them."
    )
    assert leakage.to_dict() == {"how": "drop", "groups": 2, "images": 3}


def test_each_image_is_named_with_its_part_before_and_after(tmp_path):
    parts = ("train", "train", "test", "validation", "train", "train", "train")
    dataset = divided(*parts, labels="abaaaab").with_columns(digest="dedfghi")
    _, leakage = resolve_leakage(dataset, [(0, 1, 2), (3, 4)], "drop")
    write_leakage(leakage, tmp_path / "leakage.csv")
    assert (tmp_path / "leakage.csv").read_text("utf-8").splitlines() == [
        "group,path,label,was,now,alike",
        "1,0.jpg,a,train,excluded,byte for byte",
        "1,1.jpg,b,train,excluded,nearly",
        "1,2.jpg,a,test,test,byte for byte",
        "2,3.jpg,a,validation,validation,nearly",
        "2,4.jpg,a,train,excluded,nearly",
    ]


def test_moved_to_the_first_part():
    mended, leakage = resolve_leakage(divided(*PARTS), GROUPS, "move")
    assert mended.split == ("train", "train", "train", "train", "train", "train", None)
    assert leakage.rows == (2, 3, 5) and leakage.leaking_rows == ()
    assert leakage.note.startswith("Moved to the part that has the same")


def test_kept_where_they_are():
    dataset = divided(*PARTS)
    mended, leakage = resolve_leakage(dataset, GROUPS, "keep")
    assert mended == dataset and leakage.leaking_rows == (2, 3, 5)
    assert "Accuracy looks better than it is." in leakage.note


def test_nothing_to_mend():
    dataset = divided(*PARTS)
    for how in LEAKAGE_MODES:
        mended, leakage = resolve_leakage(dataset, [(0, 1), (2, 5), (6,)], how)
        assert mended == dataset and leakage.note == "" and leakage.groups == ()


def test_a_class_that_would_have_nothing_to_train_on():
    dataset = divided("train", "test", "train", labels="aab")
    with pytest.raises(DatasetError, match=r"none of 'a' left.*leakage='drop' takes them out"):
        resolve_leakage(dataset, [(0, 1)], "drop")
    assert resolve_leakage(dataset, [(0, 1)], "move")[0].split == ("train", "train", "train")


@given(
    st.lists(st.sampled_from([*SPLITS, None]), min_size=2, max_size=30),
    st.lists(st.integers(0, 9), min_size=30, max_size=30),
    st.sampled_from(["drop", "move"]),
)
@settings(max_examples=150, deadline=None)
def test_afterwards_no_group_is_in_two_parts_and_nothing_else_has_changed(parts, numbers, how):
    dataset = divided(*parts)
    groups = [[i for i in range(len(parts)) if numbers[i] == k] for k in range(10)]
    try:
        mended, leakage = resolve_leakage(dataset, groups, how)
    except DatasetError:
        return
    for group in groups:
        assert len({mended.split[row] for row in group} - {None}) <= 1
    changed = {i for i in range(len(parts)) if mended.split[i] != parts[i]}
    assert changed == set(leakage.rows)
    assert all(any(row in group for group in leakage.groups) for row in changed)
