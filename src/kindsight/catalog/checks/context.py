"""What a check may look at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.catalog import Catalog
from kindsight.catalog.checks.measurements import Measurements
from kindsight.catalog.checks.surroundings import Surroundings

__all__ = ["CheckContext", "OutOfFold", "RowVectors"]

T = TypeVar("T")


class RowVectors(NamedTuple):
    """The features of those rows of a catalog that can be read.

    Attributes
    ----------
    rows : int64 array (m,)
        Which rows of the context's catalog, ascending.
    vectors : float32 array (m, width)
        Their features.
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]


class OutOfFold(NamedTuple):
    """What a classifier that has not seen a picture says of it, for labelled rows.

    Attributes
    ----------
    rows : int64 array (m,)
        Which rows of the context's catalog, ascending.
    probabilities : float64 array (m, classes)
        In the order of the catalog's classes; each row's sum is 1.
    """

    rows: NDArray[np.int64]
    probabilities: NDArray[np.float64]


@dataclass
class CheckContext:
    """All that checks look at; what is costly is made when it is first asked for.

    Parameters
    ----------
    catalog : Catalog
        All pictures, also those that cannot be read; digests filled in where there are any.
    measurements : Measurements
        One row a row of the catalog.
    surroundings : Surroundings, optional
        What else lies in the data's folder; None where the data are not a folder.
    make_features : callable, optional
        Gives :class:`RowVectors`. None where nobody asked for what is costly.
    make_out_of_fold : callable, optional
        Gives :class:`OutOfFold`; None likewise.
    feature_blocks : tuple of slice, optional
        Which of the features' numbers belong together, such as the means at the end of a stage.
    """

    catalog: Catalog
    measurements: Measurements
    surroundings: Surroundings | None = None
    make_features: Callable[[], RowVectors] | None = None
    make_out_of_fold: Callable[[], OutOfFold] | None = None
    feature_blocks: tuple[slice, ...] = ()
    _remembered: dict[str, Any] = field(default_factory=dict, repr=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what `make` gives; called again with the same name, the same without making it.

        For what several checks need: the first that asks for it pays.
        """
        if name not in self._remembered:
            self._remembered[name] = make()
        found: T = self._remembered[name]
        return found

    @cached_property
    def readable_rows(self) -> NDArray[np.int64]:
        """The rows that can be read, int64 (m,), ascending."""
        return np.flatnonzero(self.measurements.readable).astype(np.int64)

    @cached_property
    def features(self) -> RowVectors | None:
        """The features; None where they are not to be had."""
        return self.make_features() if self.make_features is not None else None

    @cached_property
    def out_of_fold(self) -> OutOfFold | None:
        """Out-of-fold probabilities; None where they are not to be had."""
        return self.make_out_of_fold() if self.make_out_of_fold is not None else None
