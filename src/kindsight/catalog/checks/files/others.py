"""KS114: files of other kinds among the pictures of a class."""

from __future__ import annotations

from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["OtherFiles"]

BY_NAME = "not a picture by its name"


class OtherFiles(Check):
    """Texts, tables, archives, annotations in the folders of classes: they are passed over."""

    code = "KS114"
    title = "Other files among the pictures"
    severity = "note"
    advice = "Look whether something among them is meant to be used."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at what lies in the folders of the pictures."""
        if context.surroundings is None:
            return self.not_applicable("The data are not a folder.")
        folders = {path.rpartition("/")[0] for path in context.catalog.path}
        kinds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for other in context.surroundings.others:
            folder, _, name = other.path.rpartition("/")
            if other.reason == BY_NAME and folder in folders and folder:
                _, dot, extension = name.rpartition(".")
                kinds[folder, f".{extension.lower()}" if dot else ""].append(other.path)
        found = []
        for (_, extension), paths in sorted(kinds.items(), key=lambda item: (-len(item[1]), item)):
            what = f"ending in {extension}" if extension else "without an ending"
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            message = f"Among the pictures of a folder, and not used: {files} {what}."
            found.append(self.finding_outside(paths, message, value=float(len(paths))))
        return self.result(found, len(context.surroundings.others))
