"""Policies, and what was drawn for an image, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from kindsight.augment.policy import Augment
    from kindsight.augment.sampling import Draws

__all__ = ["draw_record", "draw_words", "policy_words"]

_TIMES = "\u00d7"


def policy_words(policy: Augment) -> str:
    """Say in one line what a policy may do."""
    say = [text for make in (_geometry, _colour, _rest) for text in make(policy)]
    if policy.fill != "nearest" and any(_geometry(policy)):
        say.append(f"{policy.fill} fill")
    return ", ".join(say) or "none"


def _geometry(policy: Augment) -> list[str]:
    down, across = _two(policy.shift)
    shift = (
        f"±{_share(down)}" if down == across else f"±{_share(down)} down, ±{_share(across)} across"
    )
    return [
        text
        for text, wanted in (
            (f"rotation ±{policy.rotation:g}°", policy.rotation),
            (f"shift {shift}", down or across),
            (f"scale {_span(policy.scale)}", _two(policy.scale) != (1, 1)),
            (f"aspect to {policy.aspect:.3g}", policy.aspect != 1),
            (f"shear ±{policy.shear:g}°", policy.shear),
            ("horizontal flip", policy.horizontal_flip),
            ("vertical flip", policy.vertical_flip),
            (f"perspective ±{_share(policy.perspective)}", policy.perspective),
            ("automatic", policy.auto),
        )
        if wanted
    ]


def _colour(policy: Augment) -> list[str]:
    factors = [
        f"{name} {_span(getattr(policy, name))}"
        for name in ("brightness", "contrast", "saturation")
        if _two(getattr(policy, name)) != (1, 1)
    ]
    return [*factors, *([f"hue ±{policy.hue:g}°"] if policy.hue else [])]


def _rest(policy: Augment) -> list[str]:
    return [
        text
        for text, wanted in (
            (f"blur to {policy.blur:g} px", policy.blur),
            (f"noise to {policy.noise:g} levels", policy.noise),
            (f"JPEG down to {policy.jpeg_quality}", policy.jpeg_quality < 100),
            (f"erasing to {_share(policy.erasing)}", policy.erasing),
            (f"MixUp {policy.mixup:g}", policy.mixup),
            (f"CutMix {policy.cutmix:g}", policy.cutmix),
        )
        if wanted
    ]


def _two(kept: Any) -> tuple[float, float]:
    first, second = kept
    return float(first), float(second)


def _span(kept: Any) -> str:
    low, high = _two(kept)
    return f"{low:.3g}-{high:.3g}"


def _share(share: float) -> str:
    return f"{100 * share:.3g}%"


# What was drawn -----------------------------------------------------------------------------------


class _Change(NamedTuple):
    """One kind of change: where it stands in the draws, what is none, and how it is said."""

    of: Callable[[Draws, int], Any]
    none: float
    say: Callable[[Any], list[str]]


def draw_record(draws: Draws, i: int) -> dict[str, Any]:
    """Return what was drawn for image i as plain values; what changes nothing is left out.

    Parameters
    ----------
    draws : Draws
        Of n images.
    i : int
        Which of them.

    Returns
    -------
    dict
        Any of: horizontal_flip, vertical_flip (true), rotation (degrees counter-clockwise), shift
        (shares of the height down and of the width to the right), scale (factors of height and
        width), shear (degrees by which level lines rise and upright ones lean to the right),
        perspective (shares of height and width for each corner), brightness, contrast, saturation,
        sharpness (factors), hue (degrees), posterize (bits kept), solarize (the first value that is
        inverted), autocontrast, equalize (true), blur (pixels), noise (grey levels), jpeg_quality,
        erased (top, left, height and width in shares of the sides).
    """
    values = {name: change.of(draws, i) for name, change in _CHANGES.items()}
    return {
        name: np.asarray(value).tolist()
        for name, value in values.items()
        if np.any(np.asarray(value) != _CHANGES[name].none)
    }


def draw_words(draws: Draws, i: int) -> list[str]:
    """Say what was drawn for image i, a few words for each change that is to be seen."""
    record = draw_record(draws, i)
    return [text for name, value in record.items() for text in _CHANGES[name].say(value)]


def _turned(degrees: float) -> list[str]:
    return _either(degrees, "turned {:.0f}° left", "turned {:.0f}° right")


def _shifted(shares: list[float]) -> list[str]:
    down, across = (100 * share for share in shares)
    return [
        *_either(down, "{:.0f}% down", "{:.0f}% up"),
        *_either(across, "{:.0f}% right", "{:.0f}% left"),
    ]


def _scaled(factors: list[float]) -> list[str]:
    high, wide = factors
    if abs(high - wide) < 0.005:
        return _times("size")(high)
    return [*_times("height")(high), *_times("width")(wide)]


def _sheared(degrees: list[float]) -> list[str]:
    rise, lean = degrees
    return [
        *_either(rise, "rising {:.0f}°", "falling {:.0f}°"),
        *_either(lean, "leaning {:.0f}° right", "leaning {:.0f}° left"),
    ]


def _either(value: float, above: str, below: str) -> list[str]:
    """Say a value that may be of either sign, unless it rounds to none."""
    if abs(value) < 0.5:
        return []
    return [(above if value > 0 else below).format(abs(value))]


def _times(name: str) -> Callable[[float], list[str]]:
    return lambda factor: [f"{name} {_TIMES} {factor:.2f}"] if abs(factor - 1) >= 0.005 else []


_CHANGES = {
    "horizontal_flip": _Change(lambda d, i: d.flip[i, 1], 0, lambda _: ["mirrored"]),
    "vertical_flip": _Change(lambda d, i: d.flip[i, 0], 0, lambda _: ["upside down"]),
    "rotation": _Change(lambda d, i: d.rotation[i], 0, _turned),
    "shift": _Change(lambda d, i: d.shift[i], 0, _shifted),
    "scale": _Change(lambda d, i: d.size[i], 1, _scaled),
    "shear": _Change(lambda d, i: d.shear[i], 0, _sheared),
    "perspective": _Change(lambda d, i: d.corners[i], 0, lambda _: ["perspective"]),
    "brightness": _Change(lambda d, i: d.brightness[i], 1, _times("brightness")),
    "contrast": _Change(lambda d, i: d.contrast[i], 1, _times("contrast")),
    "saturation": _Change(lambda d, i: d.saturation[i], 1, _times("saturation")),
    "sharpness": _Change(lambda d, i: d.sharpness[i], 1, _times("sharpness")),
    "hue": _Change(lambda d, i: d.hue[i], 0, lambda v: _either(v, "hue +{:.0f}°", "hue -{:.0f}°")),
    "posterize": _Change(lambda d, i: d.posterize[i], 8, lambda v: [f"{v} bits a channel"]),
    "solarize": _Change(lambda d, i: d.solarize[i], 256, lambda v: [f"inverted from {v} on"]),
    "autocontrast": _Change(lambda d, i: d.autocontrast[i], 0, lambda _: ["contrast stretched"]),
    "equalize": _Change(lambda d, i: d.equalize[i], 0, lambda _: ["equalized"]),
    "blur": _Change(lambda d, i: d.blur[i], 0, lambda v: [f"blur {v:.1f} px"] if v >= 0.05 else []),
    "noise": _Change(lambda d, i: d.noise[i], 0, lambda v: _either(v, "noise {:.0f}", "")),
    "jpeg_quality": _Change(lambda d, i: d.jpeg_quality[i], 0, lambda v: [f"JPEG {v}"]),
    "erased": _Change(
        lambda d, i: d.erased[i] if d.erased[i, 2] else 0,
        0,
        lambda v: [f"{100 * v[2] * v[3]:.0f}% erased"],
    ),
}
