"""Add images to a project: files that a browser sends, or a dataset that is used in place."""

from __future__ import annotations

import os
import shlex
import threading
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from kindsight.dataset import open_dataset
from kindsight.dataset.loaders.table_files import is_file_of_images
from kindsight.dataset.names import quoted
from kindsight.dataset.table import ImageDataset, relative_paths
from kindsight.digest import content_digest, file_digest
from kindsight.encoding import printable, valid_text
from kindsight.errors import DatasetError, ImageError, KindsightError
from kindsight.files import replacing
from kindsight.images.formats import detect_format, file_ending
from kindsight.images.read import read_image
from kindsight.server.uploads import Upload
from kindsight.studio.shapes import Added, Change, Source, UploadProblem
from kindsight.studio.state.images import clean_class_name
from kindsight.studio.state.project import NewImage, Project
from kindsight.studio.state.table import TABLE_FILE
from kindsight.studio.state.thumbnails import Thumbnails
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv

__all__ = [
    "IMAGES_FOLDER",
    "LIMITS",
    "add_uploads",
    "clean_name",
    "find_new_images",
    "import_dataset",
]

IMAGES_FOLDER = "images"
"""Folder with copies of the files that were sent."""

LIMITS = {
    "files": 200,
    "file_bytes": 100 * 2**20,
    "request_bytes": 256 * 2**20,
    "pixels": 100_000_000,
}
"""Limits of one request that adds images."""

LONGEST = 300
"""Maximum number of characters of a name."""

_adding = threading.Lock()


def clean_name(name: str) -> str:
    """Return a file name from a browser for display: printable, with ``/``, not too long."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    return printable(valid_text("/".join(parts)))[-LONGEST:] or "image"


def add_uploads(
    project: Project,
    uploads: Sequence[Upload],
    thumbnails: Thumbnails,
    *,
    label: str | None = None,
    label_from_folder: bool = False,
    source: str = "drop",
    batch: str = "",
) -> Added:
    """Copy files into the project and add them as images.

    Every file is decoded completely. Files that are not images, or are in the project already, are
    not added; the response names them with the reason.

    - `label`: label of all files; `label_from_folder`: the label is the name of each file's folder
      instead.
    - `source`: a word for the journal.
    - `batch`: uploads with the same text are undone at once.
    """
    if label is not None:
        label = clean_class_name(label)
    # One request at a time, so that the same file in two requests is a duplicate.
    with _adding:
        known = _KnownContents(project)
        new, duplicates, unreadable = list[NewImage](), list[UploadProblem](), list[UploadProblem]()
        with single_threaded_opencv():
            taken = map_ordered(lambda one: _take(one, thumbnails), uploads, count_cores())
            for upload, found in zip(uploads, taken, strict=True):
                shown = clean_name(upload.name)
                if isinstance(found, ImageError):
                    unreadable.append({"name": shown, "reason": found.reason})
                    continue
                content, digest, ending = found
                same = known.find(digest, len(content))
                if same is not None:
                    reason = "The project already has this image."
                    duplicates.append({"name": shown, "reason": reason, "id": same})
                    continue
                path = f"{IMAGES_FOLDER}/{digest}.{ending}"
                if not (project.folder / path).exists():
                    with replacing(project.folder / path) as temporary:
                        temporary.write_bytes(content)
                known.add(digest, -1 - len(new))
                own = _folder_label(shown) if label_from_folder else label
                new.append(NewImage(path, shown, own, len(content), digest))
        # Further requests of the batch may follow, so the number of files is unknown here.
        files = shlex.quote(new[0].name) if len(new) == 1 and not batch else "the files"
        command = f"# copy {files} into {IMAGES_FOLDER}/, and their paths into {TABLE_FILE}"
        change, ids = project.add(new, source, command=command, batch=batch)
        for problem in duplicates:
            if problem["id"] < 0:  # the same file twice in this request
                problem["id"] = ids[-1 - problem["id"]]
        return {**change, "added": ids, "duplicates": duplicates, "unreadable": unreadable}


def _take(upload: Upload, thumbnails: Thumbnails) -> tuple[bytes, str, str] | ImageError:
    """Return the content of a readable file, its digest and ending; or why it is unreadable."""
    content, limit = upload.data, LIMITS["file_bytes"]
    try:
        if len(content) > limit:
            raise ImageError("too-large", f"The file is larger than {limit // 2**20} MB.")
        image = read_image(content, max_pixels=LIMITS["pixels"])
    except ImageError as error:
        return error
    digest = content_digest(content)
    thumbnails.put(digest, image)
    return content, digest, file_ending(detect_format(content))


def _folder_label(name: str) -> str | None:
    """Return the class of a file by its folder; None if it has no folder."""
    folder = PurePosixPath(name).parent.name
    return clean_class_name(folder) if folder else None


class _KnownContents:
    """The digests of a project's images; those of a dataset are computed where sizes are equal."""

    def __init__(self, project: Project) -> None:
        self._project = project
        images = project.images
        rows = project.present()
        self._ids = {images.digest[row]: row for row in rows.tolist() if images.digest[row]}
        self._without = rows[[not images.digest[row] for row in rows.tolist()]]

    def find(self, digest: str, size: int) -> int | None:
        """Return the id of the image with the same content; None if there is none."""
        images = self._project.images
        if digest not in self._ids:
            same = images.size[self._without] == size
            for row in self._without[same].tolist():
                try:
                    images.digest[row] = file_digest(self._project.folder / images.path[row])
                except OSError:
                    continue
                self._ids.setdefault(images.digest[row], row)
            self._without = self._without[~same]
        return self._ids.get(digest)

    def add(self, digest: str, row: int) -> None:
        """Record an image that is to be added."""
        self._ids[digest] = row


