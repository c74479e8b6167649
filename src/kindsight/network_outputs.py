"""Read a block of images and run a LiteRT network on them, in a thread or a worker process.

A block's result, :class:`NetworkOutputs`, consists of plain arrays. The predictor makes predictions
from these in the same way, wherever they were computed.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.loaders.arrays import to_image
from kindsight.dataset.reading.on_cluster import CHECKED, LOST_REASON, check_nodes
from kindsight.dataset.reading.read_ahead import read_in_order
from kindsight.dataset.table import ImageDataset
from kindsight.digest import content_digest
from kindsight.distributed.executor import Executor, LostTask, Shared
from kindsight.errors import BundleError, ImageError
from kindsight.images import InputSpec, read_bytes, read_image, resize_image
from kindsight.images.convert import ValueScale
from kindsight.images.hashes import image_hash
from kindsight.images.read import MAX_PIXELS, read_with_scale
from kindsight.models.runtime import Interpreter
from kindsight.storage.address import is_address

__all__ = [
    "NO_NEEDS",
    "DatasetRow",
    "ImageInMemory",
    "ImageObserver",
    "Needs",
    "NetworkOutputs",
    "PixelsOfImage",
    "ResizedImage",
    "compute_outputs",
    "fetched_ahead",
    "read_source",
]  # fmt: skip

Run = Callable[[Sequence[NDArray[np.uint8]]], list[tuple[NDArray[np.float32], NDArray[np.float32]]]]
"""Returns both outputs of a network for several images, as ``InterpreterPool.run_both``."""


class Needs(NamedTuple):
    """The data of each readable image to return in addition to the network's outputs."""

    digests: bool = False
    hashes: bool = False
    pixels: bool = False


NO_NEEDS = Needs()


class DatasetRow(NamedTuple):
    """An image of a dataset, as a source."""

    dataset: ImageDataset
    row: int


class ImageInMemory(NamedTuple):
    """An image of a dataset that is in memory, uint8 (height, width, 3), as a source."""

    image: NDArray[np.uint8]


class ResizedImage(NamedTuple):
    """An image that has been read: its pixels, and the fraction of clipped values."""

    pixels: NDArray[np.uint8]
    clipped: float


class UnreadImage(NamedTuple):
    """An image that could not be read, with the code and the reason, as a source."""

    code: str
    reason: str


class PixelsOfImage(NamedTuple):
    """The resized pixels of an image, its fraction of clipped values, and other needed data."""

    pixels: NDArray[np.uint8]
    clipped: float
    digest: str = ""
    hash: NDArray[np.uint64] | None = None


@dataclass(frozen=True, eq=False)
class NetworkOutputs:
    """The results of a block of images.

    Parameters
    ----------
    images : int
        Number of images in the block.
    errors : dict
        Unreadable images: position in the block -> (code, reason).
    logits : array
        float32 (readable images, classes), in the block's order.
    scores : array or None
        float32 (readable images,): out-of-distribution scores; None if the network has none.
    clipped : array
        float64 (readable images,): fraction of clipped values.
    digests, hashes, pixels : array or None
        uint8 (readable images, 16), uint64 (readable images, 4) and uint8 (readable images, height,
        width, 3): content digests, perceptual hashes and resized images; None if not needed.
    """

    images: int
    errors: dict[int, tuple[str, str]]
    logits: NDArray[np.float32]
    scores: NDArray[np.float32] | None
    clipped: NDArray[np.float64]
    digests: NDArray[np.uint8] | None = None
    hashes: NDArray[np.uint64] | None = None
    pixels: NDArray[np.uint8] | None = None

    @property
    def readable(self) -> NDArray[np.int64]:
        """The positions of the readable images in the block: int64 (readable images,)."""
        if not self.errors:
            return np.arange(self.images)
        return np.array([k for k in range(self.images) if k not in self.errors], np.int64)


class ImageObserver(Protocol):
    """Observes the images of a prediction stream."""

    @property
    def needs(self) -> Needs:
        """The data that it needs of each readable image."""

    def observe(self, rows: NDArray[np.int64], seen: NetworkOutputs) -> None:
        """Receive the rows of a block's readable images, and their results.

        It is called on the thread that consumes the predictions, in the order of the images, before
        the predictions of the block are yielded.
        """


class _Fetched(NamedTuple):
    """The content of a file at an address, or why it could not be read."""

    data: bytes | NDArray[np.uint8] | ImageError


