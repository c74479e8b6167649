"""Examples of the checks of files: KS110 to KS118."""

from __future__ import annotations

import struct

import cv2
import numpy as np
from PIL import Image

from .contract import Example, example, plain, saved, with_file
from .still_life import fruit, mask

__all__: list[str] = []


@example("KS110")
def extreme_shape() -> Example:
    """Draw a strip."""
    return with_file(
        "The centre square of the last image is a fifth of it.",
        "pear/9.jpg", saved(fruit("pear", 9, 60, 300)), "300 x 60",
    )  # fmt: skip


@example("KS111")
def rotated() -> Example:
    """Store an image on its side, with its EXIF orientation."""
    tags = Image.Exif()
    tags[274] = 6
    stored = np.ascontiguousarray(np.rot90(fruit("pear", 4, 200, 150)))
    return with_file(
        "The last image as it is stored. EXIF says how to rotate it; some programs ignore that.",
        "pear/4.jpg", saved(stored, exif=tags.tobytes()), "orientation 6", stored,
    )  # fmt: skip


@example("KS112")
def same_names() -> Example:
    """Use one name in upper and lower case."""
    return Example(
        "Copied to Windows or macOS, one of the first two overwrites the other.",
        {"apple/a.jpg": saved(fruit("apple", 1)), "apple/A.jpg": saved(fruit("apple", 2)),
         **plain("pear/1.jpg", "pear/2.jpg")},
        ("apple/a.jpg", "apple/A.jpg"),
    )  # fmt: skip


@example("KS113")
def same_classes() -> Example:
    """Spell one class in two variants."""
    return Example(
        "Two folders are one class: four pears, treated as two classes of two.",
        plain("pear/1.jpg", "pear/2.jpg", "Pear /3.jpg", "Pear /4.jpg", "apple/1.jpg"),
        ("pear", "Pear "),
        ("pear/1.jpg", "pear/2.jpg", "Pear /3.jpg", "Pear /4.jpg"),
    )


@example("KS114")
def others() -> Example:
    """Write a text file among the images."""
    return with_file(
        "A text file is among the images and is skipped.",
        "apple/notes.txt", b"Bought on Monday.", "Bought on Monday.",
    )  # fmt: skip


@example("KS115")
def masks() -> Example:
    """Save masks among photographs."""
    return Example(
        "Two of these four are masks of the photographs next to them.",
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
    """Save the thumbnail of another image in EXIF data."""
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
    return with_file(
        "The EXIF thumbnail of the last image, drawn in its corner here, shows something else.",
        "apple/4.jpg", saved(both, exif=b"Exif\0\0" + block), "another thumbnail", face,
    )  # fmt: skip


@example("KS117")
def thumbnail_folders() -> Example:
    """Save small copies in a folder inside the class."""
    small = {f"pear/thumbs/{n}.jpg": saved(cv2.resize(fruit("pear", n), (80, 60))) for n in (1, 2)}
    return Example(
        "Each pear occurs twice, once as a thumbnail, perhaps in another split.",
        {**plain("pear/1.jpg", "pear/2.jpg", "apple/1.jpg"), **small},
        tuple(small),
        ("pear/1.jpg", "pear/thumbs/1.jpg", "pear/2.jpg", "pear/thumbs/2.jpg"),
    )


@example("KS118")
def unread_formats() -> Example:
    """Name a file like a photograph of a phone."""
    return with_file(
        "The last one is an image in an unsupported format.",
        "pear/IMG_0412.HEIC", b"\0\0\0\x18ftypheic", "HEIC",
    )  # fmt: skip
