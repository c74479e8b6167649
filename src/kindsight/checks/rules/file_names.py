"""KS106 and KS112 to KS117: names of files and classes, and files that do not belong."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

import numpy as np

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.dataset.names import (
    IMAGE_EXTENSIONS,
    NOT_AN_IMAGE,
    UNREAD_EXTENSIONS,
    extension_of,
    quoted,
)
from kindsight.dataset.splits.disjoint_sets import equal_rows

__all__ = [
    "CaseCollisions", "DuplicateClassNames", "Masks", "MismatchedThumbnails", "OtherFiles",
    "ThumbnailFolders", "WrongExtensions",
]  # fmt: skip

FORMAT_OF_EXTENSION = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **{"png": "PNG", "gif": "GIF", "webp": "WebP", "avif": "AVIF", "jp2": "JPEG 2000"},
    **{"ico": "ICO", "j2k": "JPEG 2000", "jpx": "JPEG 2000", "apng": "PNG", "mpo": "JPEG"},
    **dict.fromkeys(("heic", "heif", "hif"), "HEIC"),
}


class WrongExtensions(Check):
    """Images without an extension, or with that of another format, such as a PNG named .jpg.

    kindsight detects the format from the content; other programs may fail.
    """

    code = "KS106"
    title = "Wrong file extensions"
    severity = "warning"
    advice = "Rename the files for programs that rely on the extension; kindsight does not."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare extensions with formats."""
        formats = context.measurements.format
        findings = []
        for row in context.readable_rows:
            name = context.dataset.path[row].rpartition("/")[2]
            extension = extension_of(name)
            if not formats[row] or formats[row] == FORMAT_OF_EXTENSION.get(extension):
                continue
            if extension in IMAGE_EXTENSIONS or extension in UNREAD_EXTENSIONS:
                message = f"The extension is .{extension}, but the file is {formats[row]}."
            else:
                message = f"The name has no image extension, but the file is {formats[row]}."
            findings.append(self.finding(context, [row], message, suggestion=str(formats[row])))
        return self.result(findings, len(context.readable_rows))


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", path).casefold()


class CaseCollisions(Check):
    """Files that overwrite each other when the folder is copied to Windows or macOS.

    These systems ignore case, and treat composed and decomposed accents as equal.
    """

    code = "KS112"
    title = "Names that differ only by case"
    severity = "warning"
    advice = "Rename one file of each group."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the names of all files."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no files.")
        path = context.dataset.path
        same = (group.tolist() for group in equal_rows(path, _folded))
        groups = (rows for rows in same if len({path[row] for row in rows}) > 1)
        message = "On a file system that ignores case, one overwrites the other."
        return self.result(
            (self.finding(context, rows, message) for rows in groups), len(context.dataset)
        )


_SEPARATORS = re.compile(r"[\s_-]+")


