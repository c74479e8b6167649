"""The class of all examples, and functions that create their files."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from .still_life import fruit

__all__ = [
    "EXAMPLES",
    "SIX",
    "SMALL",
    "Drawing",
    "Example",
    "Files",
    "example",
    "many",
    "pixels",
    "plain",
    "saved",
    "with_file",
]  # fmt: skip

Drawing = np.ndarray
Files = dict[str, bytes]


@dataclass(frozen=True)
class Example:
    """A folder and the findings of a check in it.

    Parameters
    ----------
    caption : str
        Sentence on the page.
    files : dict of str to bytes
        Content by path.
    found : tuple of str
        Paths (or names) of all findings.
    shown : tuple of str
        Files shown on the page, in order. Default: all.
    notes : dict of str to str
        Words drawn below some files.
    faces : dict of str to array
        Images drawn instead of the content of some files.
    """

    caption: str
    files: Files
    found: tuple[str, ...]
    shown: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    faces: dict[str, Drawing] = field(default_factory=dict)


EXAMPLES: dict[str, Callable[[], Example]] = {}
"""Functions that create the examples, by code of the check."""


def example(code: str) -> Callable[[Callable[[], Example]], Callable[[], Example]]:
    """Register the example of a check."""

    def register(make: Callable[[], Example]) -> Callable[[], Example]:
        EXAMPLES[code] = make
        return make

    return register


def saved(image: Drawing, kind: str = "JPEG", **options: object) -> bytes:
    """Return the image encoded in a format."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 88, **options}))
    return file.getvalue()


def plain(*names: str, first: int = 1) -> Files:
    """Return normal images by name: ``pear/3.jpg`` is the third pear."""
    return {name: saved(pixels(name, first)) for name in names}


def pixels(name: str, first: int = 1) -> Drawing:
    """Return the pixels of a normal image."""
    label, number = name.split("/")[-2:]
    return fruit(label.strip().lower(), int(number.partition(".")[0]) + first - 1)


SIX = ("apple/1.jpg", "apple/2.jpg", "apple/3.jpg", "pear/1.jpg", "pear/2.jpg", "pear/3.jpg")


def with_file(caption: str, name: str, data: bytes, note: str = "", face: Drawing | None = None,
            extra: Iterable[str] = SIX[:3]) -> Example:  # fmt: skip
    """Return an example with a finding about one file, besides normal ones."""
    return Example(
        caption,
        {**plain(*extra), name: data},
        (name,),
        notes={name: note} if note else {},
        faces={} if face is None else {name: face},
    )


def many(label: str, count: int, folder: str = "", first: int = 1, **size: int) -> Files:
    """Return many images of one label, by default in a folder of its name."""
    return {
        f"{folder or label}/{n}.jpg": saved(fruit(label, n, **size))
        for n in range(first, first + count)
    }


SMALL = {"height": 60, "width": 80}
