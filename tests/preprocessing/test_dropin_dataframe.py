"""Iterators over tables: Keras's rows, classes, labels and weights for every class mode."""

from __future__ import annotations

import numpy as np
import pytest
from side_by_side import COURSE, KERAS, MEAN, MOST, OURS, compare, run_both

pandas = pytest.importorskip("pandas")


@pytest.fixture(scope="module")
def table(class_folders):
    names = ["cat/p00.jpg", "cat/p02.png", "dog/p00.jpg", "cat/p04.ppm", "dog/p02.one.png"] * 2
    names[7:7] = ["cat/absent.jpg", "dog/notes.txt"]
    count = len(names)
    return pandas.DataFrame(
        {
            "filename": names,
            "path": [str(class_folders / name) for name in names],
            "class": [name.split("/")[0] for name in names],
            "several": [["a"], ["b", "a"], ["c"], ("b",), ["a", "c"], ["c"]] * 2,
            "three": ["x", "y", "z"] * 4,
            "number": np.arange(count, dtype=np.float32) / 3,
            "count": np.arange(count),
            "weight": np.linspace(0, 1, count),
        },
        index=list("qwertzuiopas"),
    )


def flow(module, table, folder, settings_=None, number=4, **options):
    generator = module.ImageDataGenerator(**(settings_ or {}))
    options = {"target_size": (9, 12), "batch_size": 3, **options}
    iterator = generator.flow_from_dataframe(table, folder, **options)
    return iterator, [next(iterator) for _ in range(number)]


def check(table, folder, settings_=None, within=(0, 0), **options):
    keras, ours = run_both(lambda m: flow(m, table, folder, settings_, **options))
    for name in ("filenames", "filepaths", "samples", "n", "directory", "class_mode", "split"):
        assert getattr(keras[0], name) == getattr(ours[0], name), name
    for name in ("class_indices", "classes"):
        assert getattr(keras[0], name, None) == getattr(ours[0], name, None), name
    assert compare(keras[1], ours[1]).within(*within)
    return ours[0]


WARNS = pytest.mark.filterwarnings("ignore:.*invalid image filename")


@WARNS
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"class_mode": "binary"},
        {"class_mode": "sparse", "y_col": "three"},
        {"class_mode": "categorical", "y_col": "three"},
        {"class_mode": "categorical", "y_col": "several"},
        {"class_mode": "categorical", "y_col": "several", "classes": ["c", "a"]},
        {"class_mode": "categorical", "y_col": "three", "classes": ["z", "x", "z"]},
        {"class_mode": "binary", "classes": ["dog", "cat"]},
        {"class_mode": "input"},
        {"class_mode": None},
        {"class_mode": "raw", "y_col": "number"},
        {"class_mode": "raw", "y_col": "count"},
        {"class_mode": "raw", "y_col": ["number", "count"]},
        {"class_mode": "raw", "y_col": "class"},
        {"class_mode": "multi_output", "y_col": ["number", "count", "class"]},
        {"weight_col": "weight"},
        {"class_mode": "raw", "y_col": "number", "weight_col": "count"},
        {"x_col": "path", "directory": None},
        {"shuffle": False, "seed": 4},
        {"color_mode": "grayscale", "interpolation": "bilinear"},
    ],
)
@pytest.mark.parametrize("subset", [None, "training", "validation"])
def test_class_modes(table, class_folders, options, subset):
    options = dict(options)
    folder = options.pop("directory", str(class_folders))
    before = table.copy()
    check(table, folder, {"validation_split": 0.3}, subset=subset, **options)
    assert table.equals(before)


@WARNS
def test_transformed(table, class_folders):
    check(table, str(class_folders), {**COURSE, "rescale": 1 / 255}, within=(MEAN, MOST))
    check(table, str(class_folders), {**COURSE, "data_format": "channels_first"}, (MEAN, MOST))


def test_file_names_without_validation(table, class_folders):
    valid = table[[name.endswith((".jpg", ".png")) for name in table["filename"]]]
    valid = valid[valid["filename"] != "cat/absent.jpg"]
    iterator = check(valid, str(class_folders), validate_filenames=False)
    assert iterator.samples == 8


def test_iterator_can_preserve_the_aspect_ratio(table, class_folders):
    def run(module):
        iterator = module.DataFrameIterator(
            table[:3],
            str(class_folders),
            module.ImageDataGenerator(),
            target_size=(5, 9),
            keep_aspect_ratio=True,
        )
        return next(iterator)

    assert compare(*run_both(run)).within(0, 0)


def test_printed_counts_and_invalid_names(table, class_folders, capsys):
    with pytest.warns(UserWarning, match=r"Found 2 invalid .*absent.jpg, .*notes.txt"):
        flow(OURS, table, str(class_folders))
    printed = "Found 10 validated image filenames belonging to 2 classes.\n"
    assert capsys.readouterr().out == printed
    flow(OURS, table, str(class_folders), number=0, validate_filenames=False, class_mode=None)
    assert capsys.readouterr().out == "Found 12 non-validated image filenames.\n"


def test_missing_column(table, class_folders):
    for module in (KERAS, OURS):
        with pytest.raises(KeyError):
            flow(module, table, str(class_folders), validate_filenames=False, x_col="none")


def test_dictionary_of_lists_as_table(class_folders):
    table = {"filename": ["cat/p00.jpg", "dog/p00.jpg"], "class": ["cat", "dog"], "n": [1.5, 2]}
    iterator, batches = flow(OURS, table, str(class_folders), number=1, weight_col="n")
    assert iterator.class_indices == {"cat": 0, "dog": 1}
    assert sorted(batches[0][2].tolist()) == [1.5, 2]


@pytest.mark.parametrize("class_mode", ["categorical", "binary", "sparse"])
def test_a_list_of_label_columns_is_refused_with_advice(table, class_folders, class_mode):
    text = r"column values must be (strings|type string, list or tuple)\. "
    for names, cure in (
        (["class"], r"Pass its name, y_col='class'\."),
        (["count", "number"], "For one-hot columns use class_mode='raw'"),
    ):
        with pytest.raises(TypeError, match=text + cure):
            flow(OURS, table, class_folders, y_col=names, class_mode=class_mode)


def test_the_advice_for_a_list_of_label_columns_works(table, class_folders):
    flags = table.assign(cat=table["class"] == "cat", dog=table["class"] == "dog")
    names = ["cat", "dog"]
    _, batches = flow(OURS, flags, class_folders, y_col=names, class_mode="raw", shuffle=False)
    assert batches[0][1].tolist() == [[1, 0], [1, 0], [0, 1]]
    for class_mode in ("raw", "multi_output"):
        with pytest.raises(TypeError, match=r"y_col must be a list\. Received tuple"):
            flow(OURS, flags, class_folders, y_col=tuple(names), class_mode=class_mode)
