"""KS201: images that show nothing, or nearly so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.measurements import SINGLE_TONE
from kindsight.checks.rules.per_image import per_image_or_summary

__all__ = [
    "CONTRAST",
    "FEWER",
    "BlankImages",
    "BlurredImages",
    "BrightImages",
    "ColouredAmongGrey",
    "DarkImages",
    "FewTones",
    "GreyAmongColoured",
    "LowContrast",
    "odd_ones",
]

# The grey levels' standard deviation below this is noise; cats-dogs begin at 15.
CONTRAST = 4.0


class BlankImages(Check):
    """One tone, but for noise: a cap on the lens, a page left white, a placeholder."""

    code = "KS201"
    title = "Blank images"
    severity = "warning"
    advice = "Leave them out, or fetch the right images."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        wrong = (measured.contrast < CONTRAST) | (measured.plain >= SINGLE_TONE)
        return per_image_or_summary(
            self,
            context,
            wrong,
            measured.plain,
            lambda row: f"{100 * measured.plain[row]:.0f}% of it has one tone.",
            "are of one tone",
        )


# SECTION: KS203: images that are too dark.

# The brightest hundredth does not reach a third of white; cats-dogs begin at 104.
BRIGHTEST = 90

# Or all but the brightest twentieth, a lamp say, is nearly black; cats-dogs begin at 82.
NEARLY_ALL = 30


class DarkImages(Check):
    """Underexposed: hardly anything in it is even half bright."""

    code = "KS203"
    title = "Dark images"
    severity = "warning"
    advice = (
        "Leave out what you yourself could not tell; look whether one class is darker "
        "than the others."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        wrong = (measured.p99 < BRIGHTEST) | (measured.p95 < NEARLY_ALL)
        return per_image_or_summary(
            self,
            context,
            wrong,
            255 - measured.p99,
            lambda row: (
                f"95% of it is darker than {measured.p95[row]:.0f} of 255, 99% darker than "
                f"{measured.p99[row]:.0f}."
            ),
            "are dark",
        )


# SECTION: KS204: images that are too bright.

# All but the darkest twentieth is brighter than this; cats-dogs end at 163.
DARKEST = 200

# Or the mean is; cats-dogs end at 222.
MEAN = 235


class BrightImages(Check):
    """Overexposed, or washed out: hardly anything in it is darker than light grey."""

    code = "KS204"
    title = "Bright images"
    severity = "warning"
    advice = "Leave out what you yourself could not tell; crop small objects out of a white ground."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        wrong = (measured.p05 > DARKEST) | (measured.brightness > MEAN)
        return per_image_or_summary(
            self,
            context,
            wrong,
            np.fmax(measured.p05, measured.brightness),
            lambda row: (
                f"95% of it is brighter than {measured.p05[row]:.0f} of 255; the mean is "
                f"{measured.brightness[row]:.0f}."
            ),
            "are bright",
        )


# SECTION: KS205: images of low contrast.


# The grey levels' standard deviation; cats-dogs begin at 15, sign-digits at 27. At a fifth of
# their contrast most of theirs are below.
LEAST_CONTRAST = 12.0


class LowContrast(Check):
    """Fog, a dirty lens, a faded print: all tones lie close together."""

    code = "KS205"
    title = "Images of low contrast"
    severity = "warning"
    advice = "Set the levels of all images in the same way, or leave these out."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        wrong = (
            (measured.contrast < LEAST_CONTRAST)
            & (measured.contrast >= CONTRAST)
            & (measured.plain < SINGLE_TONE)
        )
        return per_image_or_summary(
            self,
            context,
            wrong,
            LEAST_CONTRAST - measured.contrast,
            lambda row: (
                f"Its tones stray by {measured.contrast[row]:.1f} of 255 levels about their mean."
            ),
            "have low contrast",
        )


# SECTION: KS208: images of few tones.

# Bits a pixel: photographs have 5 to 8 (cats-dogs begin at 4.9), drawings, signs and logos 0 to 3.
BITS = 3.0


class FewTones(Check):
    """Drawings, logos, diagrams, text, masks: images of a few flat tones, unlike photographs."""

    code = "KS208"
    title = "Images of few tones"
    severity = "note"
    advice = "Leave out what is none of your images."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        wrong = (
            (measured.entropy < BITS)
            & (measured.contrast >= CONTRAST)
            & (measured.plain < SINGLE_TONE)
        )
        return per_image_or_summary(
            self,
            context,
            wrong,
            BITS - measured.entropy,
            lambda row: (
                f"Its grey levels hold {measured.entropy[row]:.1f} bits a pixel, photographs 5 and "
                "more."
            ),
            "have few tones",
        )


# SECTION: KS202: images that are blurred.

# Chosen by looking at the images of cats-dogs that come first: eight of 1,399 are beyond, and
# each is out of focus or moved. Images blurred on purpose by a Gaussian of two pixels in 400
# are beyond to 19 in 20; sign-digits end at 0.11 and 0.57.
SOFTNESS = 0.25
SMEAR = 0.67


class BlurredImages(Check):
    """Out of focus, moved, or enlarged from something small, as seen at 224 x 224 pixels' size."""

    code = "KS202"
    title = "Blurred images"
    severity = "warning"
    advice = "Leave out what you yourself could not tell."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        measured = context.measurements
        extent = np.fmax(measured.softness / SOFTNESS, measured.smear / SMEAR)
        wrong = (extent >= 1) & (measured.contrast >= CONTRAST)  # else it is blank
        return per_image_or_summary(
            self,
            context,
            wrong,
            extent,
            lambda row: _message(float(measured.softness[row]), float(measured.smear[row])),
            "are blurred",
        )


