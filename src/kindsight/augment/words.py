"""Policies, and what was drawn for a picture, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kindsight.augment.policy import Augment

__all__ = ["policy_words"]


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
