"""Batches of images from files: what the iterators over folders and tables share."""

from __future__ import annotations

import contextlib
import gc
import mmap
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from kindsight.cache.folder import parse_size
from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Batch, Making, begin_batch, can_draw_ahead
from kindsight.preprocessing._draws import GLOBAL, Source, drawing
from kindsight.preprocessing._iterators import Index, is_overridden
from kindsight.preprocessing._loading import Loading, Saving, load_pixels
from kindsight.preprocessing._messages import (
    augments,
    check_pixels,
    check_shape,
    check_subset,
    is_ours,
    warn_of,
)

__all__ = [
    "BatchFromFilesMixin",
    "Limits",
    "Shelf",
    "set_memory_limit",
    "shelf_for",
]

# SECTION: Images that were decoded once: kept as uint8, in memory, then on disk, then not at all.
#
# Every list of files has a shelf with a place for each. A place knows the size and the time of
# change
# of the file that it was filled from, so a changed file is read again. The memory is shared with
# forked processes: what a worker decodes, the others find.

MEMORY_VARIABLE = "KINDSIGHT_IMAGE_MEMORY"
DISK_VARIABLE = "KINDSIGHT_IMAGE_DISK"
_SHARE_OF_MEMORY = 4
_SHARE_OF_DISK = 2
_UNKNOWN_MEMORY = 4_000_000_000  # bytes; where the system does not say how much it has
_WORD = 2**63 - 1
_CGROUP = Path("/sys/fs/cgroup/memory.max")

Pixels = NDArray[Any]
Read = Callable[[str], Pixels]


