"""Text can be read: WCAG AA contrast of every pair of colours, in light and dark."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import kindsight.report

STYLE = (Path(kindsight.report.__file__).parent / "templates" / "style.css").read_text("utf-8")


def palettes() -> dict[str, dict[str, str]]:
    light, dark, printed = (
        dict(re.findall(r"--([\w-]+):\s*([^;]+);", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, flags=re.S)
    )
    return {"light": light, "dark": dark, "print": printed}


def rgb(value: str) -> tuple[float, ...]:
    if value.startswith("#"):
        digits = value[1:] if len(value) == 7 else "".join(2 * digit for digit in value[1:])
        return tuple(int(digits[i : i + 2], 16) for i in (0, 2, 4))
    return tuple(float(part) for part in value.split())


def luminance(colour: tuple[float, ...]) -> float:
    parts = [part / 255 for part in colour]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def over(front: tuple[float, ...], alpha: float, back: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(alpha * f + (1 - alpha) * b for f, b in zip(front, back, strict=True))


def test_contrast_of_black_on_white_is_21():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
def test_text_meets_aa(theme):
    colours = {name: rgb(value) for name, value in palettes()[theme].items() if name != "heat"}
    for text in ("ink", "quiet", "right", "wrong"):
        for ground in ("page", "panel"):
            assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    assert contrast(colours["ink"], colours["alert"]) >= 4.5
    assert contrast(colours["page"], colours["right"]) >= 4.5


@pytest.mark.parametrize("theme", ["light", "dark", "print"])
@pytest.mark.parametrize("kind", ["right-rgb", "wrong-rgb"])
def test_numbers_on_the_strongest_heat_meet_aa(theme, kind):
    base, step = map(float, re.search(r"format\(([\d.]+) \+ ([\d.]+) \* level\)", STYLE).groups())
    colours = palettes()[theme]
    for level in range(1, 6):
        ground = over(rgb(colours[kind]), base + step * level, rgb(colours["page"]))
        assert contrast(rgb(colours["ink"]), ground) >= 4.5, level


def test_every_colour_comes_from_the_palette():
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.S)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b", rules) == []
