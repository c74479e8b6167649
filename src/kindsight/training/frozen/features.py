"""Features of images: each image is decoded, resized and run through a frozen backbone once.

Features are cached by the content of the file, whatever its name, folder or split. A file whose
size and times have not changed is not read again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import LostTableError, OpenTable, chunked
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import (
    ClusterBuilder,
    DecodeObserver,
    Progress,
    process_images,
)
from kindsight.distributed import Shared, is_remote
from kindsight.errors import ImageError
from kindsight.images import InputSpec
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.backbones.tta import transform_image, variant_name
from kindsight.models.runtime import InterpreterPool
from kindsight.models.worker.gpu_pool import GPU_THREADS, NetworkPool, open_pool
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import count_cores
from kindsight.training.common import Progress as StageProgress
from kindsight.training.frozen.feature_cache import HALF, FeatureRow, FeatureTable, row_bytes
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.stored_images import jpeg_grey, to_jpeg
from kindsight.training.near_duplicates import SIDE

__all__ = ["Features", "compute_all_features", "compute_features", "feature_table_path"]

# Images that a thread processes per task.
IMAGES_PER_TASK = 8
# Bytes of a row in addition to the features: mostly the resized JPEG of 224 x 224 pixels and a
# small grey image of 64 x 64.
STORED_BYTES = 24_000
LARGE_DATASET = 50_000
"""Number of images from which features are stored in half precision and resized images are not
stored: 15 kB per image of 224 x 224 pixels instead of 40 (docs/experiments.md)."""
# The same for these large datasets: only a small grey image.
LARGE_STORED_BYTES = 4_700


@dataclass(frozen=True)
class Features:
    """The features of a dataset's images.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images, digests filled in.
    vectors : FeatureRows
        (images, width), in the dataset's order.
    problems : tuple of ImageError
        Why images were skipped, with their paths.
    problem_labels : tuple of str or None
        The labels of the skipped images.
    computed, reused : int
        Numbers of distinct images that were run through the network, and that were cached.
    table : pathlib.Path
        The feature cache; for several backbones, that of the first one.
    tables : tuple of pathlib.Path
        The feature cache of each of several backbones.
    open_tables : tuple of OpenTable
        They protect the feature caches from deletion while this object exists.
    """

    dataset: ImageDataset
    vectors: FeatureRows
    problems: tuple[ImageError, ...]
    problem_labels: tuple[str | None, ...]
    computed: int
    reused: int
    table: Path
    tables: tuple[Path, ...] = ()
    open_tables: tuple[OpenTable, ...] = ()


def compute_all_features(
    trainer: FrozenTrainer,
    dataset: ImageDataset,
    files: BackboneFiles,
    progress: StageProgress | None = None,
    observer: DecodeObserver | None = None,
    keras: KerasProcess | None = None,
    images: int | None = None,
) -> Features:
    """Return the features of a dataset's images by every backbone, averaged over TTA variants.

    The features of each backbone and each variant are cached separately.

    Parameters
    ----------
    trainer : FrozenTrainer
        The settings.
    dataset : ImageDataset
        The images.
    files : BackboneFiles
        The backbone, or the ensemble.
    progress : callable, optional
        Called with (``"features"``, done, total).
    observer : DecodeObserver, optional
        Observer of the images that have to be decoded.
    keras : KerasProcess, optional
        Worker process that may have a GPU.
    images : int, optional
        Number of images of the whole dataset, which decides on half precision.
    """
    cache, spec, half = Cache(trainer.cache), trainer.spec(), is_large(images or len(dataset))
    members = files.members or (files,)
    passes = [(member, variant) for member in members for variant in member.variants]
    every: list[Features] = []
    for number, (member, variant) in enumerate(passes):

        def report(done: int, total: int, number: int = number) -> None:
            if progress is not None:  # an image is done after all passes
                progress("features", (number * total + done) // len(passes), total)

        found = compute_features(
            every[-1].dataset if every else dataset, member, spec, cache, workers=trainer.workers,
            progress=report, variant=variant, observer=None if every else observer, keras=keras,
            half=half,
            on=trainer.on,
        )  # fmt: skip
        if variant == member.variants[0]:
            every.append(found)
        else:
            every[-1] = sum_variant(every[-1], found)
        if variant == member.variants[-1] and variant:
            divide = partial(_divide, number=np.float32(len(member.variants)))
            mean = FeatureRows.combined([every[-1].vectors], divide)
            every[-1] = replace(every[-1], vectors=mean)
    return concatenate(every)


def compute_features(  # noqa: PLR0913 (most have defaults)
    dataset: ImageDataset,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    observer: DecodeObserver | None = None,
    variant: int = 0,
    keras: KerasProcess | None = None,
    half: bool | None = None,
    on: str | None = None,
) -> Features:
    """Return the features of all images of a dataset, computing those that are not cached.

    Parameters
    ----------
    dataset : ImageDataset
        The images.
    backbone : BackboneFiles
        One backbone, from pixels to features.
    spec : InputSpec
        How images are resized.
    cache : Cache
        Where features are cached.
    workers : int, optional
        Number of images processed at once; the number of cores if omitted.
    progress : callable, optional
        Called with (images done, number of images), from the calling thread.
    observer : DecodeObserver, optional
        Observer of the images that are decoded, such as
        :class:`kindsight.checks.measurements.MeasuringObserver`.
    variant : int
        Number of the TTA variant; see :mod:`kindsight.models.backbones.tta`.
    keras : KerasProcess, optional
        Worker process that may have a GPU; LiteRT runs the backbone without one.
    half : bool, optional
        Whether features are stored in half precision; by default, from :data:`LARGE_DATASET`
        images.
    on : str, optional
        Where features are computed, as for :func:`kindsight.distributed.open_executor`.

    Raises
    ------
    CacheError
        If the cache cannot be used. A table that is damaged or deleted meanwhile is computed again.
    """
    half = is_large(len(dataset)) if half is None else half
    given = dataset, backbone, spec, cache, workers, progress, observer, variant, keras, half, on
    for _ in range(2):  # either of the two tables may be damaged or deleted
        with contextlib.suppress(LostTableError):
            return _compute(*given)
    return _compute(*given)


def _compute(  # noqa: PLR0913, PLR0917 (those of compute_features)
    dataset: ImageDataset,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
    observer: DecodeObserver | None,
    variant: int,
    keras: KerasProcess | None,
    half: bool,
    on: str | None,
) -> Features:
    path, width = feature_table_path(cache, backbone, spec, variant, half), backbone.layout.width
    beside = LARGE_STORED_BYTES if half else STORED_BYTES
    cache.require_space(len(dataset), row_bytes(width, half) + beside, path)
    workers = workers or count_cores()
    gpu = not is_remote(on) and keras is not None and keras.wants_gpu(len(dataset))
    exact = feature_table_path(cache, backbone, spec, variant) if half else None
    table = _GrownTable(path, width, exact)
    open_table = OpenTable(table)
    with closing(FeatureTable(path, width)) as lookup_table:

        def maker(count: int) -> _FeatureMaker:
            pool = open_pool(keras, backbone.keras, backbone.tflite, workers=workers, images=count)
            return _FeatureMaker(pool, variant, half)

        def make(share: Callable[[Any], Shared]) -> _MakeFeatureMaker:
            return _MakeFeatureMaker(share(backbone.tflite.read_bytes()), variant, half)

        # One thread per network: an additional thread that reads ahead made it a tenth slower.
        processed = process_images(
            dataset, spec, cache, table, lookup_table, maker, GPU_THREADS if gpu else workers,
            progress, observer, batch=IMAGES_PER_TASK,
            cluster=ClusterBuilder(str(on), make) if is_remote(on) else None,
        )  # fmt: skip
        vectors = FeatureRows.of_table(table, processed.dataset.digest)
    cache.prune(keep=path)
    return Features(
        processed.dataset, vectors, processed.problems, processed.problem_labels,
        processed.computed, processed.reused, path, open_tables=(open_table,),
    )  # fmt: skip


class _GrownTable(FeatureTable):
    """A feature table that copies missing rows from another table, rounding them.

    A dataset that has become large is therefore not computed again. `exact` is None if there is no
    other table.
    """

    def __init__(self, path: Path, width: int, exact: Path | None) -> None:
        super().__init__(path, width)
        self._exact = exact if exact is not None and exact.is_file() else None

    def known(self, digests: Iterable[str]) -> set[str]:
        given = list(digests)
        found = super().known(given)
        if self._exact is not None and len(found) < len(given):
            with closing(FeatureTable(self._exact, self.width)) as table:
                for chunk in chunked([digest for digest in given if digest not in found]):
                    rows = [_without_jpeg(row) for row in table.rows(chunk)]
                    self.put(rows)
                    found |= {row.digest for row in rows}
        return found


def _without_jpeg(row: FeatureRow) -> FeatureRow:
    return replace(row, jpeg=b"", grey=jpeg_grey(row.jpeg, SIDE))


@dataclass(frozen=True)
class _FeatureMaker:
    """A :class:`RowBuilder` of feature rows."""

    pool: NetworkPool
    variant: int
    half: bool

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> FeatureRow:
        vector = self.pool.run(transform_image(pixels, self.variant))
        if not np.isfinite(vector).all():
            raise ImageError("corrupt", "The network's features of the image are not finite.")
        # The image for reports is stored once, with the features of the plain image.
        if self.variant:
            return FeatureRow(digest, vector, b"", *size)
        if self.half:
            return FeatureRow(digest, vector, b"", *size, grey=jpeg_grey(to_jpeg(pixels), SIDE))
        return FeatureRow(digest, vector, to_jpeg(pixels), *size)

    def failed(self, digest: str, error: ImageError) -> FeatureRow:
        return FeatureRow(digest, None, code=error.code, reason=error.reason)


@dataclass(frozen=True)
class _MakeFeatureMaker:
    """Makes a :class:`_FeatureMaker` in a worker process."""

    network: Shared  # the bytes of the LiteRT file
    variant: int
    half: bool

    def __call__(self) -> _FeatureMaker:
        pool = InterpreterPool("backbone", 1, content=self.network.get())
        return _FeatureMaker(pool, self.variant, self.half)


def feature_table_path(
    cache: Cache, backbone: BackboneFiles, spec: InputSpec, variant: int = 0, half: bool = False
) -> Path:
    """Return the file of a backbone's features for an input spec and a TTA variant."""
    suffix = f"-{variant_name(variant)}" if variant else ""
    return cache.features_file(f"{backbone.key}-{spec.key()}{suffix}{HALF if half else ''}")


