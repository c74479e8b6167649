"""Metadata of an image file: how it was stored, by which program or camera, when, and its frames.

Of EXIF data (CIPA DC-008, 4.6) six tags are needed; Pillow's reader of all tags takes a
millisecond, longer than many photos take to decode. Frames are counted from the file's structure,
without decoding, and up to a limit: a small hostile file must not keep the program busy.
"""

from __future__ import annotations

import calendar
import functools
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import ImageFile

from kindsight.digest import content_digest
from kindsight.images.jpeg import JpegHeader, unpack_tables
from kindsight.images.netpbm import read_netpbm_header
from kindsight.images.pillow_decoder import exif_orientation, raw_mode
from kindsight.images.tiff import ASCII, LONG, MAX_FRAMES, SHORT, Tiff, tiff_frames

__all__ = [
    "ALPHA_MODES", "MAX_FRAMES", "ExifData", "ImageMetadata", "MetadataCollector", "count_frames",
    "mpo_frames", "read_exif",
]  # fmt: skip

ALPHA_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA", "P+alpha", "L+alpha", "RGB+alpha"))
"""Modes in which pixels can be transparent."""

# The sum of the luminance table in ITU T.81, annex K, which the IJG library scales by quality.
_LUMINANCE_SUM = 3688
_SUBSAMPLINGS: dict[tuple[int, ...], str] = {
    (1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1",
}  # fmt: skip

MAX_TEXT = 64
"""Limit of characters of a camera's or a program's name."""

MAX_ENTRIES = 500
"""Limit of entries read from one directory; cameras write fewer than a hundred."""

_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN = 271, 272, 305, 34665, 36867
_THUMBNAIL, _THUMBNAIL_LENGTH = 513, 514
_TAGS = {_MAKE, _MODEL, _SOFTWARE, _EXIF, _TAKEN, _THUMBNAIL, _THUMBNAIL_LENGTH}
_DATE = re.compile(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)")

Values = dict[int, "bytes | int"]

MAX_BLOCKS = 500_000
"""Limit of GIF blocks that are walked: 120 MB at 255 bytes each."""

_MP_ENTRIES = 0xB002


@dataclass(frozen=True)
class ExifData:
    """The EXIF data of an image file."""

    # Maker and model of the camera, and the program that wrote the file; empty if not stated.
    camera: str = ""
    software: str = ""
    # Seconds since 1970, if the camera's clock is UTC; NaN if not stated.
    taken: float = float("nan")
    thumbnail: bytes = b""  # a small JPEG; empty if there is none


@dataclass(frozen=True)
class ImageMetadata:
    """Metadata of an image file."""

    format: str  # detected from the content
    # Pillow's mode, such as ``RGB``, ``L``, ``P``, ``CMYK`` or ``I;16``; with ``;16`` for samples
    # of 16 bits, with ``+alpha`` if one value is transparent.
    mode: str
    height: int  # as stored, before the orientation is applied
    width: int
    orientation: int = 1  # EXIF orientation, 1 to 8; 1 is upright
    frames: int = 1  # images in the file
    # Of a JPEG, estimated on the IJG library's scale of 1 to 100; NaN for other formats.
    quality: float = math.nan
    subsampling: str = ""  # chroma subsampling of a JPEG, such as ``4:2:0``; else empty
    progressive: bool = False  # whether a JPEG is progressive
    # Of a JPEG, 8 hexadecimal digits that are equal for files of the same program and settings: a
    # digest of its tables, subsampling and order of segments; else empty.
    encoder: str = ""
    exif: ExifData = field(default_factory=ExifData)  # camera, program, time and thumbnail


class MetadataCollector:
    """Collects a file's metadata while it is decoded, so that it is opened only once."""

    def __init__(self) -> None:
        self.metadata = ImageMetadata("", "", 0, 0)

    def netpbm(self, data: bytes) -> None:
        """Read the header of a PBM, PGM or PPM file."""
        (width, height, *rest), _ = read_netpbm_header(data)
        mode = {1: "1", 4: "1", 2: "L", 5: "L"}.get(data[1] - ord("0"), "RGB")
        depth = ";16" if rest and rest[0] > 255 else ""
        self.metadata = ImageMetadata("PPM", mode + depth, height, width)

    def jpeg(self, header: JpegHeader) -> None:
        """Read the header of an ordinary JPEG."""
        self.metadata = ImageMetadata(
            "JPEG", header.mode, header.height, header.width, header.orientation,
            mpo_frames(header.mp) if header.mp else 1,
            *_plain_encoding(header.tables, header.sampling, header.progressive, header.segments),
            read_exif(header.exif) if header.exif else ExifData(),
        )  # fmt: skip

    def opened(self, name: str, image: ImageFile.ImageFile) -> None:
        """Read what is lost when Pillow decodes the pixels."""
        height, width, orientation = image.height, image.width, 1
        if name == "TIFF":
            orientation = exif_orientation(image)
            if orientation >= 5:  # Pillow states the size of a TIFF after applying it
                height, width = width, height
        self.metadata = ImageMetadata(name, _mode(name, image), height, width, orientation)

    def decoded(self, data: bytes, image: ImageFile.ImageFile, orientation: int) -> None:
        """Read the rest; `data` is the whole file."""
        metadata = self.metadata
        # A TIFF file has the form of EXIF data itself.
        exif = data if metadata.format == "TIFF" else image.info.get("exif", b"")
        metadata = replace(
            metadata,
            orientation=max(orientation, metadata.orientation),
            frames=count_frames(metadata.format, data, image),
            exif=read_exif(exif if isinstance(exif, bytes) else b""),
        )
        if metadata.format == "JPEG":
            quality, subsampling, progressive, encoder = _encoding(
                getattr(image, "quantization", {}),
                tuple(tuple(layer[1:3]) for layer in getattr(image, "layer", ())),
                bool(image.info.get("progressive")),
                tuple(name for name, _ in getattr(image, "applist", ())),
            )
            metadata = replace(
                metadata, quality=quality, subsampling=subsampling, progressive=progressive,
                encoder=encoder,
            )  # fmt: skip
        self.metadata = metadata


def read_exif(data: bytes) -> ExifData:
    """Return the EXIF data of a block; invalid values count as not stated.

    The block may have the six bytes before it in a JPEG, or be a TIFF file.
    """
    tiff = Tiff.parse(data.removeprefix(b"Exif\0\0"))
    if tiff is None:
        return ExifData()
    first, following = _read_directory(tiff, tiff.first)
    details, _ = _read_directory(tiff, _number(first.get(_EXIF)))
    second, _ = _read_directory(tiff, following)
    make, model = _text(first.get(_MAKE)), _text(first.get(_MODEL))
    return ExifData(
        camera=" ".join(filter(None, (make, model))),
        software=_text(first.get(_SOFTWARE)),
        taken=_seconds(_text(details.get(_TAKEN))),
        thumbnail=_thumbnail(tiff.data, second),
    )


def count_frames(name: str, data: bytes, image: ImageFile.ImageFile | None) -> int:
    """Return the number of images in a file, 1 to MAX_FRAMES; `image` is the file opened by Pillow.

    The sizes of an icon count as one image, and so does a photo with the previews of its camera.
    """
    counters = {"GIF": _gif_frames, "PNG": _png_frames, "WebP": _webp_frames, "TIFF": tiff_frames}
    if name in counters:
        return min(max(1, counters[name](data)), MAX_FRAMES)
    if name == "JPEG" and image is not None:
        return mpo_frames(image.info.get("mp", b""))
    if name in ("AVIF", "HEIC") and image is not None:
        return min(max(1, int(getattr(image, "n_frames", 1))), MAX_FRAMES)
    return 1


def mpo_frames(index: bytes) -> int:
    """Return the number of independent images in a JPEG, from its MPF index (CIPA DC-007, 5.2.3.3).

    Stereo and panorama images count; previews and the depth maps of phones do not.
    """
    tiff = Tiff.parse(index) if isinstance(index, bytes) else None
    directory = None if tiff is None else tiff.directory(tiff.first)
    if tiff is None or directory is None:
        return 1
    for entry in tiff.entries(directory):
        if entry.tag == _MP_ENTRIES:
            table = index[entry.field : entry.field + min(entry.values, 16 * MAX_FRAMES)]
            if len(table) % 16:
                return 1
            kinds = [attributes for (attributes,) in struct.iter_unpack(tiff.order + "I12x", table)]
            frames = sum((int(kind) >> 16 & 0xFF) == 0x02 for kind in kinds)
            return min(max(1, frames), MAX_FRAMES)
    return 1


def _mode(name: str, image: ImageFile.ImageFile) -> str:
    """Return Pillow's mode with its depth and transparency."""
    mode = image.mode
    # In a bitmap, 16 bits are those of a whole pixel.
    if ";16" in raw_mode(image) and "16" not in mode and name != "BMP":
        mode += ";16"
    if mode in ("P", "L", "RGB", "1", "I") and "transparency" in image.info:
        mode += "+alpha"
    return mode


@functools.lru_cache(maxsize=256)
def _plain_encoding(
    tables: tuple[bytes, ...],
    sampling: tuple[tuple[int, ...], ...],
    progressive: bool,
    segments: tuple[str, ...],
) -> tuple[float, str, bool, str]:
    """Return :func:`_encoding` of an ordinary header, cached: many files share one encoder."""
    return _encoding(unpack_tables(tables), sampling, progressive, segments)


def _encoding(
    tables: Mapping[int, Sequence[int]],
    sampling: tuple[tuple[int, ...], ...],
    progressive: bool,
    segments: tuple[str, ...],
) -> tuple[float, str, bool, str]:
    """Return (quality, subsampling, progressive, encoder) as in :class:`ImageMetadata`."""
    subsampling = _SUBSAMPLINGS.get(sampling[0], "") if len(sampling) == 3 else ""
    text = repr((sorted(tables.items()), list(sampling), progressive, list(segments)))
    return _quality(list(tables.get(0, ()))), subsampling, progressive, content_digest(text, 4)


def _quality(table: list[int]) -> float:
    """Estimate the quality from a luminance table: jcparam.c of the IJG library, inverted."""
    if len(table) != 64:
        return math.nan
    scale = 100 * sum(table) / _LUMINANCE_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(100.0, max(1.0, quality))


def _read_directory(tiff: Tiff, offset: int) -> tuple[Values, int]:
    """Return the texts and single numbers of a directory, and the offset of the next one."""
    values: Values = {}
    directory = tiff.directory(offset) if offset >= 8 else None
    if directory is None:
        return values, 0
    for entry in tiff.entries(directory, MAX_ENTRIES):
        if entry.tag not in _TAGS:
            continue
        if entry.kind == ASCII:
            start = entry.field if entry.values > 4 else entry.position
            values[entry.tag] = tiff.data[start : start + min(entry.values, 4 * MAX_TEXT)]
        elif entry.values == 1 and entry.kind == LONG:
            values[entry.tag] = entry.field
        elif entry.values == 1 and entry.kind == SHORT:
            values[entry.tag] = tiff.short(entry)
    return values, directory.following


def _number(value: bytes | int | None) -> int:
    return value if isinstance(value, int) else 0


def _text(value: bytes | int | None) -> str:
    if not isinstance(value, bytes):
        return ""
    text = value.split(b"\0")[0].decode("utf-8", "replace").strip()
    if not text.isprintable():
        text = "".join(c for c in text if c.isprintable())
    return text[:MAX_TEXT]


def _seconds(text: str) -> float:
    match = _DATE.match(text)
    if match is None:
        return float("nan")
    year, month, day, hour, minute, second = map(int, match.groups())
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and year >= 1800):
        return float("nan")
    return float(calendar.timegm((year, month, day, hour, minute, second)))


