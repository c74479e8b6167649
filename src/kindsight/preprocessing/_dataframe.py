"""The iterator over the rows of a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ColumnTypeError, SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._files import BatchFromFilesMixin
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._loading import validate_filename
from kindsight.preprocessing._messages import warn_of

__all__ = [
    "WITHOUT_CLASSES",
    "DataFrameIterator",
    "check_columns",
    "check_split",
    "column",
    "keep_classes",
]

# SECTION: What the iterator over a table does with its columns: checked, filtered, never changed.

WITHOUT_CLASSES = ("input", "multi_output", "raw", None)
"""The class modes in which labels are not words."""

_SOME = 3


def column(table: Any, name: Any, rows: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a column as an array, or some rows of it.

    Parameters
    ----------
    table : pandas.DataFrame or the like
        It gives a column as ``table[name]``.
    name : str
        Which column.
    rows : sequence of int, optional
        Numbers of rows, from 0.
    """
    values: Any = table[name]
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(values, np.ndarray):
        # Lists in a column stay lists.
        whole = np.empty(len(values), object)
        whole[:] = list(values)
        values = (
            whole if any(isinstance(one, str | list | tuple) for one in whole) else np.array(values)
        )
    result: NDArray[Any] = values if rows is None else values[list(rows)]
    return result


def check_columns(
    table: Any,
    class_mode: str | None,
    x_col: str,
    y_col: Any,
    weight_col: str | None,
    classes: Sequence[str] | None,
) -> None:
    """Check that a table's columns are what a class mode needs.

    Raises
    ------
    ColumnTypeError
        For a column of the wrong type.
    SettingsError
        For a number of classes that is not two in the mode ``"binary"``.
    """
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise ColumnTypeError(
            "y_col must be a list of columns with class_mode='multi_output'. "
            f"Received: {type(y_col).__name__}."
        )
    _check_types(table, x_col, (str,), "file names, which are text")
    if class_mode in ("binary", "sparse"):
        _check_types(table, y_col, (str,), f"text with class_mode={class_mode!r}")
    if class_mode == "categorical":
        kinds = "text, or lists of text, with class_mode='categorical'"
        _check_types(table, y_col, (str, list, tuple), kinds)
    if class_mode == "binary":
        found = sorted(set(classes or column(table, y_col).tolist()))
        if len(found) != 2:
            raise SettingsError(
                "class_mode='binary' needs two classes. "
                f"Received: {len(found)} ({', '.join(found[:_SOME])})."
            )
    if classes and class_mode in WITHOUT_CLASSES:
        warnings.warn(f"classes is not used with class_mode={class_mode!r}.", stacklevel=4)
    if weight_col and not np.issubdtype(column(table, weight_col).dtype, np.number):
        raise ColumnTypeError(f"The column of weights must hold numbers. Received: {weight_col!r}.")


def _check_types(table: Any, name: Any, types: tuple[type, ...], kinds: str) -> None:
    for row, value in enumerate(column(table, name).tolist()):
        if not isinstance(value, types):
            raise ColumnTypeError(
                f"Column {name!r} must hold {kinds}. "
                f"Received: {value!r} ({type(value).__name__}) in row {row}."
            )


def keep_classes(
    labels: NDArray[Any], rows: Sequence[int], classes: Sequence[str] | None, y_col: Any
) -> tuple[list[int], list[Any], list[str]]:
    """Leave out the rows whose classes are not asked for.

    Parameters
    ----------
    labels : array
        A class, or a list of classes, for each row of the table.
    rows : sequence of int
        The rows in question.
    classes : sequence of str, optional
        Those that are asked for.
    y_col : str
        What the column is called.

    Returns
    -------
    rows : list of int
    labels : list
        Of these rows; of a list of classes, those that are asked for.
    classes : list of str
        As asked for, without repeats; otherwise those found, sorted.
    """
    given = [labels[row] for row in rows]
    if not classes:
        several = ((one if isinstance(one, list | tuple) else [one]) for one in given)
        return list(rows), given, sorted({name for names in several for name in names})
    asked = list(dict.fromkeys(classes))
    kept_rows, kept_labels = [], []
    for row, label in zip(rows, given, strict=True):
        if isinstance(label, list | tuple):
            label = [name for name in label if name in asked]  # noqa: PLW2901
            keep = bool(label)
        else:
            keep = label in asked
        if keep:
            kept_rows.append(row)
            kept_labels.append(label)
    return kept_rows, kept_labels, asked


def check_split(labels: Sequence[Any], first: int, last: int) -> None:
    """Warn of a part that lacks classes, as the first or last rows of a sorted table do."""
    part, others = labels[first:last], [*labels[:first], *labels[last:]]
    if not part or not others:
        return
    here, there = ({str(label) for label in some} for some in (part, others))
    if missing := sorted(here ^ there):
        names = ", ".join(missing[:_SOME]) + (", ..." if len(missing) > _SOME else "")
        warn_of("sorted-split", missing=len(missing), total=len(here | there), names=names)


