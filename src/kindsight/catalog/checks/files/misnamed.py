"""KS106: names that promise another format than the file has."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["MisnamedPictures"]

# What each extension promises, among the formats that are read.
PROMISED = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **{"png": "PNG", "gif": "GIF", "webp": "WebP", "avif": "AVIF", "jp2": "JPEG 2000"},
}


class MisnamedPictures(Check):
    """Pictures whose extension lies: a PNG called .jpg.

    They are read all the same, since the content decides; other programs stumble over them.
    """

    code = "KS106"
    title = "Names that promise another format"
    severity = "warning"
    advice = "Nothing for kindsight; rename the files for programs that go by the name."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the pictures."""
        formats = context.measurements.format
        found = []
        for row in context.readable_rows:
            extension = context.catalog.path[row].rpartition(".")[2].lower()
            promised = PROMISED.get(extension)
            if promised and formats[row] and formats[row] != promised:
                message = f"The name ends in .{extension}, but the file is {formats[row]}."
                found.append(self.finding(context, [row], message, suggestion=str(formats[row])))
        return self.result(found, len(context.readable_rows))
