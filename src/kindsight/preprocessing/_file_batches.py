"""Batches of images from files, and the cache of decoded images.

Decoded images are cached as uint8, first in memory, then in a temporary file; beyond that they are
decoded again. The memory is shared with forked processes. A file that changes is read again.
"""

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
from kindsight.preprocessing._batches import Batch, PendingBatch, can_draw_ahead, start_batch
from kindsight.preprocessing._iterators import Index, is_overridden
from kindsight.preprocessing._loading import LoadSettings, load_pixels, save_and_assemble
from kindsight.preprocessing._random_parameters import GLOBAL, Source, draw_lock
from kindsight.preprocessing._warnings import (
    augments,
    check_pixels,
    check_shape,
    check_subset,
    is_ours,
    warn_trap,
)

MEMORY_VARIABLE = "KINDSIGHT_IMAGE_MEMORY"
DISK_VARIABLE = "KINDSIGHT_IMAGE_DISK"
# By default, a quarter of the memory and half of the free disk space.
_MEMORY_DIVISOR = 4
_DISK_DIVISOR = 2
_UNKNOWN_MEMORY = 4_000_000_000  # bytes; for systems that do not report their memory
_WORD = 2**63 - 1
_CGROUP = Path("/sys/fs/cgroup/memory.max")

Pixels = NDArray[Any]
Read = Callable[[str], Pixels]


