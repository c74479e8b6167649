"""Formats of image files: detected from the first bytes, never from the name; common errors."""

from __future__ import annotations

import functools
import importlib.util
import re

from kindsight.errors import ImageError

__all__ = [
    "HEAD_BYTES", "HEIF_MODULES", "READABLE", "check_size", "corrupt", "detect_format",
    "file_ending", "heif_module", "truncated",
]  # fmt: skip

READABLE = ("JPEG", "PNG", "GIF", "WebP", "BMP", "TIFF", "PPM", "AVIF", "JPEG 2000", "ICO")
"""The supported formats; PPM includes PBM and PGM. HEIC needs a package, see `heif_module`."""

HEIF_MODULES = ("pi_heif", "pillow_heif")
"""Packages that read HEIC. No extra of kindsight installs them: the libraries that they bundle are
under the LGPL, in pillow_heif's case also the GPL."""

HEAD_BYTES = 1024
"""The first bytes, by which the format is detected."""

_SIGNATURES = (
    (b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"), (b"II*\x00", "TIFF"), (b"MM\x00*", "TIFF"), (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"), (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
)  # fmt: skip

# Known formats that are not supported. Some (PostScript) are programs that a reader would run.
_UNSUPPORTED = (
    (b"\xff\x0a", "JPEG XL image"),
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL image"),
    (b"8BPS", "Photoshop document"),
    (b"%PDF", "PDF document"),
    (b"%!PS", "PostScript document"),
    (b"\xc5\xd0\xd3\xc6", "PostScript document"),
    (b"\x76\x2f\x31\x01", "OpenEXR image"),
    (b"#?RADIANCE", "Radiance image"),
    (b"gimp xcf", "GIMP document"),
    (b"qoif", "QOI image"),
    (b"DDS ", "DirectDraw texture"),
    (b"icns", "Apple icon"),
    (b"\x00\x00\x02\x00", "Windows cursor or Targa image"),
    (b"FUJIFILMCCD-RAW", "camera raw file"),
    (b"\x01\xda", "SGI image"),
    (b"\x59\xa6\x6a\x95", "Sun raster image"),
    (b"AT&TFORM", "DjVu document"),
    (b"SIMPLE  =", "FITS image"),
    (b"Pf\n", "floating-point PFM image"),
    (b"PF\n", "floating-point PFM image"),
    (b"P7\n", "PAM image"),
    (b"\xd7\xcd\xc6\x9a", "Windows metafile"),
    (b"\x89HDF\r\n\x1a\n", "HDF5 file"),
    (b"/* XPM */", "XPM image"),
    (b"\x1a\x45\xdf\xa3", "Matroska video"),
)

_BMP_HEADERS = frozenset((12, 16, 40, 52, 56, 64, 108, 124))
_HEIF_BRANDS = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
_NETPBM = re.compile(rb"P[1-6][\s#]")
_BEFORE_SVG = ((b"<?", b"?>"), (b"<!--", b"-->"), (b"<!", b">"))


_ENDINGS = {"JPEG": "jpg", "TIFF": "tif", "JPEG 2000": "jp2"}


def file_ending(name: str) -> str:
    """Return the usual ending of a format's files, without the dot."""
    return _ENDINGS.get(name, name.lower())


def detect_format(data: bytes) -> str:
    """Return the format of a file, one of READABLE or ``"HEIC"``, from its first kilobyte.

    Raises ImageError: ``empty``, ``unsupported`` (a known format) or ``not-an-image``.
    """
    if not data:
        raise ImageError("empty", "The file is empty.")
    head = bytes(data[:HEAD_BYTES])
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    found = _netpbm_or_container(head)
    if found:
        return found
    for signature, name in _UNSUPPORTED:
        if head.startswith(signature):
            raise _unsupported(name)
    if _is_svg(head):
        raise _unsupported("SVG drawing")
    raise ImageError(
        "not-an-image", f"The file is not an image in a supported format ({_listed()})."
    )


def truncated(name: str) -> ImageError:
    """Return the error for a file that ends too early."""
    return ImageError("truncated", f"The {name} file ends before the image is complete.")


def corrupt(name: str, detail: str) -> ImageError:
    """Return the error for a file that violates its own format."""
    return ImageError("corrupt", f"The {name} file is damaged: {detail}.")


def check_size(height: int, width: int, max_pixels: int) -> None:
    """Raise ``corrupt`` for an empty image and ``too-large`` for one above `max_pixels`."""
    if height < 1 or width < 1:
        raise ImageError("corrupt", "The file's header states an image without pixels.")
    if height * width > max_pixels:
        raise ImageError(
            "too-large",
            f"The image has {height} x {width} pixels (height x width), "
            f"more than the limit of {max_pixels:,} pixels.",
        )


def _netpbm_or_container(head: bytes) -> str | None:
    """Return the format if its signature is more than fixed leading bytes."""
    if head[:4] == b"RIFF":
        if head[8:12] == b"WEBP":
            return "WebP"
        raise _unsupported("audio or video file")
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    if _NETPBM.match(head):
        return "PPM"
    # An icon's signature is four common bytes: the count and the reserved zero of its first entry
    # are checked too, so that other binary files are not taken for icons.
    if head[:4] == b"\x00\x00\x01\x00" and head[4:6] != b"\x00\x00" and head[9:10] == b"\x00":
        return "ICO"
    if head[4:8] == b"ftyp":
        return _iso_media(head)
    return None


def _is_svg(head: bytes) -> bool:
    """Return whether the first element is a drawing, after a declaration, comments and DOCTYPE."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    while not text.startswith(b"<svg"):
        ends = [end for start, end in _BEFORE_SVG if text.startswith(start)]
        if not ends:
            return False
        text = text.partition(ends[0])[2].lstrip()
    return True


def _iso_media(head: bytes) -> str:
    """Distinguish AVIF from related formats, by the list of brands."""
    size = max(16, min(int.from_bytes(head[:4], "big"), len(head)))
    brands = [head[8:12], *(head[i : i + 4] for i in range(16, size, 4))]
    if b"avif" in brands or b"avis" in brands:
        return "AVIF"
    if _HEIF_BRANDS.intersection(brands):
        if heif_module() is None:
            raise ImageError(
                "unsupported",
                "The file is a HEIC photo: to read it, run pip install pi-heif; or save it as JPEG "
                "or PNG.",
            )
        return "HEIC"
    if brands[0] == b"crx ":
        raise _unsupported("camera raw file")
    raise _unsupported("video")


@functools.cache
def heif_module() -> str | None:
    """Return the name of the installed package that reads HEIC; None if there is none."""
    return next((name for name in HEIF_MODULES if importlib.util.find_spec(name)), None)


def _unsupported(what: str) -> ImageError:
    article = "an" if what[0] in "AEIOU" or what.startswith(("SVG", "HDF", "XPM", "SGI")) else "a"
    return ImageError(
        "unsupported",
        f"The file is {article} {what}, which is not supported: save it as JPEG or PNG.",
    )


def _listed() -> str:
    return ", ".join(READABLE[:-1]) + " or " + READABLE[-1]
