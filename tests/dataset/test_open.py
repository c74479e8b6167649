"""Opening data of any kind, and labels and groups in the names of files."""

import re

import numpy as np
import pytest
from PIL import Image

from kindsight.dataset import (
    DataOptions,
    ImageDataset,
    as_dataset,
    from_table,
    open_dataset,
    open_splits,
    random_split,
)
from kindsight.errors import DatasetError, SettingsError


@pytest.fixture
def flat(make_tree):
    """A folder of images called after what is on them."""
    return make_tree("cat_1.jpg", "cat_2.jpg", "red fox_10.jpg", "elk_3.jpg", "Thumb.jpg")


def pixel_csv(path, labels, first=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ["label,pixel1,pixel2,pixel3,pixel4"]
    lines += [f"{label},{first + k},2,3,4" for k, label in enumerate(labels)]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_from_the_names(flat):
    dataset = open_dataset(flat, DataOptions(label_from=r"^(.+?)_\d+"))
    assert dataset.label == ("cat", "cat", "elk", "red fox")
    assert dataset.path == ("cat_1.jpg", "cat_2.jpg", "elk_3.jpg", "red fox_10.jpg")
    assert dataset.root == flat
    assert dataset.ignored == {"name without a label": 1}
    assert dataset.notes == ("Ignored without a label in the name: 1 image, first 'Thumb.jpg'.",)
    assert ImageDataset.open(flat, label_from=r"^(.+?)_\d+") == dataset


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(\d+)(?P<label>cat|elk)?", {"1", "2", "10", "3"}),
        (r"(?P<label>cat|elk)", {"cat", "elk"}),
        (r"_(?:1|2)(.)", {".", "0"}),
        (r"^([a-z ]*)", {"cat", "red fox", "elk"}),
    ],
)
def test_the_group_named_label_or_the_first(flat, pattern, expected):
    named = "label" in pattern and pattern.startswith("(\\d+)(?P")
    if named:
        with pytest.raises(DatasetError, match="found no "):
            open_dataset(flat, DataOptions(label_from=pattern))
    else:
        assert set(open_dataset(flat, DataOptions(label_from=pattern)).label) == expected


def test_a_pattern_with_a_slash_is_matched_against_the_path(make_tree):
    root = make_tree("day 1/cat/a.jpg", "day 2/dog/b.jpg", "day 2/dog/cat/c.jpg")
    dataset = open_dataset(
        root, DataOptions(label_from=r"([^/]+)/[^/]+$", group_from=r"^(day \d)/")
    )
    assert dataset.label == ("cat", "dog", "cat")
    assert dataset.group == ("day 1", "day 2", "day 2")


def test_split_folders_of_named_images(make_tree):
    root = make_tree("data/train/cat.1.jpg", "data/train/dog.2.jpg", "data/test/cat.3.jpg",
                     "data/test/dog.3.jpg", "data/pred/4.jpg")  # fmt: skip
    dataset = open_dataset(root, DataOptions(label_from=r"^([a-z]+)\."))
    assert dataset.split == ("test", "test", "train", "train")
    assert dataset.label == ("cat", "dog", "cat", "dog")
    assert dataset.ignored == {"unlabelled image": 1}


