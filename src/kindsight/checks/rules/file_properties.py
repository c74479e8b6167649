"""KS101 to KS111 and KS118: files that cannot be read; frames, pixel format, size, aspect, EXIF."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, per_image_or_summary
from kindsight.checks.context import CheckContext
from kindsight.dataset.names import extension_of
from kindsight.dataset.properties import describe_range

__all__ = [
    "EmptyFiles", "ExifRotatedImages", "ExtremeAspectRatios", "MultiFrameFiles", "NotImages",
    "OversizedImages", "TruncatedImages", "UnreadableImages", "UnreadableImagesCheck",
    "UnsupportedFormats", "UnusualPixelFormats", "UnusualSizes",
]  # fmt: skip


class UnreadableImagesCheck(Check):
    """Reports the images with certain codes of :class:`kindsight.errors.ImageError`.

    Attributes
    ----------
    error_codes : tuple of str
        The codes.
    """

    error_codes: ClassVar[tuple[str, ...]]

    def run(self, context: CheckContext) -> CheckResult:
        """Report the images with these error codes."""
        codes, reasons = context.measurements.code, context.measurements.reason
        return self.result(
            (
                self.finding(context, [row], str(reasons[row]))
                for row in range(len(codes))
                if codes[row] in self.error_codes
            ),
            len(codes),
        )


class UnreadableImages(UnreadableImagesCheck):
    """Images that are missing, damaged, or not permitted to be read."""

    code = "KS101"
    title = "Unreadable images"
    severity = "error"
    advice = "Get the files again, or save them as JPEG or PNG. Training skips them."
    error_codes = ("missing", "no-permission", "corrupt")


class TruncatedImages(UnreadableImagesCheck):
    """Images whose file ends too early, for example after an interrupted download."""

    code = "KS102"
    title = "Truncated images"
    severity = "error"
    advice = "Get the files again. Training skips them."
    error_codes = ("truncated",)


class EmptyFiles(UnreadableImagesCheck):
    """Files of zero bytes with the name of an image."""

    code = "KS103"
    title = "Empty files"
    severity = "error"
    advice = "Get the files again, or delete them."
    error_codes = ("empty",)


class NotImages(UnreadableImagesCheck):
    """Files with the name of an image and other content, such as a web page or text."""

    code = "KS104"
    title = "Files that are not images"
    severity = "error"
    advice = "Open one in a text editor to see what it is, and get the images again."
    error_codes = ("not-an-image",)


class OversizedImages(UnreadableImagesCheck):
    """Images above the limit of pixels or bytes, possibly decompression bombs.

    A file of a few kilobytes can declare billions of pixels.
    """

    code = "KS105"
    title = "Oversized images"
    severity = "error"
    advice = "Split genuine images into tiles or reduce their size; delete the others."
    error_codes = ("too-large",)


class UnsupportedFormats(Check):
    """HEIC, camera raw, JPEG XL, SVG and other formats that are not read."""

    code = "KS118"
    title = "Unsupported image formats"
    severity = "warning"
    advice = "Save copies as JPEG or PNG, or follow the message. Training skips them."

    def run(self, context: CheckContext) -> CheckResult:
        """Report the images of unsupported formats by reason and extension."""
        codes, reasons = context.measurements.code, context.measurements.reason
        by_kind: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        for row, path in enumerate(context.dataset.path):
            if codes[row] == "unsupported":
                extension = extension_of(path.rpartition("/")[2])
                by_kind[str(reasons[row]), extension].append(row)
        findings = []
        for (reason, extension), rows in sorted(
            by_kind.items(), key=lambda item: (-len(item[1]), item[0])
        ):
            files = "1 file" if len(rows) == 1 else f"{len(rows):,} files"
            kind = f"with .{extension}" if extension else "without an extension"
            message = f"Skipped: {files} {kind}. {reason}"
            findings.append(self.finding(context, rows, message, value=float(len(rows))))
        return self.result(findings, len(codes))


class MultiFrameFiles(Check):
    """Animations, multi-page scans and stereo pairs, of which only the first frame is used."""

    code = "KS107"
    title = "Files with several frames"
    severity = "warning"
    advice = "Save each frame that matters as a separate file."

    def run(self, context: CheckContext) -> CheckResult:
        """Report files with several frames."""
        rows = context.readable_rows
        frames = context.measurements.frames[rows]
        formats = context.measurements.format
        return self.result(
            (
                self.finding(
                    context,
                    [rows[i]],
                    f"The {formats[rows[i]]} file has {frames[i]:,} frames; the first is used.",
                    value=float(frames[i]),
                )
                for i in np.argsort(-frames, kind="stable")
                if frames[i] > 1
            ),
            len(rows),
        )


# Minimum mean transparency: a transparent corner of a screenshot has less.
MIN_TRANSPARENCY = 0.001

_MODES = {
    "CMYK": "CMYK, whose colours depend on a profile",
    "LAB": "CIE Lab, which programs convert differently",
    "YCbCr": "luma and chroma (YCbCr)",
    "1": "bilevel, without grey levels",
    "F": "floating-point numbers of unknown range",
    "I": "32-bit integers of unknown range",
}


class UnusualPixelFormats(Check):
    """CMYK, 16-bit, floating-point, bilevel or transparent images, which programs read differently.

    kindsight composites transparent pixels on white; other programs may use black.
    """

    code = "KS108"
    title = "Unusual pixel formats"
    severity = "note"
    advice = (
        "Nothing, if kindsight is used for both training and prediction; otherwise convert the "
        "images to 8-bit RGB."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Report images by mode and transparency."""
        modes, transparency = context.measurements.mode, context.measurements.transparency
        findings = []
        for row in context.readable_rows:
            fraction = float(transparency[row])
            message = _describe_mode(str(modes[row]), context.dataset.value_range)
            if message is None and fraction >= MIN_TRANSPARENCY:
                percent = "Less than 1%" if fraction < 0.01 else f"{100 * fraction:.0f}%"
                message = f"{percent} transparent; composited on white."
            if message is not None:
                findings.append(self.finding(context, [row], message))
        return self.result(findings, len(context.readable_rows))


