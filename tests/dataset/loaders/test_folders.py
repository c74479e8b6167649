"""What the folders of a folder are taken for: wrappers, splits, classes."""

import os
import sys

import pytest

from kindsight.dataset import ImageDataset, from_folder, open_dataset
from kindsight.dataset.loaders.from_names import split_roles
from kindsight.errors import DatasetError


def rows(dataset: ImageDataset) -> dict[str, tuple[str | None, str | None]]:
    return {
        path: (label, split)
        for path, label, split in zip(dataset.path, dataset.label, dataset.split, strict=True)
    }


def test_class_folders_with_everything_below_them(make_tree):
    root = make_tree("dog/z.png", "cat/2.JPG", "cat/1.jpg", "cat/outside/night/3.jpg", "dog/1.jpg")
    dataset = from_folder(root)
    assert rows(dataset) == {
        "cat/1.jpg": ("cat", None),
        "cat/2.JPG": ("cat", None),
        "cat/outside/night/3.jpg": ("cat", None),
        "dog/1.jpg": ("dog", None),
        "dog/z.png": ("dog", None),
    }
    assert dataset.path == tuple(sorted(dataset.path))
    assert dataset.classes == ("cat", "dog")
    assert dataset.size[0] == len("cat/1.jpg")
    assert dataset.notes == ()
    assert dataset.ignored == {}


def test_same_names_in_different_folders_stay_apart(make_tree):
    dataset = from_folder(make_tree("a/x.jpg", "b/x.jpg", "a/s/x.jpg"))
    assert dataset.path == ("a/s/x.jpg", "a/x.jpg", "b/x.jpg")
    assert dataset.label == ("a", "a", "b")


def test_class_of_sub_folders_only(make_tree):
    dataset = from_folder(make_tree("a/x/1.jpg", "a/y/1.jpg", "b/x/1.jpg"))
    assert dataset.label == ("a", "a", "b")


@pytest.mark.parametrize("wrapper", ["photos", "a/b/c", "train", "photos/train"])
def test_wrapping_folders_are_skipped(make_tree, wrapper):
    dataset = from_folder(make_tree(f"{wrapper}/cat/1.jpg", f"{wrapper}/dog/1.jpg"))
    assert rows(dataset) == {
        f"{wrapper}/cat/1.jpg": ("cat", None),
        f"{wrapper}/dog/1.jpg": ("dog", None),
    }


def test_a_wrapper_beside_a_loose_image(make_tree):
    dataset = from_folder(make_tree("cover.jpg", "photos/cat/1.jpg", "photos/dog/1.jpg"))
    assert dataset.classes == ("cat", "dog")
    assert dataset.ignored == {"outside the class folders": 1}
    assert "'cover.jpg'" in dataset.notes[0]


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train", "validation", "test"),
        ("Training", "VALID", "Testing"),
        ("TRAIN", "val", "TEST"),
        ("training_set", "validation_set", "test_set"),
        ("seg_train", "seg_val", "seg_test"),
        ("train2017", "val2017", "test2017"),
        ("trainImages", "devImages", "testImages"),
        ("trainset", "valset", "testset"),
        ("train data", "eval data", "test data"),
        ("01-train", "02-val", "03-test"),
        ("trainval", "dev", "holdout"),
        ("wrapper/train", "wrapper/val", "wrapper/test"),
    ],
)
def test_split_folders_in_their_spellings(make_tree, train, validation, test):
    parts = {train: "train", validation: "validation", test: "test"}
    dataset = from_folder(make_tree(*(f"{p}/{c}/1.jpg" for p in parts for c in ("cat", "dog"))))
    assert rows(dataset) == {
        f"{part}/{label}/1.jpg": (label, role)
        for part, role in parts.items()
        for label in ("cat", "dog")
    }
    assert dataset.notes == ()


@pytest.mark.parametrize(
    "names",
    [
        ["test", "cat", "dog"],
        ["test1", "test2", "test3"],
        ["train", "training"],
        ["train", "plane", "car"],
        ["toy_train", "steam_test"],
        ["invalid", "train"],
        ["training", "contest"],
        ["train_test", "val"],
        ["train", "pred"],
        [],
    ],
)
def test_names_that_are_not_splits(names):
    assert split_roles(names) is None


def test_split_folders_with_a_folder_of_their_own_name(make_tree):
    """Intel's scene images, as Kaggle unpacks them."""
    dataset = from_folder(
        make_tree(
            "seg_train/seg_train/sea/1.jpg",
            "seg_train/seg_train/street/1.jpg",
            "seg_test/seg_test/sea/2.jpg",
            "seg_test/seg_test/street/2.jpg",
            "seg_pred/seg_pred/3.jpg",
        )
    )
    assert rows(dataset) == {
        "seg_test/seg_test/sea/2.jpg": ("sea", "test"),
        "seg_test/seg_test/street/2.jpg": ("street", "test"),
        "seg_train/seg_train/sea/1.jpg": ("sea", "train"),
        "seg_train/seg_train/street/1.jpg": ("street", "train"),
    }
    assert dataset.ignored == {"outside the class folders": 1}
    assert any("'seg_pred'" in note for note in dataset.notes)