def _thumbnail(data: bytes, values: Values) -> bytes:
    start, length = _number(values.get(_THUMBNAIL)), _number(values.get(_THUMBNAIL_LENGTH))
    thumbnail = data[start : start + length]
    return thumbnail if start >= 8 and thumbnail.startswith(b"\xff\xd8\xff") else b""


def _gif_frames(data: bytes) -> int:
    """Count the image descriptors (GIF89a, sections 18 to 26)."""
    position = 13 + _colour_table_bytes(data, 10)
    frames = blocks = 0
    while position < len(data) and blocks < MAX_BLOCKS and frames < MAX_FRAMES:
        kind = data[position]
        if kind == 0x2C:
            frames += 1
            position += 10 + _colour_table_bytes(data, position + 9) + 1
        elif kind == 0x21:
            position += 2
        else:
            break
        while position < len(data) and data[position] and blocks < MAX_BLOCKS:
            position += data[position] + 1
            blocks += 1
        position += 1
        blocks += 1
    return frames


def _colour_table_bytes(data: bytes, offset: int) -> int:
    """Return the size of the colour table that the packed field at an offset states."""
    packed = data[offset] if offset < len(data) else 0
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _png_frames(data: bytes) -> int:
    """Return the frames of the animation control chunk, which precedes the first pixels."""
    control = data.find(b"acTL", 0, max(0, data.find(b"IDAT")))
    if control < 0:
        return 1
    # The chunk can state any number, but each frame has a frame control chunk.
    return min(int.from_bytes(data[control + 4 : control + 8], "big"), data.count(b"fcTL"))


def _webp_frames(data: bytes) -> int:
    """Count the frame chunks (WebP container specification)."""
    position, frames = 12, 0
    while position + 8 <= len(data) and frames < MAX_FRAMES:
        frames += data[position : position + 4] == b"ANMF"
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + (length & 1)
    return frames
