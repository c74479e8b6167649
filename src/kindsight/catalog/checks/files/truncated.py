"""KS102: pictures whose file ends too early."""

from __future__ import annotations

from kindsight.catalog.checks.files.by_code import ProblemCheck

__all__ = ["TruncatedPictures"]


class TruncatedPictures(ProblemCheck):
    """Pictures that were cut off, as by a copy or a download that was broken off."""

    code = "KS102"
    title = "Pictures that are cut off"
    severity = "error"
    advice = "Fetch these files again; until then they are left out of a training."
    problems = ("truncated",)
