"""The split: stratified, by seed and content, copies and groups together, given parts kept."""

import hashlib
import os
import struct
import subprocess
import sys
from collections import Counter, defaultdict
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import ImageDataset, random_split
from kindsight.dataset.splits.choose import apportion, choose
from kindsight.dataset.splits.groups import Unit, group_indices
from kindsight.errors import DatasetError, SettingsError


def dataset_of(rows, **columns) -> ImageDataset:
    """Make a dataset of (label, digest, group) rows."""
    labels, digests, groups = zip(*rows, strict=True)
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(len(rows))),
        label=labels,
        digest=digests,
        group=groups,
        **columns,
    )


def singles(counts: dict[str, int]) -> ImageDataset:
    """Make a dataset of different images, so many of each class."""
    return dataset_of([(k, f"{k}-{i}", None) for k, n in counts.items() for i in range(n)])


def part_counts(dataset: ImageDataset, part: str) -> dict[str, int]:
    return dataset.where(split=part).counts()


# So many images of each class that every part can have one.
class_counts = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(3, 60), min_size=1, max_size=6
)
fractions = st.integers(1, 45).map(lambda percent: percent / 100)


@st.composite
def tables(draw):
    """Rows with copies and groups, in which every class has enough units for three parts."""
    rows = []
    for label in draw(st.sampled_from(["ab", "abc", "a"])):
        rows += [(label, f"{label}-only-{i}", None) for i in range(3)]
        for _ in range(draw(st.integers(0, 25))):
            digest = f"{label}{draw(st.integers(0, 12))}"
            group = draw(st.none() | st.integers(0, 6).map(lambda g: f"g{g}"))
            rows.append((label, digest, group))
    return rows


