"""Links, pipes and folders that cannot be opened: nothing is lost, nothing hangs."""

import os
from pathlib import Path

import pytest

from kindsight.dataset import DataOptions, from_folder, open_dataset, open_splits
from kindsight.errors import ImageError


@pytest.fixture
def link(tmp_path: Path):
    """Return a function that makes a link; skip where the platform has none."""

    def make(place: Path, target: Path | str, folder: bool = False) -> None:
        try:
            place.symlink_to(target, target_is_directory=folder)
        except (OSError, NotImplementedError):
            pytest.skip("no symbolic links here")

    return make


def test_a_linked_file_inside_the_root_has_the_label_of_its_folder(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg", ".store/9.jpg")
    link(root / "cat" / "2.jpg", "../dog/1.jpg")
    link(root / "dog" / "9.jpg", root / ".store" / "9.jpg")
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/9.jpg")
    assert dataset.load(1) == b"dog/1.jpg"
    assert dataset.size[1] == len("dog/1.jpg")


def test_links_that_leave_the_root_are_followed(make_tree, link):
    outside = make_tree("1.jpg", "deep/2.jpg", root="outside")
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "cat" / "9.jpg", outside / "1.jpg")
    link(root / "eel", outside, folder=True)
    dataset = from_folder(root)
    assert dataset.path == (
        "cat/1.jpg", "cat/9.jpg", "dog/1.jpg", "eel/1.jpg", "eel/deep/2.jpg",
    )  # fmt: skip
    assert dataset.classes == ("cat", "dog", "eel")
    assert dataset.load(4) == b"deep/2.jpg"
    assert dataset.ignored == {}


def test_a_linked_split_is_used(make_tree, link):
    common = make_tree("cat/1.jpg", "dog/1.jpg", root="common")
    root = make_tree("train/cat/1.jpg", "train/dog/1.jpg")
    link(root / "valid", common, folder=True)
    assert from_folder(root).split_counts() == {"train": 2, "validation": 2, "test": 0}
    with_options = open_dataset(root, DataOptions(follow_links=False))
    assert with_options.split_counts()["validation"] == 0
    assert "Ignored, link to outside the folder: 1; first 'valid'." in with_options.notes


def test_links_may_lead_to_other_given_folders(make_tree, link):
    common = make_tree("cat/5.jpg", "dog/5.jpg", root="common")
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "cat" / "5.jpg", common / "cat" / "5.jpg")
    options = DataOptions(follow_links=False)
    assert open_splits(root, options, validation=common).ignored == {}
    assert open_dataset(root, options).ignored == {"link to outside the folder": 1}


def test_a_table_of_links(make_tree, link):
    outside = make_tree("1.jpg", root="outside")
    root = make_tree("a.jpg", "b.jpg")
    link(root / "c.jpg", outside / "1.jpg")
    table = root / "table.csv"
    table.write_text(f"path,label\na.jpg,x\nb.jpg,y\nc.jpg,y\n{outside / '1.jpg'},x\n")
    assert len(open_dataset(table)) == 4
    dataset = open_dataset(table, DataOptions(follow_links=False))
    assert dataset.path == ("a.jpg", "b.jpg", str(outside / "1.jpg"))
    assert [file[:3] for file in dataset.ignored_files] == [
        ("c.jpg", "link to outside the folder", "y")
    ]


def test_each_folder_is_entered_once(make_tree, link):
    outside = make_tree("a/b/1.jpg", root="outside")
    root = make_tree("cat/1.jpg", "dog/1.jpg", ".store/eel/1.jpg")
    link(root / "eel", root / ".store" / "eel", folder=True)
    link(root / "fox", outside / "a" / "b", folder=True)
    link(root / "gnu", outside / "a" / "b", folder=True)
    link(root / "all", outside, folder=True)
    dataset = from_folder(root)
    assert dataset.path == ("all/a/b/1.jpg", "cat/1.jpg", "dog/1.jpg", "eel/1.jpg")
    assert {file.path: file.reason for file in dataset.ignored_files} == {
        "fox": "folder that is used already",
        "gnu": "folder that is used already",
        ".store": "hidden folder with images",
    }


def test_links_that_leave_the_root_are_refused_on_request(make_tree, link):
    outside = make_tree("secret.jpg", "folder/1.jpg", root="root-outside")
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "cat" / "a.jpg", outside / "secret.jpg")
    link(root / "cat" / "b.jpg", "../../root-outside/secret.jpg")
    link(root / "more", outside / "folder", folder=True)
    link(root / "cat" / "c.jpg", root / "more" / "1.jpg")
    dataset = from_folder(root, follow_links=False)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == {"link to outside the folder": 4}


def test_a_link_to_a_folder_of_the_data_is_not_entered(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "kitten", root / "cat", folder=True)
    dataset = from_folder(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.ignored == {"folder that is used already": 1}
    assert dataset.notes == ("Ignored, folder that is used already: 1; first 'kitten'.",)


def test_loops_of_links_are_not_followed(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    for name in ("up", "again"):
        link(root / "cat" / name, root, folder=True)
    link(root / "cat" / "further", root.parent, folder=True)
    link(root / "cat" / "self", "self")
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == {"broken link": 1, "link to a folder that contains it": 3}


def test_a_split_folder_that_is_a_broken_link_is_noted(make_tree, link):
    root = make_tree("train/cat/1.jpg", "train/dog/1.jpg")
    link(root / "valid", "../gone", folder=True)
    assert from_folder(root).notes == ("Ignored, broken link: 1; first 'valid'.",)


def test_folders_that_link_to_each_other_end(make_tree, link):
    root = make_tree("a/1.jpg", "b/1.jpg")
    outside = make_tree("c/1.jpg", root="outside")
    link(root / "a" / "to_b", root / "b", folder=True)
    link(root / "b" / "to_a", root / "a", folder=True)
    link(root / "b" / "out", outside, folder=True)
    link(outside / "c" / "back", root / "b", folder=True)
    dataset = from_folder(root)
    assert dataset.path == ("a/1.jpg", "b/1.jpg", "b/out/c/1.jpg")
    assert dataset.ignored == {"folder that is used already": 3}


def test_broken_links_are_images_that_are_missing(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "cat" / "self.jpg", "self.jpg")
    link(root / "cat" / "gone.jpg", "nothing.jpg")
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "cat/gone.jpg", "cat/self.jpg", "dog/1.jpg")
    for row in (1, 2):
        with pytest.raises(ImageError) as error:
            dataset.load(row)
        assert error.value.code == "missing" and "link" in error.value.reason


def test_the_root_may_be_a_link(make_tree, link, tmp_path):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(tmp_path / "alias", root, folder=True)
    link(root / "cat" / "2.jpg", "1.jpg")
    assert len(from_folder(tmp_path / "alias")) == 3


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_pipes_are_no_images(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    os.mkfifo(root / "cat" / "pipe.jpg")
    dataset = from_folder(root)
    assert len(dataset) == 2
    assert dataset.ignored == {"not a regular file": 1}


def test_folders_that_cannot_be_opened_are_counted(make_tree, monkeypatch):
    root = make_tree("cat/1.jpg", "dog/1.jpg", "cat/closed/2.jpg")
    scandir = os.scandir

    def refuse(place):
        if str(place).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return scandir(place)

    monkeypatch.setattr(os, "scandir", refuse)
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == {"unreadable folder": 1}
