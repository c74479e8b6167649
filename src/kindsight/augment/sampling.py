"""What is drawn for each image, as a table; nothing here touches a pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.random_stream import uniforms

__all__ = ["AUTO", "Draws", "draw"]

Floats = NDArray[np.float64]

_CORNERS = tuple(f"corner_{k}" for k in range(8))

# One uniform number an image each. Their places never change and new ones come last, so that a
# setting that is switched on, or added to kindsight, leaves what the others draw as it was.
_COLUMNS = {
    name: place
    for place, name in enumerate(
        (
            *("flip_down", "flip_across", "rotation", "shift_down", "shift_across", "scale"),
            *("aspect", "shear", *_CORNERS),
            *("brightness", "contrast", "saturation", "hue"),
            *("blurred", "blur", "noisy", "noise", "noise_place", "compressed", "jpeg_quality"),
            *("erased", "erased_area", "erased_shape", "erased_down", "erased_across"),
            *("red", "green", "blue", "auto", "auto_strength", "auto_sign"),
        )
    )
}

AUTO = (
    *("none", "rotation", "shear", "shear-level", "shift-across", "shift-down"),
    *("brightness", "contrast", "saturation", "sharpness"),
    *("posterize", "solarize", "autocontrast", "equalize"),
)
"""The operations of which `auto` draws one, with the bounds of Cubuk et al. 2020 (RandAugment)."""

_LEAST_ERASED = 0.02
_ERASED_SHAPE = 0.3


@dataclass(frozen=True)
class Draws:
    """What is done to n images; all arrays have n rows.

    Attributes
    ----------
    flip : bool (n, 2)
        Top to bottom, left to right.
    rotation : float64 (n,)
        Degrees, counter-clockwise.
    shift : float64 (n, 2)
        Shares of the height (down) and of the width (to the right).
    size : float64 (n, 2)
        Factors of height and width.
    shear : float64 (n, 2)
        Degrees by which level lines rise to the right, and upright ones lean to the right.
    corners : float64 (n, 4, 2)
        Shares of the height and the width by which what is seen in the corners is moved: top left,
        top right, bottom right, bottom left.
    brightness, contrast, saturation, sharpness : float64 (n,)
        Factors.
    hue : float64 (n,)
        Degrees.
    posterize : int64 (n,)
        Bits that are kept, 8 for all.
    solarize : int64 (n,)
        The value from which on pixels are inverted, 256 for none.
    autocontrast, equalize : bool (n,)
    blur, noise : float64 (n,)
        Standard deviations in pixels and grey levels, 0 for none.
    noise_place : float64 (n,)
        Where noise begins in its table, in [0, 1).
    jpeg_quality : int64 (n,)
        0 for no compression.
    erased : float64 (n, 4)
        Top, left, height and width in shares of the sides; height 0 for none.
    paint : int64 (n, 3)
        The erased part's red, green and blue.
    auto : int64 (n,)
        The place in :data:`AUTO` of the operation that `auto` chose; 0 for none.
    """

    flip: NDArray[np.bool_]
    rotation: Floats
    shift: Floats
    size: Floats
    shear: Floats
    corners: Floats
    brightness: Floats
    contrast: Floats
    saturation: Floats
    sharpness: Floats
    hue: Floats
    posterize: NDArray[np.int64]
    solarize: NDArray[np.int64]
    autocontrast: NDArray[np.bool_]
    equalize: NDArray[np.bool_]
    blur: Floats
    noise: Floats
    noise_place: Floats
    jpeg_quality: NDArray[np.int64]
    erased: Floats
    paint: NDArray[np.int64]
    auto: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rotation)


def draw(
    policy: Augment, *, seed: int, epoch: int, index: NDArray[np.int64], view: int = 0
) -> Draws:
    """Draw what is done to each image.

    Parameters
    ----------
    policy : Augment
        The bounds.
    seed, epoch : int
        As :func:`kindsight.random_stream.uniforms` takes them.
    index : int64 array (n,)
        Which images; a row depends on its own index only.
    view : int
        Other views of the same image in the same epoch draw anew.

    Returns
    -------
    Draws
        Of n rows.
    """
    purpose = f"augment view {view}" if view else "augment"
    u = _Columns(uniforms(seed, purpose, epoch, index, len(_COLUMNS)))
    n, zeros = len(index), np.zeros(len(index))
    draws = Draws(
        flip=(u("flip_down", "flip_across") < 0.5) & (policy.vertical_flip, policy.horizontal_flip),
        rotation=u.either("rotation") * policy.rotation,
        shift=u.either("shift_down", "shift_across") * _two(policy.shift),
        size=_sizes(policy, u),
        shear=np.stack([zeros, u.either("shear") * policy.shear], axis=1),
        corners=u.either(*_CORNERS).reshape(n, 4, 2) * policy.perspective,
        brightness=u.between("brightness", policy.brightness),
        contrast=u.between("contrast", policy.contrast),
        saturation=u.between("saturation", policy.saturation),
        sharpness=np.ones(n),
        hue=u.either("hue") * policy.hue,
        posterize=np.full(n, 8),
        solarize=np.full(n, 256),
        autocontrast=np.zeros(n, np.bool_),
        equalize=np.zeros(n, np.bool_),
        blur=_half(u("blurred"), u("blur") * policy.blur),
        noise=_half(u("noisy"), u("noise") * policy.noise),
        noise_place=u("noise_place"),
        jpeg_quality=_qualities(policy, u),
        erased=_boxes(policy, u),
        paint=(u("red", "green", "blue") * 256).astype(np.int64),
        auto=np.zeros(n, np.int64),
    )
    return _with_auto(draws, u) if policy.auto else draws


class _Columns:
    """The uniform numbers by name: (n,) for one name, (n, k) for several."""

    def __init__(self, table: Floats) -> None:
        self._table = table

    def __call__(self, *names: str) -> Floats:
        places = [_COLUMNS[name] for name in names]
        return self._table[:, places if len(places) > 1 else places[0]]

    def either(self, *names: str) -> Floats:
        """Return numbers from -1 to 1."""
        return 2 * self(*names) - 1

    def between(self, name: str, bounds: Any) -> Floats:
        """Return numbers between two bounds."""
        low, high = _two(bounds)
        return low + self(name) * (high - low)


def _with_auto(draws: Draws, u: _Columns) -> Draws:
    """Add the operation that `auto` chooses for each image, at the strength that it draws."""
    auto = (u("auto") * len(AUTO)).astype(np.int64)
    strength = u("auto_strength")
    signed = np.where(u("auto_sign") < 0.5, -strength, strength)
    factor = 1 + 0.9 * signed

    def chosen(name: str, values: Floats, otherwise: float) -> Floats:
        return np.where(auto == AUTO.index(name), values, otherwise)

    def two(first: str, second: str, values: Floats) -> Floats:
        return np.stack([chosen(first, values, 0), chosen(second, values, 0)], axis=1)

    return replace(
        draws,
        rotation=draws.rotation + chosen("rotation", 30 * signed, 0),
        shift=draws.shift + two("shift-down", "shift-across", 0.3 * signed),
        shear=draws.shear + two("shear-level", "shear", 17 * signed),
        brightness=draws.brightness * chosen("brightness", factor, 1),
        contrast=draws.contrast * chosen("contrast", factor, 1),
        saturation=draws.saturation * chosen("saturation", factor, 1),
        sharpness=chosen("sharpness", factor, 1),
        posterize=chosen("posterize", 8 - np.rint(4 * strength), 8).astype(np.int64),
        solarize=chosen("solarize", 256 - np.rint(256 * strength), 256).astype(np.int64),
        autocontrast=auto == AUTO.index("autocontrast"),
        equalize=auto == AUTO.index("equalize"),
        auto=auto,
    )


def _half(chance: Floats, values: Floats) -> Floats:
    """Return the values of half of the images, 0 for the others."""
    return np.where(chance < 0.5, values, 0.0)


def _sizes(policy: Augment, u: _Columns) -> Floats:
    low, high = _two(policy.scale)
    scale = low * (high / low) ** u("scale")
    stretch = policy.aspect ** (u("aspect") - 0.5)
    return np.stack([scale / stretch, scale * stretch], axis=1)


def _qualities(policy: Augment, u: _Columns) -> NDArray[np.int64]:
    if policy.jpeg_quality == 100:
        return np.zeros(len(u("jpeg_quality")), np.int64)
    # Above 95 nothing is to be seen.
    low, high = policy.jpeg_quality, max(policy.jpeg_quality, 95)
    return _half(u("compressed"), low + np.floor(u("jpeg_quality") * (high - low + 1))).astype(
        np.int64
    )


def _boxes(policy: Augment, u: _Columns) -> Floats:
    """Draw rectangles that lie within the image: area, then shape, then place."""
    low = min(_LEAST_ERASED, policy.erasing)
    area = u.between("erased_area", (low, policy.erasing))
    # The shape (height over width, in shares) at which one side is as long as the image's.
    narrow = np.maximum(_ERASED_SHAPE, area)
    shape = narrow ** (1 - 2 * u("erased_shape"))
    height, width = np.minimum(np.sqrt(area * shape), 1), np.minimum(np.sqrt(area / shape), 1)
    height = _half(u("erased"), height)
    return np.stack(
        [u("erased_down") * (1 - height), u("erased_across") * (1 - width), height, width], axis=1
    )


def _two(kept: Any) -> tuple[float, float]:
    low, high = kept
    return float(low), float(high)
