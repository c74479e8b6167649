"""KS118: pictures of formats that are not read, and so left out from the start."""

from __future__ import annotations

from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["UnreadFormats"]

_REASON = "picture format that is not read"


class UnreadFormats(Check):
    """HEIC, camera raw, SVG and the like: passed over by their names, which is easily missed."""

    code = "KS118"
    title = "Pictures of formats that are not read"
    severity = "warning"
    advice = "Save them as JPEG or PNG beside the originals."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at what lies beside the pictures."""
        if context.surroundings is None:
            return self.not_applicable("The data are not a folder.")
        kinds: defaultdict[str, list[str]] = defaultdict(list)
        for other in context.surroundings.others:
            if other.reason.startswith(_REASON):
                kinds[other.path.rpartition(".")[2].lower()].append(other.path)
        found = []
        for extension, paths in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            message = f"Left out, since this format is not read: {files} ending in .{extension}."
            found.append(self.finding_outside(paths, message, value=float(len(paths))))
        return self.result(found, len(context.surroundings.others))