def test_a_test_folder_without_class_folders_is_ignored(make_tree):
    dataset = from_folder(make_tree("train/cat/1.jpg", "train/dog/1.jpg", "test/1.jpg"))
    assert set(dataset.split) == {"train"}
    assert any("'test'" in note and "no class folders" in note for note in dataset.notes)


def test_one_class_in_a_split_is_no_wrapper(make_tree):
    """test/cat holds sub-folders only, but training says that cat is a class."""
    dataset = from_folder(
        make_tree(
            "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/day/1.jpg", "test/cat/night/1.jpg"
        )
    )
    assert dataset.where(split="test").label == ("cat", "cat")
    assert dataset.notes == ("The test split has no images of 'dog'.",)


def test_a_class_called_test_beside_other_classes(make_tree):
    dataset = from_folder(make_tree("test/1.jpg", "cat/1.jpg", "dog/1.jpg"))
    assert dataset.classes == ("cat", "dog", "test")
    assert set(dataset.split) == {None}
    assert "'test'" in dataset.notes[0]


def test_a_folder_beside_split_folders_of_the_same_classes(make_tree):
    dataset = from_folder(
        make_tree(
            *(f"{part}/{c}/1.jpg" for part in ("train", "test") for c in ("cat", "dog")),
            "figures/plot.png",
        )
    )
    assert dataset.classes == ("cat", "dog")
    assert dataset.split_counts() == {"train": 2, "validation": 0, "test": 2}
    assert dataset.ignored == {"outside the class folders": 1}
    assert any("'figures'" in note for note in dataset.notes)


def test_an_anomaly_set_is_refused_rather_than_read_as_three_classes(make_tree):
    """MVTec's sets train on good images only: train, test and ground_truth are no classes."""
    root = make_tree("train/good/1.png", "test/good/2.png", "test/torn/3.png", "truth/torn/3.png")
    with pytest.raises(DatasetError, match="has no images of 'torn'"):
        from_folder(root)


def test_splits_inside_the_classes(make_tree):
    dataset = from_folder(
        make_tree(*(f"{c}/{part}/1.jpg" for part in ("train", "val") for c in ("cat", "dog")))
    )
    assert rows(dataset) == {
        "cat/train/1.jpg": ("cat", "train"),
        "cat/val/1.jpg": ("cat", "validation"),
        "dog/train/1.jpg": ("dog", "train"),
        "dog/val/1.jpg": ("dog", "validation"),
    }


