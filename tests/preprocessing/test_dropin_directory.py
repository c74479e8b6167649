"""Iterators over class folders: Keras's files, classes, order, labels, pixels and attributes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from side_by_side import COURSE, KERAS, MEAN, MOST, OURS, compare, examples, run_both

ATTRIBUTES = (
    "filenames",
    "filepaths",
    "class_indices",
    "samples",
    "num_classes",
    "n",
    "batch_size",
    "batch_index",
    "total_batches_seen",
    "seed",
    "shuffle",
    "directory",
    "class_mode",
    "color_mode",
    "data_format",
    "image_shape",
    "target_size",
    "interpolation",
    "keep_aspect_ratio",
    "subset",
    "split",
    "save_to_dir",
    "save_prefix",
    "save_format",
    "dtype",
    "white_list_formats",
    "allowed_class_modes",
    "sample_weight",
    "workers",
    "use_multiprocessing",
    "max_queue_size",
    "num_batches",
)


def flow(module, folder, settings_=None, number=3, **options):
    generator = module.ImageDataGenerator(**(settings_ or {}))
    options = {"target_size": (20, 24), "batch_size": 4, **options}
    iterator = generator.flow_from_directory(folder, **options)
    return iterator, [next(iterator) for _ in range(number)]


def same_attributes(keras, ours) -> None:
    for name in ATTRIBUTES:
        assert getattr(keras, name) == getattr(ours, name), name
    for name in ("classes", "labels", "index_array"):
        one, other = getattr(keras, name), getattr(ours, name)
        assert one.dtype == other.dtype and np.array_equal(one, other), name
    assert len(keras) == len(ours)


def check(folder, settings_=None, start=0, within=(MEAN, MOST), **options) -> None:
    keras, ours = run_both(lambda m: flow(m, folder, settings_, **options), start)
    same_attributes(keras[0], ours[0])
    assert compare(keras[1], ours[1]).within(*within)


def test_files_and_printed_counts(class_folders, capsys):
    iterator, _ = flow(OURS, class_folders, number=0)
    assert capsys.readouterr().out == "Found 16 images belonging to 2 classes.\n"
    assert iterator.filenames == [
        "cat/p00.jpg",
        "cat/p01.jpeg",
        "cat/p02.png",
        "cat/p04.ppm",
        "cat/p05.tif",
        "cat/p06.JPG",
        "cat/p08.alpha.png",
        "cat/a/z.png",
        "cat/more/p03.bmp",
        "cat/more/p07.grey.jpg",
        "cat/more/z.jpg",
        "dog/p00.jpg",
        "dog/p01.palette.png",
        "dog/p02.one.png",
        "dog/p04.cmyk.jpg",
        "dog/more/p03.deep.png",
    ]
    assert iterator.class_indices == {"cat": 0, "dog": 1}


def test_pixels_without_transformation_are_exact(class_folders):
    for color_mode in ("rgb", "rgba", "grayscale"):
        check(class_folders, within=(0, 0), color_mode=color_mode, number=6)


@pytest.mark.parametrize(
    "interpolation", ["nearest", "bilinear", "bicubic", "hamming", "box", "lanczos"]
)
@pytest.mark.parametrize("keep", [False, True])
def test_resizing_is_exact(class_folders, interpolation, keep):
    check(
        class_folders,
        {"rescale": 1 / 255},
        within=(0, 0),
        interpolation=interpolation,
        keep_aspect_ratio=keep,
        number=4,
    )


@examples(30)
@given(
    st.sampled_from(["categorical", "binary", "sparse", "input", None]),
    st.sampled_from(["rgb", "rgba", "grayscale"]),
    st.sampled_from(["channels_last", "channels_first"]),
    st.sampled_from([None, "training", "validation"]),
    st.booleans(),
    st.sampled_from([None, 3]),
    st.integers(1, 20),
    st.sampled_from([None, ["dog", "cat"], ["dog"], ["cat", "absent"]]),
    st.sampled_from([None, "float32", "float64"]),
    st.integers(0, 2**32 - 1),
)
def test_any_combination(  # noqa: PLR0917
    class_folders, mode, color, layout, subset, shuffle, seed, size, classes, dtype, start
):
    # One of the greyscale images has 16 bits.
    scale = 257 if color == "grayscale" else 1
    check(
        class_folders,
        {**COURSE, "validation_split": 0.4, "data_format": layout, "dtype": dtype},
        start,
        (MEAN * scale, MOST * scale),
        class_mode=mode,
        color_mode=color,
        subset=subset,
        shuffle=shuffle,
        seed=seed,
        batch_size=size,
        classes=classes,
        number=5,
    )


def test_pathlib_path(class_folders):
    keras, ours = run_both(lambda m: flow(m, Path(class_folders)))
    assert keras[0].filepaths == ours[0].filepaths
    assert keras[0].directory == ours[0].directory == Path(class_folders)


def test_links_are_followed_if_requested(class_folders, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    (tmp_path / "x" / "linked").symlink_to(class_folders / "cat")
    (tmp_path / "y" / "p.jpg").symlink_to(class_folders / "dog" / "p00.jpg")
    for follow in (False, True):
        check(tmp_path, follow_links=follow, within=(0, 0))


def test_without_a_generator_images_do_not_change(class_folders):
    def run(module):
        iterator = module.DirectoryIterator(class_folders, None, target_size=(9, 9), batch_size=5)
        return [next(iterator) for _ in range(3)]

    assert compare(*run_both(run)).within(0, 0)


def test_preprocessing_function_is_called_in_order(class_folders):
    def noisy(image):
        return image + np.random.uniform(0, 9, image.shape)

    check(class_folders, {**COURSE, "preprocessing_function": noisy}, number=6)


def test_damaged_file_raises_with_its_path(class_folders, tmp_path):
    good = (class_folders / "cat" / "p00.jpg").read_bytes()
    for content in (good[: len(good) // 2], b"no image at all", b""):
        folder = tmp_path / f"{len(content)}"
        (folder / "a").mkdir(parents=True)
        (folder / "a" / "good.jpg").write_bytes(good)
        (folder / "a" / "worse.jpg").write_bytes(content)
        (folder / "a" / "xbad.jpg").write_bytes(content)
        errors = []
        for module in (KERAS, OURS):
            with pytest.raises(OSError) as caught:
                flow(module, folder, number=1, shuffle=False)
            errors.append(caught.value)
        assert type(errors[0]) is type(errors[1])
        assert str(folder / "a" / "worse.jpg") in str(errors[1])


def test_missing_file_raises(class_folders, tmp_path):
    for module in (KERAS, OURS):
        folder = tmp_path / module.__name__
        (folder / "a").mkdir(parents=True)
        file = folder / "a" / "x.png"
        file.write_bytes((class_folders / "cat" / "p02.png").read_bytes())
        iterator, _ = flow(module, folder)
        file.unlink()
        # A prefetched batch may still be returned.
        with pytest.raises(FileNotFoundError):
            for _ in range(2):
                next(iterator)


def test_images_are_saved(class_folders, tmp_path):
    for module in (KERAS, OURS):
        (tmp_path / module.__name__.split(".")[0]).mkdir()

    def run(module):
        folder = tmp_path / module.__name__.split(".")[0]
        return flow(
            module, class_folders, COURSE, save_to_dir=folder, save_prefix="s", save_format="jpeg"
        )[1]

    assert compare(*run_both(run)).within(MEAN, MOST)
    keras, ours = (sorted(p.name for p in (tmp_path / n).iterdir()) for n in ("keras", "kindsight"))
    assert keras == ours and len(ours) == 12


def test_class_may_be_a_nested_folder(class_folders):
    iterator, batches = flow(OURS, class_folders, classes=["cat/more", "dog"], shuffle=False)
    assert iterator.class_indices == {"cat/more": 0, "dog": 1}
    assert iterator.filenames[:2] == ["cat/more/p03.bmp", "cat/more/p07.grey.jpg"]
    assert batches[0][0].shape == (4, 20, 24, 3)


def test_missing_folder(tmp_path):
    for module in (KERAS, OURS):
        with pytest.raises(FileNotFoundError):
            flow(module, tmp_path / "none")


def test_folder_without_images_gives_empty_batches(tmp_path):
    (tmp_path / "a").mkdir()
    keras, ours = run_both(lambda m: flow(m, tmp_path, number=2))
    assert len(keras[0]) == len(ours[0]) == 0
    for one, other in zip(keras[1], ours[1], strict=True):
        assert one[0].shape == other[0].shape == (0, 20, 24, 3)


def test_list_pictures(class_folders):
    found = OURS.list_pictures(class_folders)
    assert len(found) == 17
    assert found == sorted(found)
    assert OURS.list_pictures(class_folders, ext="bmp") == [
        str(class_folders / "cat" / "more" / "p03.bmp")
    ]


def test_validate_filename(class_folders):
    formats = OURS.Iterator.white_list_formats
    for name in ("cat/p00.jpg", "cat/p06.JPG", "dog/x.webp", "cat/none.jpg", "cat"):
        path = str(class_folders / name)
        assert OURS.validate_filename(path, formats) == KERAS.validate_filename(path, formats)
    assert OURS.validate_filename(str(class_folders / "cat" / "p06.JPG"), formats)


def test_sixteen_bit_images(tmp_path):
    (tmp_path / "a").mkdir()
    deep = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    Image.fromarray(deep).save(tmp_path / "a" / "x.png")
    _, batches = flow(OURS, tmp_path, color_mode="grayscale", target_size=(8, 8), number=2)
    for images, _ in batches:
        assert np.array_equal(images[0, :, :, 0], deep.astype(np.float32))
