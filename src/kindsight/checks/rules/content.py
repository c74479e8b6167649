"""KS201 to KS208: images that are blank, blurred, dark, bright, flat or of unusual colour.

Thresholds are set on cats-dogs (1,399 photographs) and sign-digits (2,062 images): the comments
give the extreme values of the normal images there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kindsight.checks.check import Check, CheckResult, per_image_or_summary
from kindsight.checks.context import CheckContext
from kindsight.checks.measurements import SINGLE_TONE, Measurements

__all__ = [
    "BlankImages", "BlurredImages", "BrightImages", "ColourAmongGrey", "DarkImages",
    "FewGreyLevels", "GreyAmongColour", "LowContrastImages",
]  # fmt: skip

# Contrast below which an image is blank apart from noise; cats-dogs have at least 15.
MIN_CONTRAST = 4.0

# Contrast below which an image is reported; cats-dogs have at least 15, sign-digits 27. With the
# contrast reduced to a fifth, most of both are below.
LOW_CONTRAST = 12.0

# Softness and blur (see Measurements) from which an image is blurred. Eight images of cats-dogs are
# above, all visibly out of focus or with motion blur. Of images blurred by a Gaussian of 2 pixels
# at 400 pixels, 19 of 20 are above; sign-digits have at most 0.11 and 0.57.
SOFTNESS = 0.25
BLUR = 0.67

# An image is dark if the 99th percentile is below a third of white (cats-dogs: at least 104), or
# the 95th percentile is almost black, apart from a lamp for example (cats-dogs: at least 82).
DARK_P99 = 90
DARK_P95 = 30

# An image is bright if the 5th percentile is above this level (cats-dogs: at most 163), or the mean
# is (cats-dogs: at most 222).
BRIGHT_P05 = 200
BRIGHT_MEAN = 235

# Entropy in bits per pixel: photographs have 5 to 8 (cats-dogs: at least 4.9), drawings, signs and
# logos 0 to 3.
MIN_ENTROPY = 3.0

# Chroma from which an image is coloured, in levels. Grey JPEGs reach 3; the least colourful image
# of cats-dogs has 14.
CHROMA = 8.0

# In dark or faded images all channels are close, so grey also means less chroma than this fraction
# of the contrast.
CHROMA_PER_CONTRAST = 0.15

# Grey or coloured images are reported if they are fewer than this fraction.
MINORITY = 0.5


def _not_blank(measured: Measurements) -> NDArray[np.bool_]:
    shows: NDArray[np.bool_] = (measured.contrast >= MIN_CONTRAST) & (
        measured.uniformity < SINGLE_TONE
    )
    return shows


class BlankImages(Check):
    """Images of a single tone: a covered lens, an empty page, a placeholder."""

    code = "KS201"
    title = "Blank images"
    severity = "warning"
    advice = "Remove them, or replace them with the correct images."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images of a single tone."""
        measured = context.measurements
        return per_image_or_summary(
            self,
            context,
            (measured.contrast < MIN_CONTRAST) | (measured.uniformity >= SINGLE_TONE),
            measured.uniformity,
            lambda row: f"{100 * measured.uniformity[row]:.0f}% of the pixels have one tone.",
            "are blank",
        )


class BlurredImages(Check):
    """Images that are out of focus, enlarged or have motion blur, judged at 224 x 224 pixels."""

    code = "KS202"
    title = "Blurred images"
    severity = "warning"
    advice = "Remove the images that a person could not classify."

    def run(self, context: CheckContext) -> CheckResult:
        """Report blurred images."""
        measured = context.measurements
        extent = np.fmax(measured.softness / SOFTNESS, measured.blur / BLUR)

        def message(row: int) -> str:
            softness, blur = float(measured.softness[row]), float(measured.blur[row])
            if softness >= SOFTNESS:
                return f"Soft edges: {100 * softness:.0f}% of their energy remains after a blur."
            return f"A further blur removes only {100 * (1 - blur):.0f}% of its detail."

        return per_image_or_summary(
            self,
            context,
            (extent >= 1) & (measured.contrast >= MIN_CONTRAST),
            extent,
            message,
            "are blurred",
        )


