"""Examples of the checks of content: KS201 to KS208."""

from __future__ import annotations

import cv2
import numpy as np

from .contract import SIX, Example, example, pixels, plain, saved, with_file
from .still_life import fruit

__all__: list[str] = []


@example("KS201")
def blank() -> Example:
    """Photograph with a covered lens."""
    noise = np.random.default_rng(0).normal(24, 1.2, (150, 200, 3)).clip(0, 255).astype(np.uint8)
    return with_file("The lens of the last image was covered.", "pear/1.jpg", saved(noise))


@example("KS202")
def blurred() -> Example:
    """Blur one image and add motion blur to another."""
    soft = np.asarray(cv2.GaussianBlur(fruit("pear", 1), (0, 0), 4))
    moved = np.asarray(cv2.blur(fruit("pear", 2), (19, 1)))
    return Example(
        "The third is out of focus, the last has motion blur.",
        {**plain(*SIX[:2]), "pear/1.jpg": saved(soft), "pear/2.jpg": saved(moved)},
        ("pear/1.jpg", "pear/2.jpg"),
    )


@example("KS203")
def dark() -> Example:
    """Underexpose an image."""
    return with_file("Hardly any pixel of the last one is bright.", "pear/1.jpg",
                   saved((fruit("pear", 1) * 0.22).astype(np.uint8)))  # fmt: skip


@example("KS204")
def bright() -> Example:
    """Overexpose an image."""
    over = (fruit("pear", 2) * 0.2 + 204).astype(np.uint8)
    return with_file(
        "No pixel of the last one is darker than light grey.", "pear/2.jpg", saved(over)
    )


@example("KS205")
def contrast() -> Example:
    """Reduce the contrast, like fog."""
    fog = (fruit("pear", 3) * 0.2 + 120).astype(np.uint8)
    return with_file(
        "The tones of the last one are within a narrow range.", "pear/3.jpg", saved(fog)
    )


@example("KS206")
def grey() -> Example:
    """Convert one image to grey."""
    return with_file("The last one has no colour, the others have.", "pear/4.jpg",
                   saved(fruit("pear", 4).mean(2).astype(np.uint8)), extra=SIX[:5])  # fmt: skip


@example("KS207")
def coloured() -> Example:
    """Convert all images but one to grey."""
    files = {name: saved(pixels(name).mean(2).astype(np.uint8)) for name in SIX[:5]}
    files["pear/4.jpg"] = saved(fruit("pear", 4))
    return Example("The last one has colour, the others have none.", files, ("pear/4.jpg",))


@example("KS208")
def few_tones() -> Example:
    """Draw a sign among photographs."""
    sign = np.full((150, 200, 3), (255, 214, 64), np.uint8)
    cv2.circle(sign, (100, 75), 52, (32, 64, 96), -1)
    cv2.circle(sign, (100, 75), 34, (255, 214, 64), -1)
    return with_file("The last one is a sign, not a photograph.", "pear/5.png", saved(sign, "PNG"))