class DataFrameIterator(BatchFromFilesMixin, Iterator):
    """Batches of the images that a table names.

    Parameters
    ----------
    dataframe : pandas.DataFrame, or whatever gives columns as ``table[name]``
        One row for each image; it is not changed.
    directory : path, optional
        What the names are relative to.
    image_data_generator : ImageDataGenerator or None
        What transforms and standardises them.
    x_col : str, default="filename"
        The column of file names, with their endings.
    y_col : str or list of str, default="class"
        The column of labels, or several of them for ``"multi_output"`` and ``"raw"``.
    weight_col : str, optional
        A column of weights.
    target_size : pair of int, default=(256, 256)
        Height and width that every image is brought to.
    color_mode : str, default="rgb"
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    classes : list of str, optional
        The classes in the order of their numbers; rows of others are left out. All of them, sorted,
        if omitted.
    class_mode : str or None, default="categorical"
        The labels: ``"categorical"`` (n, classes) of 0 and 1, from a word or a list of words;
        ``"binary"`` or ``"sparse"`` numbers; ``"raw"`` the column's values; ``"multi_output"`` a
        list with the values of each column; ``"input"`` the images themselves; None no labels.
    batch_size : int, default=32
    shuffle : bool, default=True
    seed : int, optional
    data_format : str, default="channels_last"
    save_to_dir : path, optional
        A folder into which each image is written as well, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    subset : str, optional
        ``"training"`` or ``"validation"``: the last or the first rows.
    interpolation : str, default="nearest"
        How images are resized; ``"bilinear"`` and ``"lanczos"`` look better.
    keep_aspect_ratio : bool, default=False
        Whether to cut out the middle with the proportions of `target_size` first.
    dtype : str, default="float32"
        Of the batches.
    validate_filenames : bool, default=True
        Whether to leave out, with a warning, the names that are not those of image files.

    Attributes
    ----------
    samples : int
        How many images there are.
    class_indices : dict
        The number of each class, where there are classes.
    classes : list
        The class of each file, or its classes, where there are classes.
    filenames : list of str
        The names of the rows that were taken; `filepaths` are with `directory`.

    Raises
    ------
    SettingsError
        For arguments that do not fit the table; it is a ValueError.
    ColumnTypeError
        For a column of the wrong type; it is a TypeError too.
    """

    allowed_class_modes = {  # noqa: RUF012
        "binary",
        "categorical",
        "input",
        "multi_output",
        "raw",
        "sparse",
        None,
    }

    def __init__(
        self,
        dataframe: Any,
        directory: str | None = None,
        image_data_generator: Any = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str = "channels_last",
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str = "float32",
        validate_filenames: bool = True,
    ) -> None:
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format,
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        if class_mode not in self.allowed_class_modes:
            known = sorted(str(mode) for mode in self.allowed_class_modes)
            raise SettingsError(
                f"class_mode must be one of {', '.join(known)}. Received: {class_mode!r}."
            )
        self.directory = directory or ""
        self.class_mode = class_mode
        self.dtype = dtype
        check_columns(dataframe, class_mode, x_col, y_col, weight_col, classes)
        names = column(dataframe, x_col)
        rows = list(range(len(names)))
        if validate_filenames:
            rows = self._valid(names, rows, x_col)
        message = f"{'validated' if validate_filenames else 'non-validated'} image filenames"
        if class_mode not in WITHOUT_CLASSES:
            rows, labels, found = keep_classes(column(dataframe, y_col), rows, classes, y_col)
            self.class_indices = {name: number for number, name in enumerate(found)}
            message += f" belonging to {len(found)} classes"
            first, last = self._bounds(len(rows))
            check_split(labels, first, last)
            self.classes = self._numbers(labels[first:last])
        first, last = self._bounds(len(rows))
        rows = rows[first:last]
        self.filenames = [names[row] for row in rows]
        self.samples = len(self.filenames)
        self._targets = self._targets_of(dataframe, y_col, rows)
        self._sample_weight = column(dataframe, weight_col, rows) if weight_col else None
        _keras.say(f"Found {self.samples} {message}.")
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self._be_ready(shuffle)
        super().__init__(self.samples, batch_size, shuffle, seed)

    def _bounds(self, count: int) -> tuple[int, int]:
        """Return the first row of the subset and the one after its last."""
        first, last = self.split or (0, 1)
        return int(first * count), int(last * count)

    def _valid(self, names: Any, rows: list[int], x_col: str) -> list[int]:
        paths = [os.path.join(self.directory, names[row]) for row in rows]
        valid = [
            row
            for row, path in zip(rows, paths, strict=True)
            if validate_filename(path, self.white_list_formats)
        ]
        if len(valid) < len(rows):
            kept = set(valid)
            some = [path for row, path in zip(rows, paths, strict=True) if row not in kept][:3]
            warnings.warn(
                f"{len(rows) - len(valid)} names of column {x_col!r} are not those of files that "
                f"Keras reads, and are left out, such as {', '.join(some)}.",
                stacklevel=4,
            )
        return valid

    def get_classes(self, df: Any, y_col: Any) -> list[Any]:
        """Return the class of each row of a table as a number, or a list of them."""
        return self._numbers(column(df, y_col).tolist())

    def _numbers(self, labels: Sequence[Any]) -> list[Any]:
        """Return the class of each row as a number, or a list of them where it has several."""
        number = self.class_indices
        return [
            [number[one] for one in label] if isinstance(label, list | tuple) else number[label]
            for label in labels
        ]

    def _targets_of(self, dataframe: Any, y_col: Any, rows: list[int]) -> Any:
        if self.class_mode == "multi_output":
            return [np.array(column(dataframe, name, rows).tolist()) for name in y_col]
        if self.class_mode == "raw":
            if isinstance(y_col, list):
                return np.stack([column(dataframe, name, rows) for name in y_col], axis=1)
            return column(dataframe, y_col, rows)
        return None

    @property
    def filepaths(self) -> list[str]:
        """The files, each with the folder that was given."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """What belongs to each file: classes, or the values of the columns."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> NDArray[Any] | None:
        """The weight of each file."""
        return self._sample_weight
