"""A faster drop-in for Keras's legacy ``keras.preprocessing.image``: same names, same results.

In a notebook, one import changes::

    from kindsight.preprocessing.image import ImageDataGenerator

With the same NumPy seed, batches have the same images in the same order with the same labels and
transformations; pixels differ by less than 1 of 255. Images are decoded once and cached, and all
cores are used.

Importing this module imports Keras with the backend named by ``KERAS_BACKEND``. :func:`load_img`,
:func:`img_to_array`, :func:`array_to_img`, :func:`save_img` and :func:`smart_resize` are Keras's.
"""

from __future__ import annotations

from kindsight.preprocessing._affine import transform_matrix_offset_center
from kindsight.preprocessing._dataframe import DataFrameIterator
from kindsight.preprocessing._directory import DirectoryIterator
from kindsight.preprocessing._file_batches import BatchFromFilesMixin, set_memory_limit
from kindsight.preprocessing._generator import ImageDataGenerator
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._keras import (
    array_to_img,
    img_to_array,
    load_img,
    save_img,
    smart_resize,
)
from kindsight.preprocessing._loading import list_pictures, validate_filename
from kindsight.preprocessing._numpy_array import NumpyArrayIterator
from kindsight.preprocessing._transforms import (
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
from kindsight.preprocessing._warnings import KerasTrapWarning

__all__ = [
    "BatchFromFilesMixin", "DataFrameIterator", "DirectoryIterator", "ImageDataGenerator",
    "Iterator", "KerasTrapWarning", "NumpyArrayIterator", "apply_affine_transform",
    "apply_brightness_shift", "apply_channel_shift", "array_to_img", "flip_axis", "img_to_array",
    "list_pictures", "load_img", "random_brightness", "random_channel_shift", "random_rotation",
    "random_shear", "random_shift", "random_zoom", "save_img", "set_memory_limit", "smart_resize",
    "transform_matrix_offset_center", "validate_filename",
]  # fmt: skip
