"""Datasets of named files, of arrays, and of what as_dataset accepts."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kindsight.dataset import ImageDataset, as_dataset, from_arrays, from_files
from kindsight.errors import DatasetError, ImageError


def test_files_keep_their_order_and_spelling(make_tree):
    root = make_tree("1.jpg", "2.jpg")
    names = [f"{root}/2.jpg", "./not/there.jpg", f"{root}/2.jpg", root / "1.jpg"]
    dataset = from_files(names)
    assert dataset.path == (names[0], names[1], names[2], str(names[3]))
    assert dataset.root is None
    assert dataset.size == (5, 0, 5, 5)
    assert dataset.load(0) == b"2.jpg"
    assert dataset.file(1) == Path("not/there.jpg").absolute()


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["a", "b", "a"], ("a", "b", "a")),
        ([1, 0, 10], ("1", "0", "10")),
        (np.array([3, 2, 1], np.uint8), ("3", "2", "1")),
        (np.array(["x", "y", "x"]), ("x", "y", "x")),
        ([True, np.False_, 1], ("True", "False", "1")),
        ((None, "a", None), (None, "a", None)),
        (np.array(["a", 1, None], object), ("a", "1", None)),
    ],
)
def test_labels_become_names(labels, expected):
    dataset = from_files(["1.jpg", "2.jpg", "3.jpg"], labels)
    assert dataset.label == expected
    assert all(type(label) in (str, type(None)) for label in dataset.label)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a"], "each of 2 images; got 1"),
        ([0.5, 1.0], "fractions, such as 0.5 at index 0: this is regression"),
        (np.array([0.5, 1.0]), "fractions, such as 0.5 at index 0: this is regression"),
        ([object(), "a"], "a name, a whole number, or None"),
        ([["a", "b"], ["b"]], r"multi-label: 1 of 2 images has .*: index 0 \('a', 'b'\).*first"),
        ([[0.2, 0.8], [0.6, 0.4]], "one-hot rows.*argmax"),
        ("ab", "sequence of names"),
        (3, "sequence of names"),
        (np.ones((2, 2)), "are multi-label: 2 of 2 images have several labels"),
        (np.zeros((2, 2, 2)), r"got float64 of shape \(2, 2, 2\)"),
    ],
)
def test_invalid_labels(labels, message):
    with pytest.raises(DatasetError, match=message):
        from_files(["1.jpg", "2.jpg"], labels)


@pytest.mark.parametrize("path", ["1.jpg", Path("1.jpg")])
def test_a_single_path_is_one_file(path):
    assert from_files(path, ["a"]) == from_files(["1.jpg"], ["a"])


@pytest.mark.parametrize("paths", [b"1.jpg", [], [1], [None]])
def test_invalid_paths(paths):
    with pytest.raises(DatasetError, match="got"):
        from_files(paths)


def test_an_array_of_images():
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    dataset = from_arrays(pixels, ["a", "b"])
    assert dataset.path == ("array-000000", "array-000001")
    assert dataset.size == (60, 60)
    assert dataset.label == ("a", "b")
    np.testing.assert_array_equal(dataset.load(1), pixels[1])
    assert np.shares_memory(dataset.load(1), pixels)
    with pytest.raises(ValueError, match="read-only"):
        dataset.load(1)[0, 0, 0] = 1
    assert pixels.flags.writeable
    assert dataset[[1]].path == ("array-000001",)
    np.testing.assert_array_equal(dataset[[1]].load(0), pixels[1])


@pytest.mark.parametrize("shape", [(2, 4, 5), (2, 4, 5, 1)])
def test_grey_images_are_loaded_as_rgb(shape):
    pixels = np.arange(40, dtype=np.uint8).reshape(shape)
    loaded = from_arrays(pixels).load(1)
    assert loaded.shape == (4, 5, 3)
    assert loaded.dtype == np.uint8
    assert loaded[0, 1].tolist() == [21, 21, 21]


def test_a_list_of_images_of_different_sizes():
    images = [np.zeros((2, 3, 3), np.uint8), np.zeros((5, 4), np.uint8)]
    dataset = from_arrays(images)
    assert [dataset.load(i).shape for i in range(2)] == [(2, 3, 3), (5, 4, 3)]
    boxed = np.empty(2, object)
    boxed[:] = images
    assert from_arrays(boxed) == dataset


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint16])
def test_whole_numbers_of_other_types(dtype):
    pixels = np.array([[[0, 1], [128, 255]]], dtype)
    loaded = from_arrays(pixels).load(0)
    assert loaded[..., 0].tolist() == [[0, 1], [128, 255]]
    assert loaded.dtype == np.uint8


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (np.full((1, 5, 5), 1.5), "Every pixel is 1.5.*Give it as `value_range`"),
        (np.full((1, 5, 5), 256), "Every pixel is 256"),
        (np.full((1, 5, 5), -1.0), "Every pixel is -1"),
        (np.full((1, 5, 5), np.nan), "got NaN or infinity in image 0"),
        (np.full((1, 5, 5), np.inf), "got NaN or infinity in image 0"),
        (np.zeros((1, 5, 5), bool), "astype"),
        (np.zeros((1, 5, 5), complex), "complex"),
        (np.zeros((10, 784), np.uint8), "reshape"),
        (np.zeros(10, np.uint8), "reshape"),
        (np.zeros((4, 5, 3), np.uint8), "single image"),
        (np.zeros((2, 3, 5, 5), np.uint8), "moveaxis"),
        (np.zeros((2, 5, 5, 4), np.uint8), "alpha"),
        (np.zeros((0, 5, 5, 3), np.uint8), "no image"),
        (np.zeros((2, 0, 5, 3), np.uint8), "which is empty"),
        ([np.zeros((2, 2, 3), np.uint8), np.zeros(4, np.uint8)], "as image 1"),
        ([np.zeros((2, 2, 3), np.uint8), "a.jpg"], "as image 1"),
        ([], "no image"),
    ],
)
def test_arrays_that_are_not_images(arrays, message):
    with pytest.raises(DatasetError, match=message):
        from_arrays(arrays)


def test_black_floats_are_black():
    assert not from_arrays(np.zeros((1, 5, 5), np.float32)).load(0).any()


def test_labels_of_arrays_must_fit():
    with pytest.raises(DatasetError, match="each of 2 images; got 3"):
        from_arrays(np.zeros((2, 3, 3), np.uint8)[..., None], [1, 2, 3])


def test_as_dataset_passes_a_dataset_through():
    dataset = from_files(["1.jpg", "2.jpg"], ["a", "b"])
    assert as_dataset(dataset) is dataset
    assert as_dataset(dataset, ["b", "b"]).label == ("b", "b")
    assert as_dataset(dataset, ["b", "b"]).classes == ("a", "b")
    assert as_dataset(dataset, np.array([10, 9])).classes == ("10", "9")
    with pytest.raises(DatasetError, match="each of 2 images"):
        as_dataset(dataset, ["a"])


@pytest.mark.parametrize(
    "paths",
    [
        ["1.jpg", "2.jpg"],
        ("1.jpg", "2.jpg"),
        [Path("1.jpg"), Path("2.jpg")],
        np.array(["1.jpg", "2.jpg"]),
        np.array([Path("1.jpg"), "2.jpg"], object),
    ],
)
def test_as_dataset_of_paths(paths):
    dataset = as_dataset(paths, [1, 0])
    assert dataset == from_files(["1.jpg", "2.jpg"], ["1", "0"])
    assert all(type(path) is str for path in dataset.path)


def test_as_dataset_of_arrays():
    pixels = np.zeros((2, 4, 4, 3), np.uint8)
    assert as_dataset(pixels, ["a", "b"]) == from_arrays(pixels, ["a", "b"])
    assert as_dataset(list(pixels)) == from_arrays(pixels)


def test_as_dataset_of_images_that_are_no_paths(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    files = sorted(tmp_path.iterdir())
    data = [file.read_bytes() for file in files]
    expected = from_arrays(pixels, ["a", "b"])
    for images in (
        data,
        [io.BytesIO(each) for each in data],
        [file.open("rb") for file in files],
        [Image.open(file) for file in files],
        [Image.fromarray(image) for image in pixels],
    ):
        assert as_dataset(images, ["a", "b"]) == expected
    with pytest.raises(ImageError, match=r"image 1: .* supported format") as error:
        as_dataset([data[0], b"\0" * 100_000])
    assert len(str(error.value)) < 400
    with pytest.raises(DatasetError) as refused:
        from_files(b"\0" * 10_000)
    assert len(str(refused.value)) < 400


def test_as_dataset_of_a_folder(make_tree):
    root = make_tree("cat/1.jpg", "dog/1.jpg")
    assert as_dataset(root) == as_dataset(str(root)) == ImageDataset.from_folder(root)
    assert as_dataset(root, labelled=False).label == (None, None)
    with pytest.raises(DatasetError, match="with `y`"):
        as_dataset(root, ["a", "b"])
    image = root / "cat" / "1.jpg"
    with pytest.raises(DatasetError, match="is neither a table nor"):
        as_dataset(image)
    assert as_dataset(image, ["cat"]) == from_files([image], ["cat"])
    assert as_dataset(image, labelled=False) == from_files([image])


@pytest.mark.parametrize(
    "given",
    [3, None, [], [1, 2], {"a": 1}, b"abc", iter(["a.jpg"]), np.zeros(3), np.array(5)],
)
def test_as_dataset_of_anything_else(given):
    with pytest.raises(DatasetError, match="got"):
        as_dataset(given)


def test_mixtures_are_refused():
    with pytest.raises(DatasetError, match="ndarray"):
        as_dataset(["1.jpg", np.zeros((2, 2, 3), np.uint8)])
