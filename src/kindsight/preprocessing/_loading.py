"""From a file to the pixels of a picture, through Keras's own ``load_img``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.preprocessing import _keras
from kindsight.preprocessing._traps import warn_of

__all__ = ["Loading", "list_pictures", "load_pixels", "validate_filename"]

_ORIENTATION = 0x0112  # Exif 2.3, table 4


@dataclass(frozen=True)
class Loading:
    """How files become pictures of one size.

    Parameters
    ----------
    color_mode : str
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    target_size : pair of int
        Height and width.
    interpolation : str
        One of Pillow's, such as ``"nearest"``.
    keep_aspect_ratio : bool
        Whether to cut out the middle with the proportions of the target first.
    """

    color_mode: str
    target_size: tuple[int, int]
    interpolation: str
    keep_aspect_ratio: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        channels = {"rgba": 4, "rgb": 3}.get(self.color_mode, 1)
        return (*self.target_size, channels)


def load_pixels(path: str, loading: Loading) -> NDArray[Any]:
    """Read a picture, exactly as Keras does.

    Returns
    -------
    array of shape (height, width, channels)
        uint8; grey pictures of more than 8 bits stay as they are, int32 or uint16.

    Raises
    ------
    OSError
        Where Keras raises it too (a damaged file, no file), with the file's name in the message.
    """
    try:
        picture = _keras.load_img(
            path,
            color_mode=loading.color_mode,
            target_size=loading.target_size,
            interpolation=loading.interpolation,
            keep_aspect_ratio=loading.keep_aspect_ratio,
        )
        pixels = np.asarray(picture)
    except OSError as error:
        if error.filename is not None or path in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error
    if "exif" in picture.info and picture.getexif().get(_ORIENTATION, 1) != 1:
        warn_of("not-turned", examples=path)
    return pixels.reshape(loading.shape)


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Say whether a name ends as a picture's does and is that of a file.

    Parameters
    ----------
    filename : str
        A path.
    white_list_formats : tuple of str
        Endings in small letters, such as ``("png", "jpg")``.
    """
    return filename.lower().endswith(white_list_formats) and Path(filename).is_file()


def list_pictures(
    directory: str | os.PathLike[str],
    ext: str | Iterable[str] = ("jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff"),
) -> list[str]:
    """List the pictures of a folder and all folders below it, sorted.

    Parameters
    ----------
    directory : path
        The folder.
    ext : str or iterable of str
        Endings in small letters.
    """
    endings = tuple(f".{ending}" for ending in ([ext] if isinstance(ext, str) else ext))
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if name.lower().endswith(endings)
    )
