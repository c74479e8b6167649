"""Slices of labelled images, and the table of a cost matrix, for ``kindsight evaluate``."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.checks.measure import NUMERIC, TEXT
from kindsight.checks.measurements import Measurements, cached_measurements, measure_dataset
from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.dataset.names import quoted, quoted_list
from kindsight.errors import CacheError, DatasetError, SettingsError
from kindsight.evaluation import distinct_images
from kindsight.evaluation.slices import Slice, SliceColumn, find_slices
from kindsight.report.data import Slice as ReportSlice
from kindsight.runs.record import RunRecord
from kindsight.storage.address import undirected
from kindsight.storage.files import is_file

if TYPE_CHECKING:
    from kindsight.dataset_evaluation import DatasetEvaluation

__all__ = ["check_slice_names", "read_costs", "record_slices", "report_slices", "slices_of"]

Measured: TypeAlias = Callable[[Measurements], NDArray[Any]]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def _date(seconds: float) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%d")


def _ratio(measured: Measurements) -> NDArray[np.float64]:
    height = measured.height.astype(np.float64)
    unknown = np.full(len(height), np.nan)
    return np.asarray(np.divide(measured.width, height, out=unknown, where=height > 0), np.float64)


def _positive(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.where(values > 0, values, np.nan).astype(np.float64)


@dataclass(frozen=True)
class _Property:
    """A property that is computed from measurements."""

    values: Measured
    unit: str = ""
    show: Callable[[float], str] | None = None


_PROPERTIES: dict[str, _Property] = {
    "size": _Property(lambda m: _positive(np.minimum(m.width, m.height)), "px"),
    "aspect": _Property(_ratio),
    "file_size": _Property(lambda m: _positive(m.bytes) / 1000, "kB"),
    "brightness": _Property(lambda m: m.brightness),
    "contrast": _Property(lambda m: m.contrast),
    "sharpness": _Property(lambda m: m.sharpness),
    "colourfulness": _Property(lambda m: m.colourfulness),
    "quality": _Property(lambda m: m.quality),
    "format": _Property(lambda m: m.format),
    "camera": _Property(lambda m: m.camera),
    "date": _Property(lambda m: m.taken, show=_date),
}
"""Properties that ``--slices`` compares."""

_OTHERS = {
    name: _Property(lambda m, name=name: getattr(m, name))  # type: ignore[misc]
    for name in (*(NUMERIC.names or ()), *TEXT)
    if name not in {"hash", "code", "reason", "bytes", "taken", *_PROPERTIES}
}
"""Measurements that ``--slice`` can name."""

_ORIGINS = ("folder", "group", "class")
"""Columns that every dataset has. The class is not among them: its slices would repeat the
recalls."""

SLICES = (*_PROPERTIES, "folder", "group")
"""The columns that ``--slices`` compares, in addition to those of a table."""

MOST_COLUMNS = 50
"""Maximum number of columns of a table that are compared without being named."""


def slices_of(
    scores: DatasetEvaluation,
    names: Sequence[str] = (),
    *,
    data: str | os.PathLike[str] | None = None,
    options: DataOptions | None = None,
    cache: Cache | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Slice, ...]:
    """Return the accuracy on slices of evaluated images, the most significant difference first.

    Parameters
    ----------
    scores : DatasetEvaluation
        The result of :meth:`kindsight.Predictor.evaluate`. Copies count once.
    names : sequence of str, optional
        A property (:data:`SLICES` or another measurement), ``"class"``, or a column of the table;
        by default all of :data:`SLICES` and all columns of the table.
    data : str or Path, optional
        The source of the images, for columns of a table.
    options : DataOptions, optional
        The options with which the data were opened.
    cache : Cache, optional
        Holds the measurements.
    workers : int, optional
        Images measured at once.
    progress : callable, optional
        Called with (images measured, number of images).

    Raises
    ------
    SettingsError
        If a name is neither a property nor a column.
    """
    rows, targets = scores.counted()
    dataset, correct = scores.dataset[rows], scores.probabilities[rows].argmax(axis=1) == targets
    options = options or DataOptions()
    check_slice_names(names, data, options)
    columns = _table_columns(dataset, names, data, options)
    wanted = [*(names or SLICES)]
    measured = None
    if any(name in _PROPERTIES or name in _OTHERS for name in wanted if name not in columns):
        measured = measure_dataset(dataset, cache or Cache(), workers=workers, progress=progress)[1]
    found = [columns.get(name) or _column(name, dataset, measured) for name in wanted]
    if not names:
        found += [column for name, column in columns.items() if name not in wanted]
    return find_slices(correct, [column for column in found if column is not None])


def record_slices(record: RunRecord, cache: Cache) -> tuple[Slice, ...]:
    """Return slices of a run's test or validation split, without reading an image.

    They are by folder and group; and by properties if measurements of all images are cached, as
    after ``kindsight check``. Empty for a run without such images.

    Parameters
    ----------
    record : RunRecord
    cache : Cache
        Holds the measurements.
    """
    split = next((name for name in ("test", "validation") if name in record.predictions), None)
    if split is None:
        return ()
    predictions, images = record.predictions[split], {each.path: each for each in record.images}
    rows = np.array([i for i, path in enumerate(predictions.paths) if path in images], np.int64)
    chosen = [images[predictions.paths[row]] for row in rows]
    digests = [each.digest or None for each in chosen]
    kept = np.flatnonzero(distinct_images(digests, predictions.targets[rows]))
    dataset = ImageDataset(
        path=tuple(chosen[i].path for i in kept),
        label=tuple(chosen[i].label for i in kept),
        group=tuple(chosen[i].group or None for i in kept),
        digest=tuple(digests[i] for i in kept),
        value_range=record.bundle.spec.value_range,
    )
    try:
        measured = cached_measurements(dataset, cache)
    except CacheError:
        measured = None
    columns = [_column(name, dataset, measured) for name in SLICES]
    correct = (predictions.predicted == predictions.targets)[rows][kept]
    return find_slices(correct, [column for column in columns if column is not None])


def report_slices(record: RunRecord, cache: Cache) -> tuple[ReportSlice, ...]:
    """Return the worse slices of :func:`record_slices`, for the report; most important first.

    The parameters are those of :func:`record_slices`.
    """
    return tuple(
        ReportSlice(
            each.column, each.value, each.images, each.accuracy, *each.interval, each.others,
            each.p_value,
        )
        for each in record_slices(record, cache)
        if each.is_worse
    )  # fmt: skip


def check_slice_names(
    names: Sequence[str], data: str | os.PathLike[str] | None, options: DataOptions
) -> None:
    """Raise SettingsError for a name that is neither a property nor a column of the table."""
    known = (*_PROPERTIES, *_ORIGINS, *sorted(_OTHERS))
    header = () if data is None else _header(os.fspath(data), options)
    for name in names:
        if name not in known and name not in header:
            raise SettingsError(
                "`slice` must be a property of images or a column of a table; got "
                f"{quoted(name)}. Properties: {quoted_list(known, len(known))}."
                + (f" Columns: {quoted_list(header)}." if header else "")
            )


def _column(name: str, dataset: ImageDataset, measured: Measurements | None) -> SliceColumn | None:
    if name == "folder":
        return SliceColumn(name, _folders(dataset))
    if name == "group":
        return SliceColumn(name, dataset.group)
    if name == "class":
        return SliceColumn(name, dataset.label)
    if measured is None:
        return None
    found = _PROPERTIES.get(name) or _OTHERS[name]
    values = found.values(measured)
    if values.dtype == object:
        return SliceColumn(name, tuple(values.tolist()))
    return SliceColumn(name, values, found.show, found.unit)


def _folders(dataset: ImageDataset) -> list[str | None]:
    """Return the folder of each image, without folders that have the name of its label."""
    return [
        "/".join(name for name in path.split("/")[:-1] if name != label) or None
        for path, label in zip(dataset.path, dataset.label, strict=True)
    ]


def _table_columns(
    dataset: ImageDataset,
    names: Sequence[str],
    data: str | os.PathLike[str] | None,
    options: DataOptions,
) -> Mapping[str, SliceColumn]:
    """Return the named columns of the data's table, or all of them."""
    header = () if data is None else _header(os.fspath(data), options)
    wanted = names or (header if len(header) <= MOST_COLUMNS else ())
    columns = {
        name: _read_column(name, dataset, data, options)
        for name in wanted
        if data is not None and name in header
    }
    return {name: column for name, column in columns.items() if column is not None}


