"""KS103: files without a single byte."""

from __future__ import annotations

from kindsight.catalog.checks.files.by_code import ProblemCheck

__all__ = ["EmptyFiles"]


class EmptyFiles(ProblemCheck):
    """Files that have a picture's name and no content."""

    code = "KS103"
    title = "Empty files"
    severity = "error"
    advice = "Fetch these files again, or leave them out."
    problems = ("empty",)
