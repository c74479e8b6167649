"""Sampling of the changes of each image, as tables of numbers; pixels are changed elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.augment.policy import Augment
from kindsight.random_stream import uniforms

__all__ = ["AUTO", "Transforms", "describe_transforms", "sample_transforms", "transforms_to_dict"]

Floats = NDArray[np.float64]

_CORNERS = tuple(f"corner_{k}" for k in range(8))

# One uniform number per image for each name. Columns never move and new ones come last, so that
# switching a setting on, or a new setting of kindsight, does not change the numbers of the others.
_COLUMNS = {
    name: column
    for column, name in enumerate(
        (
            *("flip_down", "flip_across", "rotation", "shift_down", "shift_across", "scale"),
            *("aspect", "shear", *_CORNERS),
            *("brightness", "contrast", "saturation", "hue"),
            *("blurred", "blur", "noisy", "noise", "noise_offset", "compressed", "jpeg_quality"),
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
"""The operations from which `auto` chooses; bounds from Cubuk et al. 2020 (RandAugment)."""

_LEAST_ERASED = 0.02
_ERASED_SHAPE = 0.3


@dataclass(frozen=True)
class Transforms:
    """The sampled changes of n images; each array has n rows."""

    flip: NDArray[np.bool_]  # top to bottom, left to right
    rotation: Floats  # degrees, counter-clockwise
    shift: Floats  # fractions of the height (down) and of the width (to the right)
    size: Floats  # factors of height and width
    # Degrees by which horizontal lines rise to the right, and vertical lines lean to the right.
    shear: Floats
    # Shifts of the corners as fractions of the height and the width: top left, top right, bottom
    # right, bottom left.
    corners: Floats
    brightness: Floats  # factors, as the next three
    contrast: Floats
    saturation: Floats
    sharpness: Floats
    hue: Floats  # degrees
    posterize: NDArray[np.int64]  # remaining bits per channel, 8 for all
    solarize: NDArray[np.int64]  # the smallest value that is inverted, 256 for none
    autocontrast: NDArray[np.bool_]
    equalize: NDArray[np.bool_]
    blur: Floats  # standard deviation in pixels, 0 for none
    noise: Floats  # standard deviation in grey levels, 0 for none
    noise_offset: Floats  # position in the table of noise, in [0, 1)
    jpeg_quality: NDArray[np.int64]  # 0 for no compression
    erased: Floats  # top, left, height and width as fractions of the sides; height 0 for none
    erased_colour: NDArray[np.int64]  # red, green and blue of the erased rectangle
    auto: NDArray[np.int64]  # index in :data:`AUTO` of the operation that `auto` chose; 0 for none

    def __len__(self) -> int:
        return len(self.rotation)


def sample_transforms(
    policy: Augment, *, seed: int, epoch: int, index: NDArray[np.int64], copy: int = 0
) -> Transforms:
    """Sample the changes of each image, from the seed, the epoch, its own index and `copy`."""
    purpose = f"augment view {copy}" if copy else "augment"
    u = _Columns(uniforms(seed, purpose, epoch, index, len(_COLUMNS)))
    n, zeros = len(index), np.zeros(len(index))
    transforms = Transforms(
        flip=(u("flip_down", "flip_across") < 0.5) & (policy.vertical_flip, policy.horizontal_flip),
        rotation=u.signed("rotation") * policy.rotation,
        shift=u.signed("shift_down", "shift_across") * _two(policy.shift),
        size=_sizes(policy, u),
        shear=np.stack([zeros, u.signed("shear") * policy.shear], axis=1),
        corners=u.signed(*_CORNERS).reshape(n, 4, 2) * policy.perspective,
        brightness=u.between("brightness", policy.brightness),
        contrast=u.between("contrast", policy.contrast),
        saturation=u.between("saturation", policy.saturation),
        sharpness=np.ones(n),
        hue=u.signed("hue") * policy.hue,
        posterize=np.full(n, 8),
        solarize=np.full(n, 256),
        autocontrast=np.zeros(n, np.bool_),
        equalize=np.zeros(n, np.bool_),
        blur=_for_half(u("blurred"), u("blur") * policy.blur),
        noise=_for_half(u("noisy"), u("noise") * policy.noise),
        noise_offset=u("noise_offset"),
        jpeg_quality=_qualities(policy, u),
        erased=_boxes(policy, u),
        erased_colour=(u("red", "green", "blue") * 256).astype(np.int64),
        auto=np.zeros(n, np.int64),
    )
    return _with_auto(transforms, u) if policy.auto else transforms


class _Columns:
    """The uniform numbers by name: (n,) for one name, (n, k) for several."""

    def __init__(self, table: Floats) -> None:
        self._table = table

    def __call__(self, *names: str) -> Floats:
        columns = [_COLUMNS[name] for name in names]
        return self._table[:, columns if len(columns) > 1 else columns[0]]

    def signed(self, *names: str) -> Floats:
        """Return numbers from -1 to 1."""
        return 2 * self(*names) - 1

    def between(self, name: str, bounds: Any) -> Floats:
        low, high = _two(bounds)
        return low + self(name) * (high - low)


def _with_auto(transforms: Transforms, u: _Columns) -> Transforms:
    """Add the operation that `auto` chooses for each image."""
    auto = (u("auto") * len(AUTO)).astype(np.int64)
    strength = u("auto_strength")
    signed = np.where(u("auto_sign") < 0.5, -strength, strength)
    factor = 1 + 0.9 * signed

    def chosen(name: str, values: Floats, otherwise: float) -> Floats:
        return np.where(auto == AUTO.index(name), values, otherwise)

    def two(first: str, second: str, values: Floats) -> Floats:
        return np.stack([chosen(first, values, 0), chosen(second, values, 0)], axis=1)

    return replace(
        transforms,
        rotation=transforms.rotation + chosen("rotation", 30 * signed, 0),
        shift=transforms.shift + two("shift-down", "shift-across", 0.3 * signed),
        shear=transforms.shear + two("shear-level", "shear", 17 * signed),
        brightness=transforms.brightness * chosen("brightness", factor, 1),
        contrast=transforms.contrast * chosen("contrast", factor, 1),
        saturation=transforms.saturation * chosen("saturation", factor, 1),
        sharpness=chosen("sharpness", factor, 1),
        posterize=chosen("posterize", 8 - np.rint(4 * strength), 8).astype(np.int64),
        solarize=chosen("solarize", 256 - np.rint(256 * strength), 256).astype(np.int64),
        autocontrast=auto == AUTO.index("autocontrast"),
        equalize=auto == AUTO.index("equalize"),
        auto=auto,
    )


def _for_half(uniform: Floats, values: Floats) -> Floats:
    """Return the values for half of the images, 0 for the others."""
    return np.where(uniform < 0.5, values, 0.0)


def _sizes(policy: Augment, u: _Columns) -> Floats:
    low, high = _two(policy.scale)
    scale = low * (high / low) ** u("scale")
    stretch = policy.aspect ** (u("aspect") - 0.5)
    return np.stack([scale / stretch, scale * stretch], axis=1)


def _qualities(policy: Augment, u: _Columns) -> NDArray[np.int64]:
    if policy.jpeg_quality == 100:
        return np.zeros(len(u("jpeg_quality")), np.int64)
    # Above 95 the compression is invisible.
    low, high = policy.jpeg_quality, max(policy.jpeg_quality, 95)
    qualities = low + np.floor(u("jpeg_quality") * (high - low + 1))
    return _for_half(u("compressed"), qualities).astype(np.int64)


def _boxes(policy: Augment, u: _Columns) -> Floats:
    """Sample rectangles within the image: area, then shape, then position."""
    low = min(_LEAST_ERASED, policy.erasing)
    area = u.between("erased_area", (low, policy.erasing))
    # The shape (height over width, as fractions) at which one side is as long as the image's.
    narrow = np.maximum(_ERASED_SHAPE, area)
    shape = narrow ** (1 - 2 * u("erased_shape"))
    height, width = np.minimum(np.sqrt(area * shape), 1), np.minimum(np.sqrt(area / shape), 1)
    height = _for_half(u("erased"), height)
    return np.stack(
        [u("erased_down") * (1 - height), u("erased_across") * (1 - width), height, width], axis=1
    )


def _two(value: Any) -> tuple[float, float]:
    low, high = value
    return float(low), float(high)


class _Change(NamedTuple):
    """One kind of change: its sampled value, the value of no change, and its description."""

    of: Callable[[Transforms, int], Any]
    neutral: float
    describe: Callable[[Any], list[str]]


def transforms_to_dict(transforms: Transforms, i: int) -> dict[str, Any]:
    """Return the changes of image i as plain values, without those that change nothing.

    The keys are horizontal_flip, vertical_flip (true), rotation (degrees counter-clockwise), shift
    (fractions of the height down and of the width to the right), scale (factors of height and
    width), shear (degrees by which horizontal lines rise and vertical ones lean to the right),
    perspective (fractions of height and width for each corner), brightness, contrast, saturation,
    sharpness (factors), hue (degrees), posterize (remaining bits), solarize (the smallest inverted
    value), autocontrast, equalize (true), blur (pixels), noise (grey levels), jpeg_quality, and
    erased (top, left, height and width as fractions of the sides).
    """
    values = {name: change.of(transforms, i) for name, change in _CHANGES.items()}
    return {
        name: np.asarray(value).tolist()
        for name, value in values.items()
        if np.any(np.asarray(value) != _CHANGES[name].neutral)
    }


def describe_transforms(transforms: Transforms, i: int) -> list[str]:
    """Return a few words for each visible change of image i."""
    changes = transforms_to_dict(transforms, i)
    return [text for name, value in changes.items() for text in _CHANGES[name].describe(value)]


def _describe_rotation(degrees: float) -> list[str]:
    return _by_sign(degrees, "rotated {:.0f}° left", "rotated {:.0f}° right")


def _describe_shift(fractions: list[float]) -> list[str]:
    down, across = (100 * fraction for fraction in fractions)
    return [
        *_by_sign(down, "{:.0f}% down", "{:.0f}% up"),
        *_by_sign(across, "{:.0f}% right", "{:.0f}% left"),
    ]


def _describe_scale(factors: list[float]) -> list[str]:
    height, width = factors
    if abs(height - width) < 0.005:
        return _times("size")(height)
    return [*_times("height")(height), *_times("width")(width)]


def _describe_shear(degrees: list[float]) -> list[str]:
    rise, lean = degrees
    return [
        *_by_sign(rise, "rising {:.0f}°", "falling {:.0f}°"),
        *_by_sign(lean, "leaning {:.0f}° right", "leaning {:.0f}° left"),
    ]


def _by_sign(value: float, positive: str, negative: str) -> list[str]:
    if abs(value) < 0.5:
        return []
    return [(positive if value > 0 else negative).format(abs(value))]


def _times(name: str) -> Callable[[float], list[str]]:
    return lambda factor: [f"{name} \u00d7 {factor:.2f}"] if abs(factor - 1) >= 0.005 else []


_CHANGES = {
    "horizontal_flip": _Change(lambda t, i: t.flip[i, 1], 0, lambda _: ["mirrored"]),
    "vertical_flip": _Change(lambda t, i: t.flip[i, 0], 0, lambda _: ["upside down"]),
    "rotation": _Change(lambda t, i: t.rotation[i], 0, _describe_rotation),
    "shift": _Change(lambda t, i: t.shift[i], 0, _describe_shift),
    "scale": _Change(lambda t, i: t.size[i], 1, _describe_scale),
    "shear": _Change(lambda t, i: t.shear[i], 0, _describe_shear),
    "perspective": _Change(lambda t, i: t.corners[i], 0, lambda _: ["perspective"]),
    "brightness": _Change(lambda t, i: t.brightness[i], 1, _times("brightness")),
    "contrast": _Change(lambda t, i: t.contrast[i], 1, _times("contrast")),
    "saturation": _Change(lambda t, i: t.saturation[i], 1, _times("saturation")),
    "sharpness": _Change(lambda t, i: t.sharpness[i], 1, _times("sharpness")),
    "hue": _Change(lambda t, i: t.hue[i], 0, lambda v: _by_sign(v, "hue +{:.0f}°", "hue -{:.0f}°")),
    "posterize": _Change(lambda t, i: t.posterize[i], 8, lambda v: [f"{v} bits per channel"]),
    "solarize": _Change(lambda t, i: t.solarize[i], 256, lambda v: [f"inverted from {v}"]),
    "autocontrast": _Change(lambda t, i: t.autocontrast[i], 0, lambda _: ["contrast stretched"]),
    "equalize": _Change(lambda t, i: t.equalize[i], 0, lambda _: ["equalized"]),
    "blur": _Change(lambda t, i: t.blur[i], 0, lambda v: [f"blur {v:.1f} px"] if v >= 0.05 else []),
    "noise": _Change(lambda t, i: t.noise[i], 0, lambda v: _by_sign(v, "noise {:.0f}", "")),
    "jpeg_quality": _Change(lambda t, i: t.jpeg_quality[i], 0, lambda v: [f"JPEG {v}"]),
    "erased": _Change(
        lambda t, i: t.erased[i] if t.erased[i, 2] else 0,
        0,
        lambda v: [f"{100 * v[2] * v[3]:.0f}% erased"],
    ),
}
