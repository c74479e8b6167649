"""KS106: names that promise another format than the file has."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

import numpy as np

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.dataset.names import shown

__all__ = [
    "Masks",
    "MisnamedImages",
    "OtherFiles",
    "OtherThumbnails",
    "SameClasses",
    "SameNames",
    "ThumbnailFolders",
]

# What each extension promises, among the formats that are read.
PROMISED = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **dict.fromkeys(("bmp", "dib"), "BMP"),
    **dict.fromkeys(("ppm", "pgm", "pbm", "pnm"), "PPM"),
    **{"png": "PNG", "gif": "GIF", "webp": "WebP", "avif": "AVIF", "jp2": "JPEG 2000"},
}


class MisnamedImages(Check):
    """Images whose extension lies: a PNG called .jpg.

    They are read all the same, since the content decides; other programs stumble over them.
    """

    code = "KS106"
    title = "Names that promise another format"
    severity = "warning"
    advice = "Nothing for kindsight; rename the files for programs that go by the name."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        formats = context.measurements.format
        found = []
        for row in context.readable_rows:
            extension = context.dataset.path[row].rpartition(".")[2].lower()
            promised = PROMISED.get(extension)
            if promised and formats[row] and formats[row] != promised:
                message = f"The name ends in .{extension}, but the file is {formats[row]}."
                found.append(self.finding(context, [row], message, suggestion=str(formats[row])))
        return self.result(found, len(context.readable_rows))


# SECTION: KS112: files whose names differ only by case.


class SameNames(Check):
    """Files that become one when the folder is copied to Windows or macOS.

    Those systems do not tell upper from lower case, nor an accent that is part of its letter from
    one that follows it.
    """

    code = "KS112"
    title = "Names that differ only by case"
    severity = "warning"
    advice = "Rename one of each."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no files.")
        alike: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(context.dataset.path):
            alike[unicodedata.normalize("NFC", path).casefold()].append(row)
        groups = (
            rows for rows in alike.values() if len({context.dataset.path[row] for row in rows}) > 1
        )
        return self.result(
            (
                self.finding(
                    context,
                    rows,
                    "On a system that does not tell case, one replaces the other.",
                )
                for rows in groups
            ),
            len(context.dataset),
        )


# SECTION: KS113: classes whose names differ only by case or blanks.

_BLANKS = re.compile(r"[\s_-]+")


class SameClasses(Check):
    """One class under two names: ``Cat`` and ``cat``, ``great dane`` and ``great_dane ``."""

    code = "KS113"
    title = "Class names that differ only by case or blanks"
    severity = "error"
    advice = "Move the images of both into one folder."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names of the classes."""
        counts = context.dataset.counts()
        if not counts:
            return self.not_applicable("The images have no labels.")
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in counts:
            alike[_plain(name)].append(name)
        found = []
        for names in alike.values():
            if len(names) < 2:
                continue
            amounts = ", ".join(f"{counts[name]:,}" for name in names)
            most = max(names, key=lambda name: counts[name])
            message = f"They are taken for {len(names)} classes, of {amounts} images."
            found.append(self.finding_about(names, message, suggestion=most))
        return self.result(found, len(counts))


def _plain(name: str) -> str:
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()


# SECTION: KS114: files of other kinds among the images of a class.

BY_NAME = "not an image by its name"


