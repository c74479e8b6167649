"""The split by date: the newest images are tested on, the next newest validated on."""

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


def test_the_newest_are_tested_on_and_the_next_newest_validated_on():
    dataset = dataset_of("abababab")
    divided = split_by_date(dataset, days(0, 2, 6, 7, 1, 3, 4, 5), validation=0.25, test=0.25)
    assert divided.split == (
        *("train", "train", "test", "test", "train", "train", "validation", "validation"),
    )
    assert divided.notes == (
        "The test part was taken from 1970-01-07 00:00 on.",
        "The validation part was taken from 1970-01-05 00:00 on.",
    )


def test_numbers_of_images():
    divided = split_by_date(dataset_of("ab" * 5), days(*range(10)), validation=3)
    assert divided.split == ("train",) * 7 + ("validation",) * 3


def test_images_of_one_second_are_not_parted():
    """Half of 6 is 3; the dates allow 2 or 4 of the newest: both as near, so the fewer."""
    divided = split_by_date(dataset_of("ababab"), days(1, 1, 2, 2, 3, 3), validation=0.5)
    assert divided.split == ("train",) * 4 + ("validation",) * 2


def test_a_group_is_as_new_as_its_newest():
    """The patient p came in on day 0 and on day 9: nothing newer than day 3 trains."""
    dataset = dataset_of("ababab", groups=["p", None, None, None, None, "p"])
    divided = split_by_date(dataset, days(0, 1, 2, 3, 4, 9), validation=2)
    assert divided.split == ("validation", "train", "train", "train", "train", "validation")


def test_copies_stay_together_though_their_dates_differ():
    dataset = dataset_of("ababab", digests=["x", "1", "2", "3", "4", "x"])
    divided = split_by_date(dataset, days(0, 1, 2, 3, 4, 9), validation=2)
    assert divided.split[0] == divided.split[5] == "validation"


def test_images_without_a_date_train():
    divided = split_by_date(dataset_of("ababab"), days(1, 2, 3, 4, None, None), validation=2)
    assert divided.split == ("train", "train", "validation", "validation", "train", "train")
    assert divided.notes[-1] == "Without a date, and so in the training part: 2 images."


def test_classes_without_new_images_are_noted():
    divided = split_by_date(dataset_of("aabbbb"), days(*range(6)), validation=2)
    assert divided.notes[-1] == "The validation part has no images of 'a'."


def test_given_parts_stay():
    parts = ["test", "test", None, "train", None, "train"]
    divided = split_by_date(
        dataset_of("ababab", split=parts), days(8, 9, 0, 1, 2, 3), validation=0.2
    )
    assert divided.split == ("test", "test", "train", "train", "train", "validation")
    whole = dataset_of("ab", split=["train", "validation"])
    assert split_by_date(whole, days(2, 1)).split == ("train", "validation")
    assert "state their parts" in split_by_date(whole, days(2, 1)).notes[-1]


def test_no_parts_wanted():
    divided = split_by_date(dataset_of("ab"), days(None, None), validation=0)
    assert set(divided.split) == {"train"}


@pytest.mark.parametrize(
    ("dates", "options", "message"),
    [
        ((None,) * 6, {}, "6 images, of which none does"),
        ((1, None, None, None, None, None), {"validation": 2}, "1 of 6 images with a date"),
        ((5,) * 6, {}, "6 images with 1 dates"),
        ((1, 1, 1, 2, 2, 2), {"validation": 2, "test": 2}, "6 images with 2 dates"),
        ((1, 8, 2, 9, 3, 7), {"validation": 3}, "new ones only of 'b'"),
    ],
)
def test_what_cannot_be_divided_by_date(dates, options, message):
    with pytest.raises(DatasetError, match=message):
        split_by_date(dataset_of("ababab"), days(*dates), **options)


def test_parts_that_are_none():
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
@settings(max_examples=150, deadline=None)
def test_nothing_trained_on_is_newer_than_what_is_held_back(rows, validation, test):
    """In units, which are tested elsewhere: each part's are all newer than those before it."""
    dates, groups, digests = zip(*rows, strict=True)
    dataset = dataset_of(["a"] * len(rows), groups, map(str, digests))
    taken = days(*dates)
    try:
        divided = split_by_date(dataset, taken, validation=validation / 100, test=test / 100)
    except DatasetError:
        return
    newest: dict[int, float] = {}
    size: dict[float, int] = {}
    part_of: dict[int, set] = {}
    numbers = group_indices(dataset).tolist()
    for number, date, part in zip(numbers, taken, divided.split, strict=True):
        newest[number] = np.fmax(newest.get(number, -np.inf), date)
        part_of.setdefault(number, set()).add(part)
    assert all(len(parts) == 1 for parts in part_of.values())
    order = [name for name in ("train", "validation", "test") if name in divided.split]
    dates_of = {
        name: [newest[n] for n, parts in part_of.items() if parts == {name}] for name in order
    }
    for earlier, later in pairwise(order):
        assert max(dates_of[earlier]) < min(dates_of[later])
    # The newest part is as near to its share as dates allow that leave some for the others.
    for number in numbers:
        size[newest[number]] = size.get(newest[number], 0) + 1
    possible = np.cumsum([size[d] for d in sorted(size, reverse=True) if d > -np.inf])
    share = Fraction(test or validation, 100) * len(rows)
    held = sum(part == order[-1] for part in divided.split)
    allowed = possible[: len(possible) - len(order) + 1]
    assert abs(held - share) == min(abs(int(n) - share) for n in allowed)
