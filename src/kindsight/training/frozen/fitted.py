"""A head that was fitted on frozen features, with all that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.evaluation import to_probabilities
from kindsight.models.backbones.files import BackboneFiles
from kindsight.training.engine.history import History
from kindsight.training.fine_tuning.settings import FineTuningResult
from kindsight.training.frozen.features import Features
from kindsight.training.frozen.select_head import FittedHead
from kindsight.training.stored_images import (
    KeptImage,
    kept_images,
    kept_pixels,
    share_cut_off,
)

if TYPE_CHECKING:
    from kindsight.training.frozen.settings import FrozenTrainer

__all__ = ["FittedFrozenHead"]


@dataclass(frozen=True)
class FittedFrozenHead:
    """A fitted head with all that it came from.

    Parameters
    ----------
    training : FrozenTrainer
        What was told.
    classes : tuple of str
        In the order of the logits.
    files : BackboneFiles
        The backbone.
    features : Features
        Of all images.
    rows : array
        int64: those that it learned from.
    head : FittedHead
        What was learned.
    seconds : float
        That the choice and the fit of the head took.
    fine_tuning : FineTuningResult, optional
        The fine-tuning that was tried and was not better.
    """

    training: FrozenTrainer
    classes: tuple[str, ...]
    files: BackboneFiles
    features: Features
    rows: NDArray[np.int64]
    head: FittedHead
    seconds: float
    fine_tuning: FineTuningResult | None = None

    @property
    def dataset(self) -> ImageDataset:
        """The readable images."""
        return self.features.dataset

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return self.head.temperature

    def refitted(self, rows: NDArray[np.int64]) -> FittedFrozenHead:
        """Return the same with a head that is chosen and fitted anew on other images."""
        fitted = self.training.fit(self.features, self.files, self.classes, rows)
        return replace(fitted, fine_tuning=self.fine_tuning)

    @property
    def history(self) -> History | None:
        """None: a head is fitted, not trained in epochs."""
        return None

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the probabilities of some images' classes, float32 (n, classes)."""
        logits = self.head.layers.logits(self.features.vectors[rows])
        return to_probabilities(logits, self.temperature)

    def logits_of(self, dataset: ImageDataset) -> NDArray[np.float32]:
        """Return the logits of other images; ImageError for the first that cannot be read."""
        features = self.training.features(dataset, self.files)
        if features.problems:
            raise features.problems[0]
        return self.head.layers.logits(features.vectors)

    def kept(self, digests: Sequence[str]) -> list[KeptImage | None]:
        """Return images as the cache has them; None for those that it no longer has."""
        return kept_images(self.features.table, self.files.layout.width, digests)

    def kept_pixels(self, digests: Sequence[str]) -> NDArray[np.uint8]:
        """Return images as the cache keeps them: uint8 (n, height, width, 3).

        What the cache no longer has is read again.
        """
        width, spec = self.files.layout.width, self.training.spec()
        return kept_pixels(self.features.table, width, self.features.dataset, spec, digests)

    def share_cut_off(self) -> float:
        """Return how much of the images' area the network did not see: 0 to 1."""
        digests = [str(digest) for digest in self.features.dataset.digest]
        table, width = self.features.table, self.files.layout.width
        return share_cut_off(table, width, digests, self.training.spec())