def _header(data: str, options: DataOptions) -> tuple[str, ...]:
    """Return the names of a table's columns, without those of paths, labels and splits."""
    from kindsight.dataset.loaders.table_files import (
        ARRAY_ENDINGS,
        PARQUET_ENDINGS,
        CsvTable,
        ParquetTable,
        is_file_of_images,
    )
    from kindsight.dataset.loaders.tables import find_columns

    if not is_file_of_images(data) or not is_file(data):
        return ()
    if undirected(data).lower().endswith(ARRAY_ENDINGS):
        return ()
    table: CsvTable | ParquetTable
    if undirected(data).lower().endswith(PARQUET_ENDINGS):
        table = ParquetTable(data)
    else:
        table = CsvTable(data, options.encoding)
    given = {kind: name for kind, name in options.columns.items() if name in table.header}
    used = find_columns(table.header, given, table.where)
    taken = {index for kind, index in used.items() if kind != "group"}
    names = [name for index, name in enumerate(table.header) if index not in taken and name]
    return tuple(name for name in names if names.count(name) == 1)


def _read_column(
    name: str, dataset: ImageDataset, data: str | os.PathLike[str], options: DataOptions
) -> SliceColumn | None:
    """Return a column of the table for these images: as numbers if all of its values are."""
    columns = {**options.columns, "group": name}
    try:
        table = open_dataset(data, replace(options, columns=columns), min_classes=1)
    except DatasetError:  # such as a table of pixels, to which the column belongs
        return None
    values = dict(zip(table.path, table.group, strict=True))
    texts = [values.get(path) for path in dataset.path]
    numbers = _numbers(texts)
    return SliceColumn(name, texts if numbers is None else numbers)


