"""Training with a frozen backbone: features of all pictures once, then a head on some of them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.catalog.split import fold_indices, units
from kindsight.errors import CatalogError, SettingsError
from kindsight.models.backbones import SIZE_RANGE, get_backbone
from kindsight.models.build import BackboneFiles, ensure_backbone
from kindsight.models.keras_process import KerasProcess
from kindsight.pictures import InputSpec, read_picture, resize_picture
from kindsight.training.features import Features, compute_features
from kindsight.training.head import FOLDS, HEADS, FittedHead, fit_head
from kindsight.training.kept import kept_pictures, share_cut_off

__all__ = ["CLASS_WEIGHTS", "RESIZES", "FittedFrozen", "FrozenTraining", "Progress"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); total is 0 where it is not known."""

CLASS_WEIGHTS = ("none", "balanced")
RESIZES = ("crop", "stretch", "pad")


@dataclass(frozen=True)
class FrozenTraining:
    """What a training with a frozen backbone is told.

    Parameters
    ----------
    model : str
        The backbone's name.
    size : int or (height, width), optional
        Pixels of the pictures that the network sees; its own size if omitted.
    resize : str
        One of :data:`RESIZES`: how other proportions are met.
    head : str
        ``"auto"``, ``"linear"`` or ``"curved"``.
    class_weight : str, optional
        ``"balanced"`` makes each class count alike; None or ``"none"`` each picture.
    seed : int
        For folds, random directions and landmarks.
    workers : int, optional
        How many pictures are run at once; the number of cores if omitted.
    cache : path, optional
        The cache's folder; this machine's own if omitted.
    """

    model: str = "efficientnet-lite0"
    size: int | tuple[int, int] | None = None
    resize: str = "crop"
    head: str = "auto"
    class_weight: str | None = None
    seed: int = 0
    workers: int | None = None
    cache: str | os.PathLike[str] | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = []
        if self.head not in HEADS:
            found.append(f"head must be one of {', '.join(HEADS)}. Received: {self.head!r}.")
        if self.class_weight not in (None, *CLASS_WEIGHTS):
            found.append(
                f"class_weight must be one of {', '.join(CLASS_WEIGHTS)}. "
                f"Received: {self.class_weight!r}."
            )
        if self.resize not in RESIZES:
            found.append(f"resize must be one of {', '.join(RESIZES)}. Received: {self.resize!r}.")
        if not _whole(self.seed, 0, 2**63 - 1):
            found.append(f"seed must be a whole number from 0. Received: {self.seed!r}.")
        if self.workers is not None and not _whole(self.workers, 1, 1024):
            found.append(f"workers must be a whole number from 1. Received: {self.workers!r}.")
        pair = isinstance(self.size, tuple) and len(self.size) == 2
        sides = self.size if isinstance(self.size, tuple) and pair else (self.size,)
        if self.size is not None and not all(_whole(side, *SIZE_RANGE) for side in sides):
            found.append(
                f"size must be a whole number of pixels from {SIZE_RANGE[0]} to {SIZE_RANGE[1]}, "
                f"or a (height, width) of two. Received: {self.size!r}."
            )
        try:
            get_backbone(self.model if isinstance(self.model, str) else repr(self.model))
        except SettingsError as error:
            found.append(str(error))
        return found

    def spec(self) -> InputSpec:
        """Return how pictures are resized.

        Raises
        ------
        SettingsError
            Naming every setting that cannot be.
        """
        if faults := self.faults():
            raise SettingsError("\n".join(faults))
        size = self.size or get_backbone(self.model).size
        height, width = (size, size) if isinstance(size, int) else size
        return InputSpec(height, width, fit=self.resize)  # type: ignore[arg-type]

    def backbone(
        self, progress: Progress | None = None, process: KerasProcess | None = None
    ) -> BackboneFiles:
        """Find the backbone's files, or build them, once on a machine."""

        def say(_: str) -> None:
            if progress is not None:
                progress("backbone", 0, 0)

        folder = Cache(self.cache).folder()
        return ensure_backbone(self.model, self.spec().size, folder, say, process=process)

    def features(
        self, catalog: Catalog, files: BackboneFiles, progress: Progress | None = None
    ) -> Features:
        """Find or compute the features of a catalog's pictures."""

        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("pictures", done, total)

        return compute_features(
            catalog, files, self.spec(), Cache(self.cache), workers=self.workers, progress=step
        )

    def fit(
        self,
        features: Features,
        files: BackboneFiles,
        classes: Sequence[str],
        rows: NDArray[np.int64] | None = None,
    ) -> FittedFrozen:
        """Fit a head to some of the pictures.

        Parameters
        ----------
        features : Features
            Of this backbone.
        files : BackboneFiles
            The backbone.
        classes : sequence of str
            Class names, in the order that the logits are to have.
        rows : array, optional
            int64: which pictures to learn from; all if omitted.

        Raises
        ------
        CatalogError
            If a class has no picture left to learn from.
        """
        start = time.monotonic()
        rows = np.arange(len(features.catalog)) if rows is None else rows
        catalog = features.catalog[rows]
        targets, groups = _targets(catalog, classes), units(catalog)
        if groups.max() == 0:
            raise CatalogError(
                "A classifier needs two different pictures or more. Received: "
                f"{len(targets)} times the same."
            )
        rarest, different = int(np.bincount(targets).min()), int(groups.max()) + 1
        folds = max(2, min(FOLDS, rarest, different))
        digests = [str(digest) for digest in catalog.digest]
        head = fit_head(
            features.vectors[rows],
            targets,
            len(classes),
            files.layout,
            folds=fold_indices(targets, groups, folds, self.seed, digests),
            kind=self.head,
            weights=_weights(targets, self.class_weight),
            seed=self.seed,
        )
        seconds = time.monotonic() - start
        return FittedFrozen(self, tuple(classes), files, features, rows, head, seconds)


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
    """

    training: FrozenTraining
    classes: tuple[str, ...]
    files: BackboneFiles
    features: Features
    rows: NDArray[np.int64]
    head: FittedHead
    seconds: float

    def kept_pixels(self, digests: Sequence[str]) -> NDArray[np.uint8]:
        """Return pictures as the cache keeps them: uint8 (n, height, width, 3).

        What the cache no longer has is read again.
        """
        catalog, spec = self.features.catalog, self.training.spec()
        kept = kept_pictures(self.features.table, self.files.layout.width, digests)
        pixels = []
        for digest, picture in zip(digests, kept, strict=True):
            if picture is not None:
                pixels.append(picture.pixels)
                continue
            data = catalog.load(catalog.digest.index(digest))
            read = read_picture(data, target=spec.size) if isinstance(data, bytes) else data
            pixels.append(resize_picture(read, spec))
        return np.stack(pixels)

    def share_cut_off(self) -> float:
        """Return how much of the pictures' area the network did not see: 0 to 1."""
        digests = [str(digest) for digest in self.features.catalog.digest]
        table, width = self.features.table, self.files.layout.width
        return share_cut_off(table, width, digests, self.training.spec())


def _whole(value: object, least: int, most: int) -> bool:
    return (
        isinstance(value, (int, np.integer))
        and not isinstance(value, bool)
        and least <= int(value) <= most
    )


def _targets(catalog: Catalog, classes: Sequence[str]) -> NDArray[np.int64]:
    """Return the labels as numbers; every class must have a picture left."""
    places = {name: place for place, name in enumerate(classes)}
    targets = np.array([places[str(label)] for label in catalog.label], np.int64)
    if len(classes) < 2:
        raise CatalogError(
            f"A classifier needs two classes or more. Received: {', '.join(classes) or 'none'}."
        )
    empty = [name for name, place in places.items() if not (targets == place).any()]
    if empty:
        raise CatalogError(
            "Every class must have a picture to learn from that can be read. Received: none of "
            f"{', '.join(empty)}."
        )
    return targets


def _weights(targets: NDArray[np.int64], class_weight: str | None) -> NDArray[np.float32] | None:
    if class_weight in (None, "none"):
        return None
    counts = np.bincount(targets)
    return (len(targets) / (len(counts) * counts[targets])).astype(np.float32)
