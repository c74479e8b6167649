"""The settings of a training with a frozen backbone."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

from kindsight.cache.folder import Cache
from kindsight.distributed import LOCAL, check_on, is_remote
from kindsight.errors import SettingsError, WeightsError
from kindsight.images import InputSpec
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.build import BackboneFiles, ensure_backbone
from kindsight.models.backbones.ensemble import build_ensemble
from kindsight.models.backbones.table import get_backbones, split_model_name
from kindsight.models.backbones.tta import tta_variants
from kindsight.models.backbones.weights import (
    check_weights,
    describe_weights,
    download_notice,
    weights_by_backbone,
)
from kindsight.models.worker.process import KerasProcess
from kindsight.training.common import Progress, common_faults
from kindsight.training.option_rules import option_faults
from kindsight.training.parity import is_verified

__all__ = ["FrozenTrainer", "SizeChoice", "parse_budget"]

# The module whose ``main`` the Keras worker runs for fine-tuning.
FINE_TUNING_WORKER = "kindsight.training.fine_tuning.worker"


# Settings that do not determine the result.
_WITHOUT_EFFECT_ON_RESULT = ("cache", "workers", "device", "on", "size_choice")


def parse_budget(text: str | float) -> float:
    """Return the seconds of a time such as ``"10m"``, ``"90s"``, ``"1.5h"`` or 90.

    Raises
    ------
    SettingsError
        For any other text, and for less than a second or more than a week.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh]?)\s*", str(text))
    units = {"": 1, "s": 1, "m": 60, "h": 3600}
    seconds = float(match.group(1)) * units[match.group(2)] if match else 0
    if not 1 <= seconds <= 7 * 86_400 or isinstance(text, bool):
        raise SettingsError(
            f"`budget` must be a time from 1s to 168h, such as 90s, 10m or 1h; got {text!r}."
        )
    return seconds


