"""One fold as the validation split: over all folds, every image is in it once."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.stratified import fold_split, parse_fold
from kindsight.errors import DatasetError, SettingsError


def dataset_of(rows, split=()) -> ImageDataset:
    labels, digests, groups = zip(*rows, strict=True)
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(len(rows))),
        label=labels,
        digest=digests,
        group=groups,
        split=split,
    )


@given(
    st.integers(2, 5),
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 30)), max_size=60),
    st.sampled_from([0.0, 0.2]),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_each_image_is_held_out_once_and_duplicates_stay_together(folds, extra, test, seed):
    rows = [(label, f"{label}{i}", None) for label in "ab" for i in range(9)]
    rows += [(label, f"{label}-{d}", f"g{d % 4}") for label, d in extra]
    dataset = dataset_of(rows)
    result = [fold_split(dataset, k, folds, test=test, seed=seed) for k in range(1, folds + 1)]
    tested = {i for i, name in enumerate(result[0].split) if name == "test"}
    held = Counter(i for one in result for i, name in enumerate(one.split) if name == "validation")
    assert held == Counter(i for i in range(len(rows)) if i not in tested)
    for one in result:
        assert {i for i, name in enumerate(one.split) if name == "test"} == tested
        for column in (one.digest, one.group):
            for value in set(column) - {None}:
                splits = {s for s, v in zip(one.split, column, strict=True) if v == value}
                assert len(splits) == 1


def test_folds_of_single_images_are_even():
    """11 of a and 7 of b in 3 folds: 4, 4, 3 and 2, 2, 3."""
    rows = [("a", f"a{i}", None) for i in range(11)] + [("b", f"b{i}", None) for i in range(7)]
    splits = [
        fold_split(dataset_of(rows), k, 3, seed=5).where(split="validation").counts()
        for k in (1, 2, 3)
    ]
    assert sorted(name["a"] for name in splits) == [3, 4, 4]
    assert sorted(name["b"] for name in splits) == [2, 2, 3]
    assert [name["a"] + name["b"] for name in splits] == [6, 6, 6]


def test_an_existing_test_split_stays():
    rows = [(label, f"{label}{i}", None) for label in "ab" for i in range(6)]
    with_splits = ("test",) * 2 + (None,) * 4 + ("test",) * 2 + ("train",) * 4
    result = fold_split(dataset_of(rows, with_splits), 1, 2, test=0.3)
    assert result.split_counts() == {"train": 4, "validation": 4, "test": 4}
    assert result.split[0] == result.split[6] == "test"


def test_an_existing_validation_split_is_an_error():
    rows = [("a", "1", None), ("b", "2", None), ("a", "3", None)]
    with pytest.raises(
        DatasetError, match=r"already have a validation split of 1 image\. Leave out `fold`"
    ):
        fold_split(dataset_of(rows, ("train", "train", "validation")), 1, 2)


def test_classes_with_fewer_images_than_folds():
    rows = [("a", f"a{i}", None) for i in range(5)] + [("b", "same", None)] * 5
    with pytest.raises(
        DatasetError, match=r"Class 'b' has 1 distinct image \(5 images\); 2 folds need at least 2"
    ):
        fold_split(dataset_of(rows), 1, 2)


@pytest.mark.parametrize(("fold", "folds"), [(0, 3), (4, 3), (1, 1)])
def test_invalid_folds(fold, folds):
    with pytest.raises(SettingsError, match="`fold` must be from 1"):
        fold_split(dataset_of([("a", "1", None)]), fold, folds)


def test_parse_fold():
    assert parse_fold("2/5") == (2, 5)
    assert parse_fold(" 1 of 10 ") == (1, 10)
    for text in ("", "5", "0/5", "6/5", "1/1", "a/b", "1/5/2"):
        with pytest.raises(SettingsError, match="such as 2/5"):
            parse_fold(text)
