"""KS303: the same picture, mirrored or turned."""

from __future__ import annotations

from kindsight.catalog.checks.duplicates.found import CopiesCheck

__all__ = ["TurnedCopies"]


class TurnedCopies(CopiesCheck):
    """The same picture mirrored, turned by a quarter or more, or both: augmentation as files."""

    code = "KS303"
    title = "The same picture mirrored or turned"
    severity = "warning"
    advice = "Keep the original, and let the training augment."
    kind = "turned"
    sentence = "These {n} files show the same picture, mirrored or turned."
