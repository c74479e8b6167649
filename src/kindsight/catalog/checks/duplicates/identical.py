"""KS301: files that are the same, byte for byte."""

from __future__ import annotations

from kindsight.catalog.checks.duplicates.found import CopiesCheck

__all__ = ["IdenticalFiles"]


class IdenticalFiles(CopiesCheck):
    """The same file under several names."""

    code = "KS301"
    title = "Identical files"
    severity = "warning"
    advice = "Keep one of each."
    kind = "identical"
    sentence = "These {n} files are the same, byte for byte."
