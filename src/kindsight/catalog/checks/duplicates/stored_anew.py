"""KS302: the same picture, stored anew."""

from __future__ import annotations

from kindsight.catalog.checks.duplicates.found import CopiesCheck

__all__ = ["StoredAnew"]


class StoredAnew(CopiesCheck):
    """The same picture at another quality, in another format or size, darker or brighter."""

    code = "KS302"
    title = "The same picture stored anew"
    severity = "warning"
    advice = (
        "Keep the best of each, or put each family into one group so that a split does not tear it."
    )
    kind = "stored"
    sentence = "These {n} files show the same picture, in another quality, format or size."
