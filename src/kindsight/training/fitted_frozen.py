"""A head that was fitted on frozen features, with all that it came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog import Catalog
from kindsight.evaluation import to_probabilities
from kindsight.models.backbone_files import BackboneFiles
from kindsight.training.features import Features
from kindsight.training.head import FittedHead
from kindsight.training.history import History
from kindsight.training.kept import KeptPicture, kept_pictures, kept_pixels, share_cut_off
from kindsight.training.tuning import Tuning

if TYPE_CHECKING:
    from kindsight.training.frozen import FrozenTraining

__all__ = ["FittedFrozen"]


@dataclass(frozen=True)
class FittedFrozen:
    """A fitted head with all that it came from.

    Parameters
    ----------
    training : FrozenTraining
        What was told.
    classes : tuple of str
        In the order of the logits.
    files : BackboneFiles
        The backbone.
    features : Features
        Of all pictures.
    rows : array
        int64: those that it learned from.
    head : FittedHead
        What was learned.
    seconds : float
        That the choice and the fit of the head took.
    tuning : Tuning, optional
        The fine-tuning that was tried and was not better.
    """

    training: FrozenTraining
    classes: tuple[str, ...]
    files: BackboneFiles
    features: Features
    rows: NDArray[np.int64]
    head: FittedHead
    seconds: float
    tuning: Tuning | None = None

    @property
    def catalog(self) -> Catalog:
        """The readable pictures."""
        return self.features.catalog

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        return self.head.temperature

    def refitted(self, rows: NDArray[np.int64]) -> FittedFrozen:
        """Return the same with a head that is chosen and fitted anew on other pictures."""
        fitted = self.training.fit(self.features, self.files, self.classes, rows)
        return replace(fitted, tuning=self.tuning)

    @property
    def history(self) -> History | None:
        """None: a head is fitted, not trained in epochs."""
        return None

    def probabilities(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the probabilities of some pictures' classes, float32 (n, classes)."""
        logits = self.head.layers.logits(self.features.vectors[rows])
        return to_probabilities(logits, self.temperature)

    def logits_of(self, catalog: Catalog) -> NDArray[np.float32]:
        """Return the logits of other pictures; PictureError for the first that cannot be read."""
        features = self.training.features(catalog, self.files)
        if features.problems:
            raise features.problems[0]
        return self.head.layers.logits(features.vectors)

    def kept(self, digests: Sequence[str]) -> list[KeptPicture | None]:
        """Return pictures as the cache has them; None for those that it no longer has."""
        return kept_pictures(self.features.table, self.files.layout.width, digests)

    def kept_pixels(self, digests: Sequence[str]) -> NDArray[np.uint8]:
        """Return pictures as the cache keeps them: uint8 (n, height, width, 3).

        What the cache no longer has is read again.
        """
        width, spec = self.files.layout.width, self.training.spec()
        return kept_pixels(self.features.table, width, self.features.catalog, spec, digests)

    def share_cut_off(self) -> float:
        """Return how much of the pictures' area the network did not see: 0 to 1."""
        digests = [str(digest) for digest in self.features.catalog.digest]
        table, width = self.features.table, self.files.layout.width
        return share_cut_off(table, width, digests, self.training.spec())
