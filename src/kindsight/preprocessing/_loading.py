"""Reading images from files as Keras does, and saving them for ``save_to_dir``."""

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

from kindsight.images.jpeg import decode_jpeg, plain_header
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import PendingBatch, Work, for_each
from kindsight.preprocessing._warnings import warn_trap


@dataclass(frozen=True)
class LoadSettings:
    """How image files are decoded and resized."""

    color_mode: str
    target_size: tuple[int, int]
    interpolation: str
    keep_aspect_ratio: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        channels = {"rgba": 4, "rgb": 3}.get(self.color_mode, 1)
        return (*self.target_size, channels)


ORIENTATION = 0x0112
"""EXIF tag of the orientation (Exif 2.3, table 4)."""

_thread_local = threading.local()
# Size in bytes of each thread's decoding buffer: a photograph of 4 million pixels. The system
# allocates pages when they are first written.
_BUFFER_BYTES = 12_000_000
_JPEG_START = b"\xff\xd8\xff"


class JpegHeader(NamedTuple):
    """Facts from the header of a JPEG; `orientation` is EXIF's, 1 to 8, and 1 is upright."""

    height: int
    width: int
    orientation: int


def load_jpeg(path: str, loading: LoadSettings) -> tuple[JpegHeader, NDArray[np.uint8]] | None:
    """Decode an RGB JPEG and resize it with nearest-neighbour sampling, exactly as Keras.

    Returns None for other files, settings and damaged JPEGs, which are left to Keras.
    """
    if (loading.color_mode, loading.interpolation) != ("rgb", "nearest"):
        return None
    if loading.keep_aspect_ratio:
        return None
    try:
        # buffering=0 reads the file in one piece; creating a Path would take as long.
        with open(path, "rb", buffering=0) as file:
            data = file.read()
        header = _read_header(data) if data.startswith(_JPEG_START) else None
    except (OSError, SyntaxError, ValueError):
        return None
    if header is None or _is_large(header):
        return None
    size = (header.height, header.width)
    full = decode_jpeg(data, "RGB", size, size, _buffer())
    if full is None:
        return None
    rows = _nearest(header.height, loading.target_size[0])
    columns = _nearest(header.width, loading.target_size[1])
    # One index for both axes would take four times as long.
    return header, full.take(rows, 0).take(columns, 1)


def _read_header(data: bytes) -> JpegHeader | None:
    """Return the header of an RGB JPEG, parsed by Pillow if it is unusual; None for other modes."""
    header = plain_header(data)
    if header is not None:
        if header.mode != "RGB":
            return None
        return JpegHeader(header.height, header.width, header.orientation)
    image = JpegImagePlugin.JpegImageFile(io.BytesIO(data))
    if image.mode != "RGB":
        return None
    orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    return JpegHeader(image.height, image.width, orientation)


def _buffer() -> NDArray[np.uint8]:
    """Return this thread's decoding buffer."""
    if not hasattr(_thread_local, "buffer"):
        _thread_local.buffer = np.empty(_BUFFER_BYTES, np.uint8)
    buffer: NDArray[np.uint8] = _thread_local.buffer
    return buffer


def _is_large(header: JpegHeader) -> bool:
    """Return whether Pillow would warn of the number of pixels, or raise."""
    limit = Image.MAX_IMAGE_PIXELS
    return limit is not None and header.width * header.height > limit


@functools.lru_cache(maxsize=256)
def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return the indices of the `new` pixels that Pillow takes from `old` ones."""
    steps = np.full(new, old / new)
    steps[0] *= 0.5
    return np.minimum(np.add.accumulate(steps).astype(np.int64), old - 1)


def load_pixels(path: str, loading: LoadSettings) -> NDArray[Any]:
    """Return the pixels (height, width, channels) of an image, exactly as Keras.

    They are uint8; greyscale images of more than 8 bits are int32 or uint16. Raises OSError with
    the path if the file is missing or damaged.
    """
    decoded = load_jpeg(path, loading)
    if decoded is not None:
        header, pixels = decoded
        orientation = header.orientation
    else:
        try:
            image = _keras.load_img(
                path, color_mode=loading.color_mode, target_size=loading.target_size,
                interpolation=loading.interpolation, keep_aspect_ratio=loading.keep_aspect_ratio,
            )  # fmt: skip
            pixels = np.asarray(image)
        except OSError as error:
            if error.filename is not None or path in str(error):
                raise
            raise type(error)(f"{path}: {error}") from error
        orientation = image.getexif().get(ORIENTATION, 1) if "exif" in image.info else 1
    if orientation != 1:
        warn_trap("orientation-ignored", examples=path)
    return pixels.reshape(loading.shape)


def validate_filename(filename: str, white_list_formats: tuple[str, ...]) -> bool:
    """Return whether a path is a file with one of the given extensions, in lower case."""
    return filename.lower().endswith(white_list_formats) and Path(filename).is_file()


def list_pictures(
    directory: str | os.PathLike[str],
    ext: str | Iterable[str] = ("jpg", "jpeg", "bmp", "png", "ppm", "tif", "tiff"),
) -> list[str]:
    """Return the sorted paths of the images in a folder and its subfolders.

    `ext` is one extension in lower case, or several.
    """
    extensions = tuple(f".{extension}" for extension in ([ext] if isinstance(ext, str) else ext))
    return sorted(
        os.path.join(folder, name)
        for folder, _, names in os.walk(directory)
        for name in names
        if name.lower().endswith(extensions)
    )


def save_and_assemble(
    iterator: Any, images: NDArray[Any], work: Work, index_array: NDArray[np.int64], limit: int
) -> PendingBatch:
    """Return a batch whose images are saved for ``save_to_dir``, each stretched to 0 to 255.

    Files are named ``prefix_index_random.extension``; the random number below `limit` is drawn from
    NumPy's global state. Without a folder, nothing is saved or drawn.
    """
    folder, extension = iterator.save_to_dir, iterator.save_format
    names = [
        f"{iterator.save_prefix}_{number}_{np.random.randint(limit)}.{extension}"
        for number in (index_array.tolist() if folder else ())
    ]

    def save(index: int) -> None:
        image = _keras.array_to_img(images[index], iterator.data_format, scale=True)
        image.save(Path(folder) / names[index])

    def assemble() -> Any:
        for_each(len(names), save)
        return iterator._assemble(images, index_array)

    return PendingBatch(work, assemble)
