"""Which pictures a command line means."""

import os
from collections import Counter

import pytest

from kindsight.catalog import iter_pictures
from kindsight.errors import CatalogError


@pytest.fixture
def here(make_tree, monkeypatch):
    root = make_tree(
        *("b.jpg", "a.png", "notes.txt", "x[1].jpg", ".hidden.jpg"),
        *("sub/1.jpg", "sub/2.JPG", "sub/deep/3.jpg", "sub/deep/er/4.jpg", "sub/Thumbs.db"),
        *(".git/5.jpg", "__MACOSX/6.jpg", "empty/readme.md"),
    )
    monkeypatch.chdir(root)
    return root


def listed(*targets: str, **options) -> list[str]:
    return [path.replace(os.sep, "/") for path in iter_pictures(targets, **options)]


def test_files_are_passed_on_as_they_are_spelled(here):
    names = ["./b.jpg", "notes.txt", "gone.jpg", "b.jpg", str(here / "a.png")]
    assert list(iter_pictures(names)) == names


def test_folders_are_listed_by_name_at_any_depth(here):
    counted = Counter()
    assert listed("sub", passed_over=counted) == [
        "sub/1.jpg",
        "sub/2.JPG",
        "sub/deep/3.jpg",
        "sub/deep/er/4.jpg",
    ]
    assert counted == {"file of the operating system": 1}
    assert listed("sub/deep/") == ["sub/deep/3.jpg", "sub/deep/er/4.jpg"]
    assert listed(".")[:3] == ["./a.png", "./b.jpg", "./x[1].jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["b.jpg", "x[1].jpg"]),
        ("?.*", ["a.png", "b.jpg"]),
        ("[ab].*", ["a.png", "b.jpg"]),
        ("sub/*.jpg", ["sub/1.jpg"]),
        ("./sub/*.jpg", ["./sub/1.jpg"]),
        ("s*/d*", ["sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        ("*/deep/*.jpg", ["sub/deep/3.jpg"]),
        ("**/3.jpg", ["sub/deep/3.jpg"]),
        ("**/*.jpg", ["b.jpg", "x[1].jpg", "sub/1.jpg", "sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        ("sub/**", ["sub/1.jpg", "sub/2.JPG", "sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        ("sub/**/*", ["sub/1.jpg", "sub/2.JPG", "sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        ("**/deep", ["sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        ("**/**/er/*", ["sub/deep/er/4.jpg"]),
        ("**/d*/**/*.jpg", ["sub/deep/3.jpg", "sub/deep/er/4.jpg"]),
        (".h*.jpg", None),
        ("*.txt", None),
        ("zebra*/x.jpg", None),
        ("__*", None),
    ],
)
def test_patterns(here, pattern, expected):
    if expected is None:
        with pytest.raises(CatalogError, match="must match at least one picture"):
            listed(pattern)
    else:
        assert listed(pattern) == expected
        absolute = [f"{here}/{name.removeprefix('./')}".replace(os.sep, "/") for name in expected]
        assert listed(f"{here}/{pattern.removeprefix('./')}") == absolute


def test_a_file_whose_name_looks_like_a_pattern(here):
    assert listed("x[1].jpg") == ["x[1].jpg"]
    assert listed("y[1].jpg", patterns=False) == ["y[1].jpg"]


def test_folders_without_pictures_are_refused(here):
    with pytest.raises(CatalogError, match="folder 'empty' must hold at least one picture"):
        listed("empty")


def test_targets_are_taken_one_at_a_time(here):
    taken = []

    def targets():
        for name in ("b.jpg", "sub", "zebra*"):
            taken.append(name)
            yield name

    pictures = iter_pictures(targets())
    assert next(pictures) == "b.jpg"
    assert taken == ["b.jpg"]
    assert next(pictures).endswith("1.jpg")
    assert taken == ["b.jpg", "sub"]
    with pytest.raises(CatalogError):
        list(pictures)


def test_paths_are_taken_too(here):
    assert list(iter_pictures([here / "a.png"])) == [str(here / "a.png")]


def test_a_name_with_a_nul_is_for_the_reader_to_refuse(here):
    assert list(iter_pictures(["a\0b.jpg"])) == ["a\0b.jpg"]