class Limits:
    """Limits in bytes of all caches of decoded images together.

    The defaults are a quarter of the machine's memory and half of the free disk space for temporary
    files. ``KINDSIGHT_IMAGE_MEMORY`` and ``KINDSIGHT_IMAGE_DISK`` (such as ``2GB`` or ``0``) and
    :func:`set_memory_limit` change them.
    """

    def __init__(self) -> None:
        self.memory = _setting(MEMORY_VARIABLE, _machine_memory() // _MEMORY_DIVISOR)
        free = shutil.disk_usage(tempfile.gettempdir()).free
        self.disk = _setting(DISK_VARIABLE, free // _DISK_DIVISOR)


def _setting(variable: str, default: int) -> int:
    text = os.environ.get(variable)
    return parse_size(text) if text else default


def _machine_memory() -> int:
    try:
        found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        found = _UNKNOWN_MEMORY
    with contextlib.suppress(OSError, ValueError):  # no control group, or "max"
        found = min(found, int(_CGROUP.read_text(encoding="ascii")))
    return found


_limits: Limits | None = None
_caches: weakref.WeakSet[DecodedImages] = weakref.WeakSet()


def limits() -> Limits:
    """Return the limits; they are read from the environment at the first call."""
    global _limits  # noqa: PLW0603
    if _limits is None:
        _limits = Limits()
    return _limits


def set_memory_limit(memory: int | str, disk: int | str | None = None) -> None:
    """Limit the memory and disk space of decoded images for iterators created from now on.

    Parameters
    ----------
    memory : int or str
        Bytes, or a size such as ``"2GB"``; 0 caches nothing in memory.
    disk : int or str, optional
        The same for the temporary files that are used beyond it; unchanged if omitted.

    Raises
    ------
    SettingsError
        If a text is not a size.
    """
    found = limits()
    found.memory = parse_size(str(memory))
    if disk is not None:
        found.disk = parse_size(str(disk))


def _available(where: str) -> int:
    """Return the bytes that are not reserved by a cache."""
    taken = {"memory": 0, "disk": 0}
    for cache in list(_caches):
        taken["memory"] += cache.in_memory * cache._size
        taken["disk"] += cache.on_disk * cache._size
    return int(getattr(limits(), where)) - taken[where]


class DecodedImages:
    """Cache of the decoded images of a list of files, with a slot of fixed size for each."""

    def __init__(self, paths: Sequence[str], loading: LoadSettings) -> None:
        self.loading = loading
        self.slots = {path: slot for slot, path in enumerate(dict.fromkeys(paths))}
        self._size = max(1, int(np.prod(loading.shape)))
        self.in_memory: int
        self.on_disk: int
        count = len(self.slots)
        if count * self._size > _available("memory"):
            gc.collect()  # frees the caches of unused iterators, which have reference cycles
        self.in_memory = max(0, min(count, _available("memory") // self._size))
        self._pixels = _shared(self.in_memory * self._size, np.uint8)
        self.in_memory = len(self._pixels) // self._size
        self.on_disk = max(0, min(count - self.in_memory, _available("disk") // self._size))
        _caches.add(self)
        # Size, modification time and inode of the file in each slot; 0 for an empty slot.
        stamps = _shared(count * 24, np.int64)
        self._stamps = (stamps if len(stamps) else np.zeros(3 * count, np.int64)).reshape(count, 3)
        self._file = _temporary_file() if self.on_disk else None
        self._file_lock = threading.Lock()

    def take(self, path: str, read: Read) -> Pixels:
        """Return the pixels of a file from the cache, or read and cache them.

        The array may belong to the cache: it must not be modified.
        """
        slot = self.slots.get(path)
        if slot is None or slot >= self.in_memory + self.on_disk:
            return read(path)
        found = os.stat(path)
        stamp = (found.st_size + 1, found.st_mtime_ns, found.st_ino & _WORD)
        if tuple(self._stamps[slot].tolist()) == stamp:
            cached = self._load(slot)
            if cached is not None:
                return cached
        pixels = read(path)
        if pixels.dtype == np.uint8 and self._store(slot, pixels):
            self._stamps[slot] = stamp
        return pixels

    def _load(self, slot: int) -> Pixels | None:
        if slot < self.in_memory:
            start = slot * self._size
            return self._pixels[start : start + self._size].reshape(self.loading.shape)
        pixels = np.empty(self.loading.shape, np.uint8)
        return pixels if self._on_file(slot, pixels, write=False) else None

    def _store(self, slot: int, pixels: Pixels) -> bool:
        self._stamps[slot] = 0
        if slot < self.in_memory:
            start = slot * self._size
            self._pixels[start : start + self._size] = pixels.ravel()
            return True
        return self._on_file(slot, np.ascontiguousarray(pixels, np.uint8), write=True)

    def _on_file(self, slot: int, pixels: Pixels, write: bool) -> bool:
        """Write to or read from the temporary file; return whether that succeeded."""
        file: IO[bytes] | None = self._file
        if file is None:
            return False
        offset = (slot - self.in_memory) * self._size
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
        except OSError:  # such as a full disk; the image is decoded again
            return False


def _temporary_file() -> IO[bytes]:
    """Open a file without a name, which is deleted when it is closed."""
    return tempfile.TemporaryFile(prefix="kindsight-")


def _shared(size: int, dtype: type[np.generic]) -> Pixels:
    """Return zeros in memory shared with forked processes, allocated when first written."""
    try:
        return np.frombuffer(mmap.mmap(-1, size), dtype) if size else np.zeros(0, dtype)
    except OSError:  # not enough memory
        return np.zeros(0, dtype)


def decoded_images_for(paths: Sequence[str], loading: LoadSettings) -> DecodedImages:
    """Return a cache in use that contains all these files, or a new one.

    A notebook cell that creates its iterator again does not decode the images again.
    """
    for cache in list(_caches):
        if cache.loading == loading and all(path in cache.slots for path in paths):
            return cache
    return DecodedImages(paths, loading)


class BatchFromFilesMixin:
    """Creates batches from files, for an iterator with lists of paths and labels.

    Attributes
    ----------
    filepaths : list of str
        Paths of the images. A subclass defines these three.
    labels : array or list of arrays
    sample_weight : array or None
    image_shape : tuple of int
        Shape of an image in the given data format.
    """

    image_data_generator: Any
    class_mode: Any
    classes: Any
    class_indices: dict[str, int]
    dtype: str
    _cache: DecodedImages | None = None

    def set_processing_attrs(
        self, image_data_generator: Any, target_size: tuple[int, int], color_mode: str,
        data_format: str, save_to_dir: str | None, save_prefix: str, save_format: str,
        subset: str | None, interpolation: str, keep_aspect_ratio: bool,
    ) -> None:  # fmt: skip
        """Set how files are read and processed; see :class:`DirectoryIterator` for the parameters.

        Raises :class:`SettingsError` for an invalid color_mode or subset.
        """
        if color_mode not in ("rgb", "rgba", "grayscale"):
            raise SettingsError(
                f"Invalid color mode: {color_mode}; expected 'rgb', 'rgba' or 'grayscale'."
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
        """Paths of the images."""
        raise NotImplementedError(_missing_property(self, "filepaths"))

    @property
    def labels(self) -> Any:
        """Labels of the images."""
        raise NotImplementedError(_missing_property(self, "labels"))

    @property
    def sample_weight(self) -> NDArray[Any] | None:
        """Sample weights of the images."""
        raise NotImplementedError(_missing_property(self, "sample_weight"))

    @property
    def _loading(self) -> LoadSettings:
        height, width = self.target_size
        return LoadSettings(
            self.color_mode, (height, width), self.interpolation, bool(self.keep_aspect_ratio)
        )

    def _split_of(self, subset: str | None) -> tuple[float, float] | None:
        if subset is None:
            return None
        fraction = self.image_data_generator._validation_split
        splits = {"validation": (0, fraction), "training": (fraction, 1)}
        if subset not in splits:
            raise SettingsError(
                f"Invalid subset name: {subset}; expected 'training' or 'validation'."
            )
        return splits[subset]

    def _check_settings(self) -> None:
        generator = self.image_data_generator
        if is_ours(generator):
            check_subset(generator, self.subset)
            check_pixels(generator, 0, 255)
            check_shape(generator, *self._loading.target_size)

    def _open_cache(self, shuffle: bool) -> None:
        """Create the cache before processes are forked, so that they share it."""
        self._cache = decoded_images_for(self.filepaths, self._loading)
        generator = self.image_data_generator
        if self.class_mode is None and shuffle and not (is_ours(generator) and augments(generator)):
            warn_trap("shuffled-names")

    def _can_prefetch(self) -> bool:
        own = type(self).__module__.startswith("kindsight.preprocessing.")
        return own and not self.save_to_dir and can_draw_ahead(self.image_data_generator)

    def _start(self, index_array: Index, source: Source = GLOBAL) -> PendingBatch:
        if is_overridden(self, BatchFromFilesMixin):
            return super()._start(index_array, source)  # type: ignore[misc,no-any-return]
        return self._start_here(index_array, source)

    def _start_here(self, index_array: Index, source: Source = GLOBAL) -> PendingBatch:
        """Draw a batch with the methods of this class, even if a subclass overrides them."""
        # A subclass may create its list at each access.
        filepaths, loading = self.filepaths, self._loading
        paths = [filepaths[number] for number in index_array.tolist()]
        if self._cache is None or self._cache.loading != loading:
            self._cache = decoded_images_for(filepaths, loading)
        cache = self._cache

        def fetch(index: int) -> NDArray[Any]:
            return cache.take(paths[index], lambda path: load_pixels(path, loading))

        batch = Batch(
            self.image_data_generator, len(paths), fetch, loading.shape,
            self.data_format == "channels_first", _keras.floatx(), self.dtype,
        )  # fmt: skip
        images, work = start_batch(batch, source)
        return save_and_assemble(self, images, work, index_array, 10_000_000)

    def _get_batches_of_transformed_samples(self, index_array: Index) -> Any:
        with draw_lock():
            pending = self._start_here(index_array)
        return pending()

    def _assemble(self, images: NDArray[Any], index_array: Index) -> Any:
        """Return the batch: images, labels and weights."""
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
        # The memory cannot be pickled; another process has its own cache.
        return {**state, "_cache": None}


def _missing_property(iterator: object, name: str) -> str:
    return (
        f"`{name}` property method has not been implemented in {type(iterator).__name__}. "
        "Define it in the subclass."
    )


def invalid_class_mode(class_mode: object, allowed: set[Any]) -> str:
    """Return the message for an invalid class mode."""
    names = ", ".join(sorted(map(repr, allowed)))
    return f"Invalid class_mode: {class_mode}; expected one of: {names}."
