"""The feature vectors of a run's images, from the feature cache or computed again."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.bundle import Bundle
from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import LostTableError
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import process_images
from kindsight.digest import file_digest
from kindsight.errors import CacheError, ImageError, KindsightError
from kindsight.explain.similarity import TrainingImages, feature_vector, unit_rows
from kindsight.images.read import read_bytes
from kindsight.models.pooled_maps import MapNetwork, PooledMap
from kindsight.runs.record import RunImage
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import open_data
from kindsight.storage.address import join, parent, split_member
from kindsight.storage.files import is_file
from kindsight.threads import count_cores
from kindsight.training.common import Progress
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.stored_images import to_jpeg

__all__ = ["MAX_COMPUTED", "RunVectors", "run_vectors"]

MAX_COMPUTED = 2000
"""Maximum number of images whose features are computed again; of more, those with the lowest
digests."""

IMAGES_PER_TASK = 8
MAX_WIDTH = 10**6
_TABLE_NAME = re.compile(r"[\w.+=@-]{1,200}")


@dataclass(frozen=True, eq=False)
class RunVectors:
    """Images of a run and their feature vectors, with the reasons why some have none.

    `images` are in the order of their vectors, byte-identical ones once; `missing` counts those
    that are in no cache and could not be read again, and `problem` is the reason for one of them.
    """

    images: TrainingImages
    missing: int = 0
    problem: str = ""


def run_vectors(
    bundle: Bundle,
    settings: TrainSettings | None,
    images: Sequence[RunImage],
    *,
    dataset: ImageDataset | None = None,
    limit: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
    network: MapNetwork | None = None,
) -> RunVectors:
    """Return the feature vectors of some of a run's images.

    With a frozen backbone they are in the feature cache. Otherwise the network is run on at most
    :data:`MAX_COMPUTED` images, whose vectors are cached as well.

    Parameters
    ----------
    bundle : Bundle
    settings : TrainSettings or None
        Settings for finding images that are not in the cache; None if their location is unknown.
    images : sequence of RunImage
        The images, with their digests.
    dataset : ImageDataset, optional
        The dataset with the images; opened by `settings` if omitted.
    limit : int, optional
        Maximum number of images; of more, those with the lowest digests.
    cache : path, optional
        The cache folder; the user's cache folder if omitted.
    progress : callable, optional
        Called with ("features", done, total).
    network : MapNetwork, optional
        The bundle's network, if it is loaded already.

    Raises
    ------
    KindsightError
        If the network has no feature maps.
    """
    distinct = {image.digest: image for image in images if image.digest}
    chosen = sorted(distinct)[:limit]
    store = Cache(cache)
    source = _Source(settings, dataset)
    network = network or MapNetwork(bundle.tflite)
    vectors: dict[str, NDArray[np.float32]] = {}
    loaders: list[FeatureTable] = []
    with suppress(CacheError, LostTableError):
        loaders = _training_tables(bundle, network.maps, store)
        vectors = _cached(loaders, network.maps, chosen)
    missing, problem = 0, ""
    if len(vectors) < len(chosen):
        wanted = [digest for digest in chosen if digest not in vectors]
        wanted = wanted[: max(0, MAX_COMPUTED - len(vectors))]
        table = _own_table(bundle, network, store)
        loaders.append(table)
        found, problem = _computed(
            table, bundle, source, [distinct[digest] for digest in wanted], store, progress
        )
        missing = len(wanted) - len(found)
        vectors |= found
    order = [digest for digest in chosen if digest in vectors]
    width = sum(_last_widths(network.maps))
    return RunVectors(
        TrainingImages(
            tuple(distinct[digest].path for digest in order),
            tuple(distinct[digest].label for digest in order),
            tuple(order),
            np.array([vectors[digest] for digest in order], np.float32).reshape(len(order), width),
            len(distinct),
            lambda digest: _jpeg(loaders, digest),
            source.find,
        ),
        missing,
        problem,
    )


def _training_tables(bundle: Bundle, maps: Sequence[PooledMap], store: Cache) -> list[FeatureTable]:
    """Return the feature caches of the training, one for each network; empty if deleted."""
    facts = bundle.facts.get("feature_cache")
    if not isinstance(facts, list) or len(facts) != len(_last_widths(maps)):
        return []
    tables = []
    for entry in facts:
        if not isinstance(entry, Mapping):
            return []
        name, width = entry.get("table"), entry.get("width")
        if not isinstance(name, str) or not _TABLE_NAME.fullmatch(name):
            return []
        if type(width) is not int or not 0 < width < MAX_WIDTH:
            return []
        path = store.features_file(name)
        if not path.is_file():
            return []
        tables.append(FeatureTable(path, width))
    return tables


def _last_widths(maps: Sequence[PooledMap]) -> list[int]:
    """Return the number of channels of each network's last maps, for the unchanged image."""
    return [
        each.channels for each in maps if each.is_last and not each.flips and not each.is_cropped
    ]


