"""What an image's file says beside its pixels: how it was stored, by what, and when."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import ImageFile

from kindsight.digest import content_digest
from kindsight.images.formats.exif import ExifFacts, exif_facts
from kindsight.images.formats.frames import count_frames, mpo_frames
from kindsight.images.formats.jpeg_header import JpegHeader, unpacked_tables
from kindsight.images.formats.netpbm import read_header

__all__ = ["ALPHA_MODES", "FactsGatherer", "ImageFacts"]

ALPHA_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA", "P+alpha", "L+alpha", "RGB+alpha"))
"""Modes in which pixels can be transparent."""

# The sum of the luminance table of ITU T.81, annex K, which all qualities of the IJG library scale.
_LUMINANCE_SUM = 3688
_SAMPLINGS: dict[tuple[int, ...], str] = {
    (1, 1): "4:4:4",
    (2, 1): "4:2:2",
    (2, 2): "4:2:0",
    (1, 2): "4:4:0",
    (4, 1): "4:1:1",
}


@dataclass(frozen=True)
class ImageFacts:
    """What the file of an image says beside its pixels.

    Parameters
    ----------
    format : str
        Told from the content, as :func:`kindsight.images.read_image` tells it.
    mode : str
        How pixels are stored, in Pillow's words: ``RGB``, ``L``, ``P``, ``CMYK``, ``I;16``; with
        ``;16`` where 16 bits a sample were found, with ``+alpha`` where one value is transparent.
    height, width : int
        As stored, before the image is turned.
    orientation : int
        EXIF's, 1 to 8; 1 is upright.
    frames : int
        Images in the file.
    quality : float
        Of a JPEG, on the IJG library's scale of 1 to 100, from its tables; NaN for other formats.
    subsampling : str
        Of a JPEG's colours, such as ``4:2:0``; else empty.
    progressive : bool
        Whether a JPEG is stored in several passes.
    encoder : str
        Of a JPEG, 8 hexadecimal digits that are the same for files written by the same program at
        the same settings: of its tables, its subsampling and its segments' order; else empty.
    exif : ExifFacts
        Camera, program, time and thumbnail.
    """

    format: str
    mode: str
    height: int
    width: int
    orientation: int = 1
    frames: int = 1
    quality: float = math.nan
    subsampling: str = ""
    progressive: bool = False
    encoder: str = ""
    exif: ExifFacts = field(default_factory=ExifFacts)


class FactsGatherer:
    """Takes down what a file says while it is being decoded, which costs no second opening."""

    def __init__(self) -> None:
        self.facts = ImageFacts("", "", 0, 0)

    def netpbm(self, data: bytes) -> None:
        """Take down the header of a PBM, PGM or PPM file."""
        (width, height, *rest), _ = read_header(data)
        mode = {1: "1", 4: "1", 2: "L", 5: "L"}.get(data[1] - ord("0"), "RGB")
        deep = ";16" if rest and rest[0] > 255 else ""
        self.facts = ImageFacts("PPM", mode + deep, height, width)

    def jpeg(self, header: JpegHeader) -> None:
        """Take down all that an ordinary JPEG says."""
        self.facts = ImageFacts(
            "JPEG",
            header.mode,
            header.height,
            header.width,
            header.orientation,
            mpo_frames(header.mp) if header.mp else 1,
            *_stored(header.tables, header.layers, header.progressive, header.segments),
            exif_facts(header.exif) if header.exif else ExifFacts(),
        )

    def opened(self, name: str, image: ImageFile.ImageFile) -> None:
        """Take down what is lost when pixels are loaded."""
        height, width, orientation = image.height, image.width, 1
        if name == "TIFF":
            orientation = _tiff_orientation(image)
            if orientation >= 5:  # its class states the size after turning
                height, width = width, height
        self.facts = ImageFacts(name, _mode(name, image), height, width, orientation)

    def decoded(self, data: bytes, image: ImageFile.ImageFile, orientation: int) -> None:
        """Take down the rest; `data` is the whole file."""
        facts = replace(
            self.facts,
            orientation=max(orientation, self.facts.orientation),
            frames=count_frames(self.facts.format, data, image),
            exif=exif_facts(_exif_block(self.facts.format, data, image)),
        )
        self.facts = _with_jpeg_facts(facts, image) if facts.format == "JPEG" else facts


def _mode(name: str, image: ImageFile.ImageFile) -> str:
    """Say how pixels are stored: Pillow's mode, and what it leaves out."""
    mode = image.mode
    raw = image.tile[0].args if image.tile else ""
    raw = raw[0] if isinstance(raw, (tuple, list)) and raw else raw
    # A bitmap's 16 bits are those of a whole pixel.
    if isinstance(raw, str) and ";16" in raw and "16" not in mode and name != "BMP":
        mode += ";16"
    if mode in ("P", "L", "RGB", "1", "I") and "transparency" in image.info:
        mode += "+alpha"
    return mode


def _exif_block(name: str, data: bytes, image: ImageFile.ImageFile) -> bytes:
    """Return the EXIF data; a TIFF file is of their form itself."""
    block = data if name == "TIFF" else image.info.get("exif", b"")
    return block if isinstance(block, bytes) else b""


def _tiff_orientation(image: ImageFile.ImageFile) -> int:
    try:
        value = image.getexif().get(274, 1)
    except Exception:  # as for the other formats: metadata may be anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _with_jpeg_facts(facts: ImageFacts, image: ImageFile.ImageFile) -> ImageFacts:
    layers = tuple(tuple(layer[1:3]) for layer in getattr(image, "layer", ()))
    segments = tuple(name for name, _ in getattr(image, "applist", ()))
    progressive = bool(image.info.get("progressive"))
    quality, subsampling, _, encoder = _jpeg_facts(
        getattr(image, "quantization", {}), layers, progressive, segments
    )
    return replace(
        facts, quality=quality, subsampling=subsampling, progressive=progressive, encoder=encoder
    )


@functools.lru_cache(maxsize=256)
def _stored(
    tables: tuple[bytes, ...],
    layers: tuple[tuple[int, ...], ...],
    progressive: bool,
    segments: tuple[str, ...],
) -> tuple[float, str, bool, str]:
    """Return :func:`_jpeg_facts`, remembered: what one program wrote has the same answer."""
    return _jpeg_facts(unpacked_tables(tables), layers, progressive, segments)


def _jpeg_facts(
    tables: Mapping[int, Sequence[int]],
    layers: tuple[tuple[int, ...], ...],
    progressive: bool,
    segments: tuple[str, ...],
) -> tuple[float, str, bool, str]:
    """Return (quality, subsampling, progressive, encoder) as :class:`ImageFacts` has them."""
    sampled = _SAMPLINGS.get(layers[0], "") if len(layers) == 3 else ""
    marks = repr((sorted(tables.items()), list(layers), progressive, list(segments)))
    encoder = content_digest(marks, 4)
    return _quality(list(tables.get(0, ()))), sampled, progressive, encoder


def _quality(table: list[int]) -> float:
    """Estimate the quality that gives a luminance table: jcparam.c of the IJG library, inverted.

    Its table is the standard's times ``5000 / quality`` below 50, ``200 - 2 quality`` from 50 on,
    in per cent; the sum of the 64 numbers follows that within a few per cent.
    """
    if len(table) != 64:
        return math.nan
    scale = 100 * sum(table) / _LUMINANCE_SUM
    quality = (200 - scale) / 2 if scale <= 100 else 5000 / scale
    return min(100.0, max(1.0, quality))
