"""Training with a frozen backbone: features of all images once, then a head on some of them."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import DecodeObserver
from kindsight.errors import SettingsError, WeightsError
from kindsight.images import InputSpec
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.build import ensure_backbone
from kindsight.models.backbones.ensemble import build_ensemble
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.backbones.table import get_backbones, split_model_name
from kindsight.models.backbones.tta import CROPS, FLIPS, tta_variants
from kindsight.models.backbones.weights import (
    WEIGHTS,
    check_weights,
    describe_weights,
    download_notice,
)
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress, choice_fault, common_faults, whole_fault
from kindsight.training.frozen.features import Features
from kindsight.training.frozen.fit import find_features, fit_frozen
from kindsight.training.frozen.fitted import FittedFrozenHead
from kindsight.training.frozen.select_head import HEADS
from kindsight.training.parity import is_verified

__all__ = ["FINE_TUNES", "FrozenTrainer", "parse_budget"]

FINE_TUNES = ("off", "light", "full")
"""How much of a backbone is fine-tuned: nothing, the part above the cut, everything."""

CHILD = "kindsight.training.fine_tuning.worker"


@dataclass(frozen=True)
class FrozenTrainer:
    """What a training with a frozen backbone is told.

    Parameters
    ----------
    model : str
        The backbone's name, or a Keras file of the user's own; several, joined by ``+``, stand side
        by side, and cross-validation chooses between each alone and the mean of
        their heads' logits.
    weights : str
        ``"imagenet"``, ``"none"`` (random, by the seed) or a weights file.
    size : int or (height, width), optional
        Pixels of the images that the network sees; its own size if omitted.
    resize : str
        One of :data:`RESIZES`: how other proportions are met.
    head : str
        ``"auto"``, ``"linear"`` or ``"rbf"``.
    tta_flips : int
        Over how many flipped views of an image its features are averaged, 1 to 4: as it is,
        left-right, up-down, both.
    tta_crops : int
        Over how many crops besides, 1 to 6, each in all those flips: the whole image, its middle
        seven eighths, and as much of each corner, enlarged to the image's size.
    class_weight : str, optional
        ``"balanced"`` makes each class count alike; None or ``"none"`` each image.
    seed : int
        For folds, random directions and landmarks.
    workers : int, optional
        How many images are run at once; the number of cores if omitted.
    cache : path, optional
        The cache's folder; this machine's own if omitted.
    fine_tune : str, optional
        One of :data:`.fine_tuning.settings.FINE_TUNES`; ``"light"`` if omitted and
        there is a budget, else
        ``"off"``.
    budget : str or float, optional
        How long the training may take, such as ``"10m"``, or in seconds.
    inner : (height, width), optional
        To which the first backbone itself brings the images: an EfficientNet-Lite at a smaller
        size beside others.
    flips : tuple of int, optional
        Which of :data:`kindsight.models.backbones.tta.FLIPS` features are averaged over, in place
        of the
        first `tta_flips`.
    first_crops : int, optional
        Over how many crops the first backbone looks, in place of `tta_crops`.
    """

    model: str = "efficientnet-lite0"
    weights: str = "imagenet"
    size: int | tuple[int, int] | None = None
    resize: str = "crop"
    head: str = "auto"
    tta_flips: int = 1
    tta_crops: int = 1
    class_weight: str | None = None
    seed: int = 0
    workers: int | None = None
    cache: str | os.PathLike[str] | None = None
    fine_tune: str | None = None
    budget: str | float | None = None
    inner: tuple[int, int] | None = None
    flips: tuple[int, ...] | None = None
    first_crops: int | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each setting that cannot be."""
        found = [choice_fault("head", self.head, HEADS)] if self.head not in HEADS else []
        found += filter(None, [whole_fault("tta_flips", self.tta_flips, 1, len(FLIPS))])
        found += filter(None, [whole_fault("tta_crops", self.tta_crops, 1, len(CROPS))])
        found += common_faults(self)
        try:
            backbones = self._backbones()
            for backbone in backbones:
                check_weights(backbone, self.weights)
                if not found:
                    backbone.check_size(self._size(backbones))
            if len(backbones) > 1 and self.weights not in WEIGHTS:
                found.append(
                    f"weights must be {' or '.join(WEIGHTS)} for several backbones. "
                    f"Received: {self.weights!r}."
                )
        except (SettingsError, WeightsError) as error:
            found.append(str(error))
        if self.fine_tune is not None:
            found += filter(None, [choice_fault("fine_tune", self.fine_tune, FINE_TUNES)])
        try:
            budget = self.seconds
        except SettingsError as error:
            found.append(str(error))
        else:
            if budget is not None and self.fine_tune == "off":
                found.append(
                    "A budget must have something to be spent on. Received: "
                    f"{self.budget!r}, with fine_tune off."
                )
        return found

    def _backbones(self) -> tuple[Backbone, ...]:
        return get_backbones(self.model if isinstance(self.model, str) else repr(self.model))

    def _size(self, backbones: tuple[Backbone, ...]) -> tuple[int, int]:
        """Return the size given, or the largest of the backbones' own: all see the same image."""
        size = self.size or max(backbone.size for backbone in backbones)
        return size if isinstance(size, tuple) else (int(size), int(size))

    def download(self) -> str | None:
        """Say what this training would download, from whom and how large; None for nothing."""
        said = [download_notice(backbone, self.weights) for backbone in self._backbones()]
        return " ".join(filter(None, said)) or None

    def describe_backbone(self) -> str:
        """Say in a few words which network it is, and which weights it has."""
        backbones = self._backbones()
        names = " and ".join(backbone.name for backbone in backbones)
        side = " side by side" if len(backbones) > 1 else ""
        weights = dict.fromkeys(describe_weights(item, self.weights) for item in backbones)
        counts = [len(views) for views in self.seen]
        words = f"{counts[0]}" if len(set(counts)) == 1 else " and ".join(map(str, counts))
        views = f", mean of {words} TTA copies" if max(counts) > 1 else ""
        return f"{names}{side}, {' and '.join(weights)}{views}"

    @property
    def seconds(self) -> float | None:
        """How long the training may take."""
        return None if self.budget is None else parse_budget(self.budget)

    @property
    def seen(self) -> tuple[tuple[int, ...], ...]:
        """Views averaged at prediction time, for each backbone."""
        flips = tuple(range(self.tta_flips)) if self.flips is None else self.flips
        first = tta_variants(flips, self.first_crops or self.tta_crops)
        others = len(split_model_name(self.model)) - 1
        return (first, *[tta_variants(flips, self.tta_crops)] * others)

    @property
    def tunes(self) -> str:
        """What is fine-tuned: one of :data:`.fine_tuning.settings.FINE_TUNES`."""
        return self.fine_tune or ("off" if self.budget is None else "light")

    def spec(self) -> InputSpec:
        """Return how images are resized.

        Raises
        ------
        SettingsError
            Naming every setting that cannot be.
        """
        if faults := self.faults():
            raise SettingsError("\n".join(faults))
        height, width = self._size(self._backbones())
        return InputSpec(height, width, fit=self.resize)  # type: ignore[arg-type]

    @property
    def by_gradient(self) -> bool:
        """Whether the backbone is fine-tuned."""
        return self.tunes != "off"

    def warm_up(self, keras: KerasProcess, *, verify: str) -> None:
        """Start the worker process where it will be needed; load the backbone for verification."""
        if self.by_gradient:
            keras.start()
        elif verify == "full" or not is_verified(self.backbone()):
            keras.load_ahead(self.backbone().keras)

    def process(self) -> KerasProcess:
        """Return the process for what needs Keras; not started."""
        return KerasProcess() if self.tunes == "off" else KerasProcess(module=CHILD)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that make a result, as JSON can hold them, None left out."""
        values = {k: v for k, v in vars(self).items() if k not in ("cache", "workers")}
        return {name: value for name, value in values.items() if value is not None}

    def backbone(
        self,
        progress: Progress | None = None,
        process: KerasProcess | None = None,
        *,
        fold_batch_norm: bool = True,
    ) -> BackboneFiles:
        """Find the files of the backbone, or of several, or build them, once on a machine.

        `folded` is as :func:`.build.ensure_backbone` has it.
        """

        def say(_: str) -> None:
            if progress is not None:
                progress("backbone", 0, 0)

        size, folder = self.spec().size, Cache(self.cache).folder()
        parts: dict[str, BackboneFiles] = {}
        for name, backbone in zip(split_model_name(self.model), self._backbones(), strict=True):
            parts[backbone.name] = ensure_backbone(
                name, size if parts else self.inner or size, folder, say, weights=self.weights,
                seed=self.seed, process=process, input_size=size, fold_batch_norm=fold_batch_norm,
            )  # fmt: skip
        return build_ensemble(parts, folder, self.seen)

    def features(
        self,
        dataset: ImageDataset,
        files: BackboneFiles,
        progress: Progress | None = None,
        observer: DecodeObserver | None = None,
    ) -> Features:
        """Find or compute the images' features; see :func:`.frozen_fit.find_features`."""
        return find_features(self, dataset, files, progress, observer)

    def fit(
        self,
        features: Features,
        files: BackboneFiles,
        classes: Sequence[str],
        rows: NDArray[np.int64] | None = None,
    ) -> FittedFrozenHead:
        """Fit a head to some of the images; see :func:`.frozen_fit.fit_frozen`."""
        return fit_frozen(self, features, files, classes, rows)


def parse_budget(text: str | float) -> float:
    """Read a time such as ``"10m"``, ``"90s"`` or ``"1.5h"``, or seconds, into seconds.

    Raises
    ------
    SettingsError
        For anything else, and for less than a second.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    seconds = (
        float(match.group(1)) * {"": 1, "s": 1, "m": 60, "h": 3600}[match.group(2)] if match else 0
    )
    if not 1 <= seconds <= 7 * 86_400 or isinstance(text, bool):
        raise SettingsError(
            f"budget must be a time from 1s to 168h, such as 90s, 10m or 1h. Received: {text!r}."
        )
    return seconds
