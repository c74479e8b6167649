"""What is measured of one picture, from one reading of its file.

The picture is decoded once, a large JPEG at reduced size (nowhere below 224 x 224, the size that
networks see: the same decoding that features are made from). Nothing that is measured needs more:
size, orientation and frames are the file's own words; brightness, contrast and the hash are means
over areas; and blur that does not show at this size does not show to a network either. The whole
file is decompressed in any case, so damage anywhere in it is met.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.catalog.checks.embedded import difference, transparency
from kindsight.catalog.checks.pixels import SIZE, measure_pixels
from kindsight.errors import PictureError
from kindsight.pictures import content_digest
from kindsight.pictures._formats import detect_format
from kindsight.pictures.facts import ALPHA_MODES, PictureFacts
from kindsight.pictures.perceptual import perceptual_hash, small_grey
from kindsight.pictures.read import read_with_facts

__all__ = ["NUMBERS", "SIZE", "SMALL", "WORDS", "MeasuredPicture", "measure_picture"]

SMALL = (64, 64)
"""Height and width of the small grey version that is kept, for comparing pictures closely."""

NUMBERS = np.dtype(
    [
        ("bytes", np.int64),
        ("height", np.int32),
        ("width", np.int32),
        ("stored_height", np.int32),
        ("stored_width", np.int32),
        ("orientation", np.int8),
        ("frames", np.int32),
        ("quality", np.float32),
        ("progressive", np.bool_),
        ("taken", np.float64),
        ("transparency", np.float32),
        ("thumbnail", np.float32),
        ("brightness", np.float32),
        ("red", np.float32),
        ("green", np.float32),
        ("blue", np.float32),
        ("p01", np.float32),
        ("p05", np.float32),
        ("p50", np.float32),
        ("p95", np.float32),
        ("p99", np.float32),
        ("contrast", np.float32),
        ("entropy", np.float32),
        ("plain", np.float32),
        ("sharpness", np.float32),
        ("softness", np.float32),
        ("smear", np.float32),
        ("colourfulness", np.float32),
        ("chroma", np.float32),
        ("hash", np.uint64, (4,)),
    ]
)
"""The numbers, by name; see :class:`kindsight.catalog.checks.Measurements`."""

WORDS = ("format", "mode", "subsampling", "encoder", "camera", "software", "code", "reason")
"""The texts, by name."""

_NOTHING: dict[str, Any] = {
    name: math.nan if NUMBERS[name].kind == "f" else (0,) * 4 if name == "hash" else 0
    for name in NUMBERS.names or ()
}
"""The numbers of a picture that cannot be read."""


@dataclass(frozen=True)
class MeasuredPicture:
    """What was measured of one picture.

    Parameters
    ----------
    digest : str
        Of its content.
    numbers : array
        One record of :data:`NUMBERS`; NaN, or 0 for integers, where the picture cannot be read.
    words : dict
        By the names of :data:`WORDS`.
    small : uint8 array (64, 64)
        The picture in small and grey; zeros where it cannot be read.
    """

    digest: str
    numbers: NDArray[np.void]
    words: dict[str, str]
    small: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(SMALL, np.uint8))

    @property
    def readable(self) -> bool:
        """Whether it is a picture that can be read."""
        return not self.words["code"]


def measure_picture(data: bytes | NDArray[np.uint8], digest: str | None = None) -> MeasuredPicture:
    """Read and measure one picture.

    Parameters
    ----------
    data : bytes or uint8 array (height, width, 3)
        The content of a file, or a picture in memory.
    digest : str, optional
        Its content digest, if that is known.

    Returns
    -------
    MeasuredPicture
        Also for a file that cannot be read: what is wrong is then in its words.
    """
    digest = digest or content_digest(data)
    if isinstance(data, np.ndarray):
        facts = PictureFacts("", "array", data.shape[0], data.shape[1])
        return measure_decoded(digest, data, data, facts)
    try:
        picture, facts = read_with_facts(data, target=SIZE)
    except PictureError as error:
        return unreadable(digest, data, error)
    return measure_decoded(digest, data, picture, facts)


def unreadable(digest: str, data: bytes, error: PictureError) -> MeasuredPicture:
    """Return what can be said of a file that cannot be read."""
    words = dict.fromkeys(WORDS, "") | {"code": error.code, "reason": error.reason}
    with contextlib.suppress(PictureError):
        words["format"] = detect_format(data)
    numbers = _record({"bytes": len(data)})
    return MeasuredPicture(digest, numbers, words)


def measure_decoded(
    digest: str,
    data: bytes | NDArray[np.uint8],
    picture: NDArray[np.uint8],
    facts: PictureFacts,
) -> MeasuredPicture:
    """Measure a picture that is decoded already: at :data:`SIZE` or more, turned upright."""
    stored = (facts.height, facts.width)
    height, width = stored[::-1] if facts.orientation >= 5 else stored
    from_pixels, grey = measure_pixels(picture)
    numbers = from_pixels | {
        "bytes": data.nbytes if isinstance(data, np.ndarray) else len(data),
        "height": height, "width": width, "stored_height": stored[0], "stored_width": stored[1],
        "orientation": facts.orientation, "frames": facts.frames, "quality": facts.quality,
        "progressive": facts.progressive, "taken": facts.exif.taken,
        "hash": tuple(perceptual_hash(small_grey(grey.astype(np.float32))).tolist()),
    }  # fmt: skip
    if facts.mode.split(";")[0] in ALPHA_MODES and isinstance(data, bytes):
        numbers["transparency"] = transparency(data, picture)
    if facts.exif.thumbnail:
        numbers["thumbnail"] = difference(
            facts.exif.thumbnail,
            small_grey(grey),
            facts.orientation,
            picture.shape[0] / picture.shape[1],
        )
    words = {
        "format": facts.format, "mode": facts.mode, "subsampling": facts.subsampling,
        "encoder": facts.encoder, "camera": facts.exif.camera, "software": facts.exif.software,
        "code": "", "reason": "",
    }  # fmt: skip
    return MeasuredPicture(digest, _record(numbers), words, small_grey(grey, SMALL[0]))


def _record(numbers: dict[str, Any]) -> NDArray[np.void]:
    """Return numbers by name as a record of :data:`NUMBERS`; what is not named does not apply."""
    return np.array(tuple((_NOTHING | numbers).values()), NUMBERS)