class OtherFiles(Check):
    """Texts, tables, archives, annotations in the folders of classes: they are passed over."""

    code = "KS114"
    title = "Other files among the images"
    severity = "note"
    advice = "Look whether something among them is meant to be used."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at what lies in the folders of the images."""
        if context.folder_contents is None:
            return self.not_applicable("The data are not a folder.")
        folders = {path.rpartition("/")[0] for path in context.dataset.path}
        kinds: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
        for other in context.folder_contents.others:
            folder, _, name = other.path.rpartition("/")
            if other.reason == BY_NAME and folder in folders and folder:
                _, dot, extension = name.rpartition(".")
                kinds[folder, f".{extension.lower()}" if dot else ""].append(other.path)
        found = []
        for (_, extension), paths in sorted(kinds.items(), key=lambda item: (-len(item[1]), item)):
            what = f"ending in {extension}" if extension else "without an ending"
            files = "1 file" if len(paths) == 1 else f"{len(paths):,} files"
            message = f"Among the images of a folder, and not used: {files} {what}."
            found.append(self.finding_about(paths, message, value=float(len(paths))))
        return self.result(found, len(context.folder_contents.others))


# SECTION: KS115: masks among the photographs that they belong to.

_WORDS = r"(?:mask|masks|seg|segm|segmentation|gt|groundtruth|ground_truth|annotation|trimap|alpha)"
_BEFORE = re.compile(rf"^{_WORDS}[-_ .]+(.+)$", re.IGNORECASE)
_BEHIND = re.compile(rf"^(.+?)[-_ .]+{_WORDS}(?:[-_ .]?\d+)?$", re.IGNORECASE)
_FOLDER = re.compile(rf"^(?:.*[-_ .])?{_WORDS}(?:[-_ .].*)?$", re.IGNORECASE)

# Bits a pixel: a mask of a few areas has fewer than 2 also after JPEG; cats-dogs begin at 4.9.
FEW_TONES = 3.0


class Masks(Check):
    """Images that mark what is where in another image, taken for images of the class."""

    code = "KS115"
    title = "Masks beside photographs"
    severity = "warning"
    advice = "Move the masks out of the class folders."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names, and at how few tones there are."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no names.")
        entropy = context.measurements.entropy
        stems: defaultdict[str, set[str]] = defaultdict(set)
        for path in context.dataset.path:
            folder, _, name = path.rpartition("/")
            stems[folder].add(name.rpartition(".")[0].lower())
        found = []
        for row in context.readable_rows:
            folder, _, name = context.dataset.path[row].rpartition("/")
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


# SECTION: KS116: photographs whose hidden thumbnail shows something else.

# One minus the correlation at 32 x 32 pixels. A thumbnail of the same image gives below 0.05,
# also where it was sharpened or darkened since; of another image or another crop, 0.3 and more.
DIFFERENCE = 0.25


class OtherThumbnails(Check):
    """The small image in EXIF data is not of this image: it was cropped, edited or replaced.

    Thumbnails outlive editing. One that still shows what was cut away or covered may be given away
    with the data; where it shows another scene, the file was made of two.
    """

    code = "KS116"
    title = "Hidden thumbnails of another image"
    severity = "warning"
    advice = "If the thumbnail must not be seen, remove it from a copy of the file."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the images."""
        difference = context.measurements.thumbnail
        rows = np.flatnonzero(np.isfinite(difference))
        if not len(rows):
            return self.not_applicable("No image has a thumbnail in its EXIF data.")
        wrong = rows[difference[rows] > DIFFERENCE]
        order = np.argsort(-difference[wrong], kind="stable")
        return self.result(
            (
                self.finding(
                    context,
                    [row],
                    "The thumbnail in its EXIF data shows something else than the image.",
                    value=float(difference[row]),
                )
                for row in wrong[order]
            ),
            len(rows),
        )


# SECTION: KS117: folders of small copies among the folders of images.

_NAME = re.compile(
    r"^(?:.*[-_ .])?(?:thumb|thumbs|thumbnail|thumbnails|preview|previews|small|icons)$",
    re.IGNORECASE,
)


class ThumbnailFolders(Check):
    """Folders that programs fill with small copies; their images count as images here.

    A folder inside a class belongs to the class, so every image is there twice.
    """

    code = "KS117"
    title = "Folders of thumbnails"
    severity = "warning"
    advice = "Move the folder out of the data."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names of the folders."""
        if context.dataset.arrays is not None:
            return self.not_applicable("Images in memory have no folders.")
        inside: defaultdict[str, list[int]] = defaultdict(list)
        for row, path in enumerate(context.dataset.path):
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
                    f"A folder of thumbnails by its name, with {len(rows):,} of the images.",
                    value=float(len(rows)),
                )
                for _, rows in sorted(inside.items())
            ),
            len(context.dataset),
        )
