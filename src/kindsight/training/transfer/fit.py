"""Prepare a transfer training: images, or cached activations of its frozen layers.

A phase without augmentation, or with `cached_copies`, is trained on activations that LiteRT
computes once and the cache stores. Other phases run the frozen layers in each step.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.dataset import ImageDataset
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.graph import layer_path
from kindsight.models.networks.frozen_base import FrozenBase, ensure_frozen_base
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.models.worker.gpu_pool import NetworkPool, open_pool
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import count_cores
from kindsight.training.activation_cache import (
    ActivationFile,
    CopyPlan,
    RequestedCopies,
    bytes_per_copy,
    cache_activations,
)
from kindsight.training.common import Progress
from kindsight.training.engine.plan import Phase
from kindsight.training.network.fit import JobInputs, NetworkImages, Source, prepare_network
from kindsight.training.transfer.settings import TransferTrainer

__all__ = ["describe_layers", "prepare_transfer"]

Rows = NDArray[np.int64]
# Share of the cache's limit, and of the free disk space, that all activations may take.
MAX_SHARE = 0.5
# float16 ends at 65,504, and other images may give larger activations than generated ones.
MAX_ACTIVATION = 10_000.0


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
        sources = self._sources(requests, keras, progress)
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
        self,
        requests: Sequence[CacheRequest | None],
        keras: KerasProcess,
        progress: Progress | None,
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
                    request.file, *request.copies, workers=self.training.workers, progress=step,
                    open_network=partial(self._network, request.file.base, keras),
                )  # fmt: skip
                stack.callback(found.close)
                base = request.file.base
                sources[request.key] = Source(found.file, base.shape, base.stage, found.rows, found)
            stack.pop_all()
        return [self.pixels() if item is None else sources[item.key] for item in requests]

    def _network(self, base: FrozenBase, keras: KerasProcess, copies: int) -> NetworkPool:
        """Return what runs the frozen layers, for a number of copies."""
        workers = self.training.workers or count_cores()
        return open_pool(
            keras, self.files.keras, base.tflite, workers=workers, images=copies, stage=base.stage
        )


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


@dataclass(frozen=True)
class CacheRequest:
    """Activations that a phase would be trained on: of these copies, in this file."""

    file: ActivationFile
    copies: RequestedCopies

    @property
    def key(self) -> tuple[str, str]:
        """Equal for phases that share activations: the cut, and the key of the last copy."""
        plan, counts = self.copies
        return self.file.base.stage, plan.key(int(counts.max(initial=0)), self.file.seed)


def copies_to_cache(phase: Phase) -> int | None:
    """Return the copies per image, besides the original, whose activations a phase caches.

    None if the phase needs new images in every step.
    """
    if phase.augment.changes_images:
        return phase.cached_copies or None
    return None if phase.augment.mixes else 0


def admit(requests: Sequence[CacheRequest | None]) -> tuple[list[CacheRequest | None], list[str]]:
    """Drop the requests, one per phase, that do not fit into the cache or on the disk.

    Returns the requests, None for each that was dropped, and the distinct reasons, a sentence each.
    None is the request of a phase that is trained on images.
    """
    budget, admitted, notes = _DiskBudget(), list[CacheRequest | None](), dict[str, None]()
    for request in requests:
        reason = "" if request is None else budget.admit(request)
        if reason:
            notes[reason] = None
        admitted.append(None if reason else request)
    return admitted, list(notes)


def make_room(requests: Sequence[CacheRequest | None]) -> None:
    """Delete files that would outgrow the cache, before any of them is in use."""
    for file, copies in _by_file(item for item in requests if item is not None).values():
        file.make_room(file.all_names(copies))


class _DiskBudget:
    """The requests admitted so far, and the free disk space before them."""

    def __init__(self) -> None:
        self._admitted: list[CacheRequest] = []
        self._bytes = 0, 0  # of all admitted copies, and of those not cached yet
        self._free: float | None = None

    def admit(self, request: CacheRequest) -> str:
        """Admit a request and return "", or return the reason against it."""
        base, cache = request.file.base, request.file.cache
        copies = int(request.copies[1].max(initial=0))
        new = " on new augmented copies" if copies > 0 else ""
        start = f"The frozen layers up to {layer_path(base.stage)} run again in each epoch{new}: "
        if not base.peak < MAX_ACTIVATION:
            return f"{start}their activations, up to {base.peak:.2g}, are too large for float16."
        if self._free is None:
            self._free = float(shutil.disk_usage(cache.folder()).free)
        needed_before, missing_before = self._bytes
        needed, missing = _sizes([*self._admitted, request])
        # Cached copies take no more disk space, so a stopped training finds its copies again.
        for more, room, where in (
            (
                needed - needed_before,
                MAX_SHARE * cache.limit - needed_before,
                "in the cache (KINDSIGHT_CACHE_LIMIT)",
            ),
            (missing - missing_before, MAX_SHARE * self._free - missing_before, "on the disk"),
        ):
            if more > max(0.0, room):
                of = ""
                if copies > 0:
                    of = (
                        f" of the images and {copies} {'copy' if copies == 1 else 'copies'} of each"
                    )
                return (
                    f"{start}the activations{of} would take {more / 1e6:,.0f} MB, but only "
                    f"{max(0.0, room) / 1e6:,.0f} MB are available {where}."
                )
        self._admitted.append(request)
        self._bytes = needed, missing
        return ""


def _sizes(requests: Sequence[CacheRequest]) -> tuple[int, int]:
    """Return the bytes of all copies, and of those not cached yet."""
    needed = missing = 0
    for file, copies in _by_file(requests).values():
        names = file.all_names(copies)
        needed += len(names) * bytes_per_copy(file.base)
        missing += file.missing(names) * bytes_per_copy(file.base)
    return needed, missing


def _by_file(
    requests: Iterable[CacheRequest],
) -> dict[str, tuple[ActivationFile, list[RequestedCopies]]]:
    found: dict[str, tuple[ActivationFile, list[RequestedCopies]]] = {}
    for request in requests:
        entry = found.setdefault(request.file.base.stage, (request.file, []))
        entry[1].append(request.copies)
    return found