def _message(softness: float, smear: float) -> str:
    if softness >= SOFTNESS:
        return f"A slight blur leaves {100 * softness:.0f}% of its edges: they were soft before."
    return f"Blurring it further changes it little, {100 * (1 - smear):.0f}%: it is smeared."


# SECTION: Telling grey images from coloured ones, for the two checks that do.

# Levels between the greatest and the least channel, in all but a hundredth of the image. Grey
# images stored as JPEG reach 3; the least coloured of cats-dogs has 14.
CHROMA = 8.0

# In a dark or faded image all channels lie close together: there, grey is what has less colour
# than this share of its contrast.
SHARE = 0.15

# What fewer than half are is the odd kind; with as many of both there is none.
FEWER = 0.5


def odd_ones(
    check: Check, context: CheckContext, *, grey: bool, message: str, all_together: str
) -> CheckResult:
    """Find the grey images among coloured ones, or the coloured ones among grey ones."""
    rows = context.readable_rows
    chroma = context.measurements.chroma
    below = np.minimum(CHROMA, SHARE * context.measurements.contrast)
    so: NDArray[np.bool_] = (chroma < below) if grey else (chroma >= CHROMA)
    share = float(so[rows].mean()) if len(rows) else 0.0
    if share == 1.0:
        return check.not_applicable(f"All images are {'grey' if grey else 'coloured'}.")
    if share > FEWER or (share == FEWER and not grey):
        return check.not_applicable(f"Most images are {'grey' if grey else 'coloured'}.")
    extent = -chroma if grey else chroma
    return per_image_or_summary(check, context, so, extent, lambda _: message, all_together)


# SECTION: KS207: coloured images among grey ones.


class ColouredAmongGrey(Check):
    """Images with colour where most have none: another source, marks, a stain on a scan."""

    code = "KS207"
    title = "Coloured images among grey ones"
    severity = "warning"
    advice = "Look what is coloured: a mark may give the label away."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        return odd_ones(
            self,
            context,
            grey=False,
            message="It is coloured, and most others are grey.",
            all_together="are coloured",
        )


# SECTION: KS206: grey images among coloured ones.


class GreyAmongColoured(Check):
    """Images without colour where most have some: another source, and a hint to a network."""

    code = "KS206"
    title = "Grey images among coloured ones"
    severity = "warning"
    advice = "If they belong to one class, find coloured ones for it, or make all images grey."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        return odd_ones(
            self,
            context,
            grey=True,
            message="It is grey, and most others are coloured.",
            all_together="are grey",
        )
