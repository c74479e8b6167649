"""Examples of the checks of files: KS101 to KS109."""

from __future__ import annotations

import io
import struct

import cv2
import numpy as np
from PIL import Image

from .contract import SIX, Example, example, plain, saved, with_file
from .still_life import fruit, mask

__all__: list[str] = []


@example("KS101")
def unreadable() -> Example:
    """Change one byte of a PNG."""
    png = bytearray(saved(fruit("pear", 1), "PNG"))
    png[len(png) // 2] ^= 0xFF
    return with_file(
        "One byte in the middle of the last file has changed, so its checksum is wrong.",
        "pear/1.png", bytes(png), "cannot be read",
    )  # fmt: skip


@example("KS102")
def truncated() -> Example:
    """Truncate a JPEG."""
    whole = fruit("pear", 2)
    face = whole.copy()
    face[72:] = 128
    data = saved(whole)
    return with_file(
        "Half of the last file is missing. Most programs fill it with grey without a warning.",
        "pear/2.jpg", data[: len(data) // 2], "ends too early", face,
    )  # fmt: skip


@example("KS103")
def empty() -> Example:
    """Write an empty file."""
    return with_file("The last file has a name and no content.", "pear/3.jpg", b"", "0 bytes")


@example("KS104")
def web_page() -> Example:
    """Save a web page under the name of an image."""
    page = b"<!DOCTYPE html><html><body><h1>404 Not Found</h1></body></html>"
    return with_file(
        "The last file is a web page with an error message.",
        "pear/4.jpg", page, "<h1>404 Not Found</h1>",
    )  # fmt: skip


@example("KS105")
def bomb() -> Example:
    """Declare a huge number of pixels in a header."""
    png = saved(fruit("pear", 5), "PNG")
    data = png[:16] + struct.pack(">II", 50_000, 50_000) + png[24:]
    return with_file(
        "The header of the last file declares 50,000 x 50,000 pixels: 7.5 GB of memory.",
        "pear/5.png", data, "2,500,000,000 pixels",
    )  # fmt: skip


@example("KS106")
def misnamed() -> Example:
    """Name a PNG .jpg."""
    return with_file(
        "The last file is a PNG in spite of its name.",
        "pear/6.jpg", saved(fruit("pear", 6), "PNG"), "PNG",
    )  # fmt: skip


@example("KS107")
def frames() -> Example:
    """Save an animation."""
    file = io.BytesIO()
    images = [Image.fromarray(fruit("pear", seed, 90, 120)).quantize(64) for seed in (7, 8, 9)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:])
    return with_file(
        "The last file is an animation of three images; the first is used.",
        "pear/7.gif", file.getvalue(), "3 frames",
    )  # fmt: skip


@example("KS108")
def modes() -> Example:
    """Save a CMYK image and a transparent one."""
    cmyk = io.BytesIO()
    Image.fromarray(fruit("pear", 1)).convert("CMYK").save(cmyk, "JPEG", quality=88)
    transparent = np.dstack([fruit("pear", 2), mask("pear", 2)[..., 0]])
    return Example(
        "The third image is stored as CMYK, the last is transparent around the pears.",
        {
            **plain("apple/1.jpg", "apple/2.jpg"),
            "pear/1.jpg": cmyk.getvalue(),
            "pear/2.png": saved(transparent, "PNG"),
        },
        ("pear/1.jpg", "pear/2.png"),
        notes={"pear/1.jpg": "CMYK", "pear/2.png": "transparent"},
    )


@example("KS109")
def odd_size() -> Example:
    """Save an icon among photographs."""
    tiny = cv2.resize(fruit("pear", 8), (20, 15), interpolation=cv2.INTER_AREA)
    given = with_file(
        "The last image is an icon of 20 x 15 pixels among photographs of 200 x 150.",
        "pear/8.png", saved(tiny, "PNG"), "20 x 15", extra=SIX,
    )  # fmt: skip
    return Example(
        given.caption, given.files, given.found, (*SIX[:3], "pear/8.png"), given.notes, given.faces
    )
