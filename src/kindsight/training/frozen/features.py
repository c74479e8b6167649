"""Features of images: each image is decoded, resized and run through a frozen backbone once.

Features are cached by the content of the file, whatever its name, folder or split. A file whose
size and times have not changed is not read to know its content.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import Cache
from kindsight.cache.sqlite_table import LostTableError, OpenTable
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import DecodeObserver, Progress, process_images
from kindsight.errors import ImageError
from kindsight.images import InputSpec
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.backbones.tta import transform_image, variant_name
from kindsight.models.worker.gpu_pool import GPU_THREADS, NetworkPool, open_pool
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import count_cores
from kindsight.training.common import Progress as StageProgress
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.frozen.feature_rows import FeatureRows
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.frozen.stored_images import to_jpeg

__all__ = ["Features", "compute_all_features", "compute_features", "feature_table_path"]

# Images that a thread takes at once.
IMAGES_PER_TASK = 8
# Bytes of a row beside the features: mostly the resized JPEG, of 224 x 224 pixels, and a small grey
# image of 64 x 64.
STORED_BYTES = 24_000


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
        Distinct images that were run, and that were cached.
    table : pathlib.Path
        The feature cache; of several backbones the first one's.
    tables : tuple of pathlib.Path
        The feature cache of each of several backbones.
    open_tables : tuple of OpenTable
        Protect the feature caches from deletion as long as this object exists.
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
) -> Features:
    """Return the features of a dataset's images by every backbone, averaged over TTA variants.

    Each backbone's and each variant's are cached by themselves.

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
    """
    cache, spec = Cache(trainer.cache), trainer.spec()
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
        )  # fmt: skip
        if variant == member.variants[0]:
            every.append(found)
        else:
            every[-1] = sum_variant(every[-1], found)
        if variant == member.variants[-1] and variant:
            mean = every[-1].vectors[:] / np.float32(len(member.variants))
            every[-1] = replace(every[-1], vectors=FeatureRows.of(mean))
    return concatenate(every)


def compute_features(
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
) -> Features:
    """Return the features of all images of a dataset, from the cache where it has them.

    Parameters
    ----------
    dataset : ImageDataset
        The images.
    backbone : BackboneFiles
        One backbone, pixels to features.
    spec : InputSpec
        How images are resized.
    cache : Cache
        Where features are cached.
    workers : int, optional
        Images run at once; the number of cores if omitted.
    progress : callable, optional
        Called with (images done, images in all), from the calling thread.
    observer : DecodeObserver, optional
        Observer of the images that are decoded, such as
        :class:`kindsight.checks.measurements.Measuring`.
    variant : int
        The TTA variant, as :mod:`kindsight.models.backbones.tta` numbers them.
    keras : KerasProcess, optional
        Worker process that may have a GPU; LiteRT runs the backbone without one.

    Raises
    ------
    CacheError
        If the cache cannot be used. A table that is damaged or deleted meanwhile is computed again.
    """
    given = dataset, backbone, spec, cache, workers, progress, observer, variant, keras
    for _ in range(2):  # either of the two tables may be damaged or deleted
        with contextlib.suppress(LostTableError):
            return _compute(*given)
    return _compute(*given)


def _compute(
    dataset: ImageDataset,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
    observer: DecodeObserver | None,
    variant: int,
    keras: KerasProcess | None,
) -> Features:
    path, width = feature_table_path(cache, backbone, spec, variant), backbone.layout.width
    cache.require_space(len(dataset), 4 * width + STORED_BYTES, path)
    workers = workers or count_cores()
    gpu = keras is not None and keras.wants_gpu(len(dataset))
    table = FeatureTable(path, width)
    open_table = OpenTable(table)
    with closing(FeatureTable(path, width)) as lookup_table:

        def maker(count: int) -> _FeatureMaker:
            pool = open_pool(keras, backbone.keras, backbone.tflite, workers=workers, images=count)
            return _FeatureMaker(pool, variant)

        # One thread a network: one more, to read ahead, was a tenth slower.
        processed = process_images(
            dataset, spec, cache, table, lookup_table, maker, GPU_THREADS if gpu else workers,
            progress, observer, batch=IMAGES_PER_TASK,
        )  # fmt: skip
        digests = [str(digest) for digest in processed.dataset.digest]
        vectors = FeatureRows.of_table(table, digests)
    cache.prune(keep=path)
    return Features(
        processed.dataset, vectors, processed.problems, processed.problem_labels,
        processed.computed, processed.reused, path, open_tables=(open_table,),
    )  # fmt: skip


@dataclass(frozen=True)
class _FeatureMaker:
    """A :class:`RowBuilder` of feature rows."""

    pool: NetworkPool
    variant: int

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> FeatureRow:
        vector = self.pool.run(transform_image(pixels, self.variant))
        if not np.isfinite(vector).all():
            raise ImageError("corrupt", "The network's features of it are not finite.")
        # The image for reports is stored once, beside the features of the plain image.
        return FeatureRow(digest, vector, b"" if self.variant else to_jpeg(pixels), *size)

    def failed(self, digest: str, error: ImageError) -> FeatureRow:
        return FeatureRow(digest, None, code=error.code, reason=error.reason)


def feature_table_path(
    cache: Cache, backbone: BackboneFiles, spec: InputSpec, variant: int = 0
) -> Path:
    """Return the file of a backbone's features for an input spec and a TTA variant."""
    suffix = f"-{variant_name(variant)}" if variant else ""
    return cache.features_file(f"{backbone.key}-{spec.key()}{suffix}")


def sum_variant(total: Features, more: Features) -> Features:
    """Add the features of another TTA variant to a sum; images must be in both.

    Only one variant's features are in memory beside the sum.
    """
    remaining = set(more.dataset.digest)
    vectors = total.vectors[[digest in remaining for digest in total.dataset.digest]]
    for place, values in more.vectors.blocks():
        vectors[place] += values
    return replace(_merge([total, more]), vectors=FeatureRows.of(vectors))


def concatenate(every: Sequence[Features]) -> Features:
    """Concatenate the features of several backbones, of the images that all could use.

    Each backbone's are of the images that those before it left.
    """
    last = every[-1]
    if len(every) == 1:
        return last
    left = set(last.dataset.digest)
    parts = [
        item.vectors.take([digest in left for digest in item.dataset.digest]) for item in every
    ]
    vectors = np.concatenate([part[:] for part in parts], axis=1)
    tables = tuple(item.table for item in every)
    return replace(_merge(every), vectors=FeatureRows.of(vectors), tables=tables)


def _merge(every: Sequence[Features]) -> Features:
    """Return the result of several passes over the same images, but for the vectors."""
    return replace(
        every[0],
        dataset=every[-1].dataset,
        problems=tuple(error for item in every for error in item.problems),
        problem_labels=tuple(label for item in every for label in item.problem_labels),
        computed=max(item.computed for item in every),
        reused=min(item.reused for item in every),
        open_tables=tuple(table for item in every for table in item.open_tables),
    )
