"""KS107: files that hold several images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.rules.per_image import per_image_or_summary

__all__ = [
    "ExtremeShapes",
    "SeveralFrames",
    "TurnedImages",
    "UnusualPixels",
    "UnusualSizes",
]


class SeveralFrames(Check):
    """Animations, scans of several pages, stereo pairs: of all of them the first image counts."""

    code = "KS107"
    title = "Files of several images"
    severity = "warning"
    advice = "If the other images in a file matter, save each as a file of its own."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        rows = context.readable_rows
        frames = context.measurements.frames[rows]
        kinds = context.measurements.format
        order = np.argsort(-frames, kind="stable")
        return self.result(
            (
                self.finding(
                    context,
                    [rows[i]],
                    f"The {kinds[rows[i]]} file holds {frames[i]:,} images, of which the first "
                    "is used.",
                    value=float(frames[i]),
                )
                for i in order
                if frames[i] > 1
            ),
            len(rows),
        )


# SECTION: KS108: pixels that are stored in an unusual way.

# Less than one pixel in a thousand: a corner of a screenshot, and no reason to say anything.
TRANSPARENT = 0.001

_KINDS = {
    "CMYK": "inks (CMYK), whose colours on a screen are a guess without their profile",
    "LAB": "CIE Lab colours, which few programs read alike",
    "YCbCr": "brightness and colour differences",
    "1": "black and white without greys",
    "F": "floating-point numbers, whose white is not stated",
    "I": "32-bit numbers, whose white is not stated",
}


class UnusualPixels(Check):
    """CMYK, 16 bits a sample, floats, two tones, transparency: read here, and elsewhere otherwise.

    What is transparent is laid on white; another program may show what lies behind, or black.
    """

    code = "KS108"
    title = "Unusual kinds of pixels"
    severity = "note"
    advice = (
        "Nothing, as long as training and use both go through kindsight; otherwise save "
        "them as 8-bit RGB."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        modes, transparency = context.measurements.mode, context.measurements.transparency
        found = []
        for row in context.readable_rows:
            share = float(transparency[row])
            message = _what(str(modes[row]))
            if message is None and share >= TRANSPARENT:
                message = f"It is {100 * share:.0f}% transparent, and is laid on white."
                if share < 0.01:
                    message = "A little of it is transparent, and is laid on white."
            if message is not None:
                found.append(self.finding(context, [row], message))
        return self.result(found, len(context.readable_rows))


def _what(mode: str) -> str | None:
    """Say what is unusual about a mode; None where nothing is."""
    plain = mode.split("+", maxsplit=1)[0]
    if "16" in plain:
        return "Its samples have 16 bits, of which the upper 8 count."
    kind = _KINDS.get(plain)
    return f"Its pixels are {kind}." if kind else None


# SECTION: KS109: images that are very small, very large, or of another size than the rest.

# A shorter side of fewer pixels says little: the smallest common data sets have 28 and 32.
TINY = 24

# Above 60 megapixels: no usual camera; a scan, a panorama, or a mistake.
HUGE = 60_000_000

# The side of a square of the same area is this many times the middle image's, or a part of it.
# A folder of mixed photographs spans less: cats-dogs 0.2 to 2.1 times, whatever their sources.
FACTOR = 5.0

# Where nearly all images have one size, less is unusual: Tukey's far outliers, if the factor is
# at least this.
NARROW_FACTOR = 1.5
SPREADS = 3.0


class UnusualSizes(Check):
    """Images that are tiny, huge, or far from the size of the others."""

    code = "KS109"
    title = "Images of unusual size"
    severity = "warning"
    advice = "Replace thumbnails by the images themselves; leave icons out; make scans smaller."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        rows = context.readable_rows
        if not len(rows):
            return self.not_applicable("No image can be read.")
        height = context.measurements.height[rows].astype(np.float64)
        width = context.measurements.width[rows].astype(np.float64)
        side = np.sqrt(height * width)
        middle = float(np.median(side))
        factor = np.maximum(side / middle, middle / side)
        wrong = _far(side, factor)
        # Where the middle image is tiny itself, that is how these data are.
        if middle >= 2 * TINY:
            wrong |= np.minimum(height, width) < TINY
        if middle**2 <= HUGE:
            wrong |= height * width > HUGE
        found = []
        for i in np.flatnonzero(wrong)[np.argsort(-factor[wrong], kind="stable")]:
            than = "larger" if side[i] > middle else "smaller"
            message = (
                f"It is {height[i]:,.0f} x {width[i]:,.0f} pixels (height x width), "
                f"{factor[i]:.1f} times {than} than the middle image."
            )
            found.append(self.finding(context, [rows[i]], message, value=float(factor[i])))
        return self.result(found, len(rows))


def _far(side: NDArray[np.float64], factor: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Say which are far from the others."""
    low, high = np.percentile(side, [25, 75])
    reach = SPREADS * (high - low)
    outside = (side < low - reach) | (side > high + reach)
    far: NDArray[np.bool_] = (factor >= FACTOR) | (outside & (factor >= NARROW_FACTOR))
    return far


# SECTION: KS110: images that are very long or very tall.

# The square in the middle, which networks are given, is then 36% of the image or less. Cameras
# make 1.33 to 1.78, telephones 2.2; the longest of cats-dogs is 2.8.
PROPORTION = 2.8


class ExtremeShapes(Check):
    """Panoramas, strips and banners: most of them is lost, or squeezed, on the way to a square."""

    code = "KS110"
    title = "Images of extreme shape"
    severity = "warning"
    advice = "Cut out the part that matters, or train with --resize pad."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        height = context.measurements.height.astype(np.float64)
        width = context.measurements.width.astype(np.float64)
        proportion = np.maximum(height, width) / np.maximum(1, np.minimum(height, width))
        return per_image_or_summary(
            self,
            context,
            proportion > PROPORTION,
            proportion,
            lambda row: (
                f"It is {height[row]:,.0f} x {width[row]:,.0f} pixels (height x width): a square "
                f"from its middle shows {100 / proportion[row]:.0f}% of it."
            ),
            f"are longer than {PROPORTION} times their width",
        )


# SECTION: KS111: images that lie in their file otherwise than they are seen.

_HOW = {
    2: "mirrored",
    3: "upside down",
    4: "upside down and mirrored",
    5: "on its side and mirrored",
    6: "on its side",
    7: "on its side and mirrored",
    8: "on its side",
}


class TurnedImages(Check):
    """Images that EXIF says are to be turned: done here, and forgotten by many programs."""

    code = "KS111"
    title = "Images turned by EXIF"
    severity = "note"
    advice = "Nothing for kindsight; turn copies for good before you give them to other programs."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        orientation = context.measurements.orientation
        rows = context.readable_rows
        return self.result(
            (
                self.finding(
                    context,
                    [row],
                    f"The image is stored {_HOW[int(orientation[row])]} and turned when it is "
                    f"read (EXIF orientation {orientation[row]}).",
                    value=float(orientation[row]),
                )
                for row in rows
                if int(orientation[row]) in _HOW
            ),
            len(rows),
        )
