"""KS117: folders of small copies among the folders of pictures."""

from __future__ import annotations

import re
from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["ThumbnailFolders"]

_NAME = re.compile(
    r"^(?:.*[-_ .])?(?:thumb|thumbs|thumbnail|thumbnails|preview|previews|small|icons)$",
    re.IGNORECASE,
)


class ThumbnailFolders(Check):
    """Folders that programs fill with small copies; their pictures count as pictures here.

    A folder inside a class belongs to the class, so every picture is there twice.
    """

    code = "KS117"
    title = "Folders of thumbnails"
    severity = "warning"
    advice = "Move the folder out of the data."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names of the folders."""
        if context.catalog.arrays is not None:
            return self.not_applicable("Pictures in memory have no folders.")
        inside: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(context.catalog.path):
            parts = path.split("/")[:-1]
            for depth, part in enumerate(parts):
                if depth and _NAME.match(part):  # a class may be called so; a folder in it may not
                    inside["/".join(parts[: depth + 1])].append(row)
                    break
        return self.result(
            (
                self.finding(
                    context,
                    rows,
                    f"A folder of thumbnails by its name, with {len(rows):,} of the pictures.",
                    value=float(len(rows)),
                )
                for _, rows in sorted(inside.items())
            ),
            len(context.catalog),
        )
