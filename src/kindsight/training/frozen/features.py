"""Features once: each image is read, resized and run through the frozen backbone a single time.

What was computed is found again by the content of the file, so it does not matter how the file is
called, in which folder it lies, or how the data are split. A file whose size and times have not
changed is not even read to know its content.
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
from kindsight.cache.sqlite_table import DamagedTableError
from kindsight.dataset import ImageDataset
from kindsight.dataset.reading.process_images import DecodeObserver, Progress, process_images
from kindsight.errors import CacheError, ImageError
from kindsight.images import InputSpec
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.backbones.tta import transform_image, variant_name
from kindsight.models.runtime import InterpreterPool
from kindsight.threads import count_cores
from kindsight.training.frozen.feature_cache import FeatureRow, FeatureTable
from kindsight.training.stored_images import to_jpeg

__all__ = [
    "FeatureMaker",
    "Features",
    "compute_features",
    "side_by_side",
]

# SECTION: What is made of one image to get its features; many are under way at once.


@dataclass(frozen=True)
class FeatureMaker:
    """Runs images through the frozen network; a :class:`RowBuilder`.

    Parameters
    ----------
    pool : InterpreterPool
        The network.
    view : int
        Which view it sees, as :mod:`.views` counts them.
    """

    pool: InterpreterPool
    view: int = 0

    def make(self, digest: str, pixels: NDArray[np.uint8], size: tuple[int, int]) -> FeatureRow:
        """Return the features of a resized image, with the image as a JPEG."""
        vector = self.pool.run(transform_image(pixels, self.view))
        if not np.isfinite(vector).all():
            raise ImageError("corrupt", "The network's answer to it is not finite.")
        # What reports show is kept once, beside the features of the image as it is.
        return FeatureRow(digest, vector, b"" if self.view else to_jpeg(pixels), *size)

    def failed(self, digest: str, error: ImageError) -> FeatureRow:
        """Return the row of an image that cannot be read."""
        return FeatureRow(digest, None, code=error.code, reason=error.reason)


# Images that a thread is handed at once.
ENSEMBLE_LAYER = 8


@dataclass(frozen=True)
class Features:
    """The features of a dataset's images.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images, digests filled in.
    vectors : array
        float32 (images, width), in the dataset's order.
    problems : tuple of ImageError
        Those that were set aside, with their paths.
    problem_labels : tuple of str or None
        The labels of those that were set aside.
    computed, reused : int
        How many distinct images went through the network, and how many did not have to.
    table : pathlib.Path
        Where they are kept; of several backbones the first one's.
    tables : tuple of pathlib.Path
        Of several backbones, where each one's are kept.
    """

    dataset: ImageDataset
    vectors: NDArray[np.float32]
    problems: tuple[ImageError, ...]
    problem_labels: tuple[str | None, ...]
    computed: int
    reused: int
    table: Path
    tables: tuple[Path, ...] = ()


def with_view(total: Features, more: Features) -> Features:
    """Add the features of another view to a sum of views, of the images that both could take.

    One view's features are in memory beside the sum, however many there are. `more` is of the
    images that `total` has; the sum's array is written to.
    """
    vectors = total.vectors
    if len(more.dataset) < len(total.dataset):
        left = set(more.dataset.digest)
        vectors = vectors[[digest in left for digest in total.dataset.digest]]
    vectors += more.vectors
    return replace(_together([total, more]), vectors=vectors)


def side_by_side(every: Sequence[Features]) -> Features:
    """Put the features of several backbones side by side.

    Parameters
    ----------
    every : sequence of Features
        Of each backbone in turn; each of the images that those before it left.

    Returns
    -------
    Features
        Of the images that all could take.
    """
    last = every[-1]
    if len(every) == 1:
        return last
    left = set(last.dataset.digest)
    kept = [part.vectors[[digest in left for digest in part.dataset.digest]] for part in every]
    tables = tuple(part.table for part in every)
    return replace(_together(every), vectors=np.concatenate(kept, axis=1), tables=tables)


def _together(every: Sequence[Features]) -> Features:
    """Return what several passes over the same images came to, but for the vectors."""
    return replace(
        every[0],
        dataset=every[-1].dataset,
        problems=tuple(error for part in every for error in part.problems),
        problem_labels=tuple(label for part in every for label in part.problem_labels),
        computed=max(part.computed for part in every),
        reused=min(part.reused for part in every),
    )


# A resized JPEG of 224 x 224 pixels and its row, beside the features.
STORED_BYTES = 20_000


def compute_features(
    dataset: ImageDataset,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
    observer: DecodeObserver | None = None,
    view: int = 0,
) -> Features:
    """Find or compute the features of all images of a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        Which images.
    backbone : BackboneFiles
        The network, pixels to features, as a LiteRT file.
    spec : InputSpec
        How images are resized; of the network's size.
    cache : Cache
        Where features are kept.
    workers : int, optional
        How many runs of the network at once; the number of cores if omitted.
    progress : callable, optional
        Called with (images done, images in all), from the calling thread.
    observer : DecodeObserver, optional
        Looks at the images that are read, such as
        :class:`kindsight.checks.measurement_cache.MeasuringObserver`.
    view : int
        Which view the network sees, as :mod:`.views` counts them.

    Returns
    -------
    Features

    Raises
    ------
    CacheError
        Where the cache cannot be used. What is damaged in it is put aside and made anew.
    """
    for _ in range(2):
        # Damage may show in either of the two tables, and only where a row is read.
        with contextlib.suppress(DamagedTableError):
            return _compute(dataset, backbone, spec, cache, workers, progress, observer, view)
    return _compute(dataset, backbone, spec, cache, workers, progress, observer, view)


def _compute(
    dataset: ImageDataset,
    backbone: BackboneFiles,
    spec: InputSpec,
    cache: Cache,
    workers: int | None,
    progress: Progress | None,
    observer: DecodeObserver | None,
    view: int,
) -> Features:
    path, width = feature_table_path(cache, backbone, spec, view), backbone.layout.width
    cache.require_space(len(dataset), 4 * width + STORED_BYTES, path)
    workers = workers or count_cores()
    with (
        closing(FeatureTable(path, width)) as table,
        closing(FeatureTable(path, width)) as lookup_table,
    ):

        def maker() -> FeatureMaker:
            return FeatureMaker(InterpreterPool(backbone.tflite, workers), view)

        # As many threads as networks: one more, to read ahead, was measured a tenth slower.
        processed = process_images(
            dataset, spec, cache, table, lookup_table, maker, workers, progress, observer,
            batch=ENSEMBLE_LAYER,
        )  # fmt: skip
        try:
            vectors = table.vectors([str(digest) for digest in processed.dataset.digest])
        except KeyError as error:
            raise CacheError(
                f"What is in the cache must stay there while it is used. Received: {path}, from "
                "which rows have gone: was the cache cleared just now? The same command computes "
                "them again."
            ) from error
    cache.prune(keep=path)
    return Features(
        processed.dataset,
        vectors,
        processed.problems,
        processed.problem_labels,
        processed.computed,
        processed.reused,
        path,
    )


def feature_table_path(
    cache: Cache, backbone: BackboneFiles, spec: InputSpec, view: int = 0
) -> Path:
    """Return where the features made by this backbone from a view of images so resized are."""
    seen = f"-{variant_name(view)}" if view else ""
    return cache.features_file(f"{backbone.key}-{spec.key()}{seen}")
