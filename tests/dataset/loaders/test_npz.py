"""Images and labels in .npz and .npy files."""

import io
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kindsight.dataset import DataOptions, ImageDataset, from_npz
from kindsight.dataset.loaders import npz as array_files
from kindsight.errors import DatasetError

X = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)
Y = np.array([2, 0, 10])


def saved(path, compressed=False, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_images_and_labels(tmp_path, compressed):
    file = saved(tmp_path / "d.npz", compressed, x=X, y=Y)
    dataset = from_npz(file)
    assert dataset.path[1] == f"{file.as_posix()}:x[1]"
    assert dataset.label == ("2", "0", "10") and dataset.classes == ("0", "2", "10")
    assert dataset.split == (None,) * 3 and dataset.notes == ()
    assert all(np.array_equal(a, b) for a, b in zip(dataset.arrays, X, strict=True))
    assert dataset.load(0).shape == (4, 5, 3)


@pytest.mark.parametrize(
    "names",
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("X_train", "Y_train", "X_test", "Y_test"),
        ("trainX", "trainY", "testX", "testY"),
        ("xtrain", "ytrain", "xtest", "ytest"),
        ("train_set_x", "train_set_y", "test_set_x", "test_set_y"),
        ("training_data", "training_targets", "testing_data", "testing_targets"),
    ],
)
def test_splits_are_recognised_by_the_names(tmp_path, names):
    arrays = dict(zip(names, (X, Y, X[::-1], Y[::-1]), strict=True))
    dataset = from_npz(saved(tmp_path / "d.npz", **arrays))
    assert dataset.split == ("train",) * 3 + ("test",) * 3
    assert dataset.label == ("2", "0", "10", "10", "0", "2")
    assert dataset.path[3].endswith(f"d.npz:{names[2]}[0]")
    assert np.array_equal(dataset.arrays[3], X[2])


def test_a_validation_split_and_groups(tmp_path):
    arrays = {"val_images": X, "val_labels": Y[:, None], "val_groups": np.array(["p", "q", ""])}
    dataset = from_npz(saved(tmp_path / "d.npz", **arrays, x=X, y=Y))
    assert dataset.split == (None,) * 3 + ("validation",) * 3
    assert dataset.group == (None, None, None, "p", "q", None)


@pytest.mark.parametrize(
    ("images", "labels"), [("X", "y"), ("images", "labels"), ("data", "target")]
)
def test_usual_names_without_splits(tmp_path, images, labels):
    assert len(from_npz(saved(tmp_path / "d.npz", **{labels: Y, images: X}))) == 3


def test_arrays_without_names(tmp_path):
    np.savez(tmp_path / "d.npz", X, Y)
    assert from_npz(tmp_path / "d.npz").label == ("2", "0", "10")


def test_a_single_array_has_no_labels(tmp_path):
    np.save(tmp_path / "d.npy", X)
    dataset = from_npz(tmp_path / "d.npy", labelled=False)
    assert dataset.path[2].endswith("d.npy[2]") and dataset.label == (None,) * 3
    with pytest.raises(DatasetError, match="has no array of labels"):
        from_npz(tmp_path / "d.npy")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (np.array([1.0, 0.0, 1.0]), ("1", "0", "1")),
        (np.array(["a", " b", "c"]), ("a", "b", "c")),
        (np.array([b"a", b"b", "ü".encode()]), ("a", "b", "ü")),
        (np.array([True, False, True]), ("True", "False", "True")),
        (np.eye(3, dtype=np.float32)[[2, 0, 1]], ("2", "0", "1")),
        (np.array([[4], [5], [6]], np.uint8), ("4", "5", "6")),
    ],
)
def test_labels_of_all_kinds(tmp_path, labels, expected):
    assert from_npz(saved(tmp_path / "d.npz", x=X, y=labels)).label == expected


def test_names_of_the_labels(tmp_path):
    names = np.array(["ash", "beech", "elm"])
    file = saved(tmp_path / "d.npz", x=X, y=np.array([2, 0, 2]), class_names=names)
    assert from_npz(file).label == ("elm", "ash", "elm")
    given = from_npz(file, DataOptions(label_names=["a", "b", "c"]))
    assert given.label == ("c", "a", "c") and given.notes == ()
    with pytest.raises(DatasetError, match=r"got '2', first in y\[0\]"):
        from_npz(file, DataOptions(label_names=["a", "b"]))


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (X[..., None], X),
        (np.stack([X] * 3, -1), np.stack([X] * 3, -1)),
        (np.stack([X] * 3, 1), np.stack([X] * 3, -1)),
        (X.astype(np.int64), X),
        (X.astype(np.float64), X),
        (X.astype(np.float32) / 255, X),
        (X.astype(np.float64) / 255, X),
        ((X % 2).astype(bool), X % 2 * 255),
        ((X % 2).astype(np.float32), X % 2 * 255),
        (X[:, :, :4].reshape(3, 16), X[:, :, :4]),
    ],
)
def test_shapes_and_scales(tmp_path, images, expected):
    dataset = from_npz(saved(tmp_path / "d.npz", x=images, y=Y))
    found = np.stack([dataset.load(row) for row in range(3)])
    assert found.dtype == np.uint8
    assert np.array_equal(
        found, np.broadcast_to(expected.reshape(3, *found.shape[1:3], -1), found.shape)
    )
    message = " ".join(dataset.notes)
    assert ("multiplied by 255" in message) == (
        images.dtype.kind == "f" and float(images.max()) <= 1
    )
    assert ("channels came first" in message) == (images.shape[1] == 3 and images.ndim == 4)


