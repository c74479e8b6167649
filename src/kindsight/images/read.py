"""Decode image files to arrays of pixels; no other module decodes them.

Decoders are lenient where a dataset needs strictness: most fill the rest of a truncated file with
grey, silently or with a line on the terminal. They also spend memory or time on what a hostile
header states. So the structure of a file is checked first: its headers and chunk lengths alone,
which takes microseconds.
"""

from __future__ import annotations

import errno
import os
import stat
import zlib
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.errors import DatasetError, ImageError, SettingsError, StorageError, UsageError
from kindsight.images.convert import (
    LowBytes,
    ValueRange,
    ValueScale,
    apply_orientation,
    as_value_range,
    to_rgb,
)
from kindsight.images.formats import check_size, corrupt, detect_format, truncated
from kindsight.images.jpeg import JpegHeader, check_jpeg, decode_jpeg, reduced_size
from kindsight.images.metadata import ImageMetadata, MetadataCollector
from kindsight.images.netpbm import read_netpbm, read_netpbm_header
from kindsight.images.pillow_decoder import (
    exif_orientation,
    load,
    open_image,
    open_low_bytes,
    raw_mode,
    reduce_jpeg,
    translated_errors,
)
from kindsight.images.tiff import check_tiff
from kindsight.storage.address import MEMBER, is_address, split_member

__all__ = [
    "MAX_BYTES", "MAX_PIXELS", "ImageSource", "read_bytes", "read_image", "read_with_metadata",
    "stored_size",
]  # fmt: skip

MAX_PIXELS = 178_956_970
"""Limit of pixels (height times width) of an image: Pillow's limit for decompression bombs."""

MAX_BYTES = 512 * 2**20
"""Limit of bytes of a file: 512 MiB."""

# Formats whose EXIF orientation has to be applied; Pillow applies it to TIFF by itself, and the
# packages that read HEIC to that.
_EXIF_FORMATS = ("JPEG", "PNG", "WebP", "AVIF")

ImageSource: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Image.Image"
"""What :func:`read_image` takes."""

RGB = tuple[int, int, int]
Pixels = NDArray[np.uint8]

MAX_CHUNKS = 200_000
"""Limit of chunks in a PNG; 512 MiB in the usual chunks of 8 KiB are 65,536."""

_PIXEL_CHUNKS = frozenset((b"IHDR", b"PLTE", b"IDAT", b"tRNS"))
_TEXT_CHUNKS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_TEXTS_WITH_ORIENTATION = (b"XML:com.adobe.xmp\0", b"Raw profile type exif\0")


def read_bytes(path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> bytes:
    """Return the content of a regular file, never empty; pipes and devices are refused.

    - `path`: a local path; an address, such as ``s3://bucket/cat/1.jpg``; or a file in a tar file,
      ``photos.tar!cat/1.jpg``.

    Raises
    ------
    ImageError
        ``missing``, ``no-permission``, ``not-an-image`` (a folder, a pipe), ``empty``,
        ``too-large`` (more than `max_bytes`), ``corrupt`` if the disk fails, or ``unreachable``
        if the storage at an address cannot be used now.
    """
    name = os.fspath(path)
    if isinstance(name, str) and ("://" in name or MEMBER in name.lower()):
        data = _read_elsewhere(name, max_bytes)
        if data is not None:
            return data
    try:
        status = os.stat(name)  # noqa: PTH116 (called once per image; Path is slower)
        if not stat.S_ISREG(status.st_mode):
            raise ImageError("not-an-image", "This is a folder or device, not a file.", name)
        if status.st_size > max_bytes:
            raise ImageError(
                "too-large",
                f"The file has {status.st_size:,} bytes, more than the limit of {max_bytes:,}.",
                name,
            )
        with Path(name).open("rb") as file:
            data = file.read(status.st_size)
    except PermissionError:
        raise ImageError("no-permission", "No permission to read the file.", name) from None
    except (FileNotFoundError, NotADirectoryError, ValueError):
        raise ImageError("missing", _why_missing(name), name) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ImageError("missing", _why_missing(name), name) from None
        raise ImageError("corrupt", "The disk could not read the file.", name) from error
    if not data:
        raise ImageError("empty", "The file is empty.", name)
    return data


def _read_elsewhere(name: str, max_bytes: int) -> bytes | None:
    """Return the content of a file at an address or in a tar file; None for an ordinary file."""
    remote, member = is_address(name), split_member(name)
    if not remote and (member is None or os.path.lexists(name)):
        return None
    try:
        data = _read_member(name, *member, max_bytes) if member else _fetch(name, max_bytes)
    except PermissionError:
        raise ImageError("no-permission", "No permission to read the file.", name) from None
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, DatasetError):
        raise ImageError("missing", "There is no such file.", name) from None
    except StorageError as error:
        raise ImageError("unreachable", str(error), name) from error
    except OSError as error:
        raise ImageError("corrupt", "The disk could not read the file.", name) from error
    if len(data) > max_bytes:
        raise ImageError(
            "too-large", f"The file has more than {max_bytes:,} bytes, the limit.", name
        )
    if not data:
        raise ImageError("empty", "The file is empty.", name)
    return data


