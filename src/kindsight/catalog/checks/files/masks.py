"""KS115: masks among the photographs that they belong to."""

from __future__ import annotations

import re
from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.names import shown

__all__ = ["Masks"]

_WORDS = r"(?:mask|masks|seg|segm|segmentation|gt|groundtruth|ground_truth|annotation|trimap|alpha)"
_BEFORE = re.compile(rf"^{_WORDS}[-_ .]+(.+)$", re.IGNORECASE)
_BEHIND = re.compile(rf"^(.+?)[-_ .]+{_WORDS}(?:[-_ .]?\d+)?$", re.IGNORECASE)
_FOLDER = re.compile(rf"^(?:.*[-_ .])?{_WORDS}(?:[-_ .].*)?$", re.IGNORECASE)

# Bits a pixel: a mask of a few areas has fewer than 2 also after JPEG; cats-dogs begin at 4.9.
FEW_TONES = 3.0


class Masks(Check):
    """Pictures that mark what is where in another picture, taken for pictures of the class."""

    code = "KS115"
    title = "Masks beside photographs"
    severity = "warning"
    advice = "Move the masks out of the class folders."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names, and at how few tones there are."""
        if context.catalog.arrays is not None:
            return self.not_applicable("Pictures in memory have no names.")
        entropy = context.measurements.entropy
        stems: defaultdict[str, set[str]] = defaultdict(set)
        for path in context.catalog.path:
            folder, _, name = path.rpartition("/")
            stems[folder].add(name.rpartition(".")[0].lower())
        found = []
        for row in context.readable_rows:
            folder, _, name = context.catalog.path[row].rpartition("/")
            stem = name.rpartition(".")[0]
            match = _BEHIND.match(stem) or _BEFORE.match(stem)
            if match and match[1].lower() in stems[folder]:
                message = f"Its name says that it is the mask of {shown(match[1])} beside it."
                found.append(self.finding(context, [row], message))
            elif _in_folder_of_masks(folder) and entropy[row] < FEW_TONES:
                message = "It lies in a folder of masks and has few tones, as masks have."
                found.append(self.finding(context, [row], message))
        return self.result(found, len(context.readable_rows))


def _in_folder_of_masks(folder: str) -> bool:
    return any(_FOLDER.match(part) for part in folder.split("/") if part)
