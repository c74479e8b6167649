"""What the checks of images that cannot be read have in common."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext

__all__ = [
    "EmptyFiles",
    "NotImages",
    "ProblemCheck",
    "TooLargeImages",
    "TruncatedImages",
    "UnreadFormats",
    "UnreadableImages",
]


class ProblemCheck(Check):
    """Finds the images that :class:`kindsight.errors.ImageError` gives certain codes to.

    Attributes
    ----------
    problems : tuple of str
        Those codes.
    """

    problems: ClassVar[tuple[str, ...]]

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        codes, reasons = context.measurements.code, context.measurements.reason
        return self.result(
            (
                self.finding(context, [row], str(reasons[row]))
                for row in range(len(codes))
                if codes[row] in self.problems
            ),
            len(codes),
        )


# SECTION: KS101: images that cannot be read.


class UnreadableImages(ProblemCheck):
    """Images that are missing, damaged, of a kind that is not read, or may not be opened."""

    code = "KS101"
    title = "Images that cannot be read"
    severity = "error"
    advice = (
        "Fetch these files again, or save them as JPEG or PNG; until then they are left "
        "out of a training."
    )
    problems = ("missing", "no-permission", "unsupported", "corrupt")


# SECTION: KS102: images whose file ends too early.


class TruncatedImages(ProblemCheck):
    """Images that were cut off, as by a copy or a download that was broken off."""

    code = "KS102"
    title = "Images that are cut off"
    severity = "error"
    advice = "Fetch these files again; until then they are left out of a training."
    problems = ("truncated",)


# SECTION: KS103: files without a single byte.


class EmptyFiles(ProblemCheck):
    """Files that have an image's name and no content."""

    code = "KS103"
    title = "Empty files"
    severity = "error"
    advice = "Fetch these files again, or leave them out."
    problems = ("empty",)


# SECTION: KS104: files that have an image's name and hold something else.


class NotImages(ProblemCheck):
    """Files that are no images: web pages with an error message, texts, folders, devices."""

    code = "KS104"
    title = "Files that are no images"
    severity = "error"
    advice = "Open one in a text editor to see what it is, and fetch the images again."
    problems = ("not-an-image",)


# SECTION: KS105: images too large to be opened.


class TooLargeImages(ProblemCheck):
    """Images whose header promises more pixels, or that have more bytes, than are opened.

    A file of a few kilobytes can promise billions of pixels ("decompression bomb").
    """

    code = "KS105"
    title = "Images too large to open"
    severity = "error"
    advice = "If an image is honest, cut it into tiles or make it smaller; otherwise leave it out."
    problems = ("too-large",)


# SECTION: KS118: images of formats that are not read, and so left out from the start.

_REASON = "image format that is not read"


class UnreadFormats(Check):
    """HEIC, camera raw, SVG and the like: passed over by their names, which is easily missed."""

    code = "KS118"
    title = "Images of formats that are not read"
    severity = "warning"
    advice = "Save them as JPEG or PNG beside the originals."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at what lies beside the images."""
        if context.folder_contents is None:
            return self.not_applicable("The data are not a folder.")
        kinds: defaultdict[str, list[str]] = defaultdict(list)
        for other in context.folder_contents.others:
            if other.reason.startswith(_REASON):
                kinds[other.path.rpartition(".")[2].lower()].append(other.path)
        found = []
        for extension, paths in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            message = f"Left out, since this format is not read: {files} ending in .{extension}."
            found.append(self.finding_about(paths, message, value=float(len(paths))))
        return self.result(found, len(context.folder_contents.others))
