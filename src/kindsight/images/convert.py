"""Decoded images of any mode to uint8 RGB; samples of more than 8 bits scaled to 0-255.

Images are converted in bands of rows, so that temporary arrays stay small: memory holds little more
than Pillow's copy (4 bytes per pixel) and the result (3 bytes).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kindsight.errors import SettingsError

__all__ = [
    "LowBytes", "ValueRange", "ValueScale", "apply_orientation", "as_value_range", "flatten",
    "scale_values", "to_rgb",
]  # fmt: skip

ValueRange = tuple[float, float]
"""The value that becomes black and the one that becomes white; others are clipped."""

RULE = "must be two different finite numbers, the lower first"


def as_value_range(value: Any) -> ValueRange:
    """Return a pair of numbers as a range of values; SettingsError if it is not a range."""
    try:
        low, high = map(float, value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise SettingsError(f"`value_range` {RULE}; got {value!r}.")
    return low, high


class ValueScale:
    """Scales the samples of one image, and records their range.

    Parameters
    ----------
    value_range : (low, high), optional
        Values that become 0 and 255; the file's own rule by default: see
        :func:`kindsight.images.read_image`.

    Attributes
    ----------
    low, high : float
        The least and the greatest finite value among samples of more than 8 bits; infinite where
        there are none.
    stated : bool
        Whether the file states its depth.
    """

    def __init__(self, value_range: ValueRange | None = None) -> None:
        self.value_range = value_range
        self.low, self.high = math.inf, -math.inf
        self.stated = False
        self._outside = self._samples = 0

    @property
    def clipped(self) -> float:
        """The fraction of samples outside of the given range, 0 to 1."""
        return self._outside / self._samples if self._samples else 0.0

    def record(self, values: NDArray[Any]) -> None:
        """Record the range of some samples."""
        finite = values if values.dtype.kind in "ui" else values[np.isfinite(values)]
        if not finite.size:
            return
        self.low, self.high = (
            min(self.low, float(finite.min())),
            max(self.high, float(finite.max())),
        )
        self._samples += finite.size
        if self.value_range is not None:
            low, high = self.value_range
            if self.low < low or self.high > high:
                self._outside += int(np.count_nonzero((finite < low) | (finite > high)))

    def apply(self, values: NDArray[Any], default: ValueRange) -> NDArray[np.uint8]:
        """Return samples as 0-255, by the given range or else `default`, and record them."""
        self.record(values)
        return scale_values(values, *(self.value_range or default))


def scale_values(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale numbers to 0-255: `low` becomes 0, `high` 255, others are clipped; NaN becomes 0.

    The formula is ``floor((value - low) / (high - low) * 255 + 0.5)``.
    """
    if values.dtype == np.uint16:
        scaled: NDArray[np.uint8] = _table(low, high)[values]
        return scaled
    return _scaled(values, low, high)


