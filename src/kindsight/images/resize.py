"""The only resize: any image to the size that a network takes."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError, UsageError

__all__ = ["MAX_SIDE", "PAD_VALUE", "Fit", "InputSpec", "Interpolation", "resize_image"]

Fit = Literal["stretch", "crop", "pad"]
Interpolation = Literal["auto", "area", "linear", "cubic", "nearest"]

MAX_SIDE = 8192
"""The largest height or width of an :class:`InputSpec`."""

PAD_VALUE = 127
"""The grey of padding: the middle of 0-255, which a network's own scaling takes to about zero."""

_INTERPOLATIONS = {
    "area": cv2.INTER_AREA,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "nearest": cv2.INTER_NEAREST_EXACT,
}


@dataclass(frozen=True)
class InputSpec:
    """The images that a network takes, and how others are brought to that size.

    Parameters
    ----------
    height, width : int
        Pixels, 1 to 8192.
    fit : {"stretch", "crop", "pad"}, default="stretch"
        ``stretch`` changes the proportions; ``crop`` keeps them and takes the largest middle part
        with the wanted proportions; ``pad`` keeps them and all of the image, with grey (127)
        on two sides.
    interpolation : {"auto", "area", "linear", "cubic", "nearest"}, default="auto"
        ``area`` averages all pixels that fall together when shrinking and is linear when growing.
        ``auto`` is the same where a side shrinks to less than half, and linear otherwise: until
        then linear still looks at every pixel, at a fifth of the time. The others take 4, 16 or 1
        pixels whatever the size, as most libraries do unasked.

    Raises
    ------
    SettingsError
        If a value is not one of these.

    Examples
    --------
    >>> InputSpec(224, 160).size
    (224, 160)
    """

    height: int
    width: int
    fit: Fit = "stretch"
    interpolation: Interpolation = "auto"

    def __post_init__(self) -> None:
        for name in ("height", "width"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                value = int(value)
                object.__setattr__(self, name, value)
            if type(value) is not int or not 1 <= value <= MAX_SIDE:
                raise SettingsError(
                    f"{name} must be a whole number from 1 to {MAX_SIDE}. "
                    f"Received: {name}={value!r}"
                )
        _check_choice("fit", self.fit, get_args(Fit))
        _check_choice("interpolation", self.interpolation, get_args(Interpolation))

    @property
    def size(self) -> tuple[int, int]:
        """The (height, width) in pixels."""
        return self.height, self.width

    def key(self) -> str:
        """Return a short name, the same for equal specs only, fit for a file name."""
        return f"{self.height}x{self.width}-{self.fit}-{self.interpolation}"

    def to_dict(self) -> dict[str, int | str]:
        """Return the settings as plain values, for JSON or TOML."""
        return asdict(self)

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> InputSpec:
        """Make a spec of what :meth:`to_dict` returned; :class:`SettingsError` on anything else."""
        if not isinstance(settings, Mapping):
            raise SettingsError(
                "An input spec must be a table of settings such as {'height': 224, 'width': 224}. "
                f"Received: {type(settings).__name__}"
            )
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                near = difflib.get_close_matches(str(name), known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise SettingsError(
                    f"An input spec has the settings {', '.join(known)}. Received: {name!r}.{hint}"
                )
        for name in ("height", "width"):
            if name not in settings:
                raise SettingsError(
                    f"An input spec must give both height and width. Received: {dict(settings)!r}"
                )
        return cls(**settings)


def resize_image(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Bring an image to the size that a network takes.

    Parameters
    ----------
    image : uint8 array of shape (height, width, 3)
        RGB, 0-255. It is not changed.
    spec : InputSpec
        The size, and how it is reached.

    Returns
    -------
    uint8 array of shape (spec.height, spec.width, 3)
        C-contiguous. An image that has the size already is returned itself if it is C-contiguous,
        and otherwise a contiguous copy.

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
        image = _middle(image, spec)
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


def _middle(image: NDArray[np.uint8], spec: InputSpec) -> NDArray[np.uint8]:
    """Cut the largest middle part with the proportions of the spec, to the nearest pixel."""
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
        # OpenCV averages only if neither side grows, so that a side that shrinks while the other
        # grows would skip pixels: shrink first, then grow.
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
        "An image must be a uint8 array of shape (height, width, 3), RGB 0-255. "
        f"Received: {received}. Use read_image to get one from a file."
    )


def _check_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise SettingsError(
            f"{name} must be one of {', '.join(choices)}. Received: {name}={value!r}"
        )
