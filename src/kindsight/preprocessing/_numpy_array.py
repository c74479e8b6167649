"""The iterator over arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Batch, PendingBatch, start_batch
from kindsight.preprocessing._iterators import Index, Iterator, is_overridden
from kindsight.preprocessing._loading import save_and_assemble
from kindsight.preprocessing._random_parameters import GLOBAL, Source, draw_lock
from kindsight.preprocessing._warnings import (
    check_pixels,
    check_shape,
    check_subset,
    is_ours,
    warn_trap,
    warn_user,
)


class NumpyArrayIterator(Iterator):
    """Iterator over images in memory.

    Parameters
    ----------
    x : array of four axes, or a pair of it and further inputs
        Images in the given data format. Further inputs, an array or a list of arrays, are returned
        with the images.
    y, sample_weight : array, optional
        One label and one weight for each image.
    image_data_generator : ImageDataGenerator
    subset : str, optional
        ``"validation"`` for the first images, ``"training"`` for the others, by the generator's
        `validation_split`, without shuffling.
    ignore_class_split : bool, default=False
        Whether the two subsets may have different classes.
    batch_size, shuffle, seed, data_format, save_to_dir, save_prefix, save_format, dtype
        As in :class:`DirectoryIterator`.

    Raises
    ------
    SettingsError
        (a ValueError) if the arrays do not match.
    """

    def __init__(
        self, x: Any, y: Any, image_data_generator: Any, batch_size: int = 32,
        shuffle: bool = False, sample_weight: Any = None, seed: int | None = None,
        data_format: str | None = None, save_to_dir: str | None = None, save_prefix: str = "",
        save_format: str = "png", subset: str | None = None, ignore_class_split: bool = False,
        dtype: str | None = None,
    ) -> None:  # fmt: skip
        self.dtype = dtype or _keras.floatx()
        self.data_format = data_format or _keras.image_data_format()
        x, further = _split_inputs(x)
        for name, title, other in (
            ("y", "`y` (labels)", y),
            ("sample_weight", "`sample_weight`", sample_weight),
        ):
            if other is not None and len(x) != len(other):
                raise SettingsError(
                    f"`x` (images tensor) and {title} should have the same length. Found: "
                    f"x.shape = {np.asarray(x).shape}, {name}.shape = {np.asarray(other).shape}. "
                    "Pass one entry for each image."
                )
        if subset is not None:
            rows = _subset(x, y, image_data_generator, subset, ignore_class_split)
            x, further = x[rows], [array[rows] for array in further]
            y = None if y is None else y[rows]
            # As in Keras, the weights are not split; there is a warning about it.
        self.x: NDArray[Any] = np.asarray(x, dtype=self.dtype)
        self.x_misc = further
        self.y = None if y is None else np.asarray(y)
        self.sample_weight = None if sample_weight is None else np.asarray(sample_weight)
        self._check_axes()
        self.image_data_generator = image_data_generator
        self.save_to_dir = save_to_dir
        self.save_prefix = save_prefix
        self.save_format = save_format
        super().__init__(len(self.x), batch_size, shuffle, seed)
        self._check_traps(subset)

    def _check_axes(self) -> None:
        if self.x.ndim != 4:
            raise SettingsError(
                "Input data in `NumpyArrayIterator` should have rank 4. You passed an array with "
                f"shape {self.x.shape}. Use (images, height, width, channels), or (images, "
                "channels, height, width) with data_format='channels_first'."
            )
        axis = 3 if self.data_format == "channels_last" else 1
        if self.x.shape[axis] not in (1, 3, 4):
            warn_user(
                "NumpyArrayIterator is set to use the data format convention "
                f'"{self.data_format}" (channels on axis {axis}), i.e. expected either 1, 3, or 4 '
                f"channels. Got shape {self.x.shape} with {self.x.shape[axis]} channels; check "
                "data_format."
            )

    def _check_traps(self, subset: str | None) -> None:
        if not is_ours(self.image_data_generator):
            return
        check_subset(self.image_data_generator, subset)
        if subset == "training" and self.sample_weight is not None:
            warn_trap("weights-not-split")
        if self.x.size:
            check_pixels(self.image_data_generator, float(self.x.min()), float(self.x.max()))
            height, width, _ = self._shape
            check_shape(self.image_data_generator, height, width)

    @property
    def _shape(self) -> tuple[int, int, int]:
        first, second, third = self.x.shape[1:]
        last = self.data_format == "channels_last"
        return (first, second, third) if last else (second, third, first)

    def _start(self, index_array: Index, source: Source = GLOBAL) -> PendingBatch:
        if is_overridden(self, NumpyArrayIterator):
            return super()._start(index_array, source)
        return self._start_here(index_array, source)

    def _start_here(self, index_array: Index, source: Source = GLOBAL) -> PendingBatch:
        """Draw a batch with the methods of this class, even if a subclass overrides them."""
        first = self.data_format == "channels_first"

        def fetch(index: int) -> NDArray[Any]:
            image: NDArray[Any] = self.x[index_array[index]]
            return image.transpose(1, 2, 0) if first else image

        batch = Batch(
            self.image_data_generator, len(index_array), fetch, self._shape, first, self.dtype,
            self.dtype,
        )  # fmt: skip
        images, work = start_batch(batch, source)
        return save_and_assemble(self, images, work, index_array, 10_000)

    def _get_batches_of_transformed_samples(self, index_array: Index) -> Any:
        with draw_lock():
            pending = self._start_here(index_array)
        return pending()

    def _assemble(self, images: NDArray[Any], index_array: Index) -> Any:
        """Return the batch: images, further inputs, labels and weights."""
        further = [array[index_array] for array in self.x_misc]
        inputs = [images, *further] if further else images
        if self.y is None:
            return inputs
        labels = self.y[index_array]
        if self.sample_weight is None:
            return inputs, labels
        return inputs, labels, self.sample_weight[index_array]


def _split_inputs(x: Any) -> tuple[Any, list[NDArray[Any]]]:
    """Separate the images from further inputs."""
    if not isinstance(x, tuple | list):
        return x, []
    further = [np.asarray(array) for array in (x[1] if isinstance(x[1], list) else [x[1]])]
    for array in further:
        if len(array) != len(x[0]):
            raise SettingsError(
                "All of the arrays in `x` should have the same length. Found a pair with: "
                f"len(x[0]) = {len(x[0])}, len(x[?]) = {len(array)}. Pass one entry for each image "
                "in every array."
            )
    return x[0], further


def _subset(x: Any, y: Any, generator: Any, subset: str, ignore_class_split: bool) -> slice:
    """Return the images of a subset."""
    if subset not in ("training", "validation"):
        raise SettingsError(f"Invalid subset name: {subset}; expected 'training' or 'validation'.")
    split = int(len(x) * generator._validation_split)
    validation, training = slice(None, split), slice(split, None)
    if y is not None and not ignore_class_split:
        first, last = np.unique(y[validation]), np.unique(y[training])
        if not np.array_equal(first, last):
            raise SettingsError(
                "Training and validation subsets have different number of classes after the split, "
                f"or different classes. The first {split} images, the validation subset, have "
                f"{len(first)} classes, the others {len(last)}. Shuffle the arrays before, or pass "
                "ignore_class_split=True."
            )
    return validation if subset == "validation" else training
