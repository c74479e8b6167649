"""What is drawn for each picture, as a table; nothing here touches a pixel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.chance import uniforms

__all__ = ["AUTO", "Draws", "draw"]

Floats = NDArray[np.float64]

# One uniform number a picture each. Their places never change and new ones come last, so that a
# setting that is switched on, or added to kindsight, leaves what the others draw as it was.
_COLUMNS = {
    name: place
    for place, name in enumerate(
        (
            *("flip_down", "flip_across", "rotation", "shift_down", "shift_across", "scale"),
            *("aspect", "shear", *(f"corner_{k}" for k in range(8))),
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
    """What is done to n pictures; all arrays have n rows.

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
    """Draw what is done to each picture.

    Parameters
    ----------
    policy : Augment
        The bounds.
    seed, epoch : int
        As :func:`kindsight.chance.uniforms` takes them.
    index : int64 array (n,)
        Which pictures; a row depends on its own index only.
    view : int
        Other views of the same picture in the same epoch draw anew.

    Returns
    -------
    Draws
        Of n rows.
    """
    purpose = f"augment view {view}" if view else "augment"
    table = uniforms(seed, purpose, epoch, index, len(_COLUMNS))

    def u(name: str) -> Floats:
        return table[:, _COLUMNS[name]]

    def either(name: str, bound: float) -> Floats:
        return (2 * u(name) - 1) * bound

    def factor(name: str) -> Floats:
        low, high = _two(getattr(policy, name))
        return low + u(name) * (high - low)

    auto = np.where(policy.auto, (u("auto") * len(AUTO)).astype(np.int64), 0)
    strength = u("auto_strength")
    signed = np.where(u("auto_sign") < 0.5, -strength, strength)

    def chosen(name: str, values: Any, otherwise: float = 0.0) -> Any:
        return np.where(auto == AUTO.index(name), values, otherwise)

    down, across = _two(policy.shift)
    return Draws(
        flip=np.stack(
            [
                (u("flip_down") < 0.5) & policy.vertical_flip,
                (u("flip_across") < 0.5) & policy.horizontal_flip,
            ],
            axis=1,
        ),
        rotation=either("rotation", policy.rotation) + chosen("rotation", 30 * signed),
        shift=np.stack(
            [
                either("shift_down", down) + chosen("shift-down", 0.3 * signed),
                either("shift_across", across) + chosen("shift-across", 0.3 * signed),
            ],
            axis=1,
        ),
        size=_sizes(policy, u),
        shear=np.stack(
            [
                chosen("shear-level", 17 * signed),
                either("shear", policy.shear) + chosen("shear", 17 * signed),
            ],
            axis=1,
        ),
        corners=np.stack(
            [either(f"corner_{k}", policy.perspective) for k in range(8)], axis=1
        ).reshape(-1, 4, 2),
        brightness=factor("brightness") * chosen("brightness", 1 + 0.9 * signed, 1.0),
        contrast=factor("contrast") * chosen("contrast", 1 + 0.9 * signed, 1.0),
        saturation=factor("saturation") * chosen("saturation", 1 + 0.9 * signed, 1.0),
        sharpness=chosen("sharpness", 1 + 0.9 * signed, 1.0),
        hue=either("hue", policy.hue),
        posterize=chosen("posterize", 8 - np.rint(4 * strength), 8).astype(np.int64),
        solarize=chosen("solarize", 256 - np.rint(256 * strength), 256).astype(np.int64),
        autocontrast=auto == AUTO.index("autocontrast"),
        equalize=auto == AUTO.index("equalize"),
        blur=_half(u("blurred"), u("blur") * policy.blur),
        noise=_half(u("noisy"), u("noise") * policy.noise),
        noise_place=u("noise_place"),
        jpeg_quality=_qualities(policy, u),
        erased=_boxes(policy, u),
        paint=np.stack([u(name) * 256 for name in ("red", "green", "blue")], axis=1).astype(
            np.int64
        ),
        auto=auto,
    )


def _half(chance: Floats, values: Floats) -> Floats:
    """Return the values of half of the pictures, 0 for the others."""
    return np.where(chance < 0.5, values, 0.0)


def _sizes(policy: Augment, u: Callable[[str], Floats]) -> Floats:
    low, high = _two(policy.scale)
    scale = low * (high / low) ** u("scale")
    stretch = policy.aspect ** (u("aspect") - 0.5)
    return np.stack([scale / stretch, scale * stretch], axis=1)


def _qualities(policy: Augment, u: Callable[[str], Floats]) -> NDArray[np.int64]:
    if policy.jpeg_quality == 100:
        return np.zeros(len(u("jpeg_quality")), np.int64)
    # Above 95 nothing is to be seen.
    low, high = policy.jpeg_quality, max(policy.jpeg_quality, 95)
    return _half(u("compressed"), low + np.floor(u("jpeg_quality") * (high - low + 1))).astype(
        np.int64
    )


def _boxes(policy: Augment, u: Callable[[str], Floats]) -> Floats:
    """Draw rectangles that lie within the picture: area, then shape, then place."""
    low = min(_LEAST_ERASED, policy.erasing)
    area = low + u("erased_area") * (policy.erasing - low)
    # The shape (height over width, in shares) at which one side is as long as the picture's.
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