class Limits:
    """How many bytes all shelves together may take.

    By default a quarter of the machine's memory and then half of what is free on the disk of
    temporary files. ``KINDSIGHT_IMAGE_MEMORY`` and ``KINDSIGHT_IMAGE_DISK`` (such as ``2GB``,
    or ``0``) and :func:`set_memory_limit` change that.
    """

    def __init__(self) -> None:
        self.memory = _setting(MEMORY_VARIABLE, _machine_memory() // _SHARE_OF_MEMORY)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self.disk = _setting(DISK_VARIABLE, free // _SHARE_OF_DISK)


def _setting(variable: str, default: int) -> int:
    text = os.environ.get(variable)
    return parse_size(text) if text else default


def _machine_memory() -> int:
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        found = _UNKNOWN_MEMORY
    with contextlib.suppress(OSError, ValueError):  # no such group, or "max"
        found = min(found, int(_CGROUP.read_text(encoding="ascii")))
    return found


_limits: Limits | None = None
_shelves: weakref.WeakSet[Shelf] = weakref.WeakSet()


def limits() -> Limits:
    """Return the limits, read from the environment when first asked for."""
    global _limits  # noqa: PLW0603
    if _limits is None:
        _limits = Limits()
    return _limits


def set_memory_limit(memory: int | str, disk: int | str | None = None) -> None:
    """Set how much decoded images may take, for iterators that are made from now on.

    Parameters
    ----------
    memory : int or str
        Bytes, or a size such as ``"2GB"``; 0 keeps nothing in memory.
    disk : int or str, optional
        The same for the temporary files that are used beyond it; left as it is if omitted.

    Raises
    ------
    SettingsError
        For a text that is not a size.
    """
    found = limits()
    found.memory = parse_size(str(memory))
    if disk is not None:
        found.disk = parse_size(str(disk))


def _left(where: str) -> int:
    """Count the bytes that are not promised to a shelf."""
    taken = {"memory": 0, "disk": 0}
    for shelf in list(_shelves):
        taken["memory"] += shelf.in_memory * shelf._size
        taken["disk"] += shelf.on_disk * shelf._size
    return int(getattr(limits(), where)) - taken[where]


class Shelf:
    """The decoded images of one list of files.

    Parameters
    ----------
    paths : sequence of str
        The files.
    loading : Loading
        How they are read; it gives the size of a place.
    """

    def __init__(self, paths: Sequence[str], loading: Loading) -> None:
        self.loading = loading
        self.places = {path: place for place, path in enumerate(dict.fromkeys(paths))}
        self._size = max(1, int(np.prod(loading.shape)))
        self.in_memory: int
        self.on_disk: int
        count = len(self.places)
        if count * self._size > _left("memory"):
            gc.collect()  # iterators that nobody has any more go only then, and their shelves
        self.in_memory = max(0, min(count, _left("memory") // self._size))
        self._pixels = _shared(self.in_memory * self._size, np.uint8)
        self.in_memory = len(self._pixels) // self._size
        self.on_disk = max(0, min(count - self.in_memory, _left("disk") // self._size))
        _shelves.add(self)
        # For each place the size, time of change and number of its file; 0 where there is none yet.
        stamps = _shared(count * 24, np.int64)
        self._stamps = (stamps if len(stamps) else np.zeros(3 * count, np.int64)).reshape(count, 3)
        self._file = _temporary_file() if self.on_disk else None
        self._file_lock = threading.Lock()

    def take(self, path: str, read: Read) -> Pixels:
        """Return a file's pixels: what is kept of it, or else what `read` gives, which is kept.

        The array may be the shelf's own: it must not be written to.
        """
        place = self.places.get(path)
        if place is None or place >= self.in_memory + self.on_disk:
            return read(path)
        found = os.stat(path)
        stamp = (found.st_size + 1, found.st_mtime_ns, found.st_ino & _WORD)
        if tuple(self._stamps[place].tolist()) == stamp:
            kept = self._load(place)
            if kept is not None:
                return kept
        pixels = read(path)
        if pixels.dtype == np.uint8 and self._store(place, pixels):
            self._stamps[place] = stamp
        return pixels

    def _load(self, place: int) -> Pixels | None:
        if place < self.in_memory:
            start = place * self._size
            return self._pixels[start : start + self._size].reshape(self.loading.shape)
        pixels = np.empty(self.loading.shape, np.uint8)
        return pixels if self._on_file(place, pixels, write=False) else None

    def _store(self, place: int, pixels: Pixels) -> bool:
        self._stamps[place] = 0
        if place < self.in_memory:
            start = place * self._size
            self._pixels[start : start + self._size] = pixels.ravel()
            return True
        return self._on_file(place, np.ascontiguousarray(pixels, np.uint8), write=True)

    def _on_file(self, place: int, pixels: Pixels, write: bool) -> bool:
        """Write to or read from the temporary file; False where the disk does not play along."""
        file: IO[bytes] | None = self._file
        if file is None:
            return False
        offset = (place - self.in_memory) * self._size
        data = pixels.data.cast("B")
        try:
            if hasattr(os, "preadv"):
                move = os.pwritev if write else os.preadv
                return move(file.fileno(), [data], offset) == self._size
            with self._file_lock:
                file.seek(offset)
                if write:
                    file.write(data)
                    file.flush()
                    return True
                return file.readinto(data) == self._size  # type: ignore[attr-defined,no-any-return]
        except OSError:  # such as a full disk: the image is decoded again
            return False


def _temporary_file() -> IO[bytes]:
    """Open a file that has no name, and so goes when nobody has it open any more."""
    return tempfile.TemporaryFile(prefix="kindsight-")


def _shared(size: int, dtype: type[np.generic]) -> Pixels:
    """Make zeros in memory that forked processes share; pages are taken when first written."""
    try:
        return np.frombuffer(mmap.mmap(-1, size), dtype) if size else np.zeros(0, dtype)
    except OSError:  # The system does not promise that much.
        return np.zeros(0, dtype)


def shelf_for(paths: Sequence[str], loading: Loading) -> Shelf:
    """Return a shelf for these files: one that is in use already where it has them all.

    So a cell of a notebook that makes its iterator anew does not decode anew.
    """
    for shelf in list(_shelves):
        if shelf.loading == loading and all(path in shelf.places for path in paths):
            return shelf
    return Shelf(paths, loading)


class BatchFromFilesMixin:
    """Makes batches of files, for an iterator that has lists of paths and labels.

    Attributes
    ----------
    filepaths : list of str
        The files. A subclass has this, and the next two.
    labels : array or list of arrays
        What belongs to them.
    sample_weight : array or None
        Their weights.
    image_shape : tuple of int
        Of an image in the given data format.
    """

    image_data_generator: Any
    class_mode: Any
    classes: Any
    class_indices: dict[str, int]
    dtype: str
    _shelf: Shelf | None = None

    def set_processing_attrs(
        self,
        image_data_generator: Any,
        target_size: tuple[int, int],
        color_mode: str,
        data_format: str,
        save_to_dir: str | None,
        save_prefix: str,
        save_format: str,
        subset: str | None,
        interpolation: str,
        keep_aspect_ratio: bool,
    ) -> None:
        """Take the settings of how files become images.

        Parameters
        ----------
        image_data_generator : ImageDataGenerator or None
            None to leave images as they are.
        target_size : pair of int
            Height and width.
        color_mode : str
            ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
        data_format : str
            ``"channels_last"`` or ``"channels_first"``.
        save_to_dir, save_prefix, save_format
            A folder into which each image is written as well, and the names.
        subset : str or None
            ``"training"``, ``"validation"``, or None for all.
        interpolation : str
            ``"nearest"``, ``"bilinear"``, ``"bicubic"``, ``"hamming"``, ``"box"`` or ``"lanczos"``.
        keep_aspect_ratio : bool
            Whether to cut out the middle with the proportions of the target first.

        Raises
        ------
        SettingsError
            For another color_mode or subset.
        """
        if color_mode not in ("rgb", "rgba", "grayscale"):
            raise SettingsError(
                f"color_mode must be 'rgb', 'rgba' or 'grayscale'. Received: {color_mode!r}."
            )
        self.image_data_generator = image_data_generator
        self.target_size = tuple(target_size)
        self.keep_aspect_ratio = keep_aspect_ratio
        self.interpolation = interpolation
        self.color_mode = color_mode
        self.data_format = data_format
        height, width, channels = self._loading.shape
        last = data_format == "channels_last"
        self.image_shape = (height, width, channels) if last else (channels, height, width)
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        self.subset = subset
        self.split = self._split_of(subset)
        self._check_settings()

    @property
    def filepaths(self) -> list[str]:
        """The files."""
        raise NotImplementedError(f"{type(self).__name__} must have a property filepaths.")

    @property
    def labels(self) -> Any:
        """What belongs to the files."""
        raise NotImplementedError(f"{type(self).__name__} must have a property labels.")

    @property
    def sample_weight(self) -> NDArray[Any] | None:
        """The weights of the files."""
        raise NotImplementedError(f"{type(self).__name__} must have a property sample_weight.")

    @property
    def _loading(self) -> Loading:
        height, width = self.target_size
        return Loading(
            self.color_mode, (height, width), self.interpolation, bool(self.keep_aspect_ratio)
        )

    def _split_of(self, subset: str | None) -> tuple[float, float] | None:
        if subset is None:
            return None
        share = self.image_data_generator._validation_split
        parts = {"validation": (0, share), "training": (share, 1)}
        if subset not in parts:
            raise SettingsError(f"subset must be 'training' or 'validation'. Received: {subset!r}.")
        return parts[subset]

    def _check_settings(self) -> None:
        generator = self.image_data_generator
        if is_ours(generator):
            check_subset(generator, self.subset)
            check_pixels(generator, 0, 255)
            check_shape(generator, *self._loading.target_size)

    def _be_ready(self, shuffle: bool) -> None:
        """Take what images will be kept in, so that forked processes share it; warn of order."""
        self._shelf = shelf_for(self.filepaths, self._loading)
        generator = self.image_data_generator
        if self.class_mode is None and shuffle and not (is_ours(generator) and augments(generator)):
            warn_of("shuffled-names")

    def _can_prepare(self) -> bool:
        own = type(self).__module__.startswith("kindsight.preprocessing.")
        return own and not self.save_to_dir and can_draw_ahead(self.image_data_generator)

    def _begin(self, index_array: Index, source: Source = GLOBAL) -> Making:
        if is_overridden(self, BatchFromFilesMixin):
            return super()._begin(index_array, source)  # type: ignore[misc,no-any-return]
        return self._make(index_array, source)

    def _make(self, index_array: Index, source: Source = GLOBAL) -> Making:
        """Draw for a batch in the way of this class, whatever a subclass does."""
        # A subclass may make its list anew each time it is asked for.
        every, loading = self.filepaths, self._loading
        paths = [every[number] for number in index_array.tolist()]
        if self._shelf is None or self._shelf.loading != loading:
            self._shelf = shelf_for(every, loading)
        shelf = self._shelf

        def fetch(place: int) -> NDArray[Any]:
            return shelf.take(paths[place], lambda path: load_pixels(path, loading))

        result, work = begin_batch(
            Batch(
                self.image_data_generator,
                len(paths),
                fetch,
                loading.shape,
                self.data_format == "channels_first",
                _keras.floatx(),
                self.dtype,
            ),
            source,
        )
        saving = Saving(self.save_to_dir, self.save_prefix, self.save_format, 10_000_000)
        names = saving.draw_names(index_array)

        def answer() -> Any:
            saving.write(result, names, self.data_format)
            return self._answer(result, index_array)

        return Making(work, answer)

    def _get_batches_of_transformed_samples(self, index_array: Index) -> Any:
        with drawing():
            making = self._make(index_array)
        return making()

    def _answer(self, images: NDArray[Any], index_array: Index) -> Any:
        """Put the images, the labels and the weights together."""
        labels = self._labels_of(images, index_array)
        if labels is None:
            return images
        if self.sample_weight is None:
            return images, labels
        return images, labels, self.sample_weight[index_array]

    def _labels_of(self, images: NDArray[Any], index_array: Index) -> Any:
        mode = self.class_mode
        if mode == "input":
            return images.copy()
        if mode in ("binary", "sparse"):
            return np.array([self.classes[number] for number in index_array], self.dtype)
        if mode == "categorical":
            labels = np.zeros((len(images), len(self.class_indices)), self.dtype)
            for row, number in enumerate(index_array):
                labels[row, self.classes[number]] = 1
            return labels
        if mode == "multi_output":
            return [output[index_array] for output in self.labels]
        if mode == "raw":
            return self.labels[index_array]
        return None

    def __getstate__(self) -> dict[str, Any]:
        state: Any = super().__getstate__()  # type: ignore[misc, unused-ignore]
        # Memory cannot be sent to another process; that one keeps its own.
        return {**state, "_shelf": None}
