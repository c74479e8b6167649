"""KS304: pictures that are nearly the same."""

from __future__ import annotations

from kindsight.catalog.checks.duplicates.found import CopiesCheck

__all__ = ["NearDuplicates"]


class NearDuplicates(CopiesCheck):
    """Photographs of one burst, frames of one film, a picture and the same cropped a little."""

    code = "KS304"
    title = "Nearly the same picture"
    severity = "warning"
    advice = "Put each burst into one group, so that it stays on one side of a split."
    kind = "near"
    sentence = "These {n} pictures are nearly the same: of a burst, or cropped a little."
