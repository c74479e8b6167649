"""From a file to the pixels of a picture, through Keras's own ``load_img``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.preprocessing import _keras
from kindsight.preprocessing._jpeg import ORIENTATION, load_jpeg
from kindsight.preprocessing._spec import Loading
from kindsight.preprocessing._traps import warn_of

__all__ = ["Loading", "list_pictures", "load_pixels", "validate_filename"]


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
    quick = load_jpeg(path, loading)
    if quick is not None:
        facts, pixels = quick
        turned = facts.orientation
    else:
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
        turned = picture.getexif().get(ORIENTATION, 1) if "exif" in picture.info else 1
    if turned != 1:
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
