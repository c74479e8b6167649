"""Examples of the checks of files: KS110 to KS118."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from PIL import Image

from .contract import Example, example, instead, plain, saved
from .still_life import fruit, mask

__all__: list[str] = []


@example("KS110")
def extreme_shape() -> Example:
    """Cut a strip."""
    return instead(
        "A network that is given the square in the middle of the last one sees a fifth of it.",
        "pear/9.jpg", saved(fruit("pear", 9, 60, 300)), "300 x 60",
    )  # fmt: skip


@example("KS111")
def turned() -> Example:
    """Store an image on its side, with EXIF's note of it."""
    tags = Image.Exif()
    tags[274] = 6
    lying = np.ascontiguousarray(np.rot90(fruit("pear", 4, 200, 150)))
    return instead(
        "The last image as it is stored. EXIF says how to turn it; some programs do not listen.",
        "pear/4.jpg", saved(lying, exif=tags.tobytes()), "orientation 6", lying,
    )  # fmt: skip


@example("KS112")
def same_names() -> Example:
    """Use one name in upper and lower case."""
    return Example(
        "Copied to Windows or to a Mac, one of the first two replaces the other.",
        {"apple/a.jpg": saved(fruit("apple", 1)), "apple/A.jpg": saved(fruit("apple", 2)),
         **plain("pear/1.jpg", "pear/2.jpg")},
        ("apple/a.jpg", "apple/A.jpg"),
    )  # fmt: skip


@example("KS113")
def same_classes() -> Example:
    """Write one class in two ways."""
    return Example(
        "Two folders are one class: four pears, taken for two of one kind and two of another.",
        plain("pear/1.jpg", "pear/2.jpg", "Pear /3.jpg", "Pear /4.jpg", "apple/1.jpg"),
        ("pear", "Pear "),
        ("pear/1.jpg", "pear/2.jpg", "Pear /3.jpg", "Pear /4.jpg"),
    )


@example("KS114")
def others() -> Example:
    """Leave a note among the images."""
    return instead(
        "A text file lies among the images and is passed over.",
        "apple/notes.txt", b"Bought on Monday.", "Bought on Monday.",
    )  # fmt: skip


@example("KS115")
def masks() -> Example:
    """Put masks beside photographs."""
    return Example(
        "Two of these four are no photographs: they say where the pears are in another one.",
        {
            **plain("pear/1.jpg", "pear/2.jpg", "apple/1.jpg"),
            "pear/1_mask.png": saved(mask("pear", 1), "PNG"),
            "pear/2_mask.png": saved(mask("pear", 2), "PNG"),
        },
        ("pear/1_mask.png", "pear/2_mask.png"),
        ("pear/1.jpg", "pear/1_mask.png", "pear/2.jpg", "pear/2_mask.png"),
    )


@example("KS116")
def thumbnail() -> Example:
    """Hide another image in EXIF data."""
    other = fruit("pear", 3)
    small = saved(cv2.resize(other, (80, 60), interpolation=cv2.INTER_AREA))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<HI", 0, 14)
    second = struct.pack("<HHHIIHHII", 2, 513, 4, 1, 44, 514, 4, 1, len(small)) + bytes(4)
    block = (head + second).ljust(44, b"\0") + small
    both = fruit("apple", 4)
    corner = cv2.resize(other, (80, 60), interpolation=cv2.INTER_AREA)
    face = both.copy()
    face[-64:, -84:] = 255
    face[-62:-2, -82:-2] = corner
    return instead(
        "The last image's hidden thumbnail, in its corner here, shows something else.",
        "apple/4.jpg", saved(both, exif=b"Exif\0\0" + block), "another thumbnail", face,
    )  # fmt: skip


@example("KS117")
def thumbnail_folders() -> Example:
    """Keep small copies in a folder of their own, inside the class."""
    small = {f"pear/thumbs/{n}.jpg": saved(cv2.resize(fruit("pear", n), (80, 60))) for n in (1, 2)}
    return Example(
        "Each pear is there twice, once small: the split may learn one and test on the other.",
        {**plain("pear/1.jpg", "pear/2.jpg", "apple/1.jpg"), **small},
        tuple(small),
        ("pear/1.jpg", "pear/thumbs/1.jpg", "pear/2.jpg", "pear/thumbs/2.jpg"),
    )


@example("KS118")
def unread_formats() -> Example:
    """Name a file as a telephone does."""
    return instead(
        "The last one is an image, but of a format that is not read.",
        "pear/IMG_0412.HEIC", b"\0\0\0\x18ftypheic", "HEIC",
    )  # fmt: skip