def test_classes_are_the_union_and_training_must_have_all(make_tree):
    root = make_tree("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "val/eel/1.jpg")
    with pytest.raises(DatasetError, match=r"has no images of 'eel'"):
        from_folder(root)


def test_a_class_spelled_differently_is_named(make_tree):
    root = make_tree("train/Cat/1.jpg", "train/dog/1.jpg", "test/cat/1.jpg", "test/dog/1.jpg")
    with pytest.raises(DatasetError, match=r"'cat'.*it has 'Cat', spelled differently"):
        from_folder(root)


def test_a_class_with_other_blanks_is_named(make_tree):
    root = make_tree("train/a b/1.jpg", "train/dog/1.jpg", "test/A  b/1.jpg", "test/dog/1.jpg")
    with pytest.raises(DatasetError, match=r"'A  b'.*it has 'a b', spelled differently"):
        from_folder(root)


def test_validation_lacking_a_class_is_a_note(make_tree):
    dataset = from_folder(
        make_tree("train/cat/1.jpg", "train/dog/1.jpg", "val/cat/1.jpg", "test/dog/1.jpg")
    )
    assert dataset.notes == (
        "The test split has no images of 'cat'.",
        "The validation split has no images of 'dog'.",
    )


def test_an_empty_class_folder_is_a_note(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg", "eel/readme.txt")
    dataset = from_folder(root)
    assert dataset.classes == ("cat", "dog")
    assert dataset.notes == ("Ignored empty folders: 'eel'.",)
    assert dataset.ignored == {"not an image (.txt)": 1}


def test_ignored_files_are_counted(make_tree):
    root = make_tree(
        *(
            "cat/1.jpg",
            "dog/1.jpg",
            "cat/.hidden.jpg",
            ".git/x.jpg",
            "cat/.ipynb_checkpoints/1.jpg",
        ),
        *("cat/Thumbs.db", "dog/DESKTOP.INI", "__MACOSX/cat/._1.jpg", "cat/.DS_Store"),
        *("labels.csv", "cat/noextension", "cat/1.jpg.txt", "dog/x.HEIC", "cat/jpg"),
        *(".birds/1.jpg", "dog/a_very_long_extension.nothing-known"),
    )
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg", "dog/x.HEIC")
    assert dataset.ignored == {
        "system file": 2,
        "system folder": 1,
        "hidden file": 2,
        "hidden folder": 2,
        "hidden folder with images": 1,
        "not an image (.csv)": 1,
        "not an image (.txt)": 1,
        "not an image": 3,
    }
    assert dataset.notes == (
        "Ignored, not an image: 2 in 'cat', 1 in 'dog'; first 'cat/jpg'.",
        "Ignored, hidden folder with images: 1; first '.birds'.",
        "Ignored, not an image (.txt): 1 in 'cat'; first 'cat/1.jpg.txt'.",
    )
    files = {file.path: (file.reason, file.label) for file in dataset.ignored_files}
    assert len(files) == 13
    assert files["cat/1.jpg.txt"] == ("not an image (.txt)", "cat")
    assert files["cat/.ipynb_checkpoints"] == ("hidden folder", "cat")
    assert files["labels.csv"] == ("not an image (.csv)", None)
    assert dataset[:1].ignored_files == dataset.ignored_files


PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.mark.parametrize(
    ("name", "content", "is_image"),
    [
        ("photo", PNG, True),
        ("photo.jpg?w=200", b"\xff\xd8\xff\xe0\0\x10JFIF", True),
        ("photo.tmp", b"RIFF\x10\0\0\0WEBPVP8 ", True),
        ("photo.txt", b"P6 12 8 255 " + bytes(288), True),
        ("notes.txt", b"P6 is the sixth patient.", False),
        ("notes", b"", False),
        ("archive.zip", b"PK\x03\x04" + bytes(40), False),
        (".hidden", PNG, False),
        ("Thumbs.db", PNG, False),
    ],
)
def test_other_extensions_are_images_by_their_first_bytes(make_tree, name, content, is_image):
    root = make_tree("a/1.jpg", "b/1.jpg")
    (root / "a" / name).write_bytes(content)
    dataset = from_folder(root)
    assert (f"a/{name}" in dataset.path) == is_image
    assert [file.path for file in dataset.ignored_files] == ([] if is_image else [f"a/{name}"])


def test_drawings_and_videos_are_images_of_a_class_but_make_none(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    video = b"\0\0\0\x18ftypqt  " + bytes(40)
    (root / "docs").mkdir()
    for name, content in [
        ("dog/2.mov", video), ("docs/paper.pdf", b"%PDF-1.7"), ("a.svg", b"<svg></svg>"),
    ]:  # fmt: skip
        (root / name).write_bytes(content)
    dataset = from_folder(root)
    assert dataset.path == ("cat/1.jpg", "dog/1.jpg", "dog/2.mov")
    assert dataset.ignored == {"unsupported format (.pdf)": 1, "unsupported format (.svg)": 1}
    assert from_folder(root, labelled=False).path[0] == "a.svg"


def test_a_class_of_photos_that_cannot_be_read_is_not_lost(make_tree):
    dataset = from_folder(make_tree("cat/1.jpg", "dog/1.HEIC", "eel/1.cr2"))
    assert dataset.classes == ("cat", "dog", "eel")


@pytest.mark.parametrize(
    "extension",
    [
        *("jpg", "jpeg", "jpe", "jfif", "png", "gif", "webp", "bmp", "dib", "tif", "tiff"),
        *("ppm", "pgm", "pbm", "pnm", "avif", "jp2", "JPG", "Png"),
    ],
)
def test_extensions_of_images(make_tree, extension):
    assert len(from_folder(make_tree(f"a/1.{extension}", "b/1.jpg"))) == 2


def test_loose_images_beside_class_folders(make_tree):
    dataset = from_folder(make_tree("1.jpg", "2.jpg", "cat/1.jpg", "dog/1.jpg"))
    assert len(dataset) == 2
    assert dataset.ignored == {"outside the class folders": 2}
    assert dataset.notes[0].startswith("Ignored outside the class folders: 2 images")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["readme.txt", "cat/.x.jpg"],
            "no images in .*ignored: 1 x hidden file, 1 x not an image",
        ),
        (["1.jpg", "2.jpg"], "no class folders in .*, only 2 images. Put the images of each class"),
        (["train/1.jpg", "test/1.jpg"], "no class folders in .*, only 2 images"),
        (["cat/1.jpg", "cat/2.jpg"], "At least 2 classes.*has 1 class .'cat'. with 2 images"),
        (["photos/cat/1.jpg"], "1 class .'cat'."),
        (["cat/1.jpg", "dog/1.md"], r"1 x not an image \(\.md\).* 1 class \('cat'\)"),
        (["train/cat/1.jpg", "test/cat/2.jpg"], "1 class .'cat'."),
    ],
)
def test_folders_without_enough_classes_are_refused(make_tree, names, message):
    with pytest.raises(DatasetError, match=message):
        from_folder(make_tree(*names))


