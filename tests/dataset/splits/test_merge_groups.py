"""Groups merged by links between near-duplicates."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kindsight.dataset import ImageDataset, random_split
from kindsight.dataset.splits.disjoint_sets import first_rows
from kindsight.dataset.splits.groups import group_indices
from kindsight.dataset.splits.leakage import merge_groups


def dataset_of(digests, groups) -> ImageDataset:
    return ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(len(digests))),
        digest=tuple(digests),
        group=tuple(groups),
    )


def test_linked_images_get_a_group_named_after_the_first_digest():
    linked = merge_groups(dataset_of(["cc", "aa", "bb"], [None] * 3), [7, 7, None])
    assert linked.group == ("near-duplicates-aa", "near-duplicates-aa", None)


def test_a_link_merges_groups_under_the_first_name():
    linked = merge_groups(dataset_of("12345", ["q", None, "p", "q", None]), [0, 0, 0, None, None])
    assert linked.group == ("p", "p", "p", "p", None)


def test_without_links_nothing_changes():
    dataset = dataset_of("123", ["p", None, "p"])
    assert merge_groups(dataset, [None] * 3) == dataset
    assert merge_groups(dataset, ["x", "y", "z"]) == dataset


def test_names_do_not_depend_on_the_order_of_rows():
    rows = [("d1", None, 1), ("d2", "p", 1), ("d3", None, 2), ("d4", None, 2)]
    found = set()
    for order in permutations(rows):
        digests, groups, links = zip(*order, strict=True)
        linked = merge_groups(dataset_of(digests, groups), links)
        found.add(frozenset(zip(linked.digest, linked.group, strict=True)))
    assert found == {
        frozenset(
            {("d1", "p"), ("d2", "p"), ("d3", "near-duplicates-d3"), ("d4", "near-duplicates-d3")}
        )
    }


def test_linked_images_stay_together():
    digests = [f"{i:02}" for i in range(40)]
    dataset = ImageDataset(path=tuple(digests), label=("a", "b") * 20, digest=tuple(digests))
    links = [i // 4 if i < 20 else None for i in range(40)]
    linked = merge_groups(dataset, links)
    assert group_indices(linked).max() + 1 == 5 + 20
    result = random_split(linked, seed=3)
    for start in range(0, 20, 4):
        assert len(set(result.split[start : start + 4])) == 1


def test_one_link_per_row():
    with pytest.raises(ValueError, match="2 rows; got 1"):
        merge_groups(dataset_of("12", [None, None]), [None])


@given(st.lists(st.one_of(st.none(), st.integers(-3, 3), st.text("ab", max_size=2)), max_size=40))
def test_the_first_row_of_each_value(values):
    """-1 and -2 have one hash in Python, and are different."""
    first = first_rows(values)
    assert first.tolist() == [
        row if value is None else values.index(value) for row, value in enumerate(values)
    ]
