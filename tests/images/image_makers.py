"""Makers of image files for the tests: some through Pillow, some byte by byte."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image


def encode(pixels, name, mode=None, **options):
    """Return the file that Pillow writes of an array (or of an image)."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    if mode:
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def smooth(height, width, seed=0):
    """Return an image without edges or noise, which JPEG keeps within a few levels."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    y, x = y / height, x / width
    planes = []
    for _ in range(3):
        a, b, c = rng.uniform(0.5, 2.5, 3)
        planes.append(127 + 100 * np.sin(a * x * 3 + b) * np.cos(c * y * 3))
    return np.stack(planes, -1).round().astype(np.uint8)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(height, width, bits, colour, raw, before=b"", after=b""):
    """Return a PNG of unfiltered rows; `before` and `after` are chunks around the pixels."""
    stride = len(raw) // height
    rows = b"".join(b"\0" + raw[at : at + stride] for at in range(0, len(raw), stride))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + after
        + chunk(b"IEND", b"")
    )


def tiff(height, width, bits, samples, photometric, raw, *, order="<", sample_format=1, extra=()):
    """Return an uncompressed TIFF of one strip, written out entry by entry."""
    entries = [
        (256, 4, [width]),
        (257, 4, [height]),
        (258, 3, [bits] * samples),
        (259, 3, [1]),
        (262, 3, [photometric]),
        (273, 4, [0]),  # where the strip begins, filled in below
        (277, 3, [samples]),
        (278, 4, [height]),
        (279, 4, [len(raw)]),
        (339, 3, [sample_format] * samples),
        *extra,
    ]
    entries.sort()
    spill_at = 8 + 2 + 12 * len(entries) + 4
    spill = b""
    size = {3: 2, 4: 4}
    code = {3: "H", 4: "I"}
    long_values = sum(
        size[kind] * len(values) for _, kind, values in entries if size[kind] * len(values) > 4
    )
    body = struct.pack(order + "H", len(entries))
    for tag, kind, values in entries:
        packed_values = [spill_at + long_values] if tag == 273 else values
        packed = struct.pack(f"{order}{len(values)}{code[kind]}", *packed_values)
        if len(packed) > 4:
            where = struct.pack(order + "I", spill_at + len(spill))
            spill += packed
            packed = where
        body += struct.pack(order + "HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return head + body + b"\0\0\0\0" + spill + raw