@given(class_counts, fractions, fractions, st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_each_class_is_within_one_image_of_its_share(counts, validation, test, seed):
    dataset = random_split(singles(counts), validation=validation, test=test, seed=seed)
    for part, share in (("validation", validation), ("test", test)):
        found = part_counts(dataset, part)
        for label, n in counts.items():
            # Only where one image each for the other two parts forces it may it be less.
            exact = min(Fraction(str(share)) * n, n - 2)
            assert abs(found[label] - exact) <= 1, (part, label)
            assert found[label] >= 1
    assert all(part_counts(dataset, "train").values())
    assert None not in dataset.split


@given(class_counts, fractions)
@settings(max_examples=60, deadline=None)
def test_the_whole_part_is_the_rounded_share(counts, validation):
    n = sum(counts.values())
    found = len(random_split(singles(counts), validation=validation).where(split="validation"))
    least = sum(max(1, int(Fraction(str(validation)) * k)) for k in counts.values())
    assert found == max(least, int(Fraction(str(validation)) * n + Fraction(1, 2)))


@given(tables(), st.randoms(use_true_random=False), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_neither_order_nor_names_matter(rows, random, seed):
    shuffled = list(rows)
    random.shuffle(shuffled)
    sides = []
    for table in (rows, shuffled):
        dataset = random_split(dataset_of(table), validation=0.3, test=0.2, seed=seed)
        side = defaultdict(set)
        for row, split in zip(table, dataset.split, strict=True):
            side[row].add(split)
        sides.append(dict(side))
    assert sides[0] == sides[1]


@given(tables(), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_copies_and_groups_stay_together_and_every_row_has_one_part(rows, seed):
    dataset = random_split(dataset_of(rows), validation=0.25, test=0.25, seed=seed)
    assert set(dataset.split) == {"train", "validation", "test"}
    for column in (dataset.digest, dataset.group):
        for value in set(column) - {None}:
            parts = {s for s, v in zip(dataset.split, column, strict=True) if v == value}
            assert len(parts) == 1, value
    for part in ("train", "validation", "test"):
        assert all(part_counts(dataset, part).values())


@given(tables())
@settings(max_examples=100, deadline=None)
def test_units_are_the_connected_rows(rows):
    """Compared with the plainest way: merge sets until none touch."""
    sets: list[tuple[set, set]] = []
    for i, (_, digest, group) in enumerate(rows):
        members, values = {i}, {("d", digest)} | ({("g", group)} if group else set())
        for other in [s for s in sets if s[1] & values]:
            members |= other[0]
            values |= other[1]
            sets.remove(other)
        sets.append((members, values))
    numbers = group_indices(dataset_of(rows))
    assert numbers.dtype == np.int64
    found = defaultdict(set)
    for row, number in enumerate(numbers.tolist()):
        found[number].add(row)
    assert sorted(map(sorted, found.values())) == sorted(sorted(s[0]) for s in sets)
    assert list(dict.fromkeys(numbers.tolist())) == list(range(len(sets)))


def test_units_chain_through_copies_and_groups():
    rows = [("a", "1", "p"), ("a", "2", None), ("a", "3", "q"), ("a", "1", "q"), ("a", "2", "r")]
    assert group_indices(dataset_of(rows)).tolist() == [0, 1, 0, 0, 1]


def test_units_without_digests_and_groups_are_single():
    assert group_indices(ImageDataset(path=("a", "b", "c"))).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("counts", "validation", "expected"),
    [
        # 0.2 * 33 = 6.6 in all, so 7: floors 2 + 2 + 2, the seventh to the largest remainder.
        ({"a": 10, "b": 11, "c": 12}, 0.2, {"a": 2, "b": 2, "c": 3}),
        # 0.29 * 100 is 28.999... in binary, 29 as it is written.
        ({"a": 100, "b": 100}, 0.29, {"a": 29, "b": 29}),
        # At least one each, though the share of "a" is 0.3.
        ({"a": 3, "b": 30}, 0.1, {"a": 1, "b": 3}),
        # Equal remainders of a half: the first class by name.
        ({"a": 5, "b": 5}, 0.3, {"a": 2, "b": 1}),
        # A number of images: 7 of 70 are a tenth.
        ({"a": 20, "b": 50}, 7, {"a": 2, "b": 5}),
        ({"a": 2, "b": 2}, 0.9, {"a": 1, "b": 1}),
    ],
)
def test_largest_remainders_by_hand(counts, validation, expected):
    dataset = random_split(singles(counts), validation=validation)
    assert part_counts(dataset, "validation") == expected


def test_groups_come_as_near_as_they_can():
    """Groups of 5 and of 3: 0.2 of 40 is 8, one of each, though neither fits alone."""
    rows = [("a", f"x{g}-{i}", f"x{g}") for g in range(5) for i in range(5)]
    rows += [("a", f"y{g}-{i}", f"y{g}") for g in range(5) for i in range(3)]
    rows += [("b", f"b{i}", None) for i in range(40)]
    for seed in range(10):
        dataset = random_split(dataset_of(rows), seed=seed)
        assert part_counts(dataset, "validation") == {"a": 8, "b": 8}


def test_groups_larger_than_the_part_still_give_it_one():
    rows = [("a", f"{g}-{i}", f"{g}") for g in range(2) for i in range(10)]
    rows += [("b", f"b{i}", None) for i in range(20)]
    dataset = random_split(dataset_of(rows), validation=0.1)
    assert part_counts(dataset, "validation") == {"a": 10, "b": 2}
    assert part_counts(dataset, "train") == {"a": 10, "b": 18}


def test_groups_of_several_classes():
    """20 patients with 3 images of a and 2 of b: 4 of them are exactly a fifth of both."""
    rows = [(k, f"{p}{k}{i}", f"p{p}") for p in range(20) for k, n in (("a", 3), ("b", 2))
            for i in range(n)]  # fmt: skip
    dataset = random_split(dataset_of(rows))
    assert part_counts(dataset, "validation") == {"a": 12, "b": 8}


def test_seed_changes_the_parts_and_nothing_else_does():
    dataset = singles({"a": 40, "b": 40})
    one, other = random_split(dataset, seed=1), random_split(dataset, seed=2)
    assert random_split(dataset, seed=1) == one
    assert one.split != other.split
    assert one.with_columns(split=other.split) == other
    # The label counts too: the same digests under other names are drawn anew.
    relabelled = dataset.with_columns(label=["c"] * 40 + ["d"] * 40)
    assert random_split(relabelled, seed=1).split != one.split


def test_asking_for_a_test_part_leaves_most_of_the_rest_in_place():
    dataset = singles({"a": 100, "b": 100})
    without = random_split(dataset, validation=0.2)
    with_test = random_split(dataset, validation=0.2, test=0.2)
    moved = sum(
        before == "validation" and after == "train"
        for before, after in zip(without.split, with_test.split, strict=True)
    )
    assert moved == 0


def test_a_image_added_moves_few_others():
    before = random_split(singles({"a": 100, "b": 100}))
    after = random_split(singles({"a": 101, "b": 100}))
    side = dict(zip(before.digest, before.split, strict=True))
    moved = sum(side.get(d, s) != s for d, s in zip(after.digest, after.split, strict=True))
    assert moved <= 2


def test_the_same_in_every_process():
    """Python's own hash() differs from process to process; this must not."""
    code = (
        "from kindsight.dataset import ImageDataset, random_split, fold_indices\n"
        "n = 40\n"
        "c = ImageDataset(path=tuple(map(str, range(n))), label=tuple('ab'[i % 2] for i in range(n)),"  # noqa: E501
        " digest=tuple(f'd{i // 2 if i % 5 else i}' for i in range(n)))\n"
        "print([s[0] for s in random_split(c, test=0.2).split],"
        " fold_indices(c.targets, None, 3, 0, c.digest).tolist())\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1


def test_stays_as_it_was_in_earlier_versions():
    """A stored seed must give the same parts for ever: the keys are part of the format."""

    def key(part, label, digest):
        texts = [b"7", part, digest.encode(), label.encode()]
        message = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        return hashlib.blake2b(message, digest_size=16).hexdigest()

    expected = {}
    for label in "ab":
        digests = [f"{label}-{i}" for i in range(5)]
        for part, n in (("test", 1), ("validation", 2), ("train", 2)):
            digests.sort(key=lambda d: key(part.encode(), label, d))
            expected.update(dict.fromkeys(digests[:n], part))
            digests = digests[n:]
    dataset = random_split(singles({"a": 5, "b": 5}), validation=0.4, test=0.2, seed=7)
    assert dict(zip(dataset.digest, dataset.split, strict=True)) == expected


# What is given is kept.


def given_parts(*parts: str | None, per_class: int = 10) -> ImageDataset:
    rows = [(k, f"{part}{k}{i}", None) for part in parts for k in "ab" for i in range(per_class)]
    splits = [part for part in parts for _ in range(2 * per_class)]
    return dataset_of(rows, split=tuple(splits))


@pytest.mark.parametrize("parts", [("train", "validation"), ("train", "validation", "test")])
def test_given_training_and_validation_parts_are_left_alone(parts):
    dataset = given_parts(*parts)
    assert random_split(dataset, validation=0.5, seed=3) == dataset


def test_a_test_part_asked_for_where_the_splits_are_given_is_said():
    dataset = given_parts("train", "validation")
    divided = random_split(dataset, test=0.1)
    assert divided.split == dataset.split
    assert "No test part was made" in divided.notes[0]


def test_validation_is_taken_from_a_given_training_part():
    dataset = given_parts("train", "test")
    divided = random_split(dataset, test=0.3)
    assert divided.split[20:] == ("test",) * 20
    assert Counter(divided.split[:20]) == {"train": 16, "validation": 4}


def test_a_training_part_alone_gives_both():
    divided = random_split(given_parts("train"), test=0.1)
    assert divided.split_counts() == {"train": 14, "validation": 4, "test": 2}


def test_rows_without_a_part_join_the_training_part():
    divided = random_split(given_parts(None, "test"))
    assert divided.split_counts() == {"train": 16, "validation": 4, "test": 20}
    divided = random_split(given_parts("train", None, "validation"))
    assert divided.split_counts() == {"train": 40, "validation": 20, "test": 0}


@pytest.mark.parametrize("parts", [("test",), ("validation", "test")])
def test_without_anything_to_train_on(parts):
    with pytest.raises(DatasetError, match=r"training part is needed.*20 images in test"):
        random_split(given_parts(*parts))


def test_no_parts_wanted():
    assert set(random_split(singles({"a": 1, "b": 1}), validation=0).split) == {"train"}


def test_unlabelled_rows_may_be_in_a_given_part():
    dataset = given_parts("train", "test")
    dataset = dataset.with_columns(label=[*dataset.label[:20], *[None] * 20])
    assert random_split(dataset).split[20:] == ("test",) * 20


# Classes that are too small, and values that are none.


@pytest.mark.parametrize(
    ("counts", "options", "message"),
    [
        ({"a": 1, "b": 9}, {}, "at least 2 images.*Received: 'a' with 1. Add images"),
        ({"a": 2, "b": 9}, {"test": 0.2}, "at least 3 images.*Received: 'a' with 2"),
        ({"a": 1, "b": 1}, {}, "'a' with 1, 'b' with 1"),
    ],
)
def test_classes_with_too_few_images(counts, options, message):
    with pytest.raises(DatasetError, match=message):
        random_split(singles(counts), **options)


def test_copies_and_groups_count_once():
    rows = [("a", "same", None), ("a", "same", None), ("b", "1", None), ("b", "2", None)]
    with pytest.raises(DatasetError, match=r"'a' with 2 \(1 if copies and groups count once\)"):
        random_split(dataset_of(rows))


def test_groups_that_make_it_impossible():
    rows = [("a", "1", "p"), ("b", "2", "p"), ("b", "3", "q"), ("c", "4", "q"), ("a", "5", "r"),
            ("c", "6", "r")]  # fmt: skip
    with pytest.raises(DatasetError, match="groups that hold images of several classes"):
        random_split(dataset_of(rows), validation=0.3)


@pytest.mark.parametrize(
    "options",
    [
        {"validation": 1.0},
        {"validation": -0.1},
        {"validation": 20},
        {"validation": -1},
        {"validation": True},
        {"validation": "0.2"},
        {"validation": float("nan")},
        {"validation": 1},
        {"test": float("inf")},
        {"validation": 0.5, "test": 0.5},
        {"validation": 10, "test": 10},
    ],
)
def test_settings_that_are_none(options):
    with pytest.raises(SettingsError, match="Received"):
        random_split(singles({"a": 10, "b": 10}), **options)


@pytest.mark.parametrize("value", [np.float64(0.2), np.int64(4), np.float32(0.2), Fraction(1, 5)])
def test_other_kinds_of_numbers(value):
    divided = random_split(singles({"a": 10, "b": 10}), validation=value)
    assert part_counts(divided, "validation") == {"a": 2, "b": 2}


def test_rows_must_have_digests_and_labels():
    dataset = singles({"a": 3, "b": 3})
    with pytest.raises(ValueError, match="digest"):
        random_split(dataset.with_columns(digest=["1", None, "2", "3", "4", "5"]))
    with pytest.raises(ValueError, match="label"):
        random_split(dataset.with_columns(label=["a", None, "a", "b", "b", "b"]))


def test_a_class_without_rows_is_passed_by():
    divided = random_split(singles({"a": 5, "b": 5, "c": 5})[:10])
    assert part_counts(divided, "validation") == {"a": 1, "b": 1, "c": 0}


# What is worth saying.


def test_copies_are_noted():
    rows = [("a", f"{i // 2}", None) for i in range(10)] + [("b", f"b{i}", None) for i in range(5)]
    notes = random_split(dataset_of(rows)).notes
    assert notes == ("Copies of other images, byte for byte: 5.",)


def test_copies_under_two_labels_stay_together_and_are_noted():
    rows = [(k, f"{k}{i}", None) for k in "ab" for i in range(9)]
    rows += [("a", "same", None), ("b", "same", None)]
    for seed in range(6):
        divided = random_split(dataset_of(rows), seed=seed)
        assert divided.split[18] == divided.split[19]
        assert divided.notes[1] == (
            "Images that occur under more than one label: 1, "
            "the first of them as '18.jpg', '19.jpg'."
        )


def test_copies_across_given_parts_are_kept_and_noted():
    dataset = given_parts("train", "validation", "test")
    digests = list(dataset.digest)
    digests[20], digests[41], digests[42] = digests[0], digests[1], digests[1]
    divided = random_split(dataset.with_columns(digest=digests))
    assert divided.split == dataset.split
    assert divided.notes == (
        "Copies of other images, byte for byte: 3.",
        "Images of the validation part that the training part has as well: 1.",
        "Images of the test part that the training part has as well: 1.",
    )


# Where groups allow it, each class is within one image of its share.


@st.composite
def large_units(draw):
    """Few groups of several images, of up to three classes."""
    kinds = draw(st.integers(1, 3))
    one = st.lists(st.integers(0, kinds - 1), min_size=1, max_size=5).map(Counter)
    units = [dict(counts) for counts in draw(st.lists(one, min_size=3, max_size=9))]
    return [Unit(bytes([i]), list(range(sum(c.values()))), c) for i, c in enumerate(units)]


@given(large_units(), st.integers(10, 60))
@settings(max_examples=150, deadline=None)
def test_groups_are_within_one_image_where_any_choice_of_them_is(units, percent):
    """Compared with all choices of units that leave each class on both sides."""
    total = Counter()
    for unit in units:
        total.update(unit.counts)
    exact = {k: Fraction(percent, 100) * n for k, n in total.items()}

    def within_one(chosen):
        found = Counter()
        for unit in chosen:
            found.update(unit.counts)
        both = all(0 < found[k] < total[k] for k in total)
        return both and all(abs(found[k] - exact[k]) <= 1 for k in total)

    choices = (c for n in range(1, len(units)) for c in combinations(units, n))
    if any(map(within_one, choices)):
        assert within_one(choose(units, apportion(total, Fraction(percent, 100), 1), 1, exact))


def test_many_large_groups_take_bounded_time_and_come_near():
    """300 groups of 7 to 12 images of 5 classes: more sums than are followed."""
    rows = [
        ("abcde"[(g * 7 + i * i) % 5], f"{g}-{i}", f"g{g}")
        for g in range(300)
        for i in range(7 + g % 6)
    ]
    dataset = random_split(dataset_of(rows))
    found, whole = part_counts(dataset, "validation"), dataset.counts()
    assert all(abs(found[k] - whole[k] / 5) <= 2 for k in whole)
