"""How many images a file holds: the frames of an animation, the pages of a scan.

Counted from the file's own structure without decoding anything, and never beyond a bound: a small
hostile file must not keep us counting.
"""

from __future__ import annotations

import struct

from PIL import ImageFile

__all__ = ["MAX_FRAMES", "count_frames", "mpo_frames"]

MAX_FRAMES = 10_000
"""Counting stops here."""

MAX_BLOCKS = 500_000
"""Blocks of a GIF that are walked over; at 255 bytes each, 120 MB."""


def count_frames(name: str, data: bytes, image: ImageFile.ImageFile | None) -> int:
    """Count the images in a file.

    Parameters
    ----------
    name : str
        The format, as :func:`kindsight.images.formats.detect.detect_format` gives it.
    data : bytes
        The whole file.
    image : PIL.ImageFile.ImageFile or None
        The same, opened and not decoded.

    Returns
    -------
    int
        1 to :data:`MAX_FRAMES`. The sizes of an icon are one image, and so is a photograph with
        the small previews that cameras put behind it.
    """
    counters = {"GIF": _gif, "PNG": _png, "WebP": _webp, "TIFF": _tiff}
    if name in counters:
        return min(max(1, counters[name](data)), MAX_FRAMES)
    if name == "JPEG" and image is not None:
        return mpo_frames(image.info.get("mp", b""))
    if name == "AVIF" and image is not None:
        return min(max(1, int(getattr(image, "n_frames", 1))), MAX_FRAMES)
    return 1


def _gif(data: bytes) -> int:
    """Count the image descriptors; GIF89a, sections 18 to 26."""
    position = 13 + _colours(data, 10)
    frames = blocks = 0
    while position < len(data) and blocks < MAX_BLOCKS and frames < MAX_FRAMES:
        kind = data[position]
        if kind == 0x2C:
            frames += 1
            position += 10 + _colours(data, position + 9) + 1
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


def _colours(data: bytes, at: int) -> int:
    """Return how many bytes of colour table the packed field at a place announces."""
    packed = data[at] if at < len(data) else 0
    return 3 << (packed & 7) + 1 if packed & 0x80 else 0


def _png(data: bytes) -> int:
    """Read what the animation's control chunk says; it stands before the first pixels."""
    control = data.find(b"acTL", 0, max(0, data.find(b"IDAT")))
    if control < 0:
        return 1
    # The chunk may say any number: there are no more frames than there are headers of frames.
    return min(int.from_bytes(data[control + 4 : control + 8], "big"), data.count(b"fcTL"))


def _webp(data: bytes) -> int:
    """Count the chunks of frames; WebP container specification."""
    position, frames = 12, 0
    while position + 8 <= len(data) and frames < MAX_FRAMES:
        frames += data[position : position + 4] == b"ANMF"
        length = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + length + (length & 1)
    return frames


def _tiff(data: bytes) -> int:
    """Follow the chain of directories; smaller versions of the page before do not count."""
    order = "<" if data[:2] == b"II" else ">"
    big = data[2:4] in (b"+\0", b"\0+")
    offset, count, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
    seen: set[int] = set()
    frames = 0
    try:
        (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
        while at and at not in seen and len(seen) < MAX_FRAMES:
            seen.add(at)
            (entries,) = struct.unpack_from(order + count, data, at)
            start = at + struct.calcsize(order + count)
            frames += not _is_reduced(data, start, entries, entry, order)
            (at,) = struct.unpack_from(order + offset, data, start + entries * entry)
    except (struct.error, OverflowError):
        pass  # what there is before the damage counts
    return frames


def _is_reduced(data: bytes, start: int, entries: int, entry: int, order: str) -> bool:
    """Whether a directory's NewSubfileType (tag 254, always the first) says: a smaller version."""
    if not entries or struct.unpack_from(order + "H", data, start)[0] != 254:
        return False
    value = struct.unpack_from(order + "I", data, start + (12 if entry == 20 else 8))[0]
    return bool(value & 1)


def mpo_frames(index: bytes) -> int:
    """Count a JPEG's images that are frames of their own (CIPA DC-007, 5.2.3.3).

    Stereo and panorama count; the previews and the depth that phones add do not.

    Parameters
    ----------
    index : bytes
        The file's index of images; empty where it has none.
    """
    order = "<" if index[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", index, 4)
        (entries,) = struct.unpack_from(order + "H", index, start)
        for at in range(start + 2, start + 2 + 12 * entries, 12):
            tag, _, size, where = struct.unpack_from(order + "HHII", index, at)
            if tag == 0xB002:
                table = index[where : where + min(size, 16 * MAX_FRAMES)]
                kinds = [entry[0] for entry in struct.iter_unpack(order + "I12x", table)]
                frames = sum((int(kind) >> 16 & 0xFF) == 0x02 for kind in kinds)
                return min(max(1, frames), MAX_FRAMES)
    except (struct.error, TypeError):
        pass  # metadata may be anything, and the pixels are still good
    return 1