def test_rows_of_pixels_of_a_given_shape(tmp_path):
    file = saved(tmp_path / "d.npz", x=X.reshape(3, 20), y=Y)
    assert np.array_equal(from_npz(file, DataOptions(pixel_shape="4x5")).arrays[1], X[1])
    with pytest.raises(DatasetError, match=r"'x' in 'd.npz' has 20 pixels per image"):
        from_npz(file)


def test_all_splits_have_one_scale(tmp_path):
    """A dark split is not read as fractions: the scale comes from all splits."""
    dark, bright = (X > 30).astype(np.float32), X.astype(np.float32)
    dataset = from_npz(saved(tmp_path / "d.npz", x_train=bright, y_train=Y, x_test=dark, y_test=Y))
    assert max(array.max() for array in dataset.arrays[3:]) == 1


def test_large_arrays_are_converted_in_blocks(tmp_path, monkeypatch):
    from kindsight.dataset.loaders import arrays as pixels

    monkeypatch.setattr(pixels, "_BLOCK", 25)
    file = saved(tmp_path / "d.npz", x=X / 255, y=Y)
    assert all(np.array_equal(a, b) for a, b in zip(from_npz(file).arrays, X, strict=True))
    wrong = X / 255
    wrong[2, 1, 1] = np.nan
    with pytest.raises(DatasetError, match=r"NaN or infinity in image 2 of 'x' in 'd.npz'"):
        from_npz(saved(tmp_path / "d.npz", x=wrong, y=Y))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": X, "y": Y[:2]}, "one label for each image; got int64 of shape"),
        ({"x": X, "y": Y / 4}, r"such as 0.5 at y\[0\]: this is regression"),
        ({"x": X, "y": np.ones((3, 2))}, r"multi-label: 3 of 3 images .* y\[0\] \('0', '1'\)"),
        ({"x": X, "y": np.full((3, 2), 0.5)}, "one-hot rows, only 0 and 1; got float64"),
        ({"x": X, "y": np.array([b"caf\xe9", b"a", b"b"])}, "are not UTF-8.*`encoding=.cp1252"),
        ({"x": X, "y": np.zeros((3, 2, 2))}, "Labels and groups must be whole numbers or texts"),
        ({"x": X, "y": Y, "images": X}, "could both be images"),
        ({"x": X, "y": np.array(["ab", "AB", "c"])}, "differ only in case, blanks or accents"),
        ({"x": X}, "has no array of labels"),
        ({"y": Y}, "has no array of images"),
        ({"foo": X, "bar": Y}, "it contains 'foo', 'bar'"),
        ({"x": np.full((3, 4, 5), 300), "y": Y}, "Every pixel is 300"),
        ({"x": np.full((3, 4, 5), np.nan), "y": Y}, "NaN or infinity in image 0 of 'x'"),
        ({"x": np.full((3, 4, 5), np.inf), "y": Y}, "NaN or infinity in image 0 of 'x'"),
        ({"x": X.astype(complex), "y": Y}, "got complex128"),
        ({"x": np.array([["a"]]), "y": Y}, "got <U1"),
        ({"x": X[0, 0], "y": Y}, "its shape is"),
        ({"x": np.zeros((3, 4, 3), np.uint8), "y": Y}, r"x\[None\]"),
        ({"x": np.zeros((3, 4, 5, 4), np.uint8), "y": Y}, "1 or 3 channels"),
        ({"x": np.zeros((3, 0, 5), np.uint8), "y": Y}, "its shape is"),
        ({"x": X[:0], "y": Y[:0]}, "no image"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_images_and_labels(tmp_path, arrays, message):
    with pytest.raises(DatasetError, match=message):
        from_npz(saved(tmp_path / "d.npz", **arrays))


def test_splits_without_labels_and_other_arrays_are_named(tmp_path):
    dataset = from_npz(saved(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X, mean=Y, ids=Y))
    assert len(dataset) == 3
    assert dataset.notes == (
        "Unused arrays in 'd.npz': 'mean', 'ids'.",
        "Ignored without labels: 3 images in the array 'x_test' of 'd.npz'.",
    )
    assert dataset.ignored == {"array without labels": 3}
    assert [file.path[-9:] for file in dataset.ignored_files] == [f"x_test[{k}]" for k in range(3)]
    unlabelled = from_npz(tmp_path / "d.npz", labelled=False)
    assert unlabelled.ignored == {}
    assert len(unlabelled) == 6 and unlabelled.split == (None,) * 6


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_nothing_is_unpickled(tmp_path):
    objects = np.empty(3, object)
    objects[:] = [Bomb(), 1, 2]
    for arrays in ({"x": X, "y": objects}, {"x": objects, "y": Y}):
        with pytest.raises(DatasetError, match="could contain code"):
            from_npz(saved(tmp_path / "d.npz", **arrays))
    (tmp_path / "d.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DatasetError, match="is not a complete file of NumPy arrays"):
        from_npz(tmp_path / "d.npy", labelled=False)


def heading(shape, dtype="|u1"):
    """An array's heading without the array."""
    stream = io.BytesIO()
    fields = {"descr": dtype, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, fields)
    return stream.getvalue()


def test_sizes_are_checked_before_reading(tmp_path, monkeypatch):
    file = tmp_path / "d.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", heading((10**6, 1000, 1000)) + b"\0" * 10)
    with pytest.raises(DatasetError, match="1,000,000,000,000 bytes"):
        from_npz(file, labelled=False)
    (tmp_path / "d.npy").write_bytes(heading((10**6, 1000, 1000)))
    with pytest.raises(DatasetError, match="1,000,000,000,000 bytes"):
        from_npz(tmp_path / "d.npy", labelled=False)
    monkeypatch.setattr(array_files, "MAX_ARRAY_BYTES", 10_000)
    with pytest.raises(DatasetError, match="1 arrays of 1,000,128 bytes"):
        from_npz(saved(file, True, x=np.zeros((10, 100, 1000), np.uint8)), labelled=False)
    monkeypatch.setattr(array_files, "MAX_ARRAYS", 3)
    with pytest.raises(DatasetError, match="4 arrays"):
        from_npz(saved(file, a=Y, b=Y, c=Y, d=Y), labelled=False)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"PK\x03\x04", b"no array", heading((3, 4, 5)), heading((3, 4, 5)) + b"\0" * 59,
        heading((3, 4, 5)) + b"\0" * 61, heading((3, -4, 5)), heading((3, 4, 5), "|O"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["npz", "npy"])
def test_damaged_files(tmp_path, content, ending):
    (tmp_path / f"d.{ending}").write_bytes(content)
    with pytest.raises(DatasetError):
        from_npz(tmp_path / f"d.{ending}", labelled=False)


@pytest.fixture(scope="module")
def whole():
    stream = io.BytesIO()
    np.savez_compressed(stream, x=X, y=Y)
    return stream.getvalue()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_changed_bytes_give_an_error_or_a_dataset(tmp_path_factory, whole, data):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    content = (
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    file = tmp_path_factory.getbasetemp() / "changed.npz"
    file.write_bytes(bytes(content))
    try:
        assert isinstance(from_npz(file), ImageDataset)
    except DatasetError as error:
        assert str(error).isprintable()


def test_images_without_a_label_are_left_out(tmp_path):
    for labels in (np.array([0, np.nan, 1]), np.array(["0", "", "1"]), np.array(["0", "NA", "1"])):
        dataset = from_npz(saved(tmp_path / "d.npz", x=X, y=labels))
        assert dataset.label == ("0", "1") and dataset.ignored == {"no label": 1}
        assert dataset.path[1].endswith("x[2]") and np.array_equal(dataset.arrays[1], X[2])
        assert dataset.notes == ("Ignored without a label: 1 image of 'd.npz', first y[1].",)
    kept = from_npz(tmp_path / "d.npz", DataOptions(keep_na_labels=True))
    assert kept.label == ("0", "NA", "1")
    zeros = from_npz(saved(tmp_path / "d.npz", x=X, y=np.array([[1, 0], [0, 0], [0, 1]])))
    assert zeros.label == ("0", "1")


def test_several_labels_are_resolved_as_the_option_says(tmp_path):
    y = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]])
    file = saved(tmp_path / "d.npz", x=X, y=y, class_names=np.array(["ant", "bee", "cow"]))
    for mode, expected in (
        ("first", ("ant", "bee", "cow")), ("skip", ("bee", "cow")),
        ("combine", ("ant+bee", "bee", "cow")),
    ):  # fmt: skip
        assert from_npz(file, DataOptions(multi_label=mode)).label == expected
    with pytest.raises(DatasetError, match="'ant', 'bee'"):
        from_npz(file)


def test_texts_in_another_encoding(tmp_path):
    labels = np.array(["Käfer", "Käfer", "Wal"]).astype(object)
    encoded = np.array([label.encode("cp1252") for label in labels])
    file = saved(tmp_path / "d.npz", x=X, y=encoded)
    assert from_npz(file, DataOptions(encoding="cp1252")).label == ("Käfer", "Käfer", "Wal")