def _numbers(texts: Iterable[str | None]) -> NDArray[np.float64] | None:
    try:
        numbers = np.array([math.nan if text is None else float(text) for text in texts])
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).any() else None


MAX_BYTES = 64 * 1024**2


def read_costs(path: str | os.PathLike[str], classes: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the cost of an image by label (row) and decision (column): float64 (k, k).

    Parameters
    ----------
    path : str or Path
        CSV. The first line has the names of the predicted classes, from its second cell on; each
        other line has the name of a label and a cost for each of these classes, in any order.
    classes : tuple of str
        The k classes of the classifier.

    Raises
    ------
    SettingsError
        If the file cannot be read, or has not exactly one cost for each pair of classes.
    """
    name = quoted(str(path))
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"Could not read `costs`, {name}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise SettingsError(f"`costs` must be UTF-8 text; {name} is not.") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"`costs` must be at most {MAX_BYTES // 1024**2} MB; {name} is larger.")
    try:
        rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(row)]
    except csv.Error as error:
        raise SettingsError(f"`costs` must be a CSV table; {name}: {error}.") from None
    header = [cell.strip() for cell in rows[0][1:]] if rows else []
    labels = [row[0].strip() for row in rows[1:]]
    for kind, found in (("columns", header), ("rows", labels)):
        _check_names(kind, found, classes, name)
    costs = np.empty((len(classes), len(classes)))
    for label, row in zip(labels, rows[1:], strict=True):
        if len(row) != len(header) + 1:
            raise SettingsError(
                f"`costs` must have a number for each class; the row of {quoted(label)} in {name} "
                f"has {len(row) - 1} of {len(header)}."
            )
        for column, cell in zip(header, row[1:], strict=True):
            costs[classes.index(label), classes.index(column)] = _cost(cell, label, column, name)
    return costs


def _check_names(kind: str, found: list[str], classes: tuple[str, ...], name: str) -> None:
    missing = [each for each in classes if each not in found]
    unknown = [each for each in found if each not in classes]
    if missing or unknown or len(found) != len(classes):
        problem = (
            f"no {quoted_list(missing)}"
            if missing
            else f"{quoted_list(unknown)}, which the classifier does not know"
            if unknown
            else "a class twice"
        )
        raise SettingsError(
            f"`costs` must have the classes as {kind}: {quoted_list(classes)}; "
            f"{name} has {problem}."
        )


def _cost(cell: str, label: str, column: str, name: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SettingsError(
            f"`costs` must be numbers; got {cell.strip()!r} for {quoted(label)} predicted as "
            f"{quoted(column)} in {name}."
        )
    return value
