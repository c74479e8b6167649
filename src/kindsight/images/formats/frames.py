"""Number of images in a file: frames of an animation or pages of a scan.

Frames are counted from the file's structure, without decoding, and up to a limit: a small hostile
file must not keep the program busy.
"""

from __future__ import annotations

import struct

from PIL import ImageFile

from kindsight.images.formats.tiff import MAX_FRAMES, Tiff, tiff_frames

__all__ = ["MAX_FRAMES", "count_frames", "mpo_frames"]

MAX_BLOCKS = 500_000
"""Limit of GIF blocks that are walked: 120 MB at 255 bytes each."""

_MP_ENTRIES = 0xB002


def count_frames(name: str, data: bytes, image: ImageFile.ImageFile | None) -> int:
    """Return the number of images in a file, 1 to MAX_FRAMES; `image` is the file opened by Pillow.

    The sizes of an icon count as one image, and so does a photo with the previews of its camera.
    """
    counters = {"GIF": _gif_frames, "PNG": _png_frames, "WebP": _webp_frames, "TIFF": tiff_frames}
    if name in counters:
        return min(max(1, counters[name](data)), MAX_FRAMES)
    if name == "JPEG" and image is not None:
        return mpo_frames(image.info.get("mp", b""))
    if name == "AVIF" and image is not None:
        return min(max(1, int(getattr(image, "n_frames", 1))), MAX_FRAMES)
    return 1


def _gif_frames(data: bytes) -> int:
    """Count the image descriptors (GIF89a, sections 18 to 26)."""
    position = 13 + _colour_table_bytes(data, 10)
    frames = blocks = 0
    while position < len(data) and blocks < MAX_BLOCKS and frames < MAX_FRAMES:
        kind = data[position]
        if kind == 0x2C:
            frames += 1
            position += 10 + _colour_table_bytes(data, position + 9) + 1
        elif kind == 0x21:
            position += 2
        else:
            break
        while position < len(data) and data[position] and blocks < MAX_BLOCKS:
            position += data[position] + 1
            blocks += 1
        position += 1
        blocks += 1
    return frames


def _colour_table_bytes(data: bytes, offset: int) -> int:
    """Return the size of the colour table that the packed field at an offset states."""
    packed = data[offset] if offset < len(data) else 0
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _png_frames(data: bytes) -> int:
    """Return the frames of the animation control chunk, which precedes the first pixels."""
    control = data.find(b"acTL", 0, max(0, data.find(b"IDAT")))
    if control < 0:
        return 1
    # The chunk can state any number, but each frame has a frame control chunk.
    return min(int.from_bytes(data[control + 4 : control + 8], "big"), data.count(b"fcTL"))


def _webp_frames(data: bytes) -> int:
    """Count the frame chunks (WebP container specification)."""
    position, frames = 12, 0
    while position + 8 <= len(data) and frames < MAX_FRAMES:
        frames += data[position : position + 4] == b"ANMF"
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + (length & 1)
    return frames


def mpo_frames(index: bytes) -> int:
    """Return the number of independent images in a JPEG, from its MPF index (CIPA DC-007, 5.2.3.3).

    Stereo and panorama images count; previews and the depth maps of phones do not.
    """
    tiff = Tiff.parse(index) if isinstance(index, bytes) else None
    directory = None if tiff is None else tiff.directory(tiff.first)
    if tiff is None or directory is None:
        return 1
    for entry in tiff.entries(directory):
        if entry.tag == _MP_ENTRIES:
            table = index[entry.field : entry.field + min(entry.values, 16 * MAX_FRAMES)]
            if len(table) % 16:
                return 1
            kinds = [attributes for (attributes,) in struct.iter_unpack(tiff.order + "I12x", table)]
            frames = sum((int(kind) >> 16 & 0xFF) == 0x02 for kind in kinds)
            return min(max(1, frames), MAX_FRAMES)
    return 1
