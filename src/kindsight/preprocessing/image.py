"""A drop-in for Keras's legacy ``keras.preprocessing.image``: same names, arguments and answers.

In a notebook one word of one import changes::

    from kindsight.preprocessing.image import ImageDataGenerator

For the same seed of NumPy, batches have the same images in the same order with the same labels
and transformations, and pixels that differ by less than one of 255. Images are decoded
once and kept, and everything else runs on all cores.

Importing this module imports Keras, on whichever backend ``KERAS_BACKEND`` names.
:func:`load_img`, :func:`img_to_array`, :func:`array_to_img`, :func:`save_img` and
:func:`smart_resize` are Keras's own.
"""

from __future__ import annotations

from kindsight.preprocessing._arrays import NumpyArrayIterator
from kindsight.preprocessing._dataframe import DataFrameIterator
from kindsight.preprocessing._directory import DirectoryIterator
from kindsight.preprocessing._files import BatchFromFilesMixin, set_memory_limit
from kindsight.preprocessing._functions import (
    apply_affine_transform,
    apply_brightness_shift,
    apply_channel_shift,
    flip_axis,
    random_brightness,
    random_channel_shift,
    random_rotation,
    random_shear,
    random_shift,
    random_zoom,
)
from kindsight.preprocessing._generator import ImageDataGenerator
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._keras import (
    array_to_img,
    img_to_array,
    load_img,
    save_img,
    smart_resize,
)
from kindsight.preprocessing._loading import list_images, validate_filename
from kindsight.preprocessing._messages import KerasTrapWarning
from kindsight.preprocessing._warp import transform_matrix_offset_center

__all__ = [
    "BatchFromFilesMixin",
    "DataFrameIterator",
    "DirectoryIterator",
    "ImageDataGenerator",
    "Iterator",
    "KerasTrapWarning",
    "NumpyArrayIterator",
    "apply_affine_transform",
    "apply_brightness_shift",
    "apply_channel_shift",
    "array_to_img",
    "flip_axis",
    "img_to_array",
    "list_images",
    "load_img",
    "random_brightness",
    "random_channel_shift",
    "random_rotation",
    "random_shear",
    "random_shift",
    "random_zoom",
    "save_img",
    "set_memory_limit",
    "smart_resize",
    "transform_matrix_offset_center",
    "validate_filename",
]
