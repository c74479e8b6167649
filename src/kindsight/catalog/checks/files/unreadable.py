"""KS101: pictures that cannot be read."""

from __future__ import annotations

from kindsight.catalog.checks.files.by_code import ProblemCheck

__all__ = ["UnreadablePictures"]


class UnreadablePictures(ProblemCheck):
    """Pictures that are missing, damaged, of a kind that is not read, or may not be opened."""

    code = "KS101"
    title = "Pictures that cannot be read"
    severity = "error"
    advice = (
        "Fetch these files again, or save them as JPEG or PNG; until then they are left "
        "out of a training."
    )
    problems = ("missing", "no-permission", "unsupported", "corrupt")
