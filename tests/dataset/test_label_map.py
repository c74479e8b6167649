"""Labels with two spellings: leading zeros, and tables of labels and classes."""

import pytest

from kindsight.dataset import DataOptions, ImageDataset, open_dataset, open_splits
from kindsight.errors import DatasetError, SettingsError


def labels(dataset: ImageDataset, split: str | None = None) -> dict[str, str | None]:
    return {
        path: label
        for path, label, name in zip(dataset.path, dataset.label, dataset.split, strict=True)
        if split is None or name == split
    }


@pytest.fixture
def signs(make_tree):
    """Return a folder of class folders 00000, 00001, 00016, and a table with other spellings."""
    root = make_tree(
        *(f"signs/{name}/{i}.jpg" for name in ("00000", "00001", "00016") for i in "ab")
    )
    for name in "pqr":
        (root / f"{name}.png").write_bytes(b"x")
    (root / "test.csv").write_text("path,label\np.png,16\nq.png,0\nr.png,001\n")
    return root


def test_numbers_of_a_table_are_the_folders_of_the_training_images(signs):
    dataset = open_splits(signs / "signs", test=signs / "test.csv")
    assert labels(dataset, "test") == {"p.png": "00016", "q.png": "00000", "r.png": "00001"}
    assert dataset.classes == ("00000", "00001", "00016")
    note = (
        "Matched, although leading zeros differ: 3 labels of 3 images; '0', for example, is "
        "'00000'."
    )
    assert note in dataset.notes


def test_numbers_of_split_folders_are_those_of_the_train_folder(make_tree):
    root = make_tree("train/007/a.jpg", "train/012/b.jpg", "test/7/c.jpg", "test/12/d.jpg")
    dataset = open_dataset(root)
    assert dataset.classes == ("007", "012")
    assert labels(dataset, "test") == {"test/7/c.jpg": "007", "test/12/d.jpg": "012"}


def test_numbers_of_split_tables_are_those_of_the_train_table(make_tree):
    root = make_tree("1.jpg", "2.jpg", "3.jpg", "4.jpg")
    (root / "train.csv").write_text("path,label\n1.jpg,01\n2.jpg,02\n")
    (root / "test.csv").write_text("path,label\n3.jpg,2\n4.jpg,1\n")
    assert labels(open_dataset(root), "test") == {"3.jpg": "02", "4.jpg": "01"}


def test_numbers_of_data_to_evaluate_are_the_classes_of_the_classifier(make_tree):
    root = make_tree("1/a.jpg", "2/b.jpg")
    dataset = open_dataset(root, min_classes=1, classes=("001", "002", "003"))
    assert dataset.label == ("001", "002")


def test_numbers_that_are_classes_of_their_own_stay_apart(make_tree):
    dataset = open_dataset(make_tree("1/a.jpg", "01/b.jpg", "2/c.jpg"))
    assert dataset.classes == ("01", "1", "2")
    # "001" could be either.
    other = open_dataset(
        make_tree("001/d.jpg", "02/e.jpg", root="other"), min_classes=1, classes=("01", "1", "2")
    )
    assert other.label == ("001", "2")


def test_a_label_map_renames_labels_of_every_kind_of_data(signs, make_tree):
    (signs / "map.csv").write_text(
        "label,class\n16,stop\n0,slow\n001,go\n00016,stop\n00000,slow\n00001,go\n"
    )
    options = DataOptions(label_map=str(signs / "map.csv"))
    folder = open_dataset(signs / "signs", options)
    assert folder.classes == ("go", "slow", "stop")
    assert folder.counts() == {"go": 2, "slow": 2, "stop": 2}
    table = open_dataset(signs / "test.csv", options)
    assert table.label == ("stop", "slow", "go")
    both = open_splits(signs / "signs", options, test=signs / "test.csv")
    assert both.counts() == {"go": 3, "slow": 3, "stop": 3}
    assert any(
        note.startswith("Renamed by `label_map`: 3 labels of 6 images") for note in both.notes
    )


def test_a_label_map_for_the_other_data_only(signs):
    (signs / "map.csv").write_text("class;label\n00016;16\n00001;001\n")
    dataset = open_splits(
        signs / "signs", DataOptions(label_map=str(signs / "map.csv")), test=signs / "test.csv"
    )
    assert labels(dataset, "test") == {"p.png": "00016", "q.png": "00000", "r.png": "00001"}


def test_a_label_map_joins_classes(make_tree):
    root = make_tree("cat/a.jpg", "kitten/b.jpg", "dog/c.jpg")
    (root / "map.csv").write_text("label,class\nkitten,cat\n")
    dataset = open_dataset(root, DataOptions(label_map=str(root / "map.csv")))
    assert dataset.counts() == {"cat": 2, "dog": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("old,new\na,b\n", r"needs the columns label and class; it lacks label and class"),
        ("label,class\n", "is empty"),
        ("label,class\na,\n", "Line 2 of the label map 'map.csv' lacks a label or a class"),
        ("label,class\na,b\na,c\n", "gives 'a' two classes, 'b' and, in line 3, 'c'"),
        ("label,class\nbird,b\n", "has no label of the data. It maps 'bird'; the data have 'cat'"),
    ],
)
def test_faulty_label_maps_are_errors(make_tree, text, message):
    root = make_tree("cat/a.jpg", "dog/b.jpg")
    (root / "map.csv").write_text(text)
    with pytest.raises(DatasetError, match=message):
        open_dataset(root, DataOptions(label_map=str(root / "map.csv")))


def test_a_missing_label_map_is_an_error(make_tree):
    root = make_tree("cat/a.jpg", "dog/b.jpg")
    with pytest.raises(DatasetError, match=r"Could not read .*none\.csv"):
        open_dataset(root, DataOptions(label_map=str(root / "none.csv")))
    with pytest.raises(SettingsError, match="`label_map` must be the path of a table; got 3"):
        open_dataset(root, DataOptions(label_map=3))  # type: ignore[arg-type]