def _fetch(address: str, max_bytes: int) -> bytes:
    from kindsight.storage.access import read

    return read(address, max_bytes)


def _read_member(
    name: str, shard: str, place: tuple[int, int] | None, member: str, max_bytes: int
) -> bytes:
    from kindsight.storage.shards import find_member, read_part

    place = place or find_member(shard, member)
    if place is None:
        raise FileNotFoundError
    offset, size = place
    data = read_part(shard, offset, offset + min(size, max_bytes + 1))
    if len(data) < min(size, max_bytes):
        raise ImageError("truncated", "The tar file ends within this file.", name)
    return data


def _why_missing(name: str | bytes) -> str:
    try:
        is_link = stat.S_ISLNK(os.lstat(name).st_mode)
    except (OSError, ValueError):
        is_link = False
    return "The link is broken." if is_link else "There is no such file."


def read_image(
    source: ImageSource,
    *,
    target: tuple[int, int] | None = None,
    background: RGB = (255, 255, 255),
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> Pixels:
    """Read an image of any supported format as RGB.

    The format is detected from the first bytes, not from the name: JPEG (also CMYK, progressive),
    PNG, GIF, WebP, BMP, TIFF, PBM / PGM / PPM, AVIF, JPEG 2000 and ICO, and HEIC where the package
    pi-heif or pillow-heif is installed. Of an animation or a file of several images, the first is
    read. The EXIF orientation is applied. Embedded colour profiles
    are not.

    The function is thread-safe; decoding releases Python's global interpreter lock.

    Parameters
    ----------
    source : str, os.PathLike, bytes, binary file object or PIL.Image.Image
        A path; the content of a file; a file opened in binary mode; or a Pillow image, whose EXIF
        orientation is applied as for a file.
    target : (height, width), optional
        The size to which the image will be resized. A much larger JPEG is decoded at 1/2, 1/4 or
        1/8 of its size, the smallest that is nowhere below `target`, which is faster.
    background : (red, green, blue), default=(255, 255, 255)
        The colour behind transparent pixels, 0-255.
    max_pixels : int, default=178_956_970
        Limit of pixels (height times width); larger images are refused before decoding.
    value_range : (low, high), optional
        The values that become 0 and 255 where samples have more than 8 bits; others are clipped.
        Images of 8 bits do not change.

    Returns
    -------
    uint8 array of shape (height, width, 3)
        RGB, 0-255, C-contiguous and writeable. Without a `value_range`, samples of a stated depth
        are scaled by it: the maximum of a PGM or PPM, 9 to 15 bits of a TIFF. Others of 16 bits
        become ``round(value / 257)``. In an image of 32-bit integers or floats, whose white is
        not stated, the least value becomes 0 and the greatest 255. Trainings use one range for
        all images of a dataset instead: see :func:`kindsight.dataset.with_value_range`.

    Raises
    ------
    ImageError
        With a reason and a code: ``missing``, ``no-permission``, ``empty``, ``not-an-image``,
        ``unsupported``, ``truncated``, ``corrupt`` or ``too-large``. No file causes any other
        exception, and nothing is printed.
    SettingsError
        If an option has an invalid value.
    UsageError
        If `source` is something else.

    Notes
    -----
    A truncated JPEG or PNG is always refused, and so is a PNG with a wrong checksum. A JPEG has no
    checksum: if bytes in its scans were changed, the image is returned with visible damage.
    """
    _check_options(target, background, max_pixels)
    scale = ValueScale(None if value_range is None else as_value_range(value_range))
    if isinstance(source, (str, os.PathLike)):
        data = read_bytes(source)
        try:
            return _decode(data, target, background, max_pixels, scale)
        except ImageError as error:
            raise error.at(os.fspath(source)) from error
    if isinstance(source, Image.Image):
        return _from_pillow(source, background, max_pixels, scale)
    content = _read_stream(source) if hasattr(source, "read") else source
    if isinstance(content, (bytes, bytearray, memoryview)):
        return _decode(bytes(content), target, background, max_pixels, scale)
    # The value is not shown: it may be a whole image.
    raise UsageError(
        "An image to read must be a path, the bytes of a file, a file opened in binary mode or a "
        f"PIL image; got {type(source).__name__}."
        + (" Open the file with 'rb'." if content is not source else "")
    )


def _read_stream(file: Any) -> object:
    """Return what a file object has left, up to one byte more than is allowed."""
    content = file.read(MAX_BYTES + 1)
    if isinstance(content, (bytes, bytearray, memoryview)):
        if not len(content):
            raise ImageError("empty", "The file is empty, or was read to its end before.")
        if len(content) > MAX_BYTES:
            raise ImageError("too-large", f"The file has more than {MAX_BYTES:,} bytes, the limit.")
    return content


def _from_pillow(image: Image.Image, background: RGB, max_pixels: int, scale: ValueScale) -> Pixels:
    """Convert a Pillow image, which may not be decoded yet."""
    name = image.format or "PIL"
    if not min(image.size):
        raise ImageError("empty", "The image has no pixels.")
    check_size(image.height, image.width, max_pixels)
    with translated_errors(name):
        image.load()
        # Pillow applies the orientation of a TIFF by itself.
        orientation = 1 if name == "TIFF" else exif_orientation(image)
        return apply_orientation(to_rgb(image, background, scale=scale), orientation)


def read_with_scale(
    data: bytes, scale: ValueScale, *, target: tuple[int, int] | None = None
) -> Pixels:
    """Return an image, as :func:`read_image` does; `scale` records its values."""
    return _decode(data, target, (255, 255, 255), MAX_PIXELS, scale)


def read_with_metadata(
    data: bytes,
    *,
    target: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
    value_range: ValueRange | None = None,
) -> tuple[Pixels, ImageMetadata]:
    """Return an image, as :func:`read_image` does, and the metadata of its file.

    Parameters and errors are those of :func:`read_image`; `data` is the content of the file.
    """
    collector = MetadataCollector()
    scale = ValueScale(value_range)
    image = _decode(data, target, (255, 255, 255), max_pixels, scale, collector)
    return image, collector.metadata


def is_deep(data: bytes) -> bool:
    """Return whether an image's samples have more than 8 bits, without decoding it."""
    try:
        name = detect_format(data)
        if name == "PNG":
            return data[24:25] == b"\x10"
        if name == "PPM":
            return read_netpbm_header(data)[0][2:] > [255]
        if name not in ("TIFF", "JPEG 2000"):
            return False
        checked = _check_structure(name, data, MAX_PIXELS)
        with translated_errors(name):
            opened = open_image(name, checked, MAX_PIXELS)
            return opened.mode.startswith(("I", "F")) or ";16" in raw_mode(opened)
    except ImageError:
        return False


def stored_size(data: bytes) -> tuple[int, int] | None:
    """Return an image's (height, width) in pixels from its header, before any EXIF rotation.

    Nothing is decoded. None for a file that cannot be read.
    """
    try:
        name = detect_format(data)
        if name == "JPEG" and (header := check_jpeg(data, MAX_PIXELS)) is not None:
            return header.height, header.width
        if name == "PPM":
            width, height, *_ = read_netpbm_header(data)[0]
            return height, width
        checked = _check_structure(name, data, MAX_PIXELS)
        with translated_errors(name):
            opened = open_image(name, checked, MAX_PIXELS)
            return opened.height, opened.width
    except ImageError:
        return None


def _check_structure(name: str, data: bytes, max_pixels: int) -> bytes:
    """Check a PNG, WebP or TIFF file without decoding it; return the data for the decoder.

    A PNG is returned without the chunks that its first image does not need. Raises ImageError:
    ``truncated``, ``corrupt`` or ``too-large``. JPEGs are checked by
    :func:`~kindsight.images.jpeg.check_jpeg`, PPMs while they are read.
    """
    if name == "PNG":
        return _checked_png(data, max_pixels)
    if name == "WebP":
        _check_webp(data, max_pixels)
    elif name == "TIFF":
        check_tiff(data)
    return data


def _decode(
    whole: bytes,
    target: tuple[int, int] | None,
    background: RGB,
    max_pixels: int,
    scale: ValueScale,
    collector: MetadataCollector | None = None,
) -> Pixels:
    name = detect_format(whole)
    if name == "JPEG":
        header = check_jpeg(whole, max_pixels)
        with translated_errors(name):
            return _decode_jpeg(whole, header, target, background, max_pixels, collector)
    data = _check_structure(name, whole, max_pixels)
    with translated_errors(name):
        if name == "PPM":
            if collector is not None:
                collector.netpbm(data)
            return read_netpbm(data, max_pixels, scale)
        opened = open_image(name, data, max_pixels)
        if collector is not None:
            collector.opened(name, opened)
        twin = open_low_bytes(name, data, opened)
        image = load(opened, name, max_pixels)
        low = LowBytes(load(twin[0], name, max_pixels), twin[1]) if twin else None
        pixels = to_rgb(image, background, low, scale)
        orientation = exif_orientation(opened) if name in _EXIF_FORMATS else 1
        if collector is not None:
            collector.decoded(whole, opened, orientation)
        return apply_orientation(pixels, orientation)


def _decode_jpeg(
    data: bytes, header: JpegHeader | None, target: tuple[int, int] | None, background: RGB,
    max_pixels: int, collector: MetadataCollector | None,
) -> Pixels:  # fmt: skip
    """Decode a JPEG by the fastest of three paths with equal results."""
    image = None if header is None else _decode_plain(header, data, target)
    if header is not None and image is not None:
        if collector is not None:
            collector.jpeg(header)
        return apply_orientation(image, header.orientation)
    opened = open_image("JPEG", data, max_pixels)
    if collector is not None:
        collector.opened("JPEG", opened)
    full = used = (opened.height, opened.width)
    if target is not None:
        used = reduce_jpeg(opened, target)
    if header is None:  # otherwise libjpeg-turbo has refused it already
        image = decode_jpeg(data, opened.mode, full, (opened.height, opened.width))
    if image is None:
        image = to_rgb(load(opened, "JPEG", max_pixels), background)
    orientation = exif_orientation(opened)
    if collector is not None:
        collector.decoded(data, opened, orientation)
    return apply_orientation(image[: used[0], : used[1]], orientation)


def _decode_plain(header: JpegHeader, data: bytes, target: tuple[int, int] | None) -> Pixels | None:
    """Return the pixels of an ordinary JPEG; None if they are damaged."""
    full = used = decoded = (header.height, header.width)
    if target is not None:
        height, width = target
        stored = (width, height) if header.orientation >= 5 else (height, width)
        used, decoded = reduced_size(full, stored)
    image = decode_jpeg(data, header.mode, full, decoded)
    return None if image is None else image[: used[0], : used[1]]


def _check_options(target: tuple[int, int] | None, background: RGB, max_pixels: int) -> None:
    if target is not None and (len(target) != 2 or min(target) < 1):
        raise SettingsError(f"`target` must be (height, width), both at least 1; got {target!r}.")
    if len(background) != 3 or not all(0 <= value <= 255 for value in background):
        raise SettingsError(
            "`background` must be three numbers from 0 to 255 (red, green, blue); "
            f"got {background!r}."
        )
    if max_pixels < 1:
        raise SettingsError(f"`max_pixels` must be at least 1; got {max_pixels!r}.")


def _checked_png(data: bytes, max_pixels: int) -> bytes:
    """Check chunk lengths and the checksums of pixel chunks; return the needed chunks."""
    view = memoryview(data)
    needed = [view[:8]]
    position = 8
    for index in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise truncated("PNG")
        length = int.from_bytes(view[position : position + 4], "big")
        kind = bytes(view[position + 4 : position + 8])
        body, end = position + 8, position + 12 + length
        if index == 0:
            if kind != b"IHDR" or length != 13:
                raise corrupt("PNG", "it does not begin with its header")
            width = int.from_bytes(view[body : body + 4], "big")
            height = int.from_bytes(view[body + 4 : body + 8], "big")
            check_size(height, width, max_pixels)
        if end > len(data):
            raise truncated("PNG")
        if kind in _PIXEL_CHUNKS:
            expected = int.from_bytes(view[end - 4 : end], "big")
            if zlib.crc32(view[position + 4 : end - 4]) != expected:
                raise corrupt("PNG", f"the checksum of its {kind.decode()} chunk is wrong")
        if (
            kind in _PIXEL_CHUNKS
            or kind in (b"eXIf", b"IEND")
            or (kind in _TEXT_CHUNKS and data.startswith(_TEXTS_WITH_ORIENTATION, body))
        ):
            needed.append(view[position:end])
        if kind == b"IEND":
            return data if sum(map(len, needed)) == end else b"".join(needed)
        position = end
    raise corrupt("PNG", "it has too many chunks")


def _check_webp(data: bytes, max_pixels: int) -> None:
    """Check the file's length and the canvas, for which a decoder allocates memory on opening."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data) or len(data) < 30:
        raise truncated("WebP")
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        height = int.from_bytes(data[27:30], "little") + 1
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    elif kind == b"VP8 ":
        width = int.from_bytes(data[26:28], "little") & 0x3FFF
        height = int.from_bytes(data[28:30], "little") & 0x3FFF
    else:
        raise corrupt("WebP", "it does not begin with an image")
    check_size(height, width, max_pixels)