def import_dataset(project: Project, data: str, *, lasting: bool = False) -> Change:
    """Add the images of a folder or table, which are used in place: nothing is moved or changed.

    Images whose path is in the project already are left out. Labels come from class folders, splits
    from split folders; the images of a folder without classes are unlabelled.

    - `lasting`: whether this cannot be undone.

    Raises
    ------
    DatasetError
        If there are no images, or they are arrays or pixels in a table.
    """
    source = Path(data).absolute()
    inside = Path(os.path.realpath(project.folder))
    if inside == Path(os.path.realpath(source)):
        raise DatasetError("A project cannot be added to itself. Give another folder.")
    dataset = _open(str(source))
    if dataset.arrays is not None:
        raise DatasetError(
            f"The studio needs image files; {quoted(data)} has its images as arrays or pixels."
        )
    new = [
        NewImage(path, printable(dataset.path[row]), dataset.label[row], dataset.size[row], "",
                 dataset.split[row], dataset.group[row])
        for row, path in _new_rows(project, dataset)
    ]  # fmt: skip
    command = f"kindsight studio {shlex.quote(str(project.folder))} --data {shlex.quote(data)}"
    change, _ = project.add(new, "dataset", command=command, lasting=lasting)
    project.set_data(str(source), list(dict.fromkeys([*project.notes, *dataset.notes])))
    return change


def find_new_images(project: Project) -> list[Source]:
    """Return a project's folders and tables, each with the number of images not added yet.

    A folder or table that cannot be opened at the moment, such as on a disconnected disk, is left
    out.
    """
    found = list[Source]()
    for data in list(project.sources):
        try:
            dataset = _open(data)
        except (KindsightError, OSError):
            continue
        if dataset.arrays is None:
            count = len(_new_rows(project, dataset))
            found.append({"path": data, "name": Path(data).name, "new": count})
    return found


def _new_rows(project: Project, dataset: ImageDataset) -> list[tuple[int, str]]:
    """Return the rows of a dataset that the project lacks, with paths relative to its folder."""
    with project.lock:
        known = {project.images.path[row] for row in project.present().tolist()}
    paths = relative_paths(dataset, project.folder.absolute())
    return [(row, path) for row, path in enumerate(paths) if path not in known]


def _open(data: str) -> ImageDataset:
    try:
        return open_dataset(data, min_classes=1)
    except DatasetError as first:
        # Without labels, any file would be a single image.
        if Path(data).is_file() and not is_file_of_images(data):
            raise
        try:
            return open_dataset(data, labelled=False)
        except DatasetError:
            raise first from None
