"""Errors and warnings contain Keras's key phrases, since programs match on them.

The table covers every raise and warn of Keras 3.15's ``legacy/preprocessing/image.py``, which are
those of keras-preprocessing 1.1.2, too; each row runs on Keras itself as well. Not in it: the type
check of DataFrameIterator's ``_filter_classes``, which an earlier check precedes.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image
from side_by_side import KERAS, OURS

from kindsight.errors import KindsightError
from kindsight.preprocessing._warnings import reset_warnings

pandas = pytest.importorskip("pandas")
X = np.zeros((4, 4, 4, 3), np.float32)
Y = np.array([0, 0, 1, 1])


class Case(NamedTuple):
    """A call, the exception or warning that it causes, and a phrase of its message."""

    kind: type[Exception]
    phrase: str
    call: Callable[[ModuleType, Any], Any]


def generator(**settings: Any) -> Callable[[ModuleType, Any], Any]:
    return lambda module, _: module.ImageDataGenerator(**settings)


def flow(x: Any, y: Any = None, **options: Any) -> Callable[[ModuleType, Any], Any]:
    return lambda module, _: module.ImageDataGenerator(validation_split=0.5).flow(x, y, **options)


def folder(**options: Any) -> Callable[[ModuleType, Any], Any]:
    return lambda module, root: next(
        module.ImageDataGenerator().flow_from_directory(root, **options)
    )


def table(**options: Any) -> Callable[[ModuleType, Any], Any]:
    """Call flow_from_dataframe; `columns` replaces columns of the table."""
    columns = options.pop("columns", {})

    def call(module: ModuleType, root: Any) -> Any:
        names = ["a/0.png", "b/0.png", "b/1.tiff"]
        data = {"filename": names, "class": ["a", "b", "b"], "weight": ["1", "2", "3"], **columns}
        made = module.ImageDataGenerator()
        return made.flow_from_dataframe(pandas.DataFrame(data), str(root), **options)

    return call


def unfitted(**settings: Any) -> Callable[[ModuleType, Any], Any]:
    return lambda module, _: module.ImageDataGenerator(**settings).standardize(X.copy())


def affine(x: Any = X[0], **axes: int) -> Callable[[ModuleType, Any], Any]:
    axes = {"row_axis": 0, "col_axis": 1, "channel_axis": 2, **axes}
    return lambda module, _: module.apply_affine_transform(x, 10, **axes)


def fit(x: Any) -> Callable[[ModuleType, Any], Any]:
    return lambda module, _: module.ImageDataGenerator(featurewise_center=True).fit(x)


def file_property(name: str) -> Callable[[ModuleType, Any], Any]:
    return lambda module, _: getattr(module.BatchFromFilesMixin(), name)


SAME_LENGTH = "should have the same length. Found"
OVERRIDES = "which overrides setting of"
NOT_FITTED = "but it hasn't been fit on any training data"
BRIGHTNESS = "`brightness_range should be tuple or list of two floats"
ZOOM = "`zoom_range` should be a float or a tuple or list of two floats"
ERRORS = {
    "element": Case(
        ValueError,
        "Asked to retrieve element 2, but the Sequence has length 2",
        lambda module, _: module.ImageDataGenerator().flow(X, batch_size=2)[2],
    ),
    "base class": Case(NotImplementedError, "", lambda m, _: next(m.Iterator(3, 2, False, None))),
    "color mode": Case(ValueError, "Invalid color mode: bgr", folder(color_mode="bgr")),
    "folder subset": Case(ValueError, "Invalid subset name: test", folder(subset="test")),
    "interpolation": Case(
        ValueError, "Invalid interpolation method cubic specified", folder(interpolation="cubic")
    ),
    "filepaths": Case(
        NotImplementedError,
        "`filepaths` property method has not been implemented in BatchFromFilesMixin",
        file_property("filepaths"),
    ),
    "labels": Case(
        NotImplementedError,
        "`labels` property method has not been implemented in BatchFromFilesMixin",
        file_property("labels"),
    ),
    "sample_weight": Case(
        NotImplementedError,
        "`sample_weight` property method has not been implemented in BatchFromFilesMixin",
        file_property("sample_weight"),
    ),
    "class mode": Case(
        ValueError, "Invalid class_mode: raw; expected one of", folder(class_mode="raw")
    ),
    "further inputs": Case(
        ValueError,
        "All of the arrays in `x` should have the same length. "
        "Found a pair with: len(x[0]) = 4, len(x[?]) = 2",
        flow((X, np.zeros(2))),
    ),
    "y": Case(ValueError, f"`x` (images tensor) and `y` (labels) {SAME_LENGTH}", flow(X, Y[:2])),
    "weights": Case(
        ValueError,
        f"`x` (images tensor) and `sample_weight` {SAME_LENGTH}",
        flow(X, Y, sample_weight=Y[:2]),
    ),
    "array subset": Case(ValueError, "Invalid subset name: test", flow(X, Y, subset="test")),
    "class split": Case(
        ValueError,
        "Training and validation subsets have different number of classes after the split",
        flow(X, Y, subset="training"),
    ),
    "rank": Case(
        ValueError,
        "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with shape",
        flow(X[0]),
    ),
    "table class mode": Case(
        ValueError, "Invalid class_mode: word; expected one of", table(class_mode="word")
    ),
    "multi output": Case(
        TypeError,
        'If class_mode="multi_output", y_col must be a list. Received str.',
        table(class_mode="multi_output"),
    ),
    "file names": Case(
        TypeError,
        "All values in column x_col=filename must be strings",
        table(columns={"filename": [1, 2, 3]}),
    ),
    "binary strings": Case(
        TypeError,
        'If class_mode="binary", y_col="class" column values must be strings.',
        table(class_mode="binary", columns={"class": [0, 1, 1]}),
    ),
    "sparse strings": Case(
        TypeError,
        'If class_mode="sparse", y_col="class" column values must be strings.',
        table(class_mode="sparse", columns={"class": [0, 1, 1]}),
    ),
    "binary classes given": Case(
        ValueError,
        'If class_mode="binary" there must be 2 classes. 3 class/es were given',
        table(class_mode="binary", classes=["a", "b", "c"]),
    ),
    "binary classes found": Case(
        ValueError,
        'If class_mode="binary" there must be 2 classes. Found 3 classes',
        table(class_mode="binary", columns={"class": ["a", "b", "c"]}),
    ),
    "categorical": Case(
        TypeError,
        'If class_mode="categorical", y_col="class" column values must be type string, list or '
        "tuple.",
        table(columns={"class": [0, 1, 1]}),
    ),
    "weight column": Case(
        TypeError, "Column weight_col=weight must be numeric", table(weight_col="weight")
    ),
    "data format": Case(
        ValueError,
        '`data_format` should be `"channels_last"` (channel after row and column) or '
        '`"channels_first"` (channel before row and column). Received: channels',
        generator(data_format="channels"),
    ),
    "validation split": Case(
        ValueError,
        "`validation_split` must be strictly between 0 and 1",
        generator(validation_split=1.0),
    ),
    "zoom pair": Case(ValueError, ZOOM, generator(zoom_range=(1, 2, 3))),
    "zoom text": Case(ValueError, ZOOM, generator(zoom_range=("a", "b"))),
    "brightness": Case(ValueError, BRIGHTNESS, generator(brightness_range=(1, 2, 3))),
    "fit rank": Case(
        ValueError, "Input to `.fit()` should have rank 4. Got array with shape: (4,", fit(X[0])
    ),
    "random zoom": Case(
        ValueError,
        "`zoom_range` should be a tuple or list of two floats",
        lambda module, _: module.random_zoom(X[0], (1, 2, 3)),
    ),
    "random brightness": Case(
        ValueError, BRIGHTNESS, lambda module, _: module.random_brightness(X[0], (1, 2, 3))
    ),
    "equal axes": Case(
        ValueError,
        "'row_axis', 'col_axis', and 'channel_axis' must be distinct",
        affine(row_axis=1),
    ),
    "axis indices": Case(ValueError, "Invalid axis' indices: {3}", affine(channel_axis=3)),
    "image rank": Case(ValueError, "Input arrays must be multi-channel 2D images", affine(X)),
    "channel axis": Case(
        ValueError,
        "Channels are allowed and the first and last dimensions",
        affine(col_axis=2, channel_axis=1),
    ),
}
WARNINGS = {
    "tiff": Case(
        UserWarning, 'Using ".tiff" files with multiple bands will cause distortion', folder()
    ),
    "channels": Case(
        UserWarning,
        "NumpyArrayIterator is set to use the data format convention "
        '"channels_last" (channels on axis 3), i.e. expected either 1, 3, or 4 channels',
        flow(X[..., :2]),
    ),
    "ignored classes": Case(
        UserWarning,
        '`classes` will be ignored given the class_mode="raw"',
        table(class_mode="raw", classes=["a"]),
    ),
    "invalid file names": Case(
        UserWarning,
        'Found 1 invalid image filename(s) in x_col="filename". These filename(s) will be ignored',
        table(columns={"filename": ["a/0.png", "b/0.png", "b/absent.png"]}),
    ),
    "whitening centers": Case(
        UserWarning,
        f"This ImageDataGenerator specifies `zca_whitening`, {OVERRIDES} `featurewise_center`",
        generator(zca_whitening=True),
    ),
    "deviation centers": Case(
        UserWarning,
        "This ImageDataGenerator specifies `featurewise_std_normalization`, "
        f"{OVERRIDES} `featurewise_center`",
        generator(featurewise_std_normalization=True),
    ),
    "whitening replaces deviation": Case(
        UserWarning,
        # Keras's text goes on without a comma and a space.
        "This ImageDataGenerator specifies `zca_whitening`",
        generator(zca_whitening=True, featurewise_center=True, featurewise_std_normalization=True),
    ),
    "samplewise": Case(
        UserWarning,
        "This ImageDataGenerator specifies `samplewise_std_normalization`, "
        f"{OVERRIDES} `samplewise_center`",
        generator(samplewise_std_normalization=True),
    ),
    "center without fit": Case(
        UserWarning,
        f"This ImageDataGenerator specifies `featurewise_center`, {NOT_FITTED}",
        unfitted(featurewise_center=True),
    ),
    "deviation without fit": Case(
        UserWarning,
        f"This ImageDataGenerator specifies `featurewise_std_normalization`, {NOT_FITTED}",
        unfitted(featurewise_center=True, featurewise_std_normalization=True),
    ),
    "whitening without fit": Case(
        UserWarning,
        f"This ImageDataGenerator specifies `zca_whitening`, {NOT_FITTED}",
        unfitted(featurewise_center=True, zca_whitening=True),
    ),
    "fit channels": Case(
        UserWarning,
        "Expected input to be images (as Numpy array) following the data format convention "
        '"channels_last" (channels on axis 3), i.e. expected either 1, 3 or 4 channels',
        fit(X[..., :2]),
    ),
    "has_ext": Case(
        DeprecationWarning,
        "has_ext is deprecated, filenames in the dataframe have to match the exact filenames in "
        "disk",
        table(has_ext=True),
    ),
    "sort": Case(
        DeprecationWarning, "sort is deprecated, batches will be created in the", table(sort=True)
    ),
    "other": Case(
        DeprecationWarning,
        '`class_mode="other"` is deprecated, please use `class_mode="raw"`',
        table(class_mode="other"),
    ),
    "drop_duplicates": Case(
        DeprecationWarning,
        "drop_duplicates is deprecated, you can drop duplicates by using the "
        "pandas.DataFrame.drop_duplicates method",
        table(drop_duplicates=True),
    ),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("messages")
    for name in ("a/0.png", "b/0.png", "b/1.tiff"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (5, 5)).save(folder / name)
    return folder


@pytest.mark.parametrize("module", [KERAS, OURS], ids=["keras", "ours"])
@pytest.mark.parametrize("name", ERRORS)
def test_errors(name: str, module: ModuleType, root: Any) -> None:
    case = ERRORS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(case.kind, match=re.escape(case.phrase)) as caught:
            case.call(module, root)
    if module is OURS and case.kind is not NotImplementedError and name != "interpolation":
        assert isinstance(caught.value, KindsightError)
        assert len(str(caught.value)) > len(case.phrase)  # the cure


@pytest.mark.parametrize("module", [KERAS, OURS], ids=["keras", "ours"])
@pytest.mark.parametrize("name", WARNINGS)
def test_warnings(name: str, module: ModuleType, root: Any) -> None:
    case = WARNINGS[name]
    reset_warnings()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        case.call(module, root)
    found = [w for w in caught if case.phrase in str(w.message)]
    assert found, [str(w.message) for w in caught]
    assert all(issubclass(w.category, case.kind) for w in found)
    if module is OURS:
        assert {w.filename for w in found} == {__file__}


@pytest.mark.parametrize("name", ["has_ext", "sort", "drop_duplicates"])
def test_deprecated_arguments_are_ignored(name: str, root: Any) -> None:
    iterators = []
    for module in (KERAS, OURS):
        with pytest.warns(DeprecationWarning, match=name):
            iterators.append(table(**{name: True})(module, root))
    assert iterators[0].filenames == iterators[1].filenames == ["a/0.png", "b/0.png", "b/1.tiff"]


def test_class_mode_other_is_raw(root: Any) -> None:
    for module in (KERAS, OURS):
        with pytest.warns(DeprecationWarning):
            iterator = table(class_mode="other")(module, root)
        assert iterator.class_mode == "raw"


def test_each_unfitted_generator_warns() -> None:
    for _ in range(2):
        made = OURS.ImageDataGenerator(featurewise_center=True)
        with pytest.warns(UserWarning, match=re.escape("hasn't been fit")):
            made.standardize(X.copy())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            made.standardize(X.copy())
