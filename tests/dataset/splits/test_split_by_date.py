"""Splits by date: the newest images are the test split, the next newest the validation split."""

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.by_date import split_by_date
from kindsight.dataset.splits.groups import group_indices
from kindsight.errors import DatasetError, SettingsError

DAY = 86_400.0


def dataset_of(labels, groups=None, digests=None, split=None) -> ImageDataset:
    n = len(labels)
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(labels),
        digest=tuple(digests or (str(i) for i in range(n))),
        group=tuple(groups or ()),
        split=tuple(split or ()),
    )


def days(*numbers: float | None) -> np.ndarray:
    return np.array([math.nan if n is None else n * DAY for n in numbers])


def test_the_newest_are_test_images_and_the_next_newest_validation_images():
    dataset = dataset_of("abababab")
    result = split_by_date(dataset, days(0, 2, 6, 7, 1, 3, 4, 5), validation=0.25, test=0.25)
    assert result.split == (
        *("train", "train", "test", "test", "train", "train", "validation", "validation"),
    )
    assert result.notes == (
        "Images of the test split were taken from 1970-01-07 00:00 on.",
        "Images of the validation split were taken from 1970-01-05 00:00 on.",
    )


def test_numbers_of_images():
    result = split_by_date(dataset_of("ab" * 5), days(*range(10)), validation=3)
    assert result.split == ("train",) * 7 + ("validation",) * 3


def test_images_of_one_second_stay_together():
    """Half of 6 is 3; the dates allow 2 or 4 of the newest: both as close, so the fewer."""
    result = split_by_date(dataset_of("ababab"), days(1, 1, 2, 2, 3, 3), validation=0.5)
    assert result.split == ("train",) * 4 + ("validation",) * 2


def test_a_group_is_as_new_as_its_newest():
    """The patient p came in on day 0 and on day 9: no train image is newer than day 3."""
    dataset = dataset_of("ababab", groups=["p", None, None, None, None, "p"])
    result = split_by_date(dataset, days(0, 1, 2, 3, 4, 9), validation=2)
    assert result.split == ("validation", "train", "train", "train", "train", "validation")


def test_copies_stay_together_though_their_dates_differ():
    dataset = dataset_of("ababab", digests=["x", "1", "2", "3", "4", "x"])
    result = split_by_date(dataset, days(0, 1, 2, 3, 4, 9), validation=2)
    assert result.split[0] == result.split[5] == "validation"


def test_images_without_a_date_are_train_images():
    result = split_by_date(dataset_of("ababab"), days(1, 2, 3, 4, None, None), validation=2)
    assert result.split == ("train", "train", "validation", "validation", "train", "train")
    assert result.notes[-1] == "Without a capture date, so in the train split: 2 images."


def test_classes_without_new_images_are_noted():
    result = split_by_date(dataset_of("aabbbb"), days(*range(6)), validation=2)
    assert result.notes[-1] == "The validation split has no images of 'a'."


def test_existing_splits_stay():
    splits = ["test", "test", None, "train", None, "train"]
    result = split_by_date(
        dataset_of("ababab", split=splits), days(8, 9, 0, 1, 2, 3), validation=0.2
    )
    assert result.split == ("test", "test", "train", "train", "train", "validation")
    whole = dataset_of("ab", split=["train", "validation"])
    assert split_by_date(whole, days(2, 1)).split == ("train", "validation")
    assert "the data are already split" in split_by_date(whole, days(2, 1)).notes[-1]


def test_without_validation_and_test():
    result = split_by_date(dataset_of("ab"), days(None, None), validation=0)
    assert set(result.split) == {"train"}


@pytest.mark.parametrize(
    ("dates", "options", "message"),
    [
        ((None,) * 6, {}, "none of 6 images has a capture date"),
        ((1, None, None, None, None, None), {"validation": 2}, "1 of 6 images have a capture date"),
        ((5,) * 6, {}, "6 images have only 1 different capture"),
        (
            (1, 1, 1, 2, 2, 2),
            {"validation": 2, "test": 2},
            "6 images have only 2 different capture",
        ),
        ((1, 8, 2, 9, 3, 7), {"validation": 3}, "no images to train on for 'b'"),
    ],
)
def test_impossible_splits_by_date(dates, options, message):
    with pytest.raises(DatasetError, match=message):
        split_by_date(dataset_of("ababab"), days(*dates), **options)


def test_invalid_sizes():
    with pytest.raises(SettingsError, match="fraction"):
        split_by_date(dataset_of("abab"), days(1, 2, 3, 4), validation=1.5)


@given(
    st.lists(
        st.tuples(
            st.none() | st.integers(0, 40),
            st.none() | st.sampled_from("pqrs"),
            st.integers(0, 60),
        ),
        min_size=8,
        max_size=80,
    ),
    st.integers(5, 40),
    st.integers(0, 40),
)
@settings(max_examples=80, deadline=None)
def test_no_train_image_is_newer_than_a_validation_image(rows, validation, test):
    """Groups of a later split are all newer than those of an earlier one."""
    dates, groups, digests = zip(*rows, strict=True)
    dataset = dataset_of(["a"] * len(rows), groups, map(str, digests))
    taken = days(*dates)
    try:
        result = split_by_date(dataset, taken, validation=validation / 100, test=test / 100)
    except DatasetError:
        return
    newest: dict[int, float] = {}
    size: dict[float, int] = {}
    splits_of_group: dict[int, set] = {}
    numbers = group_indices(dataset).tolist()
    for number, date, name in zip(numbers, taken, result.split, strict=True):
        newest[number] = np.fmax(newest.get(number, -np.inf), date)
        splits_of_group.setdefault(number, set()).add(name)
    assert all(len(splits) == 1 for splits in splits_of_group.values())
    order = [name for name in ("train", "validation", "test") if name in result.split]
    dates_of = {
        name: [newest[n] for n, splits in splits_of_group.items() if splits == {name}]
        for name in order
    }
    for earlier, later in pairwise(order):
        assert max(dates_of[earlier]) < min(dates_of[later])
    # The newest split is as close to its fraction as the dates allow.
    for number in numbers:
        size[newest[number]] = size.get(newest[number], 0) + 1
    possible = np.cumsum([size[d] for d in sorted(size, reverse=True) if d > -np.inf])
    share = Fraction(test or validation, 100) * len(rows)
    held = sum(name == order[-1] for name in result.split)
    allowed = possible[: len(possible) - len(order) + 1]
    assert abs(held - share) == min(abs(int(n) - share) for n in allowed)
