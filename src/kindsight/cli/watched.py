"""A predictor that says how far its evaluation is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from kindsight.catalog import Catalog
from kindsight.cli.progress import Progress
from kindsight.predictor import Prediction, Predictor

if TYPE_CHECKING:
    from kindsight.trained_on import Recognition

__all__ = ["WatchedPredictor"]


class WatchedPredictor(Predictor):
    """A :class:`~kindsight.predictor.Predictor` with somebody to report to.

    Attributes
    ----------
    progress : callable or None
        Called with ("evaluate", pictures done, pictures in all) after each picture of a catalog.
    """

    progress: Progress | None = None

    def predict_catalog(
        self, catalog: Catalog, recognition: Recognition | None = None
    ) -> Iterator[Prediction]:
        """Answer for the pictures of a catalog, in its order, and report each."""
        for done, answer in enumerate(super().predict_catalog(catalog, recognition), 1):
            if self.progress is not None:
                self.progress("evaluate", done, len(catalog))
            yield answer
