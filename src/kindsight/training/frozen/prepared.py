"""The prepared dataset of a frozen backbone: its features."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.errors import ImageError
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress
from kindsight.training.engine.callbacks import TrainingCallback
from kindsight.training.frozen.feature_cache import FeatureTable
from kindsight.training.frozen.features import Features, compute_all_features
from kindsight.training.frozen.fitted import FittedFrozenHead, fit_frozen
from kindsight.training.frozen.input_size import choose_input_size
from kindsight.training.frozen.select_head import THREADED_IMAGES
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.stored_images import read_greys, read_pixels
from kindsight.training.near_duplicates import SIDE, SIMILARITY, measure_similarity
from kindsight.training.parity import compared_rows, is_verified
from kindsight.training.protocols import FittedModel, FoldChoices

__all__ = ["FrozenImages", "prepare_frozen"]

GREY = np.dtype((np.uint8, (SIDE, SIDE)))


def prepare_frozen(
    training: FrozenTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> FrozenImages:
    """Return the features of a dataset's images, computing those that are not cached."""
    begun = time.monotonic()
    training = choose_input_size(training, dataset, progress, keras)
    files = training.backbone(progress, keras)
    features = compute_all_features(training, dataset, files, progress, keras=keras)
    if keras is not None and len(dataset) >= THREADED_IMAGES and not training.by_gradient:
        keras.close_in_background()
    return FrozenImages(training, files, features, begun)


@dataclass(frozen=True)
class FrozenImages:
    """The features on which a head is fitted.

    Parameters
    ----------
    training : FrozenTrainer
        The settings.
    files : BackboneFiles
        The backbone.
    features : Features
        The features of all readable images.
    begun : float
        ``time.monotonic()`` at the start, from which a budget is counted.
    """

    training: FrozenTrainer
    files: BackboneFiles
    features: Features
    begun: float = 0.0

    @property
    def dataset(self) -> ImageDataset:
        """The readable images."""
        return self.features.dataset

    @property
    def problems(self) -> tuple[ImageError, ...]:
        """Why images were skipped."""
        return self.features.problems

    @property
    def problem_labels(self) -> tuple[str | None, ...]:
        """The labels of the skipped images."""
        return self.features.problem_labels

    @property
    def computed(self) -> int:
        """Number of distinct images run through the backbone."""
        return self.features.computed

    @property
    def reused(self) -> int:
        """Number of distinct images whose features were cached."""
        return self.features.reused

    def for_fold(self, folds: int) -> FrozenImages:
        """Return the same features."""
        return self

    def with_dataset(self, dataset: ImageDataset) -> FrozenImages:
        """Return the features with other columns of the dataset."""
        return replace(self, features=replace(self.features, dataset=dataset))

    def small_grey(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return small grey images for the near-duplicate search, uint8 (n, 64, 64)."""
        digests, table, width = self._stored(rows)
        with closing(FeatureTable(table, width)) as opened:
            greys = opened.similarity("grey", digests, GREY)
        if missing := [digest for digest in digests if digest not in greys]:
            greys |= dict(zip(missing, read_greys(table, width, missing, SIDE), strict=True))
        return np.stack([greys[digest] for digest in digests])

    def measure_similarity(self, rows: NDArray[np.int64]) -> NDArray[np.void]:
        """Return the measurements that this search compares first, which are cached, too."""
        digests, table, width = self._stored(rows)
        with closing(FeatureTable(table, width)) as opened:
            known = opened.similarity("numbers", digests, SIMILARITY)
            if missing := [digest for digest in digests if digest not in known]:
                greys = read_greys(table, width, missing, SIDE)
                numbers = measure_similarity(greys)
                opened.put_similarity(missing, numbers, greys)
                known |= dict(zip(missing, numbers, strict=True))
        return np.array([known[digest] for digest in digests], SIMILARITY)

    def _stored(self, rows: NDArray[np.int64]) -> tuple[list[str], Path, int]:
        """Return the images' digests, and the feature cache with its width."""
        features = self.features
        digests = [str(features.dataset.digest[row]) for row in rows]
        first = self.files.members[0] if self.files.members else self.files
        return digests, features.table, first.layout.width

    def read_pixels(self, digests: Sequence[str]) -> NDArray[np.uint8]:
        """Return resized images; see :meth:`.FittedFrozenHead.read_pixels`."""
        width, spec = self.files.layout.width, self.training.spec()
        return read_pixels(self.features.table, width, self.features.dataset, spec, digests)

    def warm_up(self, keras: KerasProcess, rows: NDArray[np.int64], *, verify: str) -> None:
        """Run the backbone in Keras while the head is fitted, if it must be verified."""
        if len(self.dataset) >= THREADED_IMAGES or (verify != "full" and is_verified(self.files)):
            return
        if self.files.layout.networks():  # the selected head may need only one of the backbones
            keras.load_ahead(self.files.keras)
            return
        chosen = compared_rows(self.dataset.digest, rows, verify)
        digests = [str(self.dataset.digest[row]) for row in chosen]
        keras.run_ahead(self.files.keras, lambda: self.read_pixels(digests))

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
        callback: TrainingCallback | None = None,
        chosen: FoldChoices | None = None,
    ) -> FittedModel:
        """Fit a head to the images of `rows`."""
        return self.fit_head(classes, rows, progress)

    def fit_head(
        self, classes: Sequence[str], rows: NDArray[np.int64], progress: Progress | None = None
    ) -> FittedFrozenHead:
        """Select and fit a head."""
        if progress is not None:
            progress("head", 0, 0)
        return fit_frozen(self.training, self.features, self.files, classes, rows, progress)
