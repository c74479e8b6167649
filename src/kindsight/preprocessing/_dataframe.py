"""The iterator over the images named by a table, and the checks of its columns."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import ColumnTypeError, SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._file_batches import BatchFromFilesMixin, invalid_class_mode
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._loading import validate_filename
from kindsight.preprocessing._warnings import warn_trap, warn_user

WITHOUT_CLASSES = ("input", "multi_output", "raw", None)
"""The class modes without named classes."""

_EXAMPLES = 3


def column(table: Any, name: Any, rows: Sequence[int] | None = None) -> NDArray[Any]:
    """Return a column of a table, or some of its rows, as an array."""
    values: Any = table[name]
    values = values.to_numpy() if hasattr(values, "to_numpy") else values
    if not isinstance(values, np.ndarray):
        # Lists in a column are not converted to arrays.
        whole = np.empty(len(values), object)
        whole[:] = list(values)
        if not any(isinstance(one, str | list | tuple) for one in whole):
            whole = np.array(values)
        values = whole
    result: NDArray[Any] = values if rows is None else values[list(rows)]
    return result


def check_columns(
    table: Any, class_mode: str | None, x_col: str, y_col: Any, weight_col: str | None,
    classes: Sequence[str] | None,
) -> None:  # fmt: skip
    """Raise ColumnTypeError or SettingsError if columns do not match the class mode."""
    start = f'If class_mode="{class_mode}"'
    if class_mode == "multi_output" and not isinstance(y_col, list):
        raise ColumnTypeError(
            f"{start}, y_col must be a list. Received {type(y_col).__name__}. Pass the names "
            "of the label columns."
        )
    if class_mode not in WITHOUT_CLASSES or class_mode == "raw":
        _check_single_column(start, class_mode, y_col)
    rule = f"All values in column x_col={x_col} must be strings: paths of image files."
    _check_types(table, x_col, (str,), rule)
    if class_mode in ("binary", "sparse"):
        rule = f'{start}, y_col="{y_col}" column values must be strings.'
        _check_types(table, y_col, (str,), f"{rule} Convert them with .astype(str).")
    if class_mode == "binary":
        found = sorted(set(classes or column(table, y_col).tolist()))
        if len(found) != 2:
            count = (
                f"{len(found)} class/es were given" if classes else f"Found {len(found)} classes"
            )
            raise SettingsError(
                f"{start} there must be 2 classes. {count}: {', '.join(found[:_EXAMPLES])}. "
                "Use class_mode='categorical' or 'sparse' for more classes."
            )
    if class_mode == "categorical":
        rule = f'{start}, y_col="{y_col}" column values must be type string, list or tuple.'
        _check_types(table, y_col, (str, list, tuple), f"{rule} Convert them with .astype(str).")
    if classes and class_mode in WITHOUT_CLASSES:
        warn_user(
            f'`classes` will be ignored given the class_mode="{class_mode}". Omit it, or use '
            "class_mode='categorical'."
        )
    if weight_col and not np.issubdtype(column(table, weight_col).dtype, np.number):
        raise ColumnTypeError(
            f"Column weight_col={weight_col} must be numeric. Convert it with .astype(float)."
        )


def _check_single_column(start: str, class_mode: str | None, y_col: Any) -> None:
    """Raise ColumnTypeError for several columns of labels where one is needed."""
    if isinstance(y_col, tuple):
        raise ColumnTypeError(f"{start}, y_col must be a list. Received tuple. Use list(y_col).")
    if not isinstance(y_col, list) or class_mode == "raw":
        return
    types = "type string, list or tuple" if class_mode == "categorical" else "strings"
    cure = (
        "For one-hot columns use class_mode='raw', whose labels are an array (images, columns). "
        "For several outputs of a model use class_mode='multi_output'."
    )
    if len(y_col) == 1:
        cure = f"Pass its name, y_col={y_col[0]!r}."
    raise ColumnTypeError(f'{start}, y_col="{y_col}" column values must be {types}. {cure}')


def _check_types(table: Any, name: Any, types: tuple[type, ...], rule: str) -> None:
    for row, value in enumerate(column(table, name).tolist()):
        if not isinstance(value, types):
            raise ColumnTypeError(f"{rule} Row {row} has {value!r} ({type(value).__name__}).")


def select_classes(
    labels: NDArray[Any], rows: Sequence[int], classes: Sequence[str] | None
) -> tuple[list[int], list[Any], list[str]]:
    """Return the rows with the given classes (default: all, sorted), their labels, and the classes.

    A label may be a list of classes; classes that are not selected are removed from it.
    """
    given = [labels[row] for row in rows]
    if not classes:
        several = ((one if isinstance(one, list | tuple) else [one]) for one in given)
        return list(rows), given, sorted({name for names in several for name in names})
    selected = list(dict.fromkeys(classes))
    selected_rows, selected_labels = [], []
    for row, label in zip(rows, given, strict=True):
        if isinstance(label, list | tuple):
            label = [name for name in label if name in selected]  # noqa: PLW2901
            is_selected = bool(label)
        else:
            is_selected = label in selected
        if is_selected:
            selected_rows.append(row)
            selected_labels.append(label)
    return selected_rows, selected_labels, selected


def check_split(labels: Sequence[Any], first: int, last: int) -> None:
    """Warn if a subset lacks classes, as the first or last rows of a sorted table do."""
    subset, others = labels[first:last], [*labels[:first], *labels[last:]]
    if not subset or not others:
        return
    here, there = ({str(label) for label in some} for some in (subset, others))
    if missing := sorted(here ^ there):
        names = ", ".join(missing[:_EXAMPLES]) + (", ..." if len(missing) > _EXAMPLES else "")
        warn_trap("sorted-split", missing=len(missing), total=len(here | there), names=names)


class DataFrameIterator(BatchFromFilesMixin, Iterator):
    """Iterator over the images named by a table.

    Parameters
    ----------
    dataframe : pandas.DataFrame, or anything with columns as ``table[name]``
        One row for each image; it is not modified.
    directory : path, optional
        Folder that the file names are relative to.
    image_data_generator : ImageDataGenerator or None
    x_col : str, default="filename"
        Column of file names, with extensions.
    y_col : str or list of str, default="class"
        Column of labels, or several ones for ``"multi_output"`` and ``"raw"``.
    weight_col : str, optional
        Column of sample weights.
    classes : list of str, optional
        Classes in the order of their indices; rows of other classes are omitted. Default: all,
        sorted.
    class_mode : str or None, default="categorical"
        Labels: ``"categorical"`` gives a (n, classes) array of 0 and 1 from a class or a list of
        classes; ``"binary"`` or ``"sparse"`` indices; ``"raw"`` the values of the column;
        ``"multi_output"`` a list with the values of each column; ``"input"`` the images; None no
        labels.
    subset : str, optional
        ``"validation"`` for the first rows, ``"training"`` for the others.
    validate_filenames : bool, default=True
        Whether to omit, with a warning, names that are not image files.
    target_size, color_mode, interpolation, keep_aspect_ratio, dtype, data_format
        As in :class:`DirectoryIterator`.
    batch_size, shuffle, seed, save_to_dir, save_prefix, save_format
        As in :class:`DirectoryIterator`.

    Attributes
    ----------
    samples, class_indices, filenames, filepaths
        As in :class:`DirectoryIterator`, for the selected rows.
    classes : list
        Class index of each file, or a list of them, if there are classes.

    Raises
    ------
    SettingsError
        (a ValueError) for invalid arguments.
    ColumnTypeError
        (a TypeError) for a column of the wrong type.
    """

    allowed_class_modes = {  # noqa: RUF012
        "binary", "categorical", "input", "multi_output", "raw", "sparse", None,
    }  # fmt: skip

    def __init__(
        self, dataframe: Any, directory: str | None = None, image_data_generator: Any = None,
        x_col: str = "filename", y_col: Any = "class", weight_col: str | None = None,
        target_size: tuple[int, int] = (256, 256), color_mode: str = "rgb",
        classes: Sequence[str] | None = None, class_mode: str | None = "categorical",
        batch_size: int = 32, shuffle: bool = True, seed: int | None = None,
        data_format: str = "channels_last", save_to_dir: str | None = None, save_prefix: str = "",
        save_format: str = "png", subset: str | None = None, interpolation: str = "nearest",
        keep_aspect_ratio: bool = False, dtype: str = "float32", validate_filenames: bool = True,
    ) -> None:  # fmt: skip
        self.set_processing_attrs(
            image_data_generator, target_size, color_mode, data_format, save_to_dir, save_prefix,
            save_format, subset, interpolation, keep_aspect_ratio,
        )  # fmt: skip
        if class_mode not in self.allowed_class_modes:
            raise SettingsError(invalid_class_mode(class_mode, self.allowed_class_modes))
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
            rows, labels, found = select_classes(column(dataframe, y_col), rows, classes)
            self.class_indices = {name: number for number, name in enumerate(found)}
            message += f" belonging to {len(found)} classes"
            first, last = self._bounds(len(rows))
            check_split(labels, first, last)
            self.classes = self._class_numbers(labels[first:last])
        first, last = self._bounds(len(rows))
        rows = rows[first:last]
        self.filenames = [names[row] for row in rows]
        self.samples = len(self.filenames)
        self._targets = self._targets_of(dataframe, y_col, rows)
        self._sample_weight = column(dataframe, weight_col, rows) if weight_col else None
        _keras.print_or_log(f"Found {self.samples} {message}.")
        self._filepaths = [os.path.join(self.directory, name) for name in self.filenames]
        self._open_cache(shuffle)
        super().__init__(self.samples, batch_size, shuffle, seed)

    def _bounds(self, count: int) -> tuple[int, int]:
        """Return the start and end of the subset."""
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
            found = set(valid)
            some = [path for row, path in zip(rows, paths, strict=True) if row not in found]
            warn_user(
                f'Found {len(rows) - len(valid)} invalid image filename(s) in x_col="{x_col}". '
                f"These filename(s) will be ignored: {', '.join(some[:_EXAMPLES])}. Check the "
                "paths and their extensions."
            )
        return valid

    def get_classes(self, df: Any, y_col: Any) -> list[Any]:
        """Return the class index of each row of a table, or a list of indices."""
        return self._class_numbers(column(df, y_col).tolist())

    def _class_numbers(self, labels: Sequence[Any]) -> list[Any]:
        """Return the class index of each label, or a list of indices for a list of classes."""
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
        """Paths of the images, including `directory`."""
        return self._filepaths

    @property
    def labels(self) -> Any:
        """Class indices, or the values of the label columns."""
        return self._targets if self.class_mode in ("multi_output", "raw") else self.classes

    @property
    def sample_weight(self) -> NDArray[Any] | None:
        """Sample weights."""
        return self._sample_weight
