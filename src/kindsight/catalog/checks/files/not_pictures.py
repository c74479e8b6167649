"""KS104: files that have a picture's name and hold something else."""

from __future__ import annotations

from kindsight.catalog.checks.files.by_code import ProblemCheck

__all__ = ["NotPictures"]


class NotPictures(ProblemCheck):
    """Files that are no pictures: web pages with an error message, texts, folders, devices."""

    code = "KS104"
    title = "Files that are no pictures"
    severity = "error"
    advice = "Open one in a text editor to see what it is, and fetch the pictures again."
    problems = ("not-a-picture",)