def fetched_ahead(images: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield pairs of a name and a source in their order; those at addresses are fetched ahead.

    Many are fetched at once, since each waits for the storage. Others are yielded unchanged.
    """

    def waits(image: tuple[str, Any]) -> bool:
        _, source = image
        if isinstance(source, DatasetRow):
            return source.dataset.is_remote
        return is_address(source)

    def fetch(image: tuple[str, Any]) -> tuple[str, Any]:
        name, source = image
        try:
            if isinstance(source, DatasetRow):
                return name, _Fetched(source.dataset.load(source.row))
            return name, _Fetched(read_bytes(source))
        except ImageError as error:
            return name, _Fetched(error)

    return read_in_order(images, waits, fetch)


def read_source(
    number: int,
    source: Any,
    spec: InputSpec,
    needs: Needs = NO_NEEDS,
    max_pixels: int = MAX_PIXELS,
) -> PixelsOfImage | ImageError:
    """Return the resized pixels of an image, or why it cannot be read.

    `source` is a path, bytes, a file, a Pillow image, an array, or one of this module's sources;
    `number` names an array in messages. A digest is computed for paths, bytes and images of
    datasets.
    """
    if isinstance(source, ResizedImage):
        return PixelsOfImage(*source)
    if isinstance(source, UnreadImage):
        return ImageError(*source)
    scale = ValueScale(spec.value_range)
    try:
        image, content = _read(number, source, spec, scale, max_pixels)
        pixels = resize_image(image, spec)
    except ImageError as error:
        return error
    digest = content_digest(content) if needs.digests and content is not None else ""
    return PixelsOfImage(
        pixels, _clipped(scale), digest, image_hash(pixels) if needs.hashes else None
    )


def _read(
    number: int, source: Any, spec: InputSpec, scale: ValueScale, max_pixels: int
) -> tuple[NDArray[np.uint8], bytes | NDArray[np.uint8] | None]:
    """Return the decoded image, and the content of its file if that was read."""
    data: bytes | NDArray[np.uint8]
    if isinstance(source, ImageInMemory):
        return source.image, source.image
    if isinstance(source, (DatasetRow, _Fetched)):
        found = source.data if isinstance(source, _Fetched) else source.dataset.load(source.row)
        if isinstance(found, ImageError):
            raise found
        data = found
        if not isinstance(data, bytes):
            return data, data
        return read_with_scale(data, scale, target=spec.size), data
    # A name in a NumPy array is both a string and an array without dimensions.
    is_array = hasattr(source, "__array__") and not isinstance(source, (str, bytes))
    if is_array or isinstance(source, (list, tuple)):
        return to_image(source, number, spec.value_range), None
    if isinstance(source, (str, os.PathLike)):
        data = read_bytes(source)
        return read_with_scale(data, scale, target=spec.size), data
    image = read_image(
        source, target=spec.size, value_range=spec.value_range, max_pixels=max_pixels
    )
    return image, source if isinstance(source, bytes) else None


def _clipped(scale: ValueScale) -> float:
    """Return the fraction of samples outside the training's value range; 1 if it had none."""
    if scale.value_range is None:
        return float(math.isfinite(scale.low) and not scale.stated)
    return scale.clipped


def compute_outputs(
    read: Sequence[PixelsOfImage | ImageError], run: Run, classes: int, needs: Needs
) -> NetworkOutputs:
    """Return the network's outputs for images that were read, and the other needed data."""
    images = [image for image in read if not isinstance(image, ImageError)]
    outputs = run([image.pixels for image in images])
    n = len(images)
    scores = np.array([second[0] for _, second in outputs if len(second)], np.float32)
    digests = b"".join(bytes.fromhex(image.digest) for image in images)
    return NetworkOutputs(
        images=len(read),
        errors={
            k: (image.code, image.reason)
            for k, image in enumerate(read)
            if isinstance(image, ImageError)
        },
        logits=np.array([logits for logits, _ in outputs], np.float32).reshape(n, classes),
        scores=scores if len(scores) else None,
        clipped=np.array([image.clipped for image in images], np.float64),
        digests=np.frombuffer(digests, np.uint8).reshape(n, 16) if needs.digests else None,
        hashes=(
            np.array([image.hash for image in images], np.uint64).reshape(n, 4)
            if needs.hashes
            else None
        ),
        pixels=np.array([image.pixels for image in images], np.uint8) if needs.pixels else None,
    )


BATCH = 8
"""Number of images that one thread or process reads, and then runs through the network."""

BLOCK = 64
"""Maximum number of images per task of a cluster."""

BLOCK_BYTES = 1 << 20
"""Bytes of images in memory at which a task of a cluster ends; hundreds of tasks wait at once."""


class Block(NamedTuple):
    """A task of a cluster: some images of a stream, in a form that any process can read."""

    first: int  # number of the first image in the stream
    sources: tuple[Any, ...]


@dataclass(frozen=True)
class NetworkWorker:
    """Makes the function of a worker process, which computes the outputs of blocks.

    Parameters
    ----------
    network : Shared
        The content of the LiteRT file.
    digest, file : str
        The digest of that content, and the name of the file for messages.
    spec : InputSpec
        How images are resized.
    classes : int
    needs : Needs
    """

    network: Shared
    digest: str
    file: str
    spec: InputSpec
    classes: int
    needs: Needs

    def __call__(self) -> Callable[[Block], NetworkOutputs]:
        """Load the network; return the function of a block."""
        content = self.network.get()
        if content_digest(content) != self.digest:
            raise BundleError(
                f"{self.file} arrived damaged at a worker process. Run the command again."
            )
        cv2.setNumThreads(1)
        network = Interpreter(self.file, content=content)

        def compute(block: Block) -> NetworkOutputs:
            read: list[PixelsOfImage | ImageError] = []
            outputs = []
            images = fetched_ahead(("", source) for source in block.sources)
            numbered = enumerate((source for _, source in images), block.first)
            while batch := list(islice(numbered, BATCH)):
                some = [read_source(*each, self.spec, self.needs) for each in batch]
                outputs += [network.run(one.pixels) for one in some if isinstance(one, tuple)]
                read += some
            return compute_outputs(read, lambda _: outputs, self.classes, self.needs)

        return compute


def compute_on(
    executor: Executor, worker: NetworkWorker, images: Iterable[tuple[str, Any]]
) -> Iterator[tuple[list[str], NetworkOutputs]]:
    """Yield names and outputs of blocks of images, in their order, computed by a cluster.

    An image that crashes its worker process each time counts as unreadable.

    Raises
    ------
    SettingsError
        If a node cannot read the first files.
    """
    waiting: deque[tuple[list[str], Block]] = deque()

    def tasks() -> Iterator[Block]:
        for names, block in _blocks(images, worker.spec):
            if not block.first:
                files = [source for source in block.sources if isinstance(source, str)]
                check_nodes(executor, files[:CHECKED])
            waiting.append((names, block))
            yield block

    for result in executor.map(worker, tasks()):
        names, block = waiting.popleft()
        if not isinstance(result, LostTask):
            yield names, result
            continue
        alone = [Block(block.first + k, (source,)) for k, source in enumerate(block.sources)]
        for name, found in zip(names, executor.isolate(worker, alone), strict=True):
            yield [name], _lost(worker.classes) if isinstance(found, LostTask) else found


def _lost(classes: int) -> NetworkOutputs:
    """Return the outputs of an image that crashes every process that reads it."""
    nothing = np.empty((0, classes), np.float32)
    return NetworkOutputs(
        1, {0: ("corrupt", LOST_REASON)}, nothing, None, np.empty(0),
        np.empty((0, 16), np.uint8), np.empty((0, 4), np.uint64), np.empty((0, 0, 0, 3), np.uint8),
    )  # fmt: skip


def _blocks(
    images: Iterable[tuple[str, Any]], spec: InputSpec
) -> Iterator[tuple[list[str], Block]]:
    """Yield the names and sources of images in blocks that any process can read."""
    names: list[str] = []
    sources: list[Any] = []
    size = first = 0
    for number, (name, source) in enumerate(images):
        names.append(name)
        sources.append(_portable(number, source, spec))
        size += _bytes_of(sources[-1])
        if len(names) == BLOCK or size >= BLOCK_BYTES:
            yield names, Block(first, tuple(sources))
            names, sources, size, first = [], [], 0, number + 1
    if names:
        yield names, Block(first, tuple(sources))


def _portable(number: int, source: Any, spec: InputSpec) -> Any:
    """Return a source that any process can read; any other source is read here."""
    if isinstance(source, DatasetRow):
        if source.dataset.arrays is not None:
            return ImageInMemory(source.dataset.load(source.row))  # type: ignore[arg-type]
        return source.dataset.address(source.row)
    if isinstance(source, (str, os.PathLike)):
        path = os.fspath(source)
        # As given, including its dots: Path would change the names of missing files.
        here = os.path.join(os.getcwd(), path)  # noqa: PTH109, PTH118
        return path if not path or is_address(path) else here
    plain = isinstance(source, np.ndarray) and source.dtype.kind in "buif"
    if plain or isinstance(source, bytes):
        return source
    read = read_source(number, source, spec)
    if isinstance(read, ImageError):
        return UnreadImage(read.code, read.reason)
    return ResizedImage(read.pixels, read.clipped)


def _bytes_of(source: Any) -> int:
    """Return the bytes of an image in memory; 0 for the name of a file."""
    if isinstance(source, (ImageInMemory, ResizedImage)):
        source = source[0]
    return (
        source.nbytes
        if isinstance(source, np.ndarray)
        else (len(source) if isinstance(source, bytes) else 0)
    )