class DuplicateClassNames(Check):
    """One class with several names, such as ``Cat`` and ``cat`` or ``my dog`` and ``my_dog``."""

    code = "KS113"
    title = "Class names that differ only by case or spaces"
    severity = "error"
    advice = "Move the images of both into one folder."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the names of all classes."""
        counts = context.dataset.counts()
        if not counts:
            return self.not_applicable("The images have no labels.")
        by_name: defaultdict[str, list[str]] = defaultdict(list)
        for name in counts:
            plain = unicodedata.normalize("NFKC", name).casefold()
            by_name[_SEPARATORS.sub(" ", plain).strip()].append(name)
        findings = []
        for names in by_name.values():
            if len(names) < 2:
                continue
            amounts = " and ".join(f"{counts[name]:,}" for name in names)
            largest = max(names, key=lambda name: counts[name])
            message = f"Treated as {len(names)} classes, of {amounts} images."
            findings.append(self.finding_about(names, message, suggestion=largest))
        return self.result(findings, len(counts))


class OtherFiles(Check):
    """Text files, tables, archives or annotations in the class folders, which are skipped."""

    code = "KS114"
    title = "Other files among the images"
    severity = "note"
    advice = "Check whether one of them should be used."

    def run(self, context: CheckContext) -> CheckResult:
        """Report the other files of each image folder by extension."""
        if context.folder_contents is None:
            return self.not_applicable("The data are not a folder.")
        others = context.folder_contents.other_files
        folders = {path.rpartition("/")[0] for path in context.dataset.path}
        by_kind: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for other in others:
            folder, _, name = other.path.rpartition("/")
            if other.reason.startswith(NOT_AN_IMAGE) and folder in folders and folder:
                _, dot, extension = name.rpartition(".")
                by_kind[folder, f".{extension.lower()}" if dot else ""].append(other.path)
        findings = []
        for (_, extension), paths in sorted(
            by_kind.items(), key=lambda item: (-len(item[1]), item)
        ):
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            kind = f"with {extension}" if extension else "without an extension"
            message = f"Skipped in a folder of images: {files} {kind}."
            findings.append(self.finding_about(paths, message, value=float(len(paths))))
        return self.result(findings, len(others))


_MASK = r"(?:mask|masks|seg|segm|segmentation|gt|groundtruth|ground_truth|annotation|trimap|alpha)"
_MASK_PREFIX = re.compile(rf"^{_MASK}[-_ .]+(.+)$", re.IGNORECASE)
_MASK_SUFFIX = re.compile(rf"^(.*[^-_ .])[-_ .]+{_MASK}(?:[-_ .]?\d+)?$", re.IGNORECASE)
_MASK_FOLDER = re.compile(rf"^(?:.*[-_ .])?{_MASK}(?:[-_ .].*)?$", re.IGNORECASE)

# Entropy in bits per pixel: a mask has fewer than 2, also as JPEG; cats-dogs have at least 4.9.
MASK_ENTROPY = 3.0


class Masks(Check):
    """Segmentation masks in the class folders, which would be used as images of the class."""

    code = "KS115"
    title = "Segmentation masks among the images"
    severity = "warning"
    advice = "Move the masks out of the class folders."

    def run(self, context: CheckContext) -> CheckResult:
        """Report masks by their name, or by their folder and entropy."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no names.")
        entropy = context.measurements.entropy
        stems: defaultdict[str, set[str]] = defaultdict(set)
        for path in context.dataset.path:
            folder, _, name = path.rpartition("/")
            stems[folder].add(name.rpartition(".")[0].lower())
        findings = []
        for row in context.readable_rows:
            folder, _, name = context.dataset.path[row].rpartition("/")
            stem = name.rpartition(".")[0]
            match = _MASK_SUFFIX.match(stem) or _MASK_PREFIX.match(stem)
            if match and match[1].lower() in stems[folder]:
                message = f"Its name says that it is the mask of {quoted(match[1])}."
                findings.append(self.finding(context, [row], message))
            elif entropy[row] < MASK_ENTROPY and any(map(_MASK_FOLDER.match, folder.split("/"))):
                message = "It is in a folder of masks and has few grey levels, like a mask."
                findings.append(self.finding(context, [row], message))
        return self.result(findings, len(context.readable_rows))


# Minimum of 1 - correlation at 32 x 32 pixels. The thumbnail of the same image, also sharpened or
# darkened, has less than 0.05; of another image or crop, 0.3 or more.
THUMBNAIL_DIFFERENCE = 0.25


class MismatchedThumbnails(Check):
    """Photographs whose EXIF thumbnail shows something else, because they were edited or replaced.

    The thumbnail may still show what was cropped or covered.
    """

    code = "KS116"
    title = "EXIF thumbnails of another image"
    severity = "warning"
    advice = "If the thumbnail is confidential, remove it from a copy of the file."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare images with their thumbnails."""
        difference = context.measurements.thumbnail_difference
        rows = np.flatnonzero(np.isfinite(difference))
        if not len(rows):
            return self.not_applicable("No image has a thumbnail in its EXIF data.")
        found = rows[difference[rows] > THUMBNAIL_DIFFERENCE]
        message = "The thumbnail in its EXIF data shows a different image."
        return self.result(
            (
                self.finding(context, [row], message, value=float(difference[row]))
                for row in found[np.argsort(-difference[found], kind="stable")]
            ),
            len(rows),
        )


_THUMBNAILS = re.compile(
    r"^(?:.*[-_ .])?(?:thumb|thumbs|thumbnail|thumbnails|preview|previews|small|icons)$",
    re.IGNORECASE,
)


class ThumbnailFolders(Check):
    """Folders of small copies inside a class folder, whose images are used like the originals."""

    code = "KS117"
    title = "Folders of thumbnails"
    severity = "warning"
    advice = "Move the folder out of the data."

    def run(self, context: CheckContext) -> CheckResult:
        """Report folders by their name."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no folders.")
        rows_of: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(context.dataset.path):
            folders = path.split("/")[:-1]
            for depth, folder in enumerate(folders):
                if depth and _THUMBNAILS.match(folder):  # at depth 0 it may be a class
                    rows_of["/".join(folders[: depth + 1])].append(row)
                    break
        return self.result(
            (
                self.finding(
                    context,
                    rows,
                    f"A folder of thumbnails by its name, with {len(rows):,} images.",
                    value=float(len(rows)),
                )
                for _, rows in sorted(rows_of.items())
            ),
            len(context.dataset),
        )
