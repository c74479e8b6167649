"""KS108: pixels that are stored in an unusual way."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["UnusualPixels"]

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
        """Look at the pictures."""
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