@dataclass(frozen=True)
class SizeChoice:
    """An input size that was chosen by cross-validation on a sample of the images.

    Parameters
    ----------
    size : int
        Height and width in pixels.
    tried : tuple of int
        The sizes that were compared, in pixels, ascending.
    accuracies, log_losses : tuple of float
        Cross-validated accuracy and log loss of each size.
    images : int
        Number of images of the sample.
    """

    size: int
    tried: tuple[int, ...]
    accuracies: tuple[float, ...]
    log_losses: tuple[float, ...]
    images: int

    def describe(self) -> str:
        """Return the choice in a line: ``"128 px, chosen from 96 and 128 on 1,500 images"``."""
        *others, last = map(str, self.tried)
        listed = f"{', '.join(others)} and {last}"
        return f"{self.size} px, chosen from {listed} on {self.images:,} images"

    def to_dict(self) -> dict[str, Any]:
        """Return the choice for JSON."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in vars(self).items()}


@dataclass(frozen=True)
class FrozenTrainer:
    """Settings of a training with a frozen backbone.

    Parameters
    ----------
    model : str
        A backbone's name, or a Keras file; several joined by ``+`` form an ensemble with a head
        each, unless cross-validation finds a single one as good.
    weights : str
        ``"imagenet"``, ``"none"`` (random, from the seed) or a weights file; in an ensemble, the
        file is for the backbone that needs one.
    size : int or (height, width), optional
        Image size in pixels; if omitted, the backbone's default, or a smaller one for small images.
    resize : str
        How images of other aspect ratios are resized: ``"crop"``, ``"stretch"`` or ``"pad"``.
    head : str
        ``"linear"``, ``"rbf"``, or ``"auto"``, selected by cross-validation.
    tta_flips : int
        Flips over which features are averaged, 1-4: none, left-right, up-down, both.
    tta_crops : int
        Crops over which features are averaged, 1-6, each in all flips: the whole image, its
        middle seven eighths, the four corners.
    class_weight : str, optional
        ``"balanced"`` weights each class equally; None or ``"none"`` each image.
    seed : int
        Seed of folds, random directions and landmarks.
    workers : int, optional
        Number of images processed at once; the number of cores if omitted.
    cache : path, optional
        The cache folder; the user's cache folder if omitted.
    fine_tune : str, optional
        ``"off"``, ``"light"`` (the layers above a cut) or ``"full"``; if omitted, ``"light"`` with
        a budget, else ``"off"``.
    budget : str or float, optional
        Time for the whole training, such as ``"10m"``, or in seconds.
    first_size : (height, width), optional
        Size to which the first backbone itself resizes the images.
    flip_ids : tuple of int, optional
        Indices of :data:`kindsight.models.backbones.tta.FLIPS`, in place of `tta_flips`.
    first_tta_crops : int, optional
        Crops of the first backbone, in place of `tta_crops`.
    value_range : (low, high), optional
        Values that become 0 and 255 in images of more than 8 bits.
    size_choice : SizeChoice, optional
        How `size` was chosen, if the program chose it; see :mod:`.input_size`.
    device : str
        ``"cpu"``, ``"gpu"``, or ``"auto"``, a GPU if TensorFlow can use one.
    on : str, optional
        Where features are computed, as for :func:`kindsight.distributed.open_executor`.
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
    first_size: tuple[int, int] | None = None
    flip_ids: tuple[int, ...] | None = None
    first_tta_crops: int | None = None
    value_range: tuple[float, float] | None = None
    size_choice: SizeChoice | None = None
    device: str = "auto"
    on: str | None = None

    def faults(self) -> list[str]:
        """Return a sentence for each invalid setting."""
        own = option_faults(vars(self), ("head", "tta_flips", "tta_crops", "fine_tune"))
        found = [*own.values(), *common_faults(self)]
        try:
            check_on(self.on or LOCAL)
        except SettingsError as error:
            found.append(str(error))
        if is_remote(self.on) and self.device == "gpu":
            found.append("`on` computes features on CPUs; got `device` gpu. Leave one of them out.")
        try:
            backbones = self.backbones()
            every = weights_by_backbone(backbones, self.weights)
            for backbone, weights in zip(backbones, every, strict=True):
                check_weights(backbone, weights)
                if not found:
                    backbone.check_size(self._size(backbones))
        except (SettingsError, WeightsError) as error:
            found.append(str(error))
        try:
            budget = self.budget_seconds
        except SettingsError as error:
            found.append(str(error))
        else:
            if budget is not None and self.fine_tune == "off":
                found.append(
                    f"`budget` needs fine-tuning, and `fine_tune` is off; got {self.budget!r}. "
                    "Leave one of them out."
                )
        return found

    def backbones(self) -> tuple[Backbone, ...]:
        """Return the backbones; SettingsError or WeightsError for a wrong model."""
        return get_backbones(self.model if isinstance(self.model, str) else repr(self.model))

    def _size(self, backbones: tuple[Backbone, ...]) -> tuple[int, int]:
        """Return the given size, or the backbones' largest default: all get the same image."""
        if self.size is not None:
            return self.size if isinstance(self.size, tuple) else (int(self.size), int(self.size))
        step = math.lcm(*(backbone.size_step for backbone in backbones))
        height, width = max(backbone.size for backbone in backbones)
        return max(1, round(height / step)) * step, max(1, round(width / step)) * step

    def download(self) -> str | None:
        """Return what would be downloaded, with its source and size; None if nothing would be."""
        backbones = self.backbones()
        every = weights_by_backbone(backbones, self.weights)
        found = map(download_notice, backbones, every)
        return " ".join(filter(None, found)) or None

    def describe_backbone(self) -> str:
        """Return the backbones, their weights and test-time augmentation in a line."""
        backbones = self.backbones()
        names = " and ".join(backbone.name for backbone in backbones)
        ensemble = "ensemble of " if len(backbones) > 1 else ""
        every = weights_by_backbone(backbones, self.weights)
        weights = dict.fromkeys(map(describe_weights, backbones, every))
        counts = [len(copies) for copies in self.variants_by_backbone]
        number = f"{counts[0]}" if len(set(counts)) == 1 else " and ".join(map(str, counts))
        tta = f", mean of {number} TTA variants" if max(counts) > 1 else ""
        return f"{ensemble}{names}, {' and '.join(weights)}{tta}"

    def describe_input(self) -> str:
        """Return the chosen input size and the candidates; empty if the size was not chosen."""
        choice = self.size_choice
        if choice is None or self.spec().size != (choice.size, choice.size):
            return ""
        return choice.describe()

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds; None without one."""
        return None if self.budget is None else parse_budget(self.budget)

    @property
    def variants_by_backbone(self) -> tuple[tuple[int, ...], ...]:
        """For each backbone, the TTA variants over which its features are averaged.

        Numbered as in :mod:`kindsight.models.backbones.tta`.
        """
        flips = tuple(range(self.tta_flips)) if self.flip_ids is None else self.flip_ids
        first = tta_variants(flips, self.first_tta_crops or self.tta_crops)
        others = len(split_model_name(self.model)) - 1
        return (first, *[tta_variants(flips, self.tta_crops)] * others)

    @property
    def fine_tune_mode(self) -> str:
        """What is fine-tuned: ``"off"``, ``"light"`` or ``"full"``."""
        return self.fine_tune or ("off" if self.budget is None else "light")

    def spec(self) -> InputSpec:
        """Return how images are resized.

        Raises
        ------
        SettingsError
            If settings are invalid; the message has a sentence for each.
        """
        if faults := self.faults():
            raise SettingsError("\n".join(faults))
        height, width = self._size(self.backbones())
        return InputSpec(height, width, fit=self.resize, value_range=self.value_range)  # type: ignore[arg-type]

    @property
    def by_gradient(self) -> bool:
        """Whether the backbone is fine-tuned."""
        return self.fine_tune_mode != "off"

    @property
    def needs_validation(self) -> bool:
        """Whether the backbone is fine-tuned: validation images decide if that is accepted."""
        return self.fine_tune_mode != "off"

    def warm_up(self, keras: KerasProcess, *, verify: str) -> None:
        """Start the worker process if it will be needed; load the backbone to be verified."""
        if self.by_gradient:
            keras.start()
        elif verify == "full" or not is_verified(self.backbone()):
            keras.load_ahead(self.backbone().keras)

    def process(self) -> KerasProcess:
        """Return a Keras worker process that has not been started."""
        if self.by_gradient:
            return KerasProcess(module=FINE_TUNING_WORKER, device=self.device)
        return KerasProcess(device=self.device)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings that determine the result, ready for JSON, without None."""
        values = {k: v for k, v in vars(self).items() if k not in _WITHOUT_EFFECT_ON_RESULT}
        return {name: value for name, value in values.items() if value is not None}

    def backbone(
        self,
        progress: Progress | None = None,
        process: KerasProcess | None = None,
        *,
        fold_batch_norm: bool = True,
        layers: tuple[str, tuple[str | int, ...]] | None = None,
    ) -> BackboneFiles:
        """Return the files of the backbones, which are built once per machine.

        `fold_batch_norm` and `layers` are passed to :func:`.build.ensure_backbone`.
        """

        def report(_: str) -> None:
            if progress is not None:
                progress("backbone", 0, 0)

        size, folder = self.spec().size, Cache(self.cache).folder()
        members: dict[str, BackboneFiles] = {}
        backbones = self.backbones()
        every = weights_by_backbone(backbones, self.weights)
        names = split_model_name(self.model)
        for name, backbone, weights in zip(names, backbones, every, strict=True):
            members[backbone.name] = ensure_backbone(
                name, size if members else self.first_size or size, folder, report,
                weights=weights, seed=self.seed, process=process, input_size=size,
                fold_batch_norm=fold_batch_norm, layers=layers,
            )  # fmt: skip
        return build_ensemble(members, folder, self.variants_by_backbone)
