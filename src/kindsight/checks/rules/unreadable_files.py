"""KS101 to KS105 and KS118: files that cannot be read."""

from __future__ import annotations

from collections import defaultdict
from typing import ClassVar

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext

__all__ = [
    "EmptyFiles",
    "NotImages",
    "OversizedImages",
    "TruncatedImages",
    "UnreadableImages",
    "UnreadableImagesCheck",
    "UnsupportedFormats",
]


class UnreadableImagesCheck(Check):
    """Reports the images with certain codes of :class:`kindsight.errors.ImageError`.

    Attributes
    ----------
    error_codes : tuple of str
        The codes.
    """

    error_codes: ClassVar[tuple[str, ...]]

    def run(self, context: CheckContext) -> CheckResult:
        """Report the images with these error codes."""
        codes, reasons = context.measurements.code, context.measurements.reason
        return self.result(
            (
                self.finding(context, [row], str(reasons[row]))
                for row in range(len(codes))
                if codes[row] in self.error_codes
            ),
            len(codes),
        )


class UnreadableImages(UnreadableImagesCheck):
    """Images that are missing, damaged, of an unsupported format, or not permitted to be read."""

    code = "KS101"
    title = "Unreadable images"
    severity = "error"
    advice = "Get the files again, or save them as JPEG or PNG. Training skips them."
    error_codes = ("missing", "no-permission", "unsupported", "corrupt")


class TruncatedImages(UnreadableImagesCheck):
    """Images whose file ends too early, for example after an interrupted download."""

    code = "KS102"
    title = "Truncated images"
    severity = "error"
    advice = "Get the files again. Training skips them."
    error_codes = ("truncated",)


class EmptyFiles(UnreadableImagesCheck):
    """Files of zero bytes with the name of an image."""

    code = "KS103"
    title = "Empty files"
    severity = "error"
    advice = "Get the files again, or delete them."
    error_codes = ("empty",)


class NotImages(UnreadableImagesCheck):
    """Files with the name of an image and other content, such as a web page or text."""

    code = "KS104"
    title = "Files that are not images"
    severity = "error"
    advice = "Open one in a text editor to see what it is, and get the images again."
    error_codes = ("not-an-image",)


class OversizedImages(UnreadableImagesCheck):
    """Images above the limit of pixels or bytes, possibly decompression bombs.

    A file of a few kilobytes can declare billions of pixels.
    """

    code = "KS105"
    title = "Oversized images"
    severity = "error"
    advice = "Split genuine images into tiles or reduce their size; delete the others."
    error_codes = ("too-large",)


_UNSUPPORTED = "unsupported image format"
"""Start of the reason that the dataset gives for skipping such a file."""


class UnsupportedFormats(Check):
    """HEIC, camera raw, SVG and other formats that are skipped because of their file name."""

    code = "KS118"
    title = "Unsupported image formats"
    severity = "warning"
    advice = "Save copies as JPEG or PNG."

    def run(self, context: CheckContext) -> CheckResult:
        """Report the skipped files by extension."""
        if context.folder_contents is None:
            return self.not_applicable("The data are not a folder.")
        others = context.folder_contents.other_files
        by_extension: defaultdict[str, list[str]] = defaultdict(list)
        for other in others:
            if other.reason.startswith(_UNSUPPORTED):
                by_extension[other.path.rpartition(".")[2].lower()].append(other.path)
        findings = []
        for extension, paths in sorted(
            by_extension.items(), key=lambda item: (-len(item[1]), item[0])
        ):
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            message = f"Skipped because the format is not supported: {files} with .{extension}."
            findings.append(self.finding_about(paths, message, value=float(len(paths))))
        return self.result(findings, len(others))
