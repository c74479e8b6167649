"""Examples of the checks of content: KS201 to KS208."""

from __future__ import annotations

import cv2
import numpy as np

from .contract import SIX, Example, example, instead, plain, saved, sound
from .still_life import fruit

__all__: list[str] = []


@example("KS201")
def blank() -> Example:
    """Leave the cap on the lens."""
    noise = np.random.default_rng(0).normal(24, 1.2, (150, 200, 3)).clip(0, 255).astype(np.uint8)
    return instead("Somebody left the cap on the lens.", "pear/1.jpg", saved(noise))


@example("KS202")
def blurred() -> Example:
    """Take one out of focus, and move while taking another."""
    soft = np.asarray(cv2.GaussianBlur(fruit("pear", 1), (0, 0), 4))
    moved = np.asarray(cv2.blur(fruit("pear", 2), (19, 1)))
    return Example(
        "The third is out of focus, the last was moved.",
        {**plain(*SIX[:2]), "pear/1.jpg": saved(soft), "pear/2.jpg": saved(moved)},
        ("pear/1.jpg", "pear/2.jpg"),
    )


@example("KS203")
def dark() -> Example:
    """Take too little light."""
    return instead("Hardly anything in the last one is even half bright.", "pear/1.jpg",
                   saved((fruit("pear", 1) * 0.22).astype(np.uint8)))  # fmt: skip


@example("KS204")
def bright() -> Example:
    """Take too much light."""
    over = (fruit("pear", 2) * 0.2 + 204).astype(np.uint8)
    return instead("Nothing in the last one is darker than light grey.", "pear/2.jpg", saved(over))


@example("KS205")
def contrast() -> Example:
    """Let fog come in."""
    fog = (fruit("pear", 3) * 0.2 + 120).astype(np.uint8)
    return instead("All tones of the last one lie close together.", "pear/3.jpg", saved(fog))


@example("KS206")
def grey() -> Example:
    """Take the colour out of one."""
    return instead("The last one has no colour, the others have.", "pear/4.jpg",
                   saved(fruit("pear", 4).mean(2).astype(np.uint8)), extra=SIX[:5])  # fmt: skip


@example("KS207")
def coloured() -> Example:
    """Leave the colour in one."""
    files = {name: saved(sound(name).mean(2).astype(np.uint8)) for name in SIX[:5]}
    files["pear/4.jpg"] = saved(fruit("pear", 4))
    return Example("The last one has colour, the others have none.", files, ("pear/4.jpg",))


@example("KS208")
def few_tones() -> Example:
    """Put a sign among photographs."""
    sign = np.full((150, 200, 3), (255, 214, 64), np.uint8)
    cv2.circle(sign, (100, 75), 52, (32, 64, 96), -1)
    cv2.circle(sign, (100, 75), 34, (255, 214, 64), -1)
    return instead("The last one is a sign and no photograph.", "pear/5.png", saved(sign, "PNG"))