def test_groups_from_names_stay_in_one_split(make_tree):
    root = make_tree(*(f"{k}/p{p}_{n}.jpg" for k in "ab" for p in range(10) for n in range(3)))
    dataset = open_dataset(root, DataOptions(group_from=r"(p\d+)_"))
    assert dataset.group[0] == "p0" and len(set(dataset.group)) == 10
    digests = [f"{row:032x}" for row in range(len(dataset))]
    divided = random_split(dataset.with_columns(digest=digests), validation=0.3)
    sides = {}
    for group, split in zip(divided.group, divided.split, strict=True):
        sides.setdefault(group, set()).add(split)
    assert {len(side) for side in sides.values()} == {1}
    assert set(divided.split) == {"train", "validation"}
    some = open_dataset(root, DataOptions(group_from=r"(p[0-8])_"))
    assert "without a group in the name: 6 images, first 'a/p9_0.jpg'" in some.notes[-1]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_from": "(q)"}, DatasetError, "found no labels in the names of 5 images"),
        ({"label_from": "("}, SettingsError, "must be a regular expression with a group"),
        ({"label_from": "cat"}, SettingsError, "without parentheses"),
        (
            {"label_from": "(cat)"},
            DatasetError,
            "At least 2 classes are needed, but .* has 1 class",
        ),
        ({"label_from": "()"}, DatasetError, "found no "),
        ({"label_from": "(.)", "group_from": "(q)"}, DatasetError, "found no groups in the names"),
        ({"label_from": "^(.)"}, DatasetError, None),
    ],
)
def test_invalid_patterns(flat, options, error, message):
    if message is None:
        assert set(open_dataset(flat, DataOptions(**options)).label) == {"T", "c", "e", "r"}
        return
    with pytest.raises(error, match=message):
        open_dataset(flat, DataOptions(**options))


def test_labels_in_names_that_differ_by_case(make_tree):
    root = make_tree("cat_1.jpg", "Cat_2.jpg", "dog_1.jpg")
    with pytest.raises(DatasetError, match=r"'cat' \(1, first in 'cat_1.jpg'\)"):
        open_dataset(root, DataOptions(label_from="(.+)_"))


def test_long_names_are_cut_before_matching(make_tree):
    long = "a" * 250
    root = make_tree(f"cat/{long}.jpg", f"dog/{long}/{long}.jpg")
    dataset = open_dataset(root, DataOptions(label_from="^(.*)/"))
    assert max(map(len, dataset.label)) < 256


def test_names_of_a_table_s_rows(make_tree):
    root = make_tree("cat_1.jpg", "dog_2.jpg")
    (root / "t.csv").write_text("path,label\ncat_1.jpg,wrong\ndog_2.jpg,\n")
    options = DataOptions(label_from="(.+)_", group_from="_(.)")
    dataset = from_table(root / "t.csv", options)
    assert dataset.label == ("cat", "dog") and dataset.group == ("1", "2")
    assert dataset.classes == ("cat", "dog")
    pixels = pixel_csv(root / "p.csv", "ab")
    with pytest.raises(DatasetError, match="images in memory have no file names"):
        open_dataset(pixels, options)


# Folders of tables --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [("train.csv", "test.csv"), ("sign_mnist_train.csv", "sign_mnist_test.csv")],
)
def test_a_folder_of_a_training_and_a_test_table(tmp_path, train, test):
    folder = tmp_path / "signs"
    pixel_csv(folder / train, "aabb")
    pixel_csv(folder / test, "ab", first=100)
    pixel_csv(folder / test[:-4] / test, "ab")  # as the archive of the data set has it
    (folder / "american.png").write_bytes(b"an image of the signs")
    dataset = open_dataset(folder)
    assert dataset.split == ("train",) * 4 + ("test",) * 2
    assert dataset.label == ("a", "a", "b", "b", "a", "b")
    assert dataset.path[4] == f"{folder.as_posix()}/{test}:2"
    assert dataset.arrays[4][0, 0] == 100
    assert as_dataset(folder) == dataset
    assert open_dataset(folder, labelled=False).split == (None,) * 6