def _cached(
    tables: Sequence[FeatureTable], maps: Sequence[PooledMap], digests: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Return the vectors of the digests that all tables contain: their last columns."""
    if not tables:
        return {}
    known = set(digests)
    for table in tables:
        known &= table.known(digests)
    order = [digest for digest in digests if digest in known]
    parts = [
        unit_rows(table.vectors(order)[:, -width:])
        for table, width in zip(tables, _last_widths(maps), strict=True)
    ]
    return dict(zip(order, unit_rows(np.concatenate(parts, axis=1)), strict=True))


def _own_table(bundle: Bundle, network: MapNetwork, store: Cache) -> FeatureTable:
    key = f"maps-{file_digest(bundle.tflite)}-{bundle.spec.key()}"
    return FeatureTable(store.features_file(key), sum(_last_widths(network.maps)))


def _computed(
    table: FeatureTable,
    bundle: Bundle,
    source: _Source,
    images: Sequence[RunImage],
    store: Cache,
    progress: Progress | None,
) -> tuple[dict[str, NDArray[np.float32]], str]:
    """Run the network on images that the table lacks; return the vectors and a reason for gaps."""
    digests = [image.digest for image in images]
    known = table.known(digests)
    problem = ""
    if len(known) < len(digests):
        if not source.is_known:
            return {}, "The folder has no settings.toml, which states where the images are."
        try:
            problem = _run(table, bundle, source, images, store, progress)
        except KindsightError as error:
            problem = str(error)
        known = table.known(digests)
    order = [digest for digest in digests if digest in known]
    with suppress(LostTableError):
        return dict(zip(order, table.vectors(order), strict=True)), problem
    return {}, problem


def _run(
    table: FeatureTable,
    bundle: Bundle,
    source: _Source,
    images: Sequence[RunImage],
    store: Cache,
    progress: Progress | None,
) -> str:
    """Fill the table; return why an image could not be read, or "" ."""
    wanted = {image.path for image in images}
    dataset = source.open()
    rows = [row for row, path in enumerate(dataset.path) if path in wanted]
    if not rows:
        return f"None of the images is still in {source.name}."
    workers = count_cores()

    def show(done: int, total: int) -> None:
        if progress is not None:
            progress("features", done, total)

    with closing(FeatureTable(table.path, table.width)) as lookup:
        processed = process_images(
            dataset[np.array(rows, np.int64)], bundle.spec, store, table, lookup,
            lambda _: _VectorMaker(bundle.tflite), workers, show, batch=IMAGES_PER_TASK,
        )  # fmt: skip
    if processed.problems:
        return str(processed.problems[0])
    return "" if len(rows) == len(wanted) else "Some images are no longer in the data."


class _VectorMaker:
    """A :class:`RowBuilder` of feature vectors, with a network for each thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free: list[MapNetwork] = []

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> FeatureRow:
        try:
            network = self._free.pop()
        except IndexError:
            network = MapNetwork(self._path)
        _, maps = network.run(pixels)
        vector = feature_vector(network.maps, maps)
        self._free.append(network)
        if not np.isfinite(vector).all():
            raise ImageError("corrupt", "The network's features of the image are not finite.")
        return FeatureRow(digest, vector, to_jpeg(pixels), *size)

    def failed(self, digest: str, error: ImageError) -> FeatureRow:
        return FeatureRow(digest, None, code=error.code, reason=error.reason)


def _jpeg(tables: Sequence[FeatureTable], digest: str) -> bytes:
    """Return the resized image that a table stores; empty if none has it."""
    for table in tables:
        with suppress(LostTableError, CacheError):
            found = table.images([digest]).get(digest)
            if found is not None:
                return found.jpeg
    return b""


@dataclass(frozen=True, eq=False)
class _Source:
    """The source of a training's images: an open dataset, or the training's settings."""

    settings: TrainSettings | None
    dataset: ImageDataset | None

    @property
    def is_known(self) -> bool:
        return self.settings is not None or self.dataset is not None

    @property
    def name(self) -> str:
        return "the dataset" if self.settings is None else str(self.settings.data)

    def open(self) -> ImageDataset:
        if self.dataset is not None:
            return self.dataset
        assert self.settings is not None
        return open_data(self.settings)

    def find(self, path: str) -> str | None:
        """Return the file of an image, if it has not moved; None for an image in memory."""
        for folder in self._folders():
            file = join(folder, path)
            with suppress(OSError, ValueError, KindsightError):
                if is_file(file) or (split_member(file) is not None and read_bytes(file)):
                    return file
        return None

    def _folders(self) -> Iterator[str]:
        if self.dataset is not None and self.dataset.arrays is None:
            yield str(self.dataset.root or "")
        if self.settings is None:
            return
        found = self.settings
        values: list[Any] = [found.root, found.data, found.validation_data, found.test_data]
        for value in values:
            if value:
                yield str(value)
                yield parent(str(value))
