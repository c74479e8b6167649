"""The iterator over arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import Batch, Making, begin_batch
from kindsight.preprocessing._draws import GLOBAL, Source, drawing
from kindsight.preprocessing._iterators import Index, Iterator, is_overridden
from kindsight.preprocessing._loading import Saving
from kindsight.preprocessing._messages import (
    check_pixels,
    check_shape,
    check_subset,
    is_ours,
    warn_of,
)

__all__ = ["NumpyArrayIterator"]


class NumpyArrayIterator(Iterator):
    """Batches of images that are in memory already.

    Parameters
    ----------
    x : array of four axes, or a pair of it and further inputs
        Images in the given data format. Further inputs, an array or a list of them, are passed
        through.
    y : array, optional
        Labels, one for each image.
    image_data_generator : ImageDataGenerator
        What transforms and standardises them.
    batch_size : int, default=32
    shuffle : bool, default=False
    sample_weight : array, optional
        One weight for each image.
    seed : int, optional
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; Keras's setting if omitted.
    save_to_dir : path, optional
        A folder into which each image is written as well, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    subset : str, optional
        ``"training"`` or ``"validation"``: the last or the first part, by the generator's
        `validation_split`, in the order given.
    ignore_class_split : bool, default=False
        Whether the parts may have different classes.
    dtype : str, optional
        Keras's float type if omitted.

    Raises
    ------
    SettingsError
        For arrays that do not fit together; it is a ValueError.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        image_data_generator: Any,
        batch_size: int = 32,
        shuffle: bool = False,
        sample_weight: Any = None,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        ignore_class_split: bool = False,
        dtype: str | None = None,
    ) -> None:
        self.dtype = dtype or _keras.floatx()
        self.data_format = data_format or _keras.image_data_format()
        x, further = _parted(x)
        for name, other in (("y", y), ("sample_weight", sample_weight)):
            if other is not None and len(x) != len(other):
                raise SettingsError(
                    f"{name} must have one entry for each image of x. "
                    f"Received: {len(x)} images and {len(other)} entries."
                )
        if subset is not None:
            part = _part(x, y, image_data_generator, subset, ignore_class_split)
            x, further = x[part], [array[part] for array in further]
            y = None if y is None else y[part]
            # The weights stay whole, as in Keras; a trap says what that means.
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
                "x must have four axes: images, rows, columns, channels (the channels before the "
                f"rows with channels_first). Received: shape {self.x.shape}."
            )
        axis = 3 if self.data_format == "channels_last" else 1
        if self.x.shape[axis] not in (1, 3, 4):
            warnings.warn(
                f"Images have 1, 3 or 4 channels, with {self.data_format} on axis {axis}. "
                f"Received: shape {self.x.shape}, which is {self.x.shape[axis]} channels.",
                stacklevel=4,
            )

    def _check_traps(self, subset: str | None) -> None:
        if not is_ours(self.image_data_generator):
            return
        check_subset(self.image_data_generator, subset)
        if subset == "training" and self.sample_weight is not None:
            warn_of("weights-not-split")
        if self.x.size:
            check_pixels(self.image_data_generator, float(self.x.min()), float(self.x.max()))
            height, width, _ = self._shape
            check_shape(self.image_data_generator, height, width)

    @property
    def _shape(self) -> tuple[int, int, int]:
        first, second, third = self.x.shape[1:]
        last = self.data_format == "channels_last"
        return (first, second, third) if last else (second, third, first)

    def _begin(self, index_array: Index, source: Source = GLOBAL) -> Making:
        if is_overridden(self, NumpyArrayIterator):
            return super()._begin(index_array, source)
        return self._make(index_array, source)

    def _make(self, index_array: Index, source: Source = GLOBAL) -> Making:
        """Draw for a batch in the way of this class, whatever a subclass does."""
        first = self.data_format == "channels_first"

        def fetch(place: int) -> NDArray[Any]:
            image: NDArray[Any] = self.x[index_array[place]]
            return image.transpose(1, 2, 0) if first else image

        result, work = begin_batch(
            Batch(
                self.image_data_generator,
                len(index_array),
                fetch,
                self._shape,
                first,
                self.dtype,
                self.dtype,
            ),
            source,
        )
        saving = Saving(self.save_to_dir, self.save_prefix, self.save_format, 10_000)
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
        """Put the images, the further inputs, the labels and the weights together."""
        further = [array[index_array] for array in self.x_misc]
        inputs = [images, *further] if further else images
        if self.y is None:
            return inputs
        labels = self.y[index_array]
        if self.sample_weight is None:
            return inputs, labels
        return inputs, labels, self.sample_weight[index_array]


def _parted(x: Any) -> tuple[Any, list[NDArray[Any]]]:
    """Part the images from further inputs."""
    if not isinstance(x, tuple | list):
        return x, []
    further = [np.asarray(array) for array in (x[1] if isinstance(x[1], list) else [x[1]])]
    for array in further:
        if len(array) != len(x[0]):
            raise SettingsError(
                "Further inputs must have one entry for each image. "
                f"Received: {len(x[0])} images and {len(array)} entries."
            )
    return x[0], further


def _part(x: Any, y: Any, generator: Any, subset: str, ignore_class_split: bool) -> slice:
    """Return which images belong to a subset."""
    if subset not in ("training", "validation"):
        raise SettingsError(f"subset must be 'training' or 'validation'. Received: {subset!r}.")
    split = int(len(x) * generator._validation_split)
    validation, training = slice(None, split), slice(split, None)
    if y is not None and not ignore_class_split:
        first, last = np.unique(y[validation]), np.unique(y[training])
        if not np.array_equal(first, last):
            raise SettingsError(
                "Both parts must have the same classes. Received: "
                f"{len(first)} classes in the first {split} images, which are the validation "
                f"part, and {len(last)} in the others. Shuffle the arrays first, or pass "
                "ignore_class_split=True."
            )
    return validation if subset == "validation" else training
