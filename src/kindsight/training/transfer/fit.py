"""Prepare a transfer training: images, or cached activations of its frozen layers.

A phase without augmentation, or with `cached_copies`, is trained on activations that LiteRT
computes once and the cache stores. Other phases run the frozen layers in each step.
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
from kindsight.training.engine.job_inputs import JobInputs, Source
from kindsight.training.engine.plan import Phase
from kindsight.training.network.fit import NetworkImages, prepare_network
from kindsight.training.transfer.cache_plan import CacheRequest, admit, copies_to_cache, make_room
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["TransferImages", "describe_layers", "prepare_transfer"]

Rows = NDArray[np.int64]


def prepare_transfer(
    training: TransferTrainer,
    dataset: ImageDataset,
    progress: Progress | None = None,
    keras: KerasProcess | None = None,
) -> TransferImages:
    """Find or build the backbone, and find or compute the resized images of a dataset."""
    files = training.backbone(progress, keras)
    description = None
    if keras is not None:  # report unknown layer names before reading images
        classes = max(2, len(dataset.present_classes()))
        description = _describe(training, files, classes, keras)
    images = prepare_network(training, dataset, progress)
    return TransferImages(training, images.stored, images.dataset, files, description)


def describe_layers(
    training: TransferTrainer, classes: int, keras: KerasProcess, progress: Progress | None = None
) -> tuple[LayerRow, ...]:
    """Return the table of layers that a training would have.

    SettingsError if the backbone lacks the cut layer or a layer to freeze.
    """
    return _layers(_describe(training, training.backbone(progress, keras), classes, keras))


@dataclass(frozen=True)
class TransferImages(NetworkImages):
    """The resized images, and the backbone, of a transfer training.

    `description` is that of :func:`kindsight.models.networks.transfer.describe_transfer`.
    """

    files: BackboneFiles
    description: dict[str, Any] | None = None

    def inputs(
        self,
        classes: Sequence[str],
        phases: Sequence[Phase],
        rows: Rows,
        validation: Rows,
        keras: KerasProcess,
        progress: Progress | None = None,
    ) -> JobInputs:
        """Return the network and its training data; see :meth:`.NetworkImages.inputs`."""
        training = self.training
        assert isinstance(training, TransferTrainer)
        description = self.description
        if description is None or description["classes"] != len(classes):
            description = _describe(training, self.files, len(classes), keras)
        network = training.network(self.files).to_dict()
        network |= {"cut": description["cut"], "freezes": description["freezes"]}
        cuts = description["frozen_cuts"][: len(phases)]
        changed = description["changed"][: len(phases)]
        requests = [
            self._request(phase, cut, rows, validation, keras)
            for phase, cut in zip(phases, cuts, strict=True)
        ]
        requests, notes = admit(requests)
        for phase, cut, trained in zip(phases, cuts, changed, strict=True):
            if cut is None and copies_to_cache(phase) is not None:
                notes += _no_cache_notes(phase, trained=trained)
        sources = self._sources(requests, progress)
        identity = {**network, "backbone": self.files.digest}
        return JobInputs(network, identity, _layers(description), sources, tuple(notes))

    def _request(
        self, phase: Phase, cut: Any, rows: Rows, validation: Rows, keras: KerasProcess
    ) -> CacheRequest | None:
        """Return the activations that a phase is trained on; None for images."""
        copies = copies_to_cache(phase)
        if cut is None or copies is None:
            return None
        counts = np.full(len(self.stored), -1, np.int64)
        counts[validation] = 0
        counts[rows] = copies
        base = ensure_frozen_base(self.files, cut["layer"], keras, features=False)
        training = self.training
        file = ActivationFile(
            self.stored, base, training.spec(), training.seed, Cache(training.cache)
        )
        return CacheRequest(file, (CopyPlan((0,), phase.augment), counts))

    def _sources(
        self, requests: Sequence[CacheRequest | None], progress: Progress | None
    ) -> list[Source]:
        """Find or compute the activations of each phase."""

        def step(done: int, total: int) -> None:
            if progress is not None:
                progress("frozen", done, total)

        make_room(requests)
        sources: dict[tuple[str, str], Source] = {}
        with ExitStack() as stack:
            for request in requests:
                if request is None or request.key in sources:
                    continue
                found = cache_activations(
                    request.file, *request.copies, workers=self.training.workers, progress=step
                )
                stack.callback(found.close)
                base = request.file.base
                sources[request.key] = Source(found.file, base.shape, base.stage, found.rows, found)
            stack.pop_all()
        return [self.pixels() if item is None else sources[item.key] for item in requests]


def _no_cache_notes(phase: Phase, *, trained: bool) -> list[str]:
    """Return why a phase runs its frozen layers in each step although its images do not change."""
    if trained:
        return [
            f"The frozen layers of the phase {phase.name!r} were trained in an earlier phase, and "
            "run again in each epoch."
        ]
    if not phase.cached_copies:  # nothing may be frozen
        return []
    return [
        f"The phase {phase.name!r} caches no copies: no single layer separates its frozen layers "
        "from its trainable ones."
    ]


def _describe(
    training: TransferTrainer, files: BackboneFiles, classes: int, keras: KerasProcess
) -> dict[str, Any]:
    ends = training.ends()
    return keras.run_job(
        job="describe",
        network=training.network(files).to_dict(),
        classes=classes,
        ends=None if ends is None else list(ends),
        cores=count_cores(),
    )


def _layers(description: dict[str, Any]) -> tuple[LayerRow, ...]:
    return tuple(
        LayerRow(name, kind, tuple(output), parameters, trains)
        for name, kind, output, parameters, trains in description["layers"]
    )
