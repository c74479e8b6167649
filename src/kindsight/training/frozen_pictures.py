"""The pictures of a training with a frozen backbone, as a run needs them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog import Catalog
from kindsight.errors import PictureError
from kindsight.models.build import BackboneFiles
from kindsight.models.keras_process import KerasProcess
from kindsight.training.alike import SIDE
from kindsight.training.common import Progress
from kindsight.training.features import Features
from kindsight.training.frozen import FittedFrozen, FrozenTraining
from kindsight.training.kept import kept_greys
from kindsight.training.listener import TrainingListener

__all__ = ["FrozenPictures", "prepare_frozen"]


def prepare_frozen(
    training: FrozenTraining,
    catalog: Catalog,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> FrozenPictures:
    """Find or make the backbone, and the features of a catalog's pictures."""
    files = training.backbone(progress, keras)
    return FrozenPictures(training, files, training.features(catalog, files, progress))


@dataclass(frozen=True)
class FrozenPictures:
    """The features that a head is fitted on.

    Parameters
    ----------
    training : FrozenTraining
        What was told.
    files : BackboneFiles
        The backbone.
    features : Features
        Of all readable pictures.
    """

    training: FrozenTraining
    files: BackboneFiles
    features: Features

    @property
    def catalog(self) -> Catalog:
        """The readable pictures."""
        return self.features.catalog

    @property
    def problems(self) -> tuple[PictureError, ...]:
        """Those that were set aside."""
        return self.features.problems

    @property
    def problem_labels(self) -> tuple[str | None, ...]:
        """The labels of those that were set aside."""
        return self.features.problem_labels

    @property
    def computed(self) -> int:
        """How many distinct pictures went through the network."""
        return self.features.computed

    @property
    def reused(self) -> int:
        """How many did not have to."""
        return self.features.reused

    def with_catalog(self, catalog: Catalog) -> FrozenPictures:
        """Return the same with other columns of the catalog."""
        return replace(self, features=replace(self.features, catalog=catalog))

    def small_grey(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return pictures small and grey, for finding copies: uint8 (n, 64, 64)."""
        features = self.features
        digests = [str(features.catalog.digest[row]) for row in rows]
        return kept_greys(features.table, self.files.layout.width, digests, SIDE)

    def close(self) -> None:
        """Do nothing: the features are in memory."""

    def fit(
        self,
        classes: Sequence[str],
        rows: NDArray[np.int64],
        validation: NDArray[np.int64],
        *,
        keras: KerasProcess,
        folder: Path | None = None,
        progress: Progress | None = None,
        listener: TrainingListener | None = None,
    ) -> FittedFrozen:
        """Fit a head to the pictures of `rows`; the rest is for the other kinds of training."""
        if progress is not None:
            progress("head", 0, 0)
        return self.training.fit(self.features, self.files, classes, rows)