def test_class_folders_take_precedence_over_tables(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    pixel_csv(root / "train.csv", "ab")
    pixel_csv(root / "test.csv", "ab")
    assert open_dataset(root) == ImageDataset.from_folder(root)


@pytest.mark.parametrize("name", ["train.csv", "labels.csv", "train_labels.csv", "metadata.csv"])
def test_the_folder_of_a_competition(make_tree, name):
    root = make_tree(
        "train_images/a1.jpg", "train_images/b2.jpg", "train_images/a3.png", "test_images/t4.jpg"
    )
    (root / name).write_text("id,breed\na1,ash\nb2,box\na3,ash\n")
    (root / "sample_submission.csv").write_text("id,breed\nt4,ash\n")
    (root / "test.csv").write_text("id,width,height\nt4,8,8\n")
    dataset = open_dataset(root)
    assert dataset.path == ("train_images/a1.jpg", "train_images/b2.jpg", "train_images/a3.png")
    assert dataset.label == ("ash", "box", "ash") and dataset.size[2] == 19
    assert "3 images of" in dataset.notes[0] and "'a1' in 'train_images/a1.jpg'" in dataset.notes[0]
    assert any("for 'kindsight predict'" in note for note in dataset.notes)
    assert from_table(root / "test.csv", labelled=False).path == ("test_images/t4.jpg",)
    assert as_dataset(root) == dataset
    wrapped = root.parent / "archive" / "data"
    wrapped.parent.mkdir()
    root.rename(wrapped)
    assert open_dataset(wrapped.parent).path == dataset.path


@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("HAM_images_part_1", "HAM_images_part_2")]
)
def test_folders_of_images_beside_a_table_are_no_classes(make_tree, folders):
    first, second = folders
    root = make_tree(f"{first}/a.jpg", f"{first}/b.jpg", f"{second}/c.jpg", f"{second}/d.jpg")
    (root / "labels.csv").write_text("image_id,dx\na,ash\nb,box\nc,box\n")
    dataset = open_dataset(root)
    assert dataset.label == ("ash", "box", "box")
    assert dataset.notes[2].startswith(f"Not in 'labels.csv': 1 image, such as '{second}/d.jpg'")
    (root / "others.csv").write_bytes((root / "labels.csv").read_bytes())
    with pytest.raises(DatasetError, match="has several tables with labels of images"):
        open_dataset(root)


def test_a_folder_whose_table_does_not_help_names_it(make_tree):
    root = make_tree("images/1.jpg", "images/2.jpg")
    (root / "labels.csv").write_text("where,what\nimages/1.jpg,a\nimages/2.jpg,b\n")
    with pytest.raises(DatasetError, match=r"labels are in 'labels.csv', give that file"):
        open_dataset(root)
    options = DataOptions(columns={"path": "where", "label": "what"})
    assert open_dataset(root, options).label == ("a", "b")


def test_options_that_would_do_nothing_are_refused(make_tree, tmp_path):
    folder = make_tree("a/1.jpg", "b/1.jpg")
    given = {"pixel_shape": "2x2", "root": "x"}
    with pytest.raises(SettingsError, match=r"`pixel_shape`, `root` can only be used with a table"):
        open_dataset(folder, DataOptions(**given))
    with pytest.raises(SettingsError, match=r"`label_names` can only be used.*Leave it out"):
        open_splits(folder, DataOptions(label_names=["a", "b"]), test=folder)
    table = tmp_path / "t.csv"
    table.write_text("where,label\nroot/a/1.jpg,a\nroot/b/1.jpg,b\n")
    # Of several data one is enough.
    options = DataOptions(columns={"path": "where"})
    assert len(open_splits(folder, options, test=table)) == 4


def test_two_tables_for_one_split(tmp_path):
    for name in ("train.csv", "train2.csv", "test.csv"):
        pixel_csv(tmp_path / name, "ab")
    with pytest.raises(
        DatasetError, match=r"several tables for the train split: 'train.csv', 'train2.csv'"
    ):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["x.zip", "x.jpg", "x", "gone.csv", "gone"])
def test_paths_that_are_not_data(tmp_path, name):
    if not name.startswith("gone"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DatasetError, match=r"Images are read from a folder|Could not read"):
        open_dataset(tmp_path / name)


# Parts --------------------------------------------------------------------------------------------


def test_other_data_as_the_test_split(tmp_path):
    train = pixel_csv(tmp_path / "one.csv", "aabb")
    test = pixel_csv(tmp_path / "two.csv", "ab", first=50)
    dataset = open_splits(train, test=test)
    assert dataset.split == (None,) * 4 + ("test",) * 2
    assert dataset.arrays[5][0, 0] == 51
    both = open_splits(train, validation=test, test=str(test))
    assert both.split_counts() == {"train": 0, "validation": 2, "test": 2}


