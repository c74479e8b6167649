"""Links, pipes and folders that cannot be opened: nothing leaves the root, nothing hangs."""

import os
from pathlib import Path

import pytest

from kindsight.dataset import from_folder


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


def test_links_that_leave_the_root_are_refused(make_tree, link):
    outside = make_tree("secret.jpg", "folder/1.jpg", root="root-outside")
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "cat" / "a.jpg", outside / "secret.jpg")
    link(root / "cat" / "b.jpg", "../../root-outside/secret.jpg")
    link(root / "more", outside / "folder", folder=True)
    link(root / "cat" / "c.jpg", root / "more" / "1.jpg")
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == {"link to outside the folder": 4}


def test_linked_folders_are_not_entered(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    link(root / "kitten", root / "cat", folder=True)
    dataset = from_folder(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.ignored == {"link to a folder": 1}


def test_loops_of_links_are_not_followed(make_tree, link):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    for name in ("up", "again"):
        link(root / "cat" / name, root, folder=True)
    link(root / "cat" / "self.jpg", "self.jpg")
    link(root / "cat" / "gone.jpg", "nothing.jpg")
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg")
    assert dataset.ignored == {"broken link": 2, "link to a folder": 2}


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