def _scaled(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if not high > low:
        return np.zeros(values.shape, np.uint8)
    share = (np.clip(values.astype(np.float64), low, high) - low) / (high - low)
    return np.floor(np.nan_to_num(share, nan=0.0) * 255 + 0.5).astype(np.uint8)


@functools.lru_cache(maxsize=8)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    return _scaled(np.arange(65536), low, high)


RGB_BAND = 1 << 14
"""Pixels in a band of plain RGB: 64 KiB, which fits the processor's first cache."""

BAND = 1 << 18
"""Pixels in a band of other modes."""

_ALPHA_MODES = frozenset(("RGBA", "RGBa", "LA", "La", "PA"))
_FULL_16_BIT = (0.0, 65535.0)

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of a TIFF

Background = tuple[int, int, int]
Converter = Callable[[Image.Image], NDArray[np.uint8]]


@dataclass(frozen=True)
class LowBytes:
    """The lower bytes of 16-bit colour as a second image, and its channels to use."""

    image: Image.Image
    channels: tuple[int, ...]


def to_rgb(
    image: Image.Image,
    background: Background,
    low: LowBytes | None = None,
    scale: ValueScale | None = None,
) -> NDArray[np.uint8]:
    """Convert a decoded image of any mode to RGB, uint8 (height, width, 3), C-contiguous.

    The background is the RGB colour behind transparent pixels. Of 16-bit colour, `image` has the
    upper bytes and `low` the lower ones. Samples of more than 8 bits are scaled by `scale`.
    """
    scale = scale or ValueScale()
    result = np.empty((image.height, image.width, 3), np.uint8)
    if low is not None:
        bands = zip(_bands(image, BAND), _bands(low.image, BAND), strict=True)
        for (rows, upper), (_, lower) in bands:
            lower_bytes = np.asarray(lower)[..., low.channels]
            result[rows] = _wide_colour(np.asarray(upper), lower_bytes, image, background, scale)
    elif image.mode == "RGB" and "transparency" not in image.info:
        for rows, band in _bands(image, RGB_BAND):
            pixels = np.frombuffer(band.tobytes("raw", "RGBX"), np.uint8)
            cv2.cvtColor(
                pixels.reshape(band.height, band.width, 4), cv2.COLOR_RGBA2RGB, dst=result[rows]
            )
    else:
        convert = _converter(image, background, scale)
        for rows, band in _bands(image, BAND):
            result[rows] = convert(band)
    return result


def apply_orientation(image: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return an image upright, given its EXIF orientation of 1 to 8 (TIFF 6.0, tag 274).

    The result is C-contiguous, and is `image` itself if nothing changes.
    """
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition, 6 and 7 are mirrored horizontally, 7 and 8 vertically.
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return np.ascontiguousarray(image)


def flatten(
    colours: NDArray[np.uint8], alpha: NDArray[np.uint8], background: Background
) -> NDArray[np.uint8]:
    """Blend RGB colours (height, width, 3) with a background by alpha (height, width), 0-255.

    The formula is ``round((colour * alpha + background * (255 - alpha)) / 255)``.
    """
    weight = alpha[..., None].astype(np.uint16)
    # At most 255 * 255 + 127, which fits 16 bits.
    total = colours * weight + np.asarray(background, np.uint16) * (255 - weight) + np.uint16(127)
    flat: NDArray[np.uint8] = (total // np.uint16(255)).astype(np.uint8)
    return flat


def stated_maximum(image: Image.Image) -> int | None:
    """Return the greatest value of the 9 to 15 bits that a TIFF's tag states; None without one."""
    if not image.mode.startswith("I;16"):
        return None
    bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE)
    depth = bits[0] if isinstance(bits, tuple) and bits else bits
    return 2**depth - 1 if isinstance(depth, int) and 8 < depth < 16 else None


def _bands(image: Image.Image, pixels: int) -> Iterator[tuple[slice, Image.Image]]:
    step = max(1, pixels // image.width)
    if step >= image.height:
        yield slice(0, image.height), image
        return
    for top in range(0, image.height, step):
        bottom = min(top + step, image.height)
        yield slice(top, bottom), image.crop((0, top, image.width, bottom))


def _wide_colour(
    upper: NDArray[np.uint8], lower: NDArray[np.uint8], image: Image.Image, background: Background,
    scale: ValueScale,
) -> NDArray[np.uint8]:  # fmt: skip
    values = upper.astype(np.uint16) << 8 | lower
    colours = scale.apply(values[..., :3], _FULL_16_BIT)
    if image.mode == "RGBA":
        return flatten(colours, scale_values(values[..., 3], *_FULL_16_BIT), background)
    key = image.info.get("transparency")
    if isinstance(key, tuple) and len(key) == 3:
        colours[(values[..., :3] == np.asarray(key)).all(-1)] = background
    return colours


def _converter(image: Image.Image, background: Background, scale: ValueScale) -> Converter:
    """Return the function that converts a band of this image to RGB."""
    if image.mode.startswith("I;16"):
        return _grey_16_bit(image, background, scale)
    if image.mode in ("I", "F"):
        return _grey_32_bit(image, scale)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return lambda band: _flattened(band, background)
    return lambda band: np.asarray(band.convert("RGB"))


def _flattened(band: Image.Image, background: Background) -> NDArray[np.uint8]:
    if band.mode == "La":
        band = band.convert("LA")
    pixels = np.asarray(band.convert("RGBA"))
    return flatten(pixels[..., :3], pixels[..., 3], background)


def _grey_16_bit(image: Image.Image, background: Background, scale: ValueScale) -> Converter:
    key = image.info.get("transparency")
    tags = getattr(image, "tag_v2", {})
    inverted = tags.get(_PHOTOMETRIC) == 0  # "white is zero", which Pillow ignores at 16 bits
    stated = stated_maximum(image)
    scale.stated = stated is not None
    default = _FULL_16_BIT if stated is None else (0.0, float(stated))

    def convert(band: Image.Image) -> NDArray[np.uint8]:
        values = np.asarray(band).astype(np.uint16)
        grey = scale.apply(values, default)
        colours = np.repeat((255 - grey if inverted else grey)[..., None], 3, axis=2)
        if isinstance(key, int):
            colours[values == key] = background
        return colours

    return convert


def _grey_32_bit(image: Image.Image, scale: ValueScale) -> Converter:
    # No file states which value is white: by default the image's own least and greatest are black
    # and white. Any other fixed scale would turn some images black by a single value.
    own = ValueScale()
    if scale.value_range is None:
        for _, band in _bands(image, BAND):
            own.record(np.asarray(band))
    default = (own.low, own.high) if own.low <= own.high else (0.0, 0.0)

    def convert(band: Image.Image) -> NDArray[np.uint8]:
        return np.repeat(scale.apply(np.asarray(band), default)[..., None], 3, axis=2)

    return convert