# Shorter side in pixels; the smallest common datasets have 28 and 32.
TINY = 24

# Pixels; no usual camera has more, so it is a scan, a panorama or a mistake.
HUGE = 60_000_000

# Ratio of the side (square root of the area) to the median side. The photographs of cats-dogs, from
# many sources, have 0.2 to 2.1.
FACTOR = 5.0

# If most images have one size, Tukey's far outliers (3 interquartile ranges) of at least this ratio
# are reported, too.
OUTLIER_FACTOR = 1.5
OUTLIER_RANGES = 3.0


class UnusualSizes(Check):
    """Images that are tiny, huge, or far from the median size."""

    code = "KS109"
    title = "Images of unusual size"
    severity = "warning"
    advice = "Replace thumbnails with the originals, remove icons, and reduce the size of scans."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare sizes with the median size."""
        rows = context.readable_rows
        if not len(rows):
            return self.not_applicable("No image can be read.")
        height = context.measurements.height[rows].astype(np.float64)
        width = context.measurements.width[rows].astype(np.float64)
        side = np.sqrt(height * width)
        median = float(np.median(side))
        factor = np.maximum(side / median, median / side)
        unusual = _size_outliers(side, factor)
        # If the median image is tiny or huge, too, this is typical of the dataset.
        if median >= 2 * TINY:
            unusual |= np.minimum(height, width) < TINY
        if median**2 <= HUGE:
            unusual |= height * width > HUGE
        findings = []
        for i in np.flatnonzero(unusual)[np.argsort(-factor[unusual], kind="stable")]:
            than = "larger" if side[i] > median else "smaller"
            message = (
                f"It has {height[i]:,.0f} x {width[i]:,.0f} pixels (height x width), "
                f"{factor[i]:.1f} times {than} than the median image."
            )
            findings.append(self.finding(context, [rows[i]], message, value=float(factor[i])))
        return self.result(findings, len(rows))


# Ratio of the longer to the shorter side, above which the centre square is less than 36% of the
# image. Cameras have 1.33 to 1.78, phones 2.2; the maximum in cats-dogs is 2.8.
ASPECT_RATIO = 2.8


class ExtremeAspectRatios(Check):
    """Panoramas, strips and banners, of which most is cropped or squeezed by the resizing."""

    code = "KS110"
    title = "Extreme aspect ratios"
    severity = "warning"
    advice = "Crop the images to the object, or train with --resize pad."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images by aspect ratio."""
        height = context.measurements.height.astype(np.float64)
        width = context.measurements.width.astype(np.float64)
        ratio = np.maximum(height, width) / np.maximum(1, np.minimum(height, width))
        return per_image_or_summary(
            self,
            context,
            ratio > ASPECT_RATIO,
            ratio,
            lambda row: (
                f"It has {height[row]:,.0f} x {width[row]:,.0f} pixels (height x width); the "
                f"centre square is {100 / ratio[row]:.0f}% of it."
            ),
            f"have an aspect ratio above {ASPECT_RATIO}",
        )


_ORIENTATIONS = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side",
    7: "on its side and mirrored",
    8: "on its side",
}


class ExifRotatedImages(Check):
    """Images with an EXIF orientation, which kindsight applies and many programs ignore."""

    code = "KS111"
    title = "Images rotated by EXIF"
    severity = "note"
    advice = "Nothing for kindsight; for other programs, save rotated copies without the EXIF tag."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images by EXIF orientation."""
        orientation = context.measurements.orientation
        rows = context.readable_rows
        return self.result(
            (
                self.finding(
                    context,
                    [row],
                    f"The image is stored {_ORIENTATIONS[int(orientation[row])]} and rotated when "
                    f"it is read (EXIF orientation {orientation[row]}).",
                    value=float(orientation[row]),
                )
                for row in rows
                if int(orientation[row]) in _ORIENTATIONS
            ),
            len(rows),
        )


def _describe_mode(mode: str, value_range: tuple[float, float] | None) -> str | None:
    plain = mode.split("+", maxsplit=1)[0]
    kind = "samples of 16 bits" if "16" in plain else _MODES.get(plain)
    if kind is None:
        return None
    if value_range is None or not ("16" in plain or plain in ("F", "I")):
        return f"The pixels are {kind}."
    return f"The pixels are {kind}; {describe_range(value_range)} becomes black to white."


def _size_outliers(side: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.bool_]:
    low, high = np.percentile(side, [25, 75])
    reach = OUTLIER_RANGES * (high - low)
    outside = (side < low - reach) | (side > high + reach)
    far: NDArray[np.bool_] = (factor >= FACTOR) | (outside & (factor >= OUTLIER_FACTOR))
    return far
