"""ImageDataGenerator: the settings, the transformation of images, and the iterators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._dataframe import DataFrameIterator
from kindsight.preprocessing._directory import DirectoryIterator
from kindsight.preprocessing._numpy_array import NumpyArrayIterator
from kindsight.preprocessing._random_parameters import draw_one
from kindsight.preprocessing._transforms import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    fit_statistics,
    flip_axis,
    is_deterministic,
    standardize,
)
from kindsight.preprocessing._warnings import (
    brightness_pair,
    check_generator,
    warn_trap,
    warn_user,
    zoom_pair,
)

Size = tuple[int, int]

_DEPRECATED = {
    "has_ext": (
        "has_ext is deprecated, filenames in the dataframe have to match the exact filenames in "
        "disk. Omit the argument and add the extensions to the column."
    ),
    "sort": (
        "sort is deprecated, batches will be created in the same order than the filenames provided "
        "if `shuffle` is set to `False`. Omit the argument and sort the table."
    ),
    "drop_duplicates": (
        "drop_duplicates is deprecated, you can drop duplicates by using the "
        "pandas.DataFrame.drop_duplicates method. Omit the argument."
    ),
    "other": '`class_mode="other"` is deprecated, please use `class_mode="raw"`.',
}


class _Flows:
    """The methods of a generator that return an iterator."""

    data_format: str
    dtype: str

    def flow(
        self, x: Any, y: Any = None, batch_size: int = 32, shuffle: bool = True,
        sample_weight: Any = None, seed: int | None = None, save_to_dir: str | None = None,
        save_prefix: str = "", save_format: str = "png", ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:  # fmt: skip
        """Return an iterator over arrays; see :class:`NumpyArrayIterator` for the arguments."""
        return NumpyArrayIterator(
            x, y, self, batch_size=batch_size, shuffle=shuffle, sample_weight=sample_weight,
            seed=seed, data_format=self.data_format, save_to_dir=save_to_dir,
            save_prefix=save_prefix, save_format=save_format, ignore_class_split=ignore_class_split,
            subset=subset, dtype=self.dtype,
        )  # fmt: skip

    def flow_from_directory(
        self, directory: Any, target_size: Size = (256, 256), color_mode: str = "rgb",
        classes: Sequence[str] | None = None, class_mode: str | None = "categorical",
        batch_size: int = 32, shuffle: bool = True, seed: int | None = None,
        save_to_dir: str | None = None, save_prefix: str = "", save_format: str = "png",
        follow_links: bool = False, subset: str | None = None, interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:  # fmt: skip
        """Return an iterator over class folders; see :class:`DirectoryIterator`."""
        return DirectoryIterator(
            directory, self, target_size=target_size, color_mode=color_mode,
            keep_aspect_ratio=keep_aspect_ratio, classes=classes, class_mode=class_mode,
            data_format=self.data_format, batch_size=batch_size, shuffle=shuffle, seed=seed,
            save_to_dir=save_to_dir, save_prefix=save_prefix, save_format=save_format,
            follow_links=follow_links, subset=subset, interpolation=interpolation, dtype=self.dtype,
        )  # fmt: skip

    def flow_from_dataframe(
        self, dataframe: Any, directory: str | None = None, x_col: str = "filename",
        y_col: Any = "class", weight_col: str | None = None, target_size: Size = (256, 256),
        color_mode: str = "rgb", classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical", batch_size: int = 32, shuffle: bool = True,
        seed: int | None = None, save_to_dir: str | None = None, save_prefix: str = "",
        save_format: str = "png", subset: str | None = None, interpolation: str = "nearest",
        validate_filenames: bool = True, **kwargs: Any,
    ) -> DataFrameIterator:  # fmt: skip
        """Return an iterator over the rows of a table; see :class:`DataFrameIterator`.

        The deprecated arguments `has_ext`, `sort` and `drop_duplicates` are ignored with a
        DeprecationWarning, other unknown arguments with a :class:`KerasTrapWarning`, as in Keras.
        """
        for name in ("has_ext", "sort", "drop_duplicates"):
            if name in kwargs:
                warn_user(_DEPRECATED[name], DeprecationWarning)
        if class_mode == "other":
            warn_user(_DEPRECATED["other"], DeprecationWarning)
            class_mode = "raw"
        if unknown := [name for name in kwargs if name not in _DEPRECATED]:
            warn_trap("ignored-arguments", names=", ".join(unknown))
        return DataFrameIterator(
            dataframe, directory, self, x_col=x_col, y_col=y_col, weight_col=weight_col,
            target_size=target_size, color_mode=color_mode, classes=classes, class_mode=class_mode,
            data_format=self.data_format, batch_size=batch_size, shuffle=shuffle, seed=seed,
            save_to_dir=save_to_dir, save_prefix=save_prefix, save_format=save_format,
            subset=subset, interpolation=interpolation, validate_filenames=validate_filenames,
            dtype=self.dtype,
        )  # fmt: skip


Pixels = NDArray[Any]


class ImageDataGenerator(_Flows):
    """Transforms images at random and standardises them, batch by batch, as Keras's class does.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization : bool, default=False
        Subtract the mean of the dataset from each channel; divide by its standard deviation. Both
        need :meth:`fit`.
    samplewise_center, samplewise_std_normalization : bool, default=False
        The same with the mean and standard deviation of each image, over all channels.
    zca_whitening : bool, default=False
        Decorrelate the pixels. Needs :meth:`fit`, and memory for a (pixels, pixels) matrix.
    zca_epsilon : float, default=1e-6
        Added to the singular values.
    rotation_range : float, default=0
        Maximum rotation in degrees, in either direction.
    width_shift_range, height_shift_range : float, int or list, default=0
        A float below 1 is a fraction of the side, another float a number of pixels, an int whole
        pixels below it; from a list, a value is drawn. Keras swaps width and height.
    brightness_range : pair of float, optional
        Lowest and highest factor.
    shear_range : float, default=0
        Maximum shear angle in degrees.
    zoom_range : float or pair, default=0
        Factors from 1 - z to 1 + z, or between the two; independent for height and width.
    channel_shift_range : float, default=0
        Maximum value added to all pixels, in their units before `rescale`.
    fill_mode : str, default="nearest"
        Pixels beyond the borders: ``"nearest"``, ``"reflect"``, ``"wrap"`` or ``"constant"``.
    cval : float, default=0
        Fill value of ``"constant"``.
    horizontal_flip, vertical_flip : bool, default=False
        Flip half of the images.
    rescale : float, optional
        Factor applied after the random transformations.
    preprocessing_function : callable, optional
        Maps an image (an array of three axes) to one of the same shape, before `rescale`.
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; default is Keras's setting.
    validation_split : float, default=0
        Fraction of the images in ``subset="validation"``.
    interpolation_order : int, default=1
        0 nearest, 1 linear, 2 to 5 splines, which need SciPy.
    dtype : str, optional
        Dtype of the batches; default is Keras's float type.

    Raises
    ------
    SettingsError
        (a ValueError) for an invalid value.
    """

    def __init__(
        self, featurewise_center: bool = False, samplewise_center: bool = False,
        featurewise_std_normalization: bool = False, samplewise_std_normalization: bool = False,
        zca_whitening: bool = False, zca_epsilon: float = 1e-6, rotation_range: float = 0,
        width_shift_range: Any = 0.0, height_shift_range: Any = 0.0,
        brightness_range: Sequence[float] | None = None, shear_range: float = 0.0,
        zoom_range: Any = 0.0, channel_shift_range: float = 0.0, fill_mode: str = "nearest",
        cval: float = 0.0, horizontal_flip: bool = False, vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Pixels], Pixels] | None = None,
        data_format: str | None = None, validation_split: float = 0.0, interpolation_order: int = 1,
        dtype: str | None = None,
    ) -> None:  # fmt: skip
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = brightness_pair(brightness_range)
        self.shear_range = shear_range
        self.zoom_range = zoom_pair(zoom_range)
        self.channel_shift_range = channel_shift_range
        self.fill_mode = fill_mode
        self.cval = cval
        self.horizontal_flip = horizontal_flip
        self.vertical_flip = vertical_flip
        self.rescale = rescale
        self.preprocessing_function = preprocessing_function
        self.interpolation_order = interpolation_order
        self.dtype = dtype or _keras.floatx()
        self.data_format = data_format or _keras.image_data_format()
        self._set_axes()
        if validation_split and not 0 < validation_split < 1:
            raise SettingsError(
                "`validation_split` must be strictly between 0 and 1, such as 0.2, or 0 for no "
                f"split. Received: {validation_split!r}"
            )
        self._validation_split = validation_split
        self.mean: Pixels | None = None
        self.std: Pixels | None = None
        self.zca_whitening_matrix: Pixels | None = None
        self._resolve_settings()
        check_generator(self)

    def _set_axes(self) -> None:
        if self.data_format not in ("channels_last", "channels_first"):
            raise SettingsError(
                '`data_format` should be `"channels_last"` (channel after row and column) or '
                '`"channels_first"` (channel before row and column). Received: '
                f"{self.data_format}. Omit it for Keras's setting."
            )
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)

    def _resolve_settings(self) -> None:
        """Turn on settings that others need, turn off those that they replace, and warn."""
        for name, changed, value in (
            ("zca_whitening", "featurewise_center", True),
            ("zca_whitening", "featurewise_std_normalization", False),
            ("featurewise_std_normalization", "featurewise_center", True),
            ("samplewise_std_normalization", "samplewise_center", True),
        ):
            if getattr(self, name) and bool(getattr(self, changed)) is not value:
                setattr(self, changed, value)
                warn_user(
                    f"This ImageDataGenerator specifies `{name}`, which overrides setting of "
                    f"`{changed}`. Pass {changed}={value} to avoid this warning."
                )

    @property
    def _draws_without_foreign_code(self) -> bool:
        """Whether no foreign code can draw random numbers between two images of a batch."""
        own = all(_is_own(self, name) for name in ("apply_transform", "standardize"))
        return own and is_deterministic(self.preprocessing_function)

    @property
    def _draws_by_default(self) -> bool:
        return _is_own(self, "get_random_transform")

    def standardize(self, x: Pixels) -> Pixels:
        """Standardise an image (a float array of three axes) or a batch of four, in place.

        Returns the same array, unless a preprocessing function or the whitening creates another
        one.
        """
        return standardize(self, x)

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """Draw the parameters of a transformation from NumPy's global state.

        `img_shape` is in the generator's data format; `seed` seeds the global state. The parameters
        are theta, tx, ty, shear, zx, zy, flip_horizontal, flip_vertical, channel_shift_intensity
        and brightness.
        """
        if seed is not None:
            np.random.seed(seed)
        return draw_one(self, img_shape)

    def apply_transform(self, x: Pixels, transform_parameters: dict[str, Any]) -> Pixels:
        """Transform an image with the parameters of :meth:`get_random_transform`.

        `x` has three axes in the generator's data format; missing parameters change nothing.
        Returns an array of the same shape; `x` itself or a NumPy view of it if that is sufficient.
        """
        row_axis, col_axis, channel_axis = (
            axis - 1 for axis in (self.row_axis, self.col_axis, self.channel_axis)
        )
        get: Callable[..., Any] = transform_parameters.get
        x = apply_affine_transform(
            x, get("theta", 0), get("tx", 0), get("ty", 0), get("shear", 0), get("zx", 1),
            get("zy", 1), row_axis=row_axis, col_axis=col_axis, channel_axis=channel_axis,
            fill_mode=self.fill_mode, cval=self.cval, order=self.interpolation_order,
        )  # fmt: skip
        if get("channel_shift_intensity") is not None:
            x = apply_channel_shift(x, get("channel_shift_intensity"), channel_axis)
        if get("flip_horizontal"):
            x = flip_axis(x, col_axis)
        if get("flip_vertical"):
            x = flip_axis(x, row_axis)
        if get("brightness") is not None:
            x = apply_brightness_shift(x, get("brightness"), False)
        return x

    def random_transform(self, x: Pixels, seed: int | None = None) -> Pixels:
        """Apply a random transformation to an image."""
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Compute the statistics for featurewise standardisation and ZCA whitening.

        Parameters
        ----------
        x : array of four axes
            Images in the generator's data format; not modified. `rescale` is applied first.
        augment : bool, default=False
            Whether to use `rounds` randomly transformed copies of each image.
        seed : int, optional
            Seed for NumPy's global state.

        Raises
        ------
        SettingsError
            (a ValueError) for another rank.
        """
        fit_statistics(self, x, augment, rounds, seed)


def _is_own(generator: ImageDataGenerator, name: str) -> bool:
    """Return whether a method is neither overridden nor replaced on the instance."""
    inherited = getattr(type(generator), name) is getattr(ImageDataGenerator, name)
    return inherited and name not in vars(generator)
