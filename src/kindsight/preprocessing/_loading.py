"""From a file to the pixels of an image, through Keras's own ``load_img``."""

from __future__ import annotations

import functools
import io
import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin

from kindsight.images.formats.jpeg import decode_jpeg, plain_header
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import for_each
from kindsight.preprocessing._messages import warn_of

__all__ = [
    "ORIENTATION",
    "Loading",
    "Plain",
    "Saving",
    "list_images",
    "load_jpeg",
    "load_pixels",
    "validate_filename",
]

# SECTION: How files become images of one size.


@dataclass(frozen=True)
class Loading:
    """How files become images of one size.

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


# SECTION: Ordinary JPEGs by a quicker way than Keras's, with the same pixels to the bit.

ORIENTATION = 0x0112
"""The tag of EXIF data that says how an image is turned (Exif 2.3, table 4)."""

_own = threading.local()
# Bytes: a photograph of 4 million pixels. Pages are taken when first written.
_ROOM = 12_000_000
_START = b"\xff\xd8\xff"


class Plain(NamedTuple):
    """What is known of a JPEG before its pixels are.

    Attributes
    ----------
    height, width : int
        As stored.
    orientation : int
        EXIF's, 1 to 8; 1 is upright.
    """

    height: int
    width: int
    orientation: int


def load_jpeg(path: str, loading: Loading) -> tuple[Plain, NDArray[np.uint8]] | None:
    """Decode a JPEG in colour straight into an array, and pick its nearest pixels.

    Returns
    -------
    (facts, pixels) or None
        What the file says, and uint8 (height, width, 3); None for whatever is not an undamaged
        JPEG of red, green and blue that is resized so: Keras itself is asked then.
    """
    if (loading.color_mode, loading.interpolation) != ("rgb", "nearest"):
        return None
    if loading.keep_aspect_ratio:
        return None
    try:
        # Without a buffer the file is read in one piece, to its end.
        with open(path, "rb", buffering=0) as file:  # a Path takes as long to make
            data = file.read()
        found = _plain(data) if data.startswith(_START) else None
    except (OSError, SyntaxError, ValueError):
        return None
    if found is None or _is_large(found):
        return None
    size = (found.height, found.width)
    full = decode_jpeg(data, "RGB", size, size, _room())
    if full is None:
        return None
    rows = _nearest(found.height, loading.target_size[0])
    columns = _nearest(found.width, loading.target_size[1])
    # One index for both sides would take four times as long.
    return found, full.take(rows, 0).take(columns, 1)


def _plain(data: bytes) -> Plain | None:
    """Read what a JPEG says, by Pillow where its header is out of the ordinary; None if not RGB."""
    header = plain_header(data)
    if header is not None:
        if header.mode != "RGB":
            return None
        return Plain(header.height, header.width, header.orientation)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if image.mode != "RGB":
        return None
    turned = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    return Plain(image.height, image.width, turned)


def _room() -> NDArray[np.uint8]:
    """Return memory of this thread's own to decode to: only a few of the pixels are taken."""
    if not hasattr(_own, "room"):
        _own.room = np.empty(_ROOM, np.uint8)
    room: NDArray[np.uint8] = _own.room
    return room


def _is_large(found: Plain) -> bool:
    """Whether Pillow would warn of so many pixels, or refuse them."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and found.width * found.height > limit


@functools.lru_cache(maxsize=256)
def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return which of `old` pixels Pillow takes for each of `new`.

    It adds the step up, so the rounding of each sum is part of the answer.
    """
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.int64), old - 1)


def load_pixels(path: str, loading: Loading) -> NDArray[Any]:
    """Read an image, exactly as Keras does.

    Returns
    -------
    array of shape (height, width, channels)
        uint8; grey images of more than 8 bits stay as they are, int32 or uint16.

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
            image = _keras.load_img(
                path,
                color_mode=loading.color_mode,
                target_size=loading.target_size,
                interpolation=loading.interpolation,
                keep_aspect_ratio=loading.keep_aspect_ratio,
            )
            pixels = np.asarray(image)
        except OSError as error:
            if error.filename is not None or path in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
        turned = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    if turned != 1:
        warn_of("not-turned", examples=path)
    return pixels.reshape(loading.shape)


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Say whether a name ends as an image's does and is that of a file.

    Parameters
    ----------
    filename : str
        A path.
    white_list_formats : tuple of str
        Endings in small letters, such as ``("png", "jpg")``.
    """
    return filename.lower().endswith(white_list_formats) and Path(filename).is_file()


def list_images(
    directory: str | os.PathLike[str],
    ext: str | Iterable[str] = ("jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff"),
) -> list[str]:
    """List the images of a folder and all folders below it, sorted.

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


# SECTION: ``save_to_dir``: each image of a batch as a file too, to look at.


@dataclass(frozen=True)
class Saving:
    """Where images are written, and what they are called.

    Parameters
    ----------
    folder : path or None
        None to write nothing, and draw nothing.
    prefix, ending : str
        Names are ``prefix_number_chance.ending``.
    numbers : int
        The number that chance makes of a name is below this.
    """

    folder: Any
    prefix: str
    ending: str
    numbers: int

    def draw_names(self, index_array: NDArray[np.int64]) -> list[str]:
        """Name the images of a batch, drawing from NumPy's global state."""
        if not self.folder:
            return []
        return [
            f"{self.prefix}_{number}_{np.random.randint(self.numbers)}.{self.ending}"
            for number in index_array.tolist()
        ]

    def write(self, images: NDArray[Any], names: list[str], data_format: str) -> None:
        """Write the images, each stretched to 0 to 255, under the names that were drawn."""

        def work(place: int) -> None:
            image = _keras.array_to_img(images[place], data_format, scale=True)
            image.save(Path(self.folder) / names[place])

        for_each(len(names), work)
