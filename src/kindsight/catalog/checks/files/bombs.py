"""KS105: pictures too large to be opened."""

from __future__ import annotations

from kindsight.catalog.checks.files.by_code import ProblemCheck

__all__ = ["TooLargePictures"]


class TooLargePictures(ProblemCheck):
    """Pictures whose header promises more pixels, or that have more bytes, than are opened.

    A file of a few kilobytes can promise billions of pixels ("decompression bomb").
    """

    code = "KS105"
    title = "Pictures too large to open"
    severity = "error"
    advice = "If a picture is honest, cut it into tiles or make it smaller; otherwise leave it out."
    problems = ("too-large",)
