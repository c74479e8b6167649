"""Resizing of images to the input size of a network."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError, UsageError
from kindsight.images.convert import ValueRange, as_value_range
from kindsight.images.read import read_image

__all__ = [
    "MAX_SIDE", "PAD_VALUE", "Fit", "InputSpec", "Interpolation", "read_loaded", "resize_image",
]  # fmt: skip

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["auto", "area", "linear", "cubic", "nearest"]

MAX_SIDE = 8192
"""Limit of the height and width of an :class:`InputSpec`, in pixels."""

PAD_VALUE = 127
"""Grey of padding: the middle of 0-255, which networks scale to about zero."""

_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
}


@dataclass(frozen=True)
class InputSpec:
    """Input size of a network, and how images are resized to it.

    Parameters
    ----------
    height, width : int
        Pixels, 1 to 8192.
    fit : {"stretch", "crop", "pad"}, default="stretch"
        ``stretch`` changes the aspect ratio; ``crop`` takes the largest centre crop with the aspect
        ratio of the input; ``pad`` adds grey (127) on two sides.
    interpolation : {"auto", "area", "linear", "cubic", "nearest"}, default="auto"
        ``area`` averages all covered pixels when shrinking and is linear when enlarging. ``auto``
        is ``area`` if a side shrinks to less than half, else linear, which until then uses every
        pixel in a fifth of the time. The others use 4, 16 or 1 pixels at any size, as most
        libraries do by default.
    value_range : (low, high), optional
        The values that become 0 and 255 in images whose samples have more than 8 bits, as in
        :func:`read_image`.

    Raises
    ------
    SettingsError
        If a value is invalid.

    Examples
    --------
    >>> InputSpec(224, 160).size
    (224, 160)
    """

    height: int
    width: int
    fit: Fit = "stretch"
    interpolation: Interpolation = "auto"
    value_range: ValueRange | None = None

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                value = int(value)
                object.__setattr__(self, name, value)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise SettingsError(
                    f"`{name}` must be an integer from 1 to {MAX_SIDE}; got {value!r}."
                )
        _check_choice("fit", self.fit, get_args(Fit))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))
        if self.value_range is not None:
            object.__setattr__(self, "value_range", as_value_range(self.value_range))

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels."""
        return self.height, self.width

    def key(self) -> str:
        """Return a name for file names; equal for equal specs only."""
        name = f"{self.height}x{self.width}-{self.fit}-{self.interpolation}"
        if self.value_range is None:
            return name
        return "-".join([name, "values", *map(repr, self.value_range)])

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as plain values, for JSON or TOML, without None."""
        settings = {name: value for name, value in asdict(self).items() if value is not None}
        if self.value_range is not None:
            settings["value_range"] = list(self.value_range)
        return settings

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> InputSpec:
        """Return the spec of a mapping from :meth:`to_dict`; SettingsError if it is invalid."""
        if not isinstance(settings, Mapping):
            raise SettingsError(
                "An input spec must be a table of settings such as {'height': 224, 'width': 224}; "
                f"got {type(settings).__name__}."
            )
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise SettingsError(
                    f"An input spec has the settings {', '.join(known)}; got {name!r}.{hint}"
                )
        for name in ("height", "width"):
            if name not in settings:
                raise SettingsError(
                    f"An input spec needs both height and width; got {dict(settings)!r}."
                )
        return cls(**settings)


def read_loaded(data: bytes | NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Return a loaded image, the bytes of a file or an array, decoded for resizing to a spec."""
    if not isinstance(data, bytes):
        return data
    return read_image(data, target=spec.size, value_range=spec.value_range)


def resize_image(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Resize an image to the input size of a network.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
        RGB, 0-255; not changed.
    spec : InputSpec

    Returns
    -------
    uint8 array of shape (spec.height, spec.width, 3)
        C-contiguous. A C-contiguous image that already has the size is returned itself.

    Raises
    ------
    UsageError
        If `image` is not a uint8 array of that shape.
    """
    _check_image(image)
    height, width = image.shape[:2]
    if (height, width) == spec.size:
        return np.ascontiguousarray(image)
    if spec.fit == "crop":
        image = _centre_crop(image, spec)
    if spec.fit != "pad":
        return _resample(image, spec.height, spec.width, spec.interpolation)
    scale = min(spec.height / height, spec.width / width)
    inner_height = min(spec.height, max(1, round(height * scale)))
    inner_width = min(spec.width, max(1, round(width * scale)))
    padded = np.full((spec.height, spec.width, 3), PAD_VALUE, np.uint8)
    top, left = (spec.height - inner_height) // 2, (spec.width - inner_width) // 2
    padded[top : top + inner_height, left : left + inner_width] = _resample(
        image, inner_height, inner_width, spec.interpolation
    )
    return padded


def _centre_crop(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Return the largest centre crop with the spec's aspect ratio, to the nearest pixel."""
    height, width = image.shape[:2]
    inner_height = min(height, max(1, round(width * spec.height / spec.width)))
    inner_width = min(width, max(1, round(height * spec.width / spec.height)))
    top, left = (height - inner_height) // 2, (width - inner_width) // 2
    return image[top : top + inner_height, left : left + inner_width]


def _resample(
    image: NDArray[np.uint8], height: int, width: int, interpolation: Interpolation
) -> NDArray[np.uint8]:
    if interpolation == "auto":
        halved = image.shape[0] > 2 * height or image.shape[1] > 2 * width
        interpolation = "area" if halved else "linear"
    if interpolation == "area":
        # OpenCV averages only if neither side grows; otherwise the side that shrinks would skip
        # pixels. So the image is shrunk first and enlarged afterwards.
        shrunk = min(height, image.shape[0]), min(width, image.shape[1])
        if shrunk != image.shape[:2]:
            image = _cv2_resize(image, *shrunk, cv2.INTER_AREA)
        return _cv2_resize(image, height, width, cv2.INTER_LINEAR)
    return _cv2_resize(image, height, width, _INTERPOLATIONS[interpolation])


def _cv2_resize(image: NDArray[np.uint8], height: int, width: int, flag: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (height, width):
        return np.ascontiguousarray(image)
    resized = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=flag)
    return np.ascontiguousarray(resized, dtype=np.uint8)


def _check_image(image: object) -> None:
    if (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
        and image.size
    ):
        return
    if isinstance(image, np.ndarray):
        received = f"{image.dtype} array of shape {image.shape}"
    else:
        received = type(image).__name__
    raise UsageError(
        "An image must be a uint8 array of shape (height, width, 3), RGB 0-255; "
        f"got {received}. Use read_image to read a file."
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(f"`{name}` must be one of {', '.join(choices)}; got {value!r}.")
