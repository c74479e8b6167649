"""Batches of pictures from files: what the iterators over folders and tables share."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Batch, Making, begin_batch, can_draw_ahead
from kindsight.preprocessing._checks import (
    augments,
    check_pixels,
    check_shape,
    check_subset,
    is_ours,
)
from kindsight.preprocessing._draws import GLOBAL, Source, drawing
from kindsight.preprocessing._iterators import Index, is_overridden
from kindsight.preprocessing._loading import Loading, load_pixels
from kindsight.preprocessing._memory import Shelf, shelf_for
from kindsight.preprocessing._saving import Saving
from kindsight.preprocessing._traps import warn_of

__all__ = ["BatchFromFilesMixin"]


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
        Of a picture in the given data format.
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
        """Take the settings of how files become pictures.

        Parameters
        ----------
        image_data_generator : ImageDataGenerator or None
            None to leave pictures as they are.
        target_size : pair of int
            Height and width.
        color_mode : str
            ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
        data_format : str
            ``"channels_last"`` or ``"channels_first"``.
        save_to_dir, save_prefix, save_format
            A folder into which each picture is written as well, and the names.
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
        """Take what pictures will be kept in, so that forked processes share it; warn of order."""
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

    def _answer(self, pictures: NDArray[Any], index_array: Index) -> Any:
        """Put the pictures, the labels and the weights together."""
        labels = self._labels_of(pictures, index_array)
        if labels is None:
            return pictures
        if self.sample_weight is None:
            return pictures, labels
        return pictures, labels, self.sample_weight[index_array]

    def _labels_of(self, pictures: NDArray[Any], index_array: Index) -> Any:
        mode = self.class_mode
        if mode == "input":
            return pictures.copy()
        if mode in ("binary", "sparse"):
            return np.array([self.classes[number] for number in index_array], self.dtype)
        if mode == "categorical":
            labels = np.zeros((len(pictures), len(self.class_indices)), self.dtype)
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
