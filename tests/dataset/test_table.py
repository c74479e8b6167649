"""The table itself: columns, indexing, equality, what it says about itself."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kindsight.dataset import ImageDataset
from kindsight.errors import DatasetError


def small() -> ImageDataset:
    return ImageDataset(
        path=("a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg", "c/1.jpg"),
        label=("a", "a", "b", "b", "c"),
        split=("train", "test", "train", "validation", None),
        digest=("d1", "d2", "d3", "d4", "d5"),
        size=(1, 2, 3, 4, 5),
        root=Path("/images"),
    )


def test_omitted_columns_are_filled():
    dataset = ImageDataset(path=("x", "y"))
    assert dataset.label == (None, None)
    assert dataset.split == dataset.group == dataset.digest == (None, None)
    assert dataset.size == (0, 0)
    assert dataset.classes == ()
    assert dataset.targets.tolist() == [-1, -1]


def test_classes_are_sorted_by_code_point_and_number_the_targets():
    dataset = ImageDataset(path=("1", "2", "3", "4"), label=("b", "é", "B", None))
    assert dataset.classes == ("B", "b", "é")
    assert dataset.targets.tolist() == [1, 2, 0, -1]
    assert dataset.targets.dtype == np.int64


def test_cannot_be_changed():
    dataset = small()
    with pytest.raises(AttributeError):
        dataset.label = ()
    with pytest.raises(TypeError):
        dataset.path[0] = "other"
    with pytest.raises(TypeError):
        hash(dataset)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": ("a",)}, "every column must have 2 rows"),
        ({"split": ("train", "dev")}, "split must be one of"),
        ({"label": ("a", "b"), "classes": ("a",)}, "contain every label"),
        ({"classes": ("a", "a")}, "unique"),
        ({"arrays": ()}, "must be 2 arrays"),
    ],
)
def test_rules_of_the_table(columns, message):
    with pytest.raises(ValueError, match=message):
        ImageDataset(path=("x", "y"), **columns)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (slice(1, 4, 2), [1, 3]),
        (slice(None, None, -1), [4, 3, 2, 1, 0]),
        ([3, 0, 0], [3, 0, 0]),
        ([], []),
        (range(2), [0, 1]),
        (np.array([-1, 2]), [4, 2]),
        (np.array([1], dtype=np.uint8), [1]),
        (np.array([], dtype=np.int64), []),
        (np.array([True, False, True, False, False]), [0, 2]),
        ([False, False, False, False, True], [4]),
        (2, [2]),
        (-1, [4]),
        (np.int32(3), [3]),
        (np.array(1), [1]),
        ((np.array([1, 4]), Ellipsis), [1, 4]),
        ((slice(0, 1), ...), [0]),
        ((0, ...), [0]),
    ],
)
def test_indexing_picks_the_rows_of_every_column(key, expected):
    dataset = small()
    part = dataset[key]
    assert isinstance(part, ImageDataset)
    for name in ("path", "label", "split", "group", "digest", "size"):
        assert getattr(part, name) == tuple(getattr(dataset, name)[i] for i in expected), name
    assert part.classes == ("a", "b", "c")
    assert part.root == dataset.root
    assert part.shape == (len(expected),) == (len(part),)


@pytest.mark.parametrize("key", [5, -6, [0, 5], np.array([True]), [True] * 6])
def test_rows_that_do_not_exist(key):
    with pytest.raises(IndexError):
        small()[key]


@pytest.mark.parametrize(
    "key", ["a", None, ..., 1.0, [0.5], True, (0, 1), np.zeros((1, 2), int), ["a"]]
)
def test_invalid_keys(key):
    with pytest.raises(TypeError, match="indexed by"):
        small()[key]


def test_iterating_gives_one_row_each_and_ends():
    assert [row.path for row in small()] == [(path,) for path in small().path]


def test_numpy_is_refused_instead_of_taking_rows_apart():
    with pytest.raises(TypeError, match="not an array"):
        np.asarray(small())


def test_a_subset_numbers_classes_as_the_whole_does():
    part = small()[[2, 4]]
    assert part.targets.tolist() == [1, 2]
    assert part.present_classes() == ("b", "c")
    assert part.counts() == {"a": 0, "b": 1, "c": 1}


def test_equality_compares_all_columns():
    assert small() == small()
    assert small() != small()[:4]
    assert small() != small().with_columns(size=[0] * 5)
    assert small() != small().with_notes("something")
    assert small() != "dataset"
    one = ImageDataset.from_arrays(np.zeros((1, 2, 2, 3), np.uint8))
    assert one == ImageDataset.from_arrays(np.zeros((1, 2, 2, 3), np.uint8))
    assert one != ImageDataset.from_arrays(np.ones((1, 2, 2, 3), np.uint8))
    assert one != ImageDataset(path=one.path, size=one.size)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])  # noqa: S301
def test_survives_being_sent_to_another_process(again):
    assert again(small()) == small()


def test_repr_is_short_and_says_what_there_is():
    labels = ("cat",) * 700 + ("dog",) * 699
    dataset = ImageDataset(path=tuple(map(str, range(1399))), label=labels)
    assert repr(dataset) == "ImageDataset(1,399 images, 2 classes: cat 700, dog 699)"
    assert repr(dataset[0]) == "ImageDataset(1 image, 2 classes: cat 1, dog 0)"
    assert repr(ImageDataset(path=("x",))) == "ImageDataset(1 image)"
    split = dataset.with_columns(split=["train"] * 1300 + ["test"] * 99)
    assert repr(split).endswith("dog 699; train 1,300, test 99)")
    many = ImageDataset(path=tuple("abcdefghij"), label=tuple("abcdefghij"))
    assert repr(many) == "ImageDataset(10 images, 10 classes: a 1, b 1, c 1, d 1, e 1, ...)"


def test_where():
    dataset = small()
    assert dataset.where(split="train").path == ("a/1.jpg", "b/1.jpg")
    assert dataset.where(split=None).path == ("c/1.jpg",)
    assert dataset.where(split="train", label="b").path == ("b/1.jpg",)
    assert len(dataset.where(label="zebra")) == 0
    with pytest.raises(ValueError, match="splitt"):
        dataset.where(splitt="train")


def test_with_columns():
    dataset = small()
    other = dataset.with_columns(split=["train"] * 5, group=["g"] * 5)
    assert (other.split, other.group) == (("train",) * 5, ("g",) * 5)
    assert other.label == dataset.label
    assert dataset.split[1] == "test"
    assert dataset.with_columns(label=["a"] * 5).classes == ("a", "b", "c")
    assert dataset.with_columns(label=["z", "a", "a", "a", None]).classes == ("a", "z")
    with pytest.raises(ValueError, match="must have 5 rows"):
        dataset.with_columns(label=[])


def test_notes_are_not_repeated():
    assert small().with_notes("x", "y").with_notes("x").notes == ("x", "y")


def test_counts_of_splits():
    assert small().split_counts() == {"train": 2, "validation": 1, "test": 1}


def test_digest_of_data_depends_on_images_and_labels_only():
    dataset = small()
    digest = dataset.dataset_digest()
    assert len(digest) == 32
    assert dataset[[4, 2, 0, 1, 3]].dataset_digest() == digest
    renamed = ImageDataset(path=tuple("vwxyz"), label=dataset.label, digest=dataset.digest)
    assert renamed.dataset_digest() == digest
    assert dataset[:4].dataset_digest() != digest
    assert dataset.with_columns(label=["a", "b", "a", "b", "c"]).dataset_digest() != digest
    assert dataset.with_columns(digest=["d1", "d2", "d3", "d4", "d4"]).dataset_digest() != digest


def test_digest_distinguishes_no_label_from_the_label_none():
    none = ImageDataset(path=("x",), digest=("d",))
    word = ImageDataset(path=("x",), digest=("d",), label=("None",))
    assert none.dataset_digest() != word.dataset_digest()
    with pytest.raises(ValueError, match="digest"):
        ImageDataset(path=("x",)).dataset_digest()


def test_file_and_load(make_tree):
    root = make_tree("a/1.jpg", "b/1.jpg")
    dataset = ImageDataset.from_folder(root)
    assert dataset.file(1) == root.absolute() / "b" / "1.jpg"
    assert dataset.load(1) == b"b/1.jpg"


def test_a_relative_root_stays_where_it_was(make_tree, monkeypatch, tmp_path):
    make_tree("a/1.jpg", "b/1.jpg")
    monkeypatch.chdir(tmp_path)
    dataset = ImageDataset.from_folder("root")
    monkeypatch.chdir("/")
    assert dataset.file(0) == tmp_path / "root" / "a" / "1.jpg"
    assert dataset.load(0) == b"a/1.jpg"


def test_imports_nothing_heavy():
    code = (
        "import sys, kindsight.dataset\n"
        "print({'tensorflow', 'keras', 'scipy', 'sklearn', 'cv2', 'PIL'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "set()"


def test_images_in_memory_have_no_file():
    dataset = ImageDataset.from_arrays(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(DatasetError, match="load"):
        dataset.file(0)
