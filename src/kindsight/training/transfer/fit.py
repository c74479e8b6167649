"""The images of a training of a backbone by gradient: they themselves, or what is frozen of them.

A phase that does nothing to images learns from what its frozen layers give for each, which LiteRT
computes once and the cache keeps; so does one that augments them, if some views of each are to be
kept. Any other phase that augments or mixes images runs them through the frozen layers in each
step.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.networks.frozen_base import ensure_frozen_base
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import count_cores
from kindsight.training.activation_cache import ActivationFile, CopyPlan, cache_activations
from kindsight.training.common import Progress
from kindsight.training.engine.jobs import JobInputs, Source
from kindsight.training.engine.plan import Phase
from kindsight.training.network.fit import NetworkImages, prepare_network
from kindsight.training.transfer.cache_plan import Wish, admit, make_room, views_to_keep
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["TransferImages", "describe_layers", "prepare_transfer"]

Rows = NDArray[np.int64]


def prepare_transfer(
    training: TransferTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> TransferImages:
    """Find or make the backbone, and the resized images of a dataset."""
    files = training.backbone(progress, keras)
    told = None
    if keras is not None:  # before images are read, a name that no layer has is an error
        told = _describe(training, files, max(2, len(dataset.present_classes())), keras)
    images = prepare_network(training, dataset, progress)
    return TransferImages(training, images.stored, images.dataset, files, told)


def describe_layers(
    training: TransferTrainer, classes: int, keras: KerasProcess, progress: Progress | None = None
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
class TransferImages(NetworkImages):
    """The resized images that a backbone is trained on.

    Parameters
    ----------
    files : BackboneFiles
        The backbone.
    told : dict, optional
        What was said of the network before: see :func:`.transfer.describe_transfer`.
    """

    files: BackboneFiles
    told: dict[str, Any] | None = None

    def inputs(
        self,
        classes: Sequence[str],
        phases: Sequence[Phase],
        rows: Rows,
        validation: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> JobInputs:
        """Return what is trained, and on what; see :meth:`.NetworkImages.inputs`."""
        training = self.training
        assert isinstance(training, TransferTrainer)
        told = self.told
        if told is None or told["classes"] != len(classes):
            told = _describe(training, self.files, len(classes), keras)
        network = training.network(self.files).to_dict()
        network |= {"cut": told["cut"], "freezes": told["freezes"]}
        borders, changed = told["borders"][: len(phases)], told["changed"][: len(phases)]
        wishes = [
            self._wish(phase, border, rows, validation, keras)
            for phase, border in zip(phases, borders, strict=True)
        ]
        kept, notes = admit(wishes)
        for phase, border, learned in zip(phases, borders, changed, strict=True):
            if border is None and views_to_keep(phase) is not None:
                notes += _why_nothing_is_kept(phase, learned=learned)
        sources = self._sources(kept, progress)
        identity = {**network, "backbone": self.files.digest}
        return JobInputs(network, identity, _layers(told), sources, tuple(notes))

    def _wish(
        self, phase: Phase, border: Any, rows: Rows, validation: Rows, keras: KerasProcess
    ) -> Wish | None:
        """Return what a phase would learn from; None for images."""
        views = views_to_keep(phase)
        if border is None or views is None:
            return None
        counts = np.full(len(self.stored), -1, np.int64)
        counts[validation] = 0  # judged as they are
        counts[rows] = views
        lower = ensure_frozen_base(self.files, border["layer"], keras, features=False)
        training = self.training
        file = ActivationFile(
            self.stored, lower, training.spec(), training.seed, Cache(training.cache)
        )
        return Wish(file, (CopyPlan((0,), phase.augment), counts))

    def _sources(self, wishes: Sequence[Wish | None], progress: Progress | None) -> list[Source]:
        """Find or make what the frozen parts give."""

        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("frozen", done, total)

        make_room(wishes)
        made: dict[tuple[str, str], Source] = {}
        with ExitStack() as stack:
            for wish in wishes:
                if wish is None or wish.key in made:
                    continue
                views = cache_activations(
                    wish.file, *wish.wanted, workers=self.training.workers, progress=step
                )
                stack.callback(views.close)
                lower = wish.file.lower
                made[wish.key] = Source(views.file, lower.shape, lower.stage, views.places, views)
            stack.pop_all()
        return [self.pixels() if wish is None else made[wish.key] for wish in wishes]


def _why_nothing_is_kept(phase: Phase, *, learned: bool) -> list[str]:
    """Say why a phase runs its frozen layers in each step, though its images stay the same."""
    if learned:
        return [
            f"What is frozen in the phase {phase.name!r} learned in a phase before, and is run "
            "again in each epoch."
        ]
    if not phase.cached_copies:  # nothing may be frozen
        return []
    return [
        f"No view is kept in the phase {phase.name!r}: no layer has all that is frozen before it, "
        "and all that learns behind it."
    ]


def _describe(
    training: TransferTrainer, files: BackboneFiles, classes: int, keras: KerasProcess
) -> dict[str, Any]:
    ends = training.ends()
    return keras.run_job(
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
