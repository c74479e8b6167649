"""ImageDataGenerator: the settings, and what is done to an image with them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras, _standards
from kindsight.preprocessing._arrays import NumpyArrayIterator
from kindsight.preprocessing._dataframe import DataFrameIterator
from kindsight.preprocessing._directory import DirectoryIterator
from kindsight.preprocessing._draws import draw_one
from kindsight.preprocessing._functions import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    flip_axis,
)
from kindsight.preprocessing._messages import check_generator, pair_or_none, warn_of, zoom_pair

__all__ = [
    "Flows",
    "ImageDataGenerator",
]

# SECTION: What makes iterators of a generator's settings.

Size = tuple[int, int]


class Flows:
    """The methods of a generator that give an iterator each."""

    data_format: str
    dtype: str

    def flow(
        self,
        x: Any,
        y: Any = None,
        batch_size: int = 32,
        shuffle: bool = True,
        sample_weight: Any = None,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        ignore_class_split: bool = False,
        subset: str | None = None,
    ) -> NumpyArrayIterator:
        """Iterate over arrays; the arguments are those of :class:`NumpyArrayIterator`."""
        return NumpyArrayIterator(
            x,
            y,
            self,
            batch_size=batch_size,
            shuffle=shuffle,
            sample_weight=sample_weight,
            seed=seed,
            data_format=self.data_format,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            ignore_class_split=ignore_class_split,
            subset=subset,
            dtype=self.dtype,
        )

    def flow_from_directory(
        self,
        directory: Any,
        target_size: Size = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
    ) -> DirectoryIterator:
        """Iterate over class folders; the arguments are those of :class:`DirectoryIterator`."""
        return DirectoryIterator(
            directory,
            self,
            target_size=target_size,
            color_mode=color_mode,
            keep_aspect_ratio=keep_aspect_ratio,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            follow_links=follow_links,
            subset=subset,
            interpolation=interpolation,
            dtype=self.dtype,
        )

    def flow_from_dataframe(
        self,
        dataframe: Any,
        directory: str | None = None,
        x_col: str = "filename",
        y_col: Any = "class",
        weight_col: str | None = None,
        target_size: Size = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        subset: str | None = None,
        interpolation: str = "nearest",
        validate_filenames: bool = True,
        **kwargs: Any,
    ) -> DataFrameIterator:
        """Iterate over the rows of a table; the arguments are those of :class:`DataFrameIterator`.

        Any other argument is ignored, as Keras does, but named in a warning.
        """
        if class_mode == "other":
            warnings.warn(
                'class_mode="other" is called class_mode="raw" now.',
                DeprecationWarning,
                stacklevel=2,
            )
            class_mode = "raw"
        if kwargs:
            warn_of("ignored-arguments", names=", ".join(kwargs))
        return DataFrameIterator(
            dataframe,
            directory,
            self,
            x_col=x_col,
            y_col=y_col,
            weight_col=weight_col,
            target_size=target_size,
            color_mode=color_mode,
            classes=classes,
            class_mode=class_mode,
            data_format=self.data_format,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            save_to_dir=save_to_dir,
            save_prefix=save_prefix,
            save_format=save_format,
            subset=subset,
            interpolation=interpolation,
            validate_filenames=validate_filenames,
            dtype=self.dtype,
        )


Pixels = NDArray[Any]


class ImageDataGenerator(Flows):
    """Draws, transforms and standardises images, batch by batch, as Keras's does.

    Parameters
    ----------
    featurewise_center, featurewise_std_normalization : bool, default=False
        Subtract the mean of the data set from each channel; divide by its standard deviation.
        They need :meth:`fit`.
    samplewise_center, samplewise_std_normalization : bool, default=False
        The same with the mean and deviation of each image, over all channels.
    zca_whitening : bool, default=False
        Decorrelate the pixels; needs :meth:`fit`, and memory for pixels x pixels numbers.
    zca_epsilon : float, default=1e-6
        Added to the singular values.
    rotation_range : float, default=0
        Rotate by up to so many degrees either way.
    width_shift_range, height_shift_range : float, int or list, default=0
        A float below 1 is a fraction of the side, another float is pixels, an int is whole pixels
        below it, a list is drawn from. Keras moves along the height for the width, and the other
        way round.
    brightness_range : pair of float, optional
        Multiply pixels by a factor between these.
    shear_range : float, default=0
        Up to so many degrees.
    zoom_range : float or pair, default=0
        Factors from 1 - z to 1 + z or between the two, for height and width apart.
    channel_shift_range : float, default=0
        Add up to this to all pixels, in their units before `rescale`.
    fill_mode : str, default="nearest"
        What lies beyond the borders: ``"nearest"``, ``"reflect"``, ``"wrap"`` or ``"constant"``.
    cval : float, default=0
        The constant.
    horizontal_flip, vertical_flip : bool, default=False
        Flip half of the images.
    rescale : float, optional
        Multiply pixels by this, after everything that is drawn.
    preprocessing_function : callable, optional
        From an image (an array of three axes) to one of the same shape, before `rescale`.
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; Keras's setting if omitted.
    validation_split : float, default=0
        The share that ``subset="validation"`` takes.
    interpolation_order : int, default=1
        0 for the nearest pixel, 1 for linear, 2 to 5 for splines, which need SciPy.
    dtype : str, optional
        Of the batches; Keras's float type if omitted.

    Raises
    ------
    SettingsError
        For a value that cannot be; it is a ValueError.
    """

    def __init__(
        self,
        featurewise_center: bool = False,
        samplewise_center: bool = False,
        featurewise_std_normalization: bool = False,
        samplewise_std_normalization: bool = False,
        zca_whitening: bool = False,
        zca_epsilon: float = 1e-6,
        rotation_range: float = 0,
        width_shift_range: Any = 0.0,
        height_shift_range: Any = 0.0,
        brightness_range: Sequence[float] | None = None,
        shear_range: float = 0.0,
        zoom_range: Any = 0.0,
        channel_shift_range: float = 0.0,
        fill_mode: str = "nearest",
        cval: float = 0.0,
        horizontal_flip: bool = False,
        vertical_flip: bool = False,
        rescale: float | None = None,
        preprocessing_function: Callable[[Pixels], Pixels] | None = None,
        data_format: str | None = None,
        validation_split: float = 0.0,
        interpolation_order: int = 1,
        dtype: str | None = None,
    ) -> None:
        self.featurewise_center = featurewise_center
        self.samplewise_center = samplewise_center
        self.featurewise_std_normalization = featurewise_std_normalization
        self.samplewise_std_normalization = samplewise_std_normalization
        self.zca_whitening = zca_whitening
        self.zca_epsilon = zca_epsilon
        self.rotation_range = rotation_range
        self.width_shift_range = width_shift_range
        self.height_shift_range = height_shift_range
        self.brightness_range = pair_or_none(brightness_range)
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
                f"validation_split must be above 0 and below 1. Received: {validation_split!r}."
            )
        self._validation_split = validation_split
        self.mean: Pixels | None = None
        self.std: Pixels | None = None
        self.zca_whitening_matrix: Pixels | None = None
        self._complete()
        check_generator(self)

    def _set_axes(self) -> None:
        if self.data_format not in ("channels_last", "channels_first"):
            raise SettingsError(
                "data_format must be 'channels_last' or 'channels_first'. "
                f"Received: {self.data_format!r}."
            )
        last = self.data_format == "channels_last"
        self.channel_axis, self.row_axis, self.col_axis = (3, 1, 2) if last else (1, 2, 3)

    def _complete(self) -> None:
        """Switch on what other settings need, and off what they replace, and say so."""
        for name, needed, value in (
            ("zca_whitening", "featurewise_center", True),
            ("zca_whitening", "featurewise_std_normalization", False),
            ("featurewise_std_normalization", "featurewise_center", True),
            ("samplewise_std_normalization", "samplewise_center", True),
        ):
            if getattr(self, name) and bool(getattr(self, needed)) is not value:
                setattr(self, needed, value)
                warnings.warn(f"{name}=True sets {needed}={value}.", stacklevel=3)

    @property
    def _draws_alone(self) -> bool:
        """Whether nobody else's code can draw numbers between two images of a batch."""
        own = all(_is_own(self, name) for name in ("apply_transform", "standardize"))
        return own and _standards.is_pure(self.preprocessing_function)

    @property
    def _draws_as_usual(self) -> bool:
        return _is_own(self, "get_random_transform")

    def standardize(self, x: Pixels) -> Pixels:
        """Standardise an image or a batch of them, in place.

        Parameters
        ----------
        x : array
            Floating; three axes, or four for a batch. It is changed: pass a copy to keep it.

        Returns
        -------
        array
            The same array, unless a preprocessing function or the whitening makes another.
        """
        return _standards.standardize(self, x)

    def get_random_transform(
        self, img_shape: Sequence[int], seed: int | None = None
    ) -> dict[str, Any]:
        """Draw the numbers of one transformation from NumPy's global state.

        Parameters
        ----------
        img_shape : tuple of int
            Three axes, in the generator's data format.
        seed : int, optional
            What the global state is seeded with first.

        Returns
        -------
        dict
            theta, tx, ty, shear, zx, zy, flip_horizontal, flip_vertical, channel_shift_intensity,
            brightness.
        """
        if seed is not None:
            np.random.seed(seed)
        return draw_one(self, img_shape)

    def apply_transform(self, x: Pixels, transform_parameters: dict[str, Any]) -> Pixels:
        """Transform an image as the parameters of :meth:`get_random_transform` say.

        Parameters
        ----------
        x : array
            Three axes, in the generator's data format.
        transform_parameters : dict
            Those that are left out change nothing.

        Returns
        -------
        array
            Of the same shape; `x` itself, or a view of it, where nothing else is needed.
        """
        row_axis, col_axis, channel_axis = (
            axis - 1 for axis in (self.row_axis, self.col_axis, self.channel_axis)
        )
        given: Callable[..., Any] = transform_parameters.get
        x = apply_affine_transform(
            x,
            given("theta", 0),
            given("tx", 0),
            given("ty", 0),
            given("shear", 0),
            given("zx", 1),
            given("zy", 1),
            row_axis=row_axis,
            col_axis=col_axis,
            channel_axis=channel_axis,
            fill_mode=self.fill_mode,
            cval=self.cval,
            order=self.interpolation_order,
        )
        if given("channel_shift_intensity") is not None:
            x = apply_channel_shift(x, given("channel_shift_intensity"), channel_axis)
        if given("flip_horizontal"):
            x = flip_axis(x, col_axis)
        if given("flip_vertical"):
            x = flip_axis(x, row_axis)
        if given("brightness") is not None:
            x = apply_brightness_shift(x, given("brightness"), False)
        return x

    def random_transform(self, x: Pixels, seed: int | None = None) -> Pixels:
        """Draw a transformation and apply it to an image; see the two methods for that."""
        return self.apply_transform(x, self.get_random_transform(x.shape, seed))

    def fit(self, x: Any, augment: bool = False, rounds: int = 1, seed: int | None = None) -> None:
        """Compute what featurewise statistics and ZCA whitening need.

        Parameters
        ----------
        x : array of four axes
            Images in the generator's data format; it is not changed. `rescale` is applied first.
        augment : bool, default=False
            Whether to take the statistics of transformed images.
        rounds : int, default=1
            How often each image is transformed then.
        seed : int, optional
            What NumPy's global state is seeded with.

        Raises
        ------
        SettingsError
            For an array of another number of axes.
        """
        _standards.fit(self, x, augment, rounds, seed)


def _is_own(generator: ImageDataGenerator, name: str) -> bool:
    """Whether a method is the one of this class, neither overridden nor replaced."""
    inherited = getattr(type(generator), name) is getattr(ImageDataGenerator, name)
    return inherited and name not in vars(generator)
