"""Slices: images with something in common, on which a classifier is worse than on the others.

Each slice is compared with all other images by Fisher's exact test. The p-values are corrected
by Holm's method for the number of slices: each slice that is named counts as found by itself, and
the chance that any is named although all slices are equally difficult is at most 5%.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import UsageError
from kindsight.evaluation.intervals import wilson_interval
from kindsight.evaluation.paired import fisher_more_errors, holm

__all__ = ["FEWEST", "SIGNIFICANT", "Slice", "SliceColumn", "find_slices"]

SIGNIFICANT = 0.05
"""Corrected p-value below which the accuracy on a slice is reported as worse."""

FEWEST = 10
"""Minimum number of images of a slice."""

MOST_VALUES = 50
"""Most values of one column that are compared: the most frequent ones."""

GROUPS = 4
"""Groups of equal size that numbers are cut into."""

Values = Sequence[str | None] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class SliceColumn:
    """A property of each image: numbers, which are cut into groups, or texts.

    Parameters
    ----------
    name : str
    values : sequence of str or None, or array of numbers
        (n,). None, an empty text and NaN are images whose value is not known.
    show : callable, optional
        From a number to its text; 3 significant digits by default.
    unit : str, default ""
        Follows the numbers.
    """

    name: str
    values: Values
    show: Callable[[float], str] | None = None
    unit: str = ""


@dataclass(frozen=True)
class Slice:
    """The accuracy on images with something in common, and on all others.

    Attributes
    ----------
    column, value : str
        What the images have in common: ``"brightness"`` and ``"below 61.2"``.
    images, errors : int
    accuracy : float
        0-1.
    interval : tuple of float
        Its 95% Wilson interval.
    others : float
        Accuracy on all other images.
    p_value : float
        Probability of as many errors or more by chance, corrected for the number of slices.
    """

    column: str
    value: str
    images: int
    errors: int
    accuracy: float
    interval: tuple[float, float]
    others: float
    p_value: float

    @property
    def is_worse(self) -> bool:
        """Whether the accuracy is significantly lower than on the other images."""
        return self.p_value < SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        """Return all attributes and ``is_worse``, ready for JSON."""
        return {
            "column": self.column, "value": self.value, "images": self.images,
            "errors": self.errors, "accuracy": self.accuracy, "interval": list(self.interval),
            "others": self.others, "p_value": self.p_value, "is_worse": self.is_worse,
        }  # fmt: skip


def find_slices(correct: NDArray[np.bool_], columns: Sequence[SliceColumn]) -> tuple[Slice, ...]:
    """Return the accuracy on each slice of the images, the least probable by chance first.

    Parameters
    ----------
    correct : bool array (n,)
        Whether each image is predicted correctly. Give copies of an image once.
    columns : sequence of SliceColumn
        A column with fewer than two known values, or in which no slice has 10 images, has no
        slices.

    Returns
    -------
    tuple of Slice
        All slices that were compared, also those that are not worse.

    Raises
    ------
    UsageError
        If a column has another number of images.
    """
    n, all_errors = len(correct), int((~correct).sum())
    found: dict[bytes, tuple[str, str, NDArray[np.bool_]]] = {}
    for column in columns:
        if len(column.values) != n:
            raise UsageError(
                f"`columns` must have a value for each of {n} images; "
                f"got {len(column.values)} for {column.name!r}."
            )
        for value, rows in _members(column).items():
            # The same images by another property are no further test.
            if FEWEST <= rows.sum() < n:
                found.setdefault(np.packbits(rows).tobytes(), (column.name, value, rows))
    sizes = [(int(rows.sum()), int((~correct[rows]).sum())) for _, _, rows in found.values()]
    tests = [fisher_more_errors(errors, size, all_errors, n) for size, errors in sizes]
    slices = [
        Slice(
            name, value, size, errors, 1 - errors / size, wilson_interval(size - errors, size),
            1 - (all_errors - errors) / (n - size), float(p),
        )
        for (name, value, _), (size, errors), p in zip(
            found.values(), sizes, holm(np.array(tests)), strict=True
        )
    ]  # fmt: skip
    order = np.argsort(np.array(tests), kind="stable")
    return tuple(slices[i] for i in order)


def _members(column: SliceColumn) -> Mapping[str, NDArray[np.bool_]]:
    """Return which images each slice of a column has; none for a column without differences."""
    values = column.values
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        members = dict(_groups(values.astype(np.float64), column))
    else:
        texts = np.array([value or "" for value in values], object)
        counts = Counter(value for value in texts.tolist() if value)
        common = [value for value, _ in counts.most_common(MOST_VALUES)]
        members = {value: np.asarray(texts == value, np.bool_) for value in common}
    if not members:
        return {}
    unknown = ~np.logical_or.reduce(list(members.values()))
    if len(members) < 2 and not unknown.any():
        return {}
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        return {**members, "not known": unknown}
    listed = np.array([not value for value in values], np.bool_)
    return {**members, "not known": listed}


def _groups(
    values: NDArray[np.float64], column: SliceColumn
) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield up to four groups of about equal size; equal numbers are in one group."""
    known = np.isfinite(values)
    if not known.any():
        return
    distinct = np.unique(values[known])
    if len(distinct) <= GROUPS:
        for value in distinct.tolist():
            yield _text(value, column), values == value
        return
    inner = np.quantile(values[known], np.arange(1, GROUPS) / GROUPS, method="higher")
    edges = [edge for edge in np.unique(inner).tolist() if edge > distinct[0]]
    for low, high in zip([None, *edges], [*edges, None], strict=True):
        rows = known.copy()
        if low is not None:
            rows &= values >= low
        if high is not None:
            rows &= values < high
        if low is None:
            name = f"below {_text(edges[0], column)}" if edges else "all"
        elif high is None:
            name = f"{_text(low, column)} or more"
        else:
            start = _text(low, column).removesuffix(column.unit).rstrip()
            name = f"{start} to {_text(high, column)}"
        yield name, rows


def _text(value: float, column: SliceColumn) -> str:
    if column.show is not None:
        return column.show(value)
    text = f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
    return f"{text} {column.unit}".rstrip()
