"""The pictures of a training of a backbone by gradient: they themselves, or what is frozen of them.

A phase that does nothing to pictures learns from what its frozen layers give for each, which LiteRT
computes once and the cache keeps; a phase that augments or mixes them runs them through the frozen
layers in each step.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment import Augment
from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.models.backbone_files import BackboneFiles
from kindsight.models.keras_process import KerasProcess
from kindsight.models.lower import LowerPart, ensure_lower
from kindsight.models.small_cnn import LayerRow
from kindsight.threads import count_cores
from kindsight.training.common import Progress
from kindsight.training.lessons import Lessons, Source
from kindsight.training.network_fit import NetworkPictures, prepare_network
from kindsight.training.plan import Phase
from kindsight.training.transfer import TransferTraining
from kindsight.training.view_plan import ViewPlan
from kindsight.training.views import bytes_of_view, store_views

__all__ = ["TransferPictures", "describe_layers", "prepare_transfer"]

# The share of what the cache may keep, and the disk has, that all of it may take.
ROOM = 0.5
# float16 ends at 65,504; other pictures may give some times what generated ones do.
HIGHEST = 10_000.0

Rows = NDArray[np.int64]


def prepare_transfer(
    training: TransferTraining,
    catalog: Catalog,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> TransferPictures:
    """Find or make the backbone, and the resized pictures of a catalog."""
    files = training.backbone(progress, keras)
    told = None
    if keras is not None:  # before pictures are read, a name that no layer has is an error
        told = _describe(training, files, max(2, len(catalog.present_classes())), keras)
    pictures = prepare_network(training, catalog, progress)
    return TransferPictures(training, pictures.stored, pictures.catalog, files, told)


def describe_layers(
    training: TransferTraining, classes: int, keras: KerasProcess, progress: Progress | None = None
) -> tuple[LayerRow, ...]:
    """Return the table of the layers that a training would have.

    Raises
    ------
    SettingsError
        For a cut or layers to freeze that the backbone does not have.
    """
    told = _describe(training, training.backbone(progress, keras), classes, keras)
    return _layers(told)


@dataclass(frozen=True)
class TransferPictures(NetworkPictures):
    """The resized pictures that a backbone is trained on.

    Parameters
    ----------
    files : BackboneFiles
        The backbone.
    told : dict, optional
        What was said of the network before: see :func:`.transfer.describe_transfer`.
    """

    files: BackboneFiles
    told: dict[str, Any] | None = None

    def lessons(
        self,
        classes: Sequence[str],
        rows: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> Lessons:
        """Return what is trained, and on what; see :meth:`.NetworkPictures.lessons`."""
        training = self.training
        assert isinstance(training, TransferTraining)
        told = self.told
        if told is None or told["classes"] != len(classes):
            told = _describe(training, self.files, len(classes), keras)
        network = training.network(self.files).to_dict()
        network |= {"cut": told["cut"], "freezes": told["freezes"]}
        phases = training.plan().phases
        notes: dict[str, str] = {}
        sources, made = [], dict[str, Source]()
        for phase, border in zip(phases, told["borders"], strict=True):
            if border is None or _changes(phase):
                sources.append(self.pixels())
                continue
            layer = border["layer"]
            if layer not in made:
                lower = ensure_lower(self.files, layer, keras, features=False)
                notes[layer] = self._why_not(lower, len(rows))
                made[layer] = self.pixels() if notes[layer] else self._frozen(lower, rows, progress)
            sources.append(made[layer])
        identity = {**network, "backbone": self.files.digest}
        said = tuple(note for note in notes.values() if note)
        return Lessons(network, identity, _layers(told), sources, said)

    def _why_not(self, lower: LowerPart, count: int) -> str:
        """Say why what the frozen part gives is not kept; "" where it is."""
        cache = Cache(self.training.cache)
        room = ROOM * min(shutil.disk_usage(cache.folder()).free, cache.limit)
        needed = bytes_of_view(lower) * count
        start = f"What is frozen up to {lower.stage} is run again in each epoch: "
        if needed > room:
            return (
                f"{start}to keep what it gives would take {needed / 1e6:,.0f} MB, where there is "
                f"room for {room / 1e6:,.0f}."
            )
        if not lower.peak < HIGHEST:
            return f"{start}it gives numbers to {lower.peak:.2g}, too large to be kept as float16."
        return ""

    def _frozen(self, lower: LowerPart, rows: Rows, progress: Progress | None) -> Source:
        """Find or make what the frozen part gives for pictures."""
        counts = np.full(len(self.stored), -1, np.int64)
        counts[rows] = 0

        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("frozen", done, total)

        views = store_views(
            self.stored, lower, ViewPlan((0,), Augment()), counts, spec=self.training.spec(),
            seed=self.training.seed, cache=Cache(self.training.cache),
            workers=self.training.workers, progress=step,
        )  # fmt: skip
        return Source(views.file, lower.shape, lower.stage, views.places[:, 0], views)


def _changes(phase: Phase) -> bool:
    """Whether a phase does something to pictures each time they are seen."""
    return phase.augment.changes_pictures or phase.augment.mixes


def _describe(
    training: TransferTraining, files: BackboneFiles, classes: int, keras: KerasProcess
) -> dict[str, Any]:
    ends = training.ends()
    return keras.follow(
        lambda news: None,
        job="describe",
        network=training.network(files).to_dict(),
        classes=classes,
        ends=None if ends is None else list(ends),
        cores=count_cores(),
    )


def _layers(told: dict[str, Any]) -> tuple[LayerRow, ...]:
    return tuple(
        LayerRow(name, kind, tuple(output), parameters, trains)
        for name, kind, output, parameters, trains in told["layers"]
    )
