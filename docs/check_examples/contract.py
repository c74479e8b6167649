"""What an example is, and how its files are made."""

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
    "instead",
    "many",
    "plain",
    "saved",
    "sound",
]  # fmt: skip

Drawing = np.ndarray
Files = dict[str, bytes]


@dataclass(frozen=True)
class Example:
    """A folder, and what a check finds in it.

    Parameters
    ----------
    caption : str
        A sentence for the page.
    files : dict of str to bytes
        By their paths in the folder.
    found : tuple of str
        All paths (or names) of the findings.
    shown : tuple of str
        The files that the page shows, in order; all if empty.
    notes : dict of str to str
        A few words below some of them.
    faces : dict of str to array
        What is shown of files that cannot be read, or look otherwise elsewhere.
    """

    caption: str
    files: Files
    found: tuple[str, ...]
    shown: tuple[str, ...] = ()
    notes: dict[str, str] = field(default_factory=dict)
    faces: dict[str, Drawing] = field(default_factory=dict)


EXAMPLES: dict[str, Callable[[], Example]] = {}
"""By the check's code; each makes its example anew."""


def example(code: str) -> Callable[[Callable[[], Example]], Callable[[], Example]]:
    """Enter the example of a check."""

    def enter(make: Callable[[], Example]) -> Callable[[], Example]:
        EXAMPLES[code] = make
        return make

    return enter


def saved(image: Drawing, kind: str = "JPEG", **options: object) -> bytes:
    """Return the image as a file of a format."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **({"quality": 88, **options}))
    return file.getvalue()


def plain(*names: str, first: int = 1) -> Files:
    """Return sound images: ``pear/3.jpg`` is the third pear."""
    return {name: saved(sound(name, first)) for name in names}


def sound(name: str, first: int = 1) -> Drawing:
    """Return the pixels of one of them."""
    label, number = name.split("/")[-2:]
    return fruit(label.strip().lower(), int(number.partition(".")[0]) + first - 1)


SIX = ("apple/1.jpg", "apple/2.jpg", "apple/3.jpg", "pear/1.jpg", "pear/2.jpg", "pear/3.jpg")


def instead(caption: str, name: str, data: bytes, note: str = "", face: Drawing | None = None,
            extra: Iterable[str] = SIX[:3]) -> Example:  # fmt: skip
    """Return an example in which one file is found, beside sound ones."""
    return Example(
        caption,
        {**plain(*extra), name: data},
        (name,),
        notes={name: note} if note else {},
        faces={} if face is None else {name: face},
    )


def many(label: str, count: int, folder: str = "", first: int = 1, **size: int) -> Files:
    """Return many images of one label, in a folder of its name or another one."""
    return {
        f"{folder or label}/{n}.jpg": saved(fruit(label, n, **size))
        for n in range(first, first + count)
    }


SMALL = {"height": 60, "width": 80}
