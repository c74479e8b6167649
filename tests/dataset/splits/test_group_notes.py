"""Notes on groups that join classes, and on figures that rest on one group."""

import numpy as np
import pytest

from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.dataset.splits.settings import SplitSettings


@pytest.fixture
def tracks(make_tree):
    """Return class folders with three tracks of four images, numbered from 0 in each."""
    return make_tree(
        *(
            f"signs/{label}/0000{track}_{i}.jpg"
            for label in ("stop", "go")
            for track in range(3)
            for i in range(4)
        )
    )


def joined(dataset: ImageDataset) -> list[str]:
    return [note for note in dataset.notes if "of several classes" in note]


@pytest.mark.parametrize(
    ("pattern", "better"),
    [
        (r"^(\d+)_", r"([^/]+/\d+)_[^/]*$"),
        (r"(\d+)_\d", r"([^/]+/[^/]*?\d+)_\d[^/]*$"),
        (r"^0(?P<group>\d+)_\d+\.jpg$", r"([^/]+/0\d+)_\d+\.jpg$"),
    ],
)
def test_groups_of_several_classes_are_noted_with_a_pattern_that_separates_them(
    tracks, pattern, better
):
    dataset = open_dataset(tracks, DataOptions(group_from=pattern))
    (note,) = joined(dataset)
    assert note.startswith("3 of 3 groups with several images have images of several classes: ")
    assert "has 8 images of 2 classes" in note
    assert note.endswith(f'If each folder has its own numbering, use `group_from="{better}"`.')
    separate = open_dataset(tracks, DataOptions(group_from=better))
    assert joined(separate) == []
    assert len(set(separate.group)) == 6


@pytest.mark.parametrize("pattern", [r"(?:^)(\d+)_", r"^(\d)(\d+)_", r"^([^_]+)_|x(y)"])
def test_no_pattern_is_suggested_where_none_is_certain(tracks, pattern):
    dataset = open_dataset(tracks, DataOptions(group_from=pattern))
    (note,) = joined(dataset)
    assert note.endswith("If each class has its own numbering, use another `group_from`.")


def test_groups_of_one_class_have_no_note(tracks):
    assert joined(open_dataset(tracks, DataOptions(group_from=r"(\w+/\d+)_"))) == []


def test_groups_in_a_table_that_join_classes_are_noted(make_tree):
    root = make_tree(*(f"{name}.jpg" for name in "abcd"))
    (root / "t.csv").write_text("path,label,patient\na.jpg,x,1\nb.jpg,y,1\nc.jpg,x,2\nd.jpg,x,2\n")
    dataset = open_dataset(root / "t.csv", DataOptions(columns={"group": "patient"}))
    (note,) = joined(dataset)
    assert note.startswith(
        "1 of 2 groups with several images has images of several classes: '1' has"
    )


def split_of(groups: list[str | None], labels: list[str], split: list[str]) -> tuple[str, ...]:
    n = len(groups)
    dataset = ImageDataset(
        path=tuple(f"{i}.jpg" for i in range(n)),
        label=tuple(labels),
        split=tuple(split),
        group=tuple(groups),
        digest=tuple(f"{i:032x}" for i in range(n)),
    )
    return SplitSettings(seed=1).split(dataset).notes


def test_a_class_that_is_validated_on_one_group_is_noted():
    labels = ["a"] * 6 + ["b"] * 6
    groups = [*"001122", *"334455"]
    split = ["train"] * 4 + ["validation"] * 2 + ["train"] * 2 + ["validation"] * 4
    (note,) = split_of(groups, labels, split)
    assert note == (
        "In the validation split, all images of class 'a' belong to one group: its accuracy "
        "depends on that group alone."
    )
    split = ["train"] * 4 + ["validation"] * 2 + ["train"] * 4 + ["validation"] * 2
    (note,) = split_of(groups, labels, split)
    assert note.startswith(
        "In the validation split, all images of each of the classes 'a', 'b' belong"
    )


def test_without_groups_or_with_one_image_there_is_no_note():
    labels, split = ["a"] * 3 + ["b"] * 3, ["train", "validation", "validation"] * 2
    assert split_of([None] * 6, labels, split) == ()
    assert split_of([*"012345"], labels, split) == ()
    assert split_of(["0", "1", None, "3", "4", None], labels, split) == ()


def test_random_splits_with_few_groups_have_the_note(tracks):
    dataset = open_dataset(tracks, DataOptions(group_from=r"(\w+/\d+)_"))
    digests = [f"{i:032x}" for i in np.arange(len(dataset))]
    notes = SplitSettings(validation=0.3).split(dataset.with_columns(digest=digests)).notes
    assert any("each of the classes 'go', 'stop' belong to one group" in note for note in notes)
