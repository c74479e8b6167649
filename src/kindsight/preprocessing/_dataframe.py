"""The iterator over the rows of a table."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._files import BatchFromFilesMixin
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._loading import validate_filename
from kindsight.preprocessing._rows import (
    WITHOUT_CLASSES,
    check_columns,
    check_split,
    column,
    keep_classes,
)

__all__ = ["DataFrameIterator"]


class DataFrameIterator(BatchFromFilesMixin, Iterator):
    """Batches of the pictures that a table names.

    Parameters
    ----------
    dataframe : pandas.DataFrame, or whatever gives columns as ``table[name]``
        One row for each picture; it is not changed.
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
        Height and width that every picture is brought to.
    color_mode : str, default="rgb"
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    classes : list of str, optional
        The classes in the order of their numbers; rows of others are left out. All of them, sorted,
        if omitted.
    class_mode : str or None, default="categorical"
        The labels: ``"categorical"`` (n, classes) of 0 and 1, from a word or a list of words;
        ``"binary"`` or ``"sparse"`` numbers; ``"raw"`` the column's values; ``"multi_output"`` a
        list with the values of each column; ``"input"`` the pictures themselves; None no labels.
    batch_size : int, default=32
    shuffle : bool, default=True
    seed : int, optional
    data_format : str, default="channels_last"
    save_to_dir : path, optional
        A folder into which each picture is written as well, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    subset : str, optional
        ``"training"`` or ``"validation"``: the last or the first rows.
    interpolation : str, default="nearest"
        How pictures are resized; ``"bilinear"`` and ``"lanczos"`` look better.
    keep_aspect_ratio : bool, default=False
        Whether to cut out the middle with the proportions of `target_size` first.
    dtype : str, default="float32"
        Of the batches.
    validate_filenames : bool, default=True
        Whether to leave out, with a warning, the names that are not those of picture files.

    Attributes
    ----------
    samples : int
        How many pictures there are.
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