def is_large(images: int) -> bool:
    """Return whether features of this many images are stored in half precision."""
    return images >= LARGE_DATASET


def sum_variant(total: Features, more: Features) -> Features:
    """Add the features of another TTA variant to a sum; images must be in both."""
    remaining = set(more.dataset.digest)
    known = total.vectors.take([digest in remaining for digest in total.dataset.digest])
    vectors = FeatureRows.combined([known, more.vectors], _add)
    return replace(_merge([total, more]), vectors=vectors)


def concatenate(every: Sequence[Features]) -> Features:
    """Concatenate the features of several backbones, for the images that all of them could process.

    Each backbone processed the images that were left by those before it.
    """
    last = every[-1]
    if len(every) == 1:
        return last
    left = set(last.dataset.digest)
    parts = [
        item.vectors.take([digest in left for digest in item.dataset.digest]) for item in every
    ]
    vectors = FeatureRows.combined(parts, partial(np.concatenate, axis=1))
    tables = tuple(item.table for item in every)
    return replace(_merge(every), vectors=vectors, tables=tables)


def _add(both: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return both[0] + both[1]


def _divide(total: list[NDArray[np.float32]], number: np.float32) -> NDArray[np.float32]:
    return total[0] / number


def _merge(every: Sequence[Features]) -> Features:
    """Return the result of several passes over the same images, except for the vectors."""
    return replace(
        every[0],
        dataset=every[-1].dataset,
        problems=tuple(error for item in every for error in item.problems),
        problem_labels=tuple(label for item in every for label in item.problem_labels),
        computed=max(item.computed for item in every),
        reused=min(item.reused for item in every),
        open_tables=tuple(table for item in every for table in item.open_tables),
    )