def test_paths_that_are_not_folders(make_tree):
    root = make_tree("cat/1.jpg")
    with pytest.raises(DatasetError, match="does not exist"):
        from_folder(root / "nothing")
    with pytest.raises(DatasetError, match=r"neither a table nor a file of arrays\. Images are"):
        from_folder(root / "cat" / "1.jpg")
    with pytest.raises(DatasetError, match="cannot be opened"):
        from_folder("a\0b")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (PNG, "is a single image. Give a folder with a folder of images for each class"),
        (b"<svg></svg>", "is a single image"),
        (
            b"PK\x03\x04" + bytes(40),
            "is an archive. Unpack it, and give the folder, or a tar file.",
        ),
        (bytes(257) + b"ustar" + bytes(99), "is an archive"),
        (b"some words", "is neither a table nor a file of arrays"),
        (b"", "is neither a table nor a file of arrays"),
    ],
)
def test_a_single_file_is_no_folder(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(DatasetError, match=message):
        from_folder(tmp_path / "file")
    with pytest.raises(DatasetError, match=message):
        open_dataset(tmp_path / "file")


def test_one_class_is_enough_if_requested(make_tree):
    assert from_folder(make_tree("cat/1.jpg"), min_classes=1).classes == ("cat",)


def test_known_classes_are_no_wrappers_and_no_splits(make_tree):
    root = make_tree("cat/day/1.jpg", "cat/night/1.jpg")
    assert from_folder(root).classes == ("day", "night")
    assert from_folder(root, min_classes=1, classes=["cat", "dog"]).classes == ("cat",)
    other = make_tree("train/a/1.jpg", "test/b/1.jpg", root="other")
    assert from_folder(other, classes=["train", "test"]).classes == ("test", "train")


def test_without_labels_all_images_are_read(make_tree):
    root = make_tree("1.jpg", "train/cat/1.jpg", "test/2.jpg", "notes.txt")
    dataset = from_folder(root, labelled=False)
    assert dataset.path == ("1.jpg", "test/2.jpg", "train/cat/1.jpg")
    assert set(dataset.label) == set(dataset.split) == {None}
    assert dataset.ignored == {"not an image (.txt)": 1}


def test_class_names_keep_spaces_and_accents_as_they_are(make_tree):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    names = [f"{decomposed}/1.jpg", f"{composed}/1.jpg", "two words/1.jpg"]
    dataset = from_folder(make_tree(*names))
    if sys.platform == "darwin":  # whose file system may fold the two into one
        pytest.skip("this file system normalises names")
    assert dataset.classes == (decomposed, composed, "two words")


@pytest.mark.skipif(sys.platform != "linux", reason="such names exist on Linux only")
def test_names_that_are_not_text_are_escaped_in_messages(tmp_path):
    for name in (b"bad\xff", b"line\nend", b"esc\x1b[31m"):
        folder = tmp_path / os.fsdecode(name)
        folder.mkdir()
        (folder / os.fsdecode(b"\xfe.jpg")).write_bytes(b"x")
    dataset = from_folder(tmp_path)
    assert dataset.classes == ("bad\\xff", "esc\x1b[31m", "line\nend")
    assert dataset.load(0) == b"x"
    assert repr(dataset).isprintable()
    with_digest = dataset.with_columns(digest=["1", "2", "3"])
    assert len(with_digest.dataset_digest()) == 32


@pytest.mark.skipif(sys.platform == "win32", reason="no such long paths")
def test_a_tree_deeper_than_python_may_recurse(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    folders = [f"{root}/cat" + "/d" * depth for depth in range(1, sys.getrecursionlimit() + 100)]
    for folder in folders:
        os.mkdir(folder)  # noqa: PTH102 - a Path takes its deep parents apart each time
    (root / "cat" / "d" / "2.jpg").write_bytes(b"x")
    try:
        assert from_folder(root).path == ("cat/1.jpg", "cat/d/2.jpg", "dog/1.jpg")
    finally:
        (root / "cat" / "d" / "2.jpg").unlink()
        for folder in reversed(folders):
            os.rmdir(folder)  # noqa: PTH106


def test_the_root_with_a_slash_at_its_end_or_relative(make_tree, monkeypatch, tmp_path):
    make_tree("cat/1.jpg", "dog/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert from_folder("root/") == from_folder("root") == from_folder(tmp_path / "root")


def test_a_hundred_classes(make_tree):
    root = make_tree(*(f"class {c}/{i}.jpg" for c in range(100) for i in range(3)))
    dataset = from_folder(root)
    assert len(dataset) == 300
    assert set(dataset.counts().values()) == {3}
