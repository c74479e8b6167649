"""Examples of the checks of duplicates and labels: KS301 to KS405."""

from __future__ import annotations

import cv2
import numpy as np

from .contract import SMALL, Drawing, Example, Files, example, many, pixels, plain, saved
from .still_life import fruit, lettering

__all__: list[str] = []


def with_copies(caption: str, name: str, data: bytes, note: str = "", more: Files | None = None,
           notes: dict[str, str] | None = None) -> Example:  # fmt: skip
    """Return an example with one or more copies of ``pear/1.jpg``."""
    files = {**plain("apple/1.jpg", "pear/1.jpg"), name: data, **(more or {})}
    return Example(
        caption, files, ("pear/1.jpg", name, *(more or {})),
        notes={**({name: note} if note else {}), **(notes or {})},
    )  # fmt: skip


@example("KS301")
def identical() -> Example:
    """Save one file twice."""
    return with_copies(
        "The same file under two names.", "pear/1 (2).jpg", saved(pixels("pear/1.jpg"))
    )


@example("KS302")
def reencoded() -> Example:
    """Encode one image in three formats."""
    pear = pixels("pear/1.jpg")
    small = cv2.resize(pear, (100, 75), interpolation=cv2.INTER_AREA)
    return with_copies(
        "These three files differ in every byte, and show one image.",
        "pear/7.jpg", saved(pear, quality=25), "quality 25",
        {"pear/8.png": saved(small, "PNG")}, {"pear/8.png": "100 x 75, PNG"},
    )  # fmt: skip


@example("KS303")
def mirrored() -> Example:
    """Mirror and rotate an image."""
    pear = pixels("pear/1.jpg")
    return with_copies(
        "The second image again, once mirrored and once rotated by 90 degrees.",
        "pear/7.jpg", saved(np.ascontiguousarray(pear[:, ::-1])), "mirrored",
        {"pear/8.jpg": saved(np.ascontiguousarray(np.rot90(pear)))}, {"pear/8.jpg": "turned"},
    )  # fmt: skip


def moved(image: Drawing) -> Drawing:
    """Return the next photograph of a burst, slightly rotated and shifted."""
    height, width = image.shape[:2]
    transform = cv2.getRotationMatrix2D((width / 2, height / 2), 1.0, 1.02)
    transform[:, 2] += (2, -1)
    return np.asarray(
        cv2.warpAffine(image, transform, (width, height), borderMode=cv2.BORDER_REFLECT)
    )


@example("KS304")
def near() -> Example:
    """Take two photographs of a burst."""
    return with_copies(
        "Two photographs of one burst are almost the same image.",
        "pear/7.jpg", saved(moved(pixels("pear/1.jpg"))), "a moment later",
    )  # fmt: skip


@example("KS305")
def crop() -> Example:
    """Crop an image."""
    whole = fruit("pear", 1, 225, 300)
    cropped = whole[35:215, 20:245]
    return Example(
        "The third is a crop of the second.",
        {**plain("apple/1.jpg"), "pear/1.jpg": saved(whole), "pear/7.jpg": saved(cropped),
         **plain("pear/2.jpg", "apple/2.jpg", "apple/3.jpg")},
        ("pear/1.jpg", "pear/7.jpg"),
        ("apple/1.jpg", "pear/1.jpg", "pear/7.jpg", "pear/2.jpg"),
        {"pear/7.jpg": "60% of the area"},
    )  # fmt: skip


@example("KS401")
def conflicting_labels() -> Example:
    """Put one file into two classes."""
    data = saved(fruit("pear", 1))
    return Example(
        "One file, in the folders of two classes.",
        {**plain("apple/1.jpg", "pear/2.jpg"), "apple/7.jpg": data, "pear/1.jpg": data},
        ("apple/7.jpg", "pear/1.jpg"),
    )


@example("KS402")
def conflicting_labels_of_copies() -> Example:
    """Put re-encoded copies into two classes."""
    pear = fruit("pear", 1)
    small = cv2.resize(pear, (120, 90), interpolation=cv2.INTER_AREA)
    return Example(
        "One image, once at a smaller size, in the folders of two classes.",
        {**plain("apple/1.jpg", "pear/2.jpg"), "apple/7.jpg": saved(small),
         "pear/1.jpg": saved(pear)},
        ("apple/7.jpg", "pear/1.jpg"),
    )  # fmt: skip


@example("KS403")
def wrong() -> Example:
    """Put a pear among the apples."""
    return Example(
        "Twenty of each, and one pear that is labelled as an apple.",
        {**many("apple", 20, **SMALL), **many("pear", 20, **SMALL),
         "apple/21.jpg": saved(fruit("pear", 21, **SMALL))},
        ("apple/21.jpg",),
        ("apple/1.jpg", "apple/2.jpg", "apple/21.jpg", "pear/1.jpg"),
        {"apple/21.jpg": "suggested: pear"},
    )  # fmt: skip


@example("KS404")
def outliers() -> Example:
    """Put a page of text among 220 photographs."""
    return Example(
        "A page of text among 220 photographs of fruit.",
        {**many("apple", 80, **SMALL), **many("pear", 140, **SMALL),
         "pear/141.jpg": saved(lettering(7, 0, **SMALL))},
        ("pear/141.jpg",),
        ("apple/1.jpg", "apple/2.jpg", "pear/1.jpg", "pear/141.jpg"),
    )  # fmt: skip


@example("KS405")
def near_identical_classes() -> Example:
    """Give one fruit two names."""
    return Example(
        "Two names for one fruit: no classifier can distinguish them.",
        {**many("apple", 20, "braeburn", **SMALL), **many("apple", 20, "gala", 21, **SMALL),
         **many("lemon", 20, **SMALL)},
        ("braeburn", "gala"),
        ("braeburn/1.jpg", "braeburn/2.jpg", "gala/21.jpg", "gala/22.jpg"),
    )  # fmt: skip
