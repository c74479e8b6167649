"""Metadata of an image file: how it was stored, by which program or camera, and when."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import ImageFile

from kindsight.digest import content_digest
from kindsight.images.formats.exif import ExifData, read_exif
from kindsight.images.formats.frames import count_frames, mpo_frames
from kindsight.images.formats.jpeg import JpegHeader, unpack_tables
from kindsight.images.formats.netpbm import read_netpbm_header
from kindsight.images.pillow_decoder import exif_orientation, raw_mode

__all__ = ["ALPHA_MODES", "ImageMetadata", "MetadataCollector"]

ALPHA_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA", "P+alpha", "L+alpha", "RGB+alpha"))
"""Modes in which pixels can be transparent."""

# The sum of the luminance table in ITU T.81, annex K, which the IJG library scales by quality.
_LUMINANCE_SUM = 3688
_SUBSAMPLINGS: dict[tuple[int, ...], str] = {
    (1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1",
}  # fmt: skip


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