def test_folders_in_different_places(make_tree):
    one = make_tree("cat/1.jpg", "dog/1.jpg", root="photos")
    other = make_tree("cat/2.jpg", root="more/tests")
    dataset = open_splits(one, test=other)
    assert dataset.root == one.parent
    assert dataset.path == ("photos/cat/1.jpg", "photos/dog/1.jpg", "more/tests/cat/2.jpg")
    assert [dataset.load(row) for row in range(3)] == [b"cat/1.jpg", b"dog/1.jpg", b"cat/2.jpg"]
    assert dataset.notes == ("The test split has no images of 'dog'.",)
    assert dataset.classes == ("cat", "dog")


def test_a_table_of_absolute_paths_beside_a_folder(make_tree):
    one = make_tree("cat/1.jpg", "dog/1.jpg", root="photos")
    other = make_tree("2.jpg", root="more")
    (other / "t.csv").write_text(f"path,label\n{other}/2.jpg,dog\n")
    dataset = open_splits(one, validation=other / "t.csv")
    assert dataset.load(2) == b"2.jpg" and dataset.split[2] == "validation"


@pytest.mark.parametrize(
    ("test_labels", "message"),
    [
        ("abc", r"The train split in .* has no images of 'c'"),
        ("abA", "no images of 'A' .but it has 'a', spelled differently"),
    ],
)
def test_classes_without_train_images(tmp_path, test_labels, message):
    train = pixel_csv(tmp_path / "one.csv", "aabb")
    with pytest.raises(DatasetError, match=message):
        open_splits(train, test=pixel_csv(tmp_path / "two.csv", test_labels))


def test_splits_that_do_not_fit_together(make_tree, tmp_path):
    folder = make_tree("train/a/1.jpg", "train/b/1.jpg", "test/a/2.jpg", "test/b/2.jpg")
    flat = make_tree("a/1.jpg", "b/1.jpg", root="flat")
    table = pixel_csv(tmp_path / "x.csv", "ab")
    with pytest.raises(DatasetError, match="There are two test splits"):
        open_splits(folder, test=flat)
    with pytest.raises(DatasetError, match="mix image files with arrays"):
        open_splits(flat, test=table)


def test_evaluating_needs_one_class_only(tmp_path):
    table = pixel_csv(tmp_path / "x.csv", "aaa")
    assert open_dataset(table, min_classes=1).classes == ("a",)
    with pytest.raises(
        DatasetError, match=r"At least 2 classes are needed, but .* has 1 class .'a'."
    ):
        open_dataset(table)


def test_data_without_any_label_say_which_were_missing(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name in "12":
        Image.new("L", (4, 4)).save(folder / f"{name}.png")
    table = tmp_path / "t.csv"
    table.write_text("path,label\nimages/1.png,NA\nimages/2.png,\n")
    with pytest.raises(DatasetError, match=r"1 class is .*without a label: 2 .*keep_na_labels"):
        open_dataset(table, min_classes=1)


def test_a_split_of_one_class_lacks_the_others(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((3, 2, 2), np.uint8), y=[0, 1, 2],
             x_val=np.zeros((1, 2, 2), np.uint8), y_val=[1])  # fmt: skip
    assert open_dataset(tmp_path / "d.npz").notes == (
        "The validation split has no images of '0', '2'.",
    )


@pytest.mark.parametrize(
    ("name", "example", "found"),
    [
        ("cat_01.png", "^([^0-9]+?)[ _-]*[0-9]", "cat"),
        ("cat01.png", "^([^0-9]+?)[ _-]*[0-9]", "cat"),
        ("12-left.png", "^(.+?)[ _-]", "12"),
        ("cat.png", "^([A-Za-z]+)", "cat"),
        ("12.png", "^(.+)[.]", "12"),
    ],
)
def test_a_pattern_without_matches_gets_an_example_that_matches(tmp_path, name, example, found):
    Image.new("RGB", (9, 9)).save(tmp_path / name)
    with pytest.raises(DatasetError) as caught:
        open_dataset(tmp_path, DataOptions(label_from="^(q+)_"))
    message = str(caught.value)
    assert f"the first is {name!r}" in message
    assert message.endswith(f'For example, `label_from="{example}"` finds {found!r} in it.')
    assert re.search(example, name)[1] == found