class DarkImages(Check):
    """Underexposed images: hardly any pixel is brighter than a third of white."""

    code = "KS203"
    title = "Dark images"
    severity = "warning"
    advice = (
        "Remove the images that a person could not classify, and check whether one class is darker "
        "than the others."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Report dark images."""
        measured = context.measurements
        return per_image_or_summary(
            self,
            context,
            (measured.p99 < DARK_P99) | (measured.p95 < DARK_P95),
            255 - measured.p99,
            lambda row: (
                f"95% of the pixels are darker than level {measured.p95[row]:.0f} of 255, 99% "
                f"darker than {measured.p99[row]:.0f}."
            ),
            "are dark",
        )


class BrightImages(Check):
    """Overexposed or faded images: hardly any pixel is darker than light grey."""

    code = "KS204"
    title = "Bright images"
    severity = "warning"
    advice = (
        "Remove the images that a person could not classify; crop small objects on a white "
        "background."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Report bright images."""
        measured = context.measurements
        return per_image_or_summary(
            self,
            context,
            (measured.p05 > BRIGHT_P05) | (measured.brightness > BRIGHT_MEAN),
            np.fmax(measured.p05, measured.brightness),
            lambda row: (
                f"95% of the pixels are brighter than level {measured.p05[row]:.0f} of 255; the "
                f"mean is {measured.brightness[row]:.0f}."
            ),
            "are bright",
        )


class LowContrastImages(Check):
    """Images with a narrow range of tones: fog, a dirty lens, a faded print."""

    code = "KS205"
    title = "Low-contrast images"
    severity = "warning"
    advice = "Stretch the contrast of all images in the same manner, or remove these."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images of low contrast that are not blank."""
        measured = context.measurements
        return per_image_or_summary(
            self,
            context,
            (measured.contrast < LOW_CONTRAST) & _not_blank(measured),
            LOW_CONTRAST - measured.contrast,
            lambda row: (
                f"The standard deviation of its grey levels is {measured.contrast[row]:.1f} of 255."
            ),
            "have low contrast",
        )


class GreyAmongColour(Check):
    """Grey images in a dataset of mostly colour images, perhaps from another source."""

    code = "KS206"
    title = "Grey images among colour images"
    severity = "warning"
    advice = "If they belong to one class, find colour images of it, or convert all images to grey."

    def run(self, context: CheckContext) -> CheckResult:
        """Report grey images if they are a minority."""
        return _report_minority(self, context, grey=True)


class ColourAmongGrey(Check):
    """Colour images in a dataset of mostly grey images: another source, marks, stained scans."""

    code = "KS207"
    title = "Colour images among grey images"
    severity = "warning"
    advice = "Check what is coloured: a mark may reveal the label."

    def run(self, context: CheckContext) -> CheckResult:
        """Report colour images if they are a minority."""
        return _report_minority(self, context, grey=False)


def _report_minority(check: Check, context: CheckContext, *, grey: bool) -> CheckResult:
    rows = context.readable_rows
    chroma = context.measurements.chroma
    limit = np.minimum(CHROMA, CHROMA_PER_CONTRAST * context.measurements.contrast)
    affected: NDArray[np.bool_] = (chroma < limit) if grey else (chroma >= CHROMA)
    fraction = float(affected[rows].mean()) if len(rows) else 0.0
    name, other = ("grey", "colour") if grey else ("colour", "grey")
    if fraction == 1.0:
        return check.not_applicable(f"All images are {name} images.")
    if fraction > MINORITY or (fraction == MINORITY and not grey):
        return check.not_applicable(f"Most images are {name} images.")
    extent = -chroma if grey else chroma
    message = f"A {name} image; most other images are {other} images."
    return per_image_or_summary(
        check, context, affected, extent, lambda _: message, f"are {name} images"
    )


class FewGreyLevels(Check):
    """Drawings, logos, diagrams, text and masks: images of a few flat tones."""

    code = "KS208"
    title = "Images with few grey levels"
    severity = "note"
    advice = "Remove the images that do not belong to the dataset."

    def run(self, context: CheckContext) -> CheckResult:
        """Report images of low entropy that are not blank."""
        measured = context.measurements
        return per_image_or_summary(
            self,
            context,
            (measured.entropy < MIN_ENTROPY) & _not_blank(measured),
            MIN_ENTROPY - measured.entropy,
            lambda row: (
                f"The entropy of its grey levels is {measured.entropy[row]:.1f} bits per pixel; "
                "photographs have 5 or more."
            ),
            "have few grey levels",
        )
