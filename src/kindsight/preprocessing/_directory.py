"""The iterator over class folders, and the listing of their files in Keras's order."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import for_each
from kindsight.preprocessing._file_batches import BatchFromFilesMixin, invalid_class_mode
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._warnings import warn_trap

Path = str  # as in Keras, whose users compare names as strings
_EXAMPLES = 3


@dataclass
class ClassFolder:
    """Images and skipped files of a class, relative to the dataset folder, sorted by name."""

    names: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)  # linked folders that are not entered


def find_classes(directory: Any) -> list[str]:
    """Return the sorted names of the subfolders."""
    return sorted(
        name for name in os.listdir(directory) if os.path.isdir(os.path.join(directory, name))
    )


def list_class(
    directory: Any,
    name: str,
    formats: tuple[str, ...],
    split: tuple[float, float] | None,
    follow_links: bool,
) -> ClassFolder:
    """List the images of a class folder and its subfolders.

    `formats` are extensions in lower case; `split` is the range of images to return, as two
    fractions.
    """
    folder = os.path.join(directory, name)
    found = ClassFolder()
    walk = sorted(_walk(folder, follow_links, found.links), key=lambda step: step[0])
    found.links = [os.path.normpath(os.path.relpath(link, directory)) for link in found.links]
    for root, files in walk:
        inner = os.path.relpath(root, folder)
        for file in sorted(files):
            path = os.path.normpath(os.path.join(name, inner, file))
            if file.lower().endswith(formats):
                found.names.append(path)
            elif not _is_system_file(file):
                found.skipped.append(path)
    if split is not None:
        count = len(found.names)
        found.names = found.names[int(split[0] * count) : int(split[1] * count)]
    return found


def _walk(
    folder: str, follow_links: bool, links: list[Path]
) -> Generator[tuple[str, list[str]], None, None]:
    """Yield the folders with their files; add the linked folders that are not entered to `links`.

    A link to a folder that contains it would be entered until the path is too long: it is left out.
    """
    for root, folders, files in os.walk(folder, followlinks=follow_links):
        inside = os.path.join(os.path.realpath(root), "")
        linked = [name for name in folders if os.path.islink(os.path.join(root, name))]
        for name in sorted(linked):
            target = os.path.join(os.path.realpath(os.path.join(root, name)), "")
            if not follow_links or inside.startswith(target):
                folders.remove(name)
                links.append(os.path.join(root, name))
        yield root, files


def warn_of_files(
    directory: Any, folders: Sequence[tuple[str, ClassFolder]], formats: tuple[str, ...]
) -> None:
    """Warn of skipped files, unlikely classes and TIFF files."""
    directory = os.fspath(directory)
    if skipped := [path for _, folder in folders for path in folder.skipped]:
        warn_trap(
            "skipped-files", about=directory, count=len(skipped), folder=directory,
            examples=_some(skipped), formats=", ".join(formats),
        )  # fmt: skip
    if links := [path for _, folder in folders for path in folder.links]:
        warn_trap(
            "links-not-followed", about=directory, count=len(links), folder=directory,
            examples=_some(links),
        )  # fmt: skip
    hidden = [name for name, _ in folders if os.path.basename(name).startswith((".", "__"))]
    empty = [name for name, folder in folders if not folder.names and name not in hidden]
    for names, why in ((hidden, "they look like hidden folders"), (empty, "they have no images")):
        if names:
            warn_trap(
                "odd-classes", about=f"{why} {directory}", folder=directory, why=why,
                examples=_some(names),
            )  # fmt: skip
    if bands := [path for _, folder in folders for path in folder.names if _is_tiff(path)]:
        warn_trap("several-bands", about=directory, examples=_some(bands))


def _is_system_file(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")


def _is_tiff(path: str) -> bool:
    return path.lower().endswith(".tiff")


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more


class DirectoryIterator(BatchFromFilesMixin, Iterator):
    """Iterator over the images of class folders.

    Parameters
    ----------
    directory : path
        Folder with one subfolder for each class.
    image_data_generator : ImageDataGenerator or None
    target_size : pair of int, default=(256, 256)
        Height and width that images are resized to.
    color_mode : str, default="rgb"
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    classes : list of str, optional
        Class folders in the order of their indices; default is all subfolders, sorted.
    class_mode : str or None, default="categorical"
        Labels: ``"categorical"`` gives a (n, classes) array of 0 and 1, ``"binary"`` or
        ``"sparse"`` indices, ``"input"`` the images, None no labels.
    batch_size : int, default=32
    shuffle : bool, default=True
    seed : int, optional
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; default is Keras's setting.
    save_to_dir : path, optional
        Folder where each image is saved, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    follow_links : bool, default=False
        Whether to follow links to folders.
    subset : str, optional
        ``"validation"`` for the first files of each class by name, ``"training"`` for the others.
    interpolation : str, default="nearest"
        Pillow filter for resizing; ``"bilinear"`` and ``"lanczos"`` have better quality.
    keep_aspect_ratio : bool, default=False
        Whether to crop the centre to the aspect ratio of `target_size` first.
    dtype : str, optional
        Default is Keras's float type.

    Attributes
    ----------
    samples, num_classes : int
        Number of images and of classes.
    class_indices : dict
        Index of each class.
    classes : int32 array of shape (samples,)
        Class index of each file; also `labels`.
    filenames : list of str
        Files relative to `directory`; `filepaths` include it.

    Raises
    ------
    SettingsError
        (a ValueError) for invalid arguments.
    OSError
        If the folder cannot be listed.
    """

    allowed_class_modes = {"categorical", "binary", "sparse", "input", None}  # noqa: RUF012

    def __init__(
        self, directory: Any, image_data_generator: Any, target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb", classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical", batch_size: int = 32, shuffle: bool = True,
        seed: int | None = None, data_format: str | None = None, save_to_dir: str | None = None,
        save_prefix: str = "", save_format: str = "png", follow_links: bool = False,
        subset: str | None = None, interpolation: str = "nearest", keep_aspect_ratio: bool = False,
        dtype: str | None = None,
    ) -> None:  # fmt: skip
        self.set_processing_attrs(
            image_data_generator, target_size, color_mode,
            data_format or _keras.image_data_format(), save_to_dir, save_prefix, save_format,
            subset, interpolation, keep_aspect_ratio,
        )  # fmt: skip
        if class_mode not in self.allowed_class_modes:
            raise SettingsError(invalid_class_mode(class_mode, self.allowed_class_modes))
        self.directory = directory
        self.class_mode = class_mode
        self.dtype = dtype or _keras.floatx()
        names = list(classes or find_classes(directory))
        self.num_classes = len(names)
        self.class_indices = {name: number for number, name in enumerate(names)}
        folders = self._list(names, follow_links)
        warn_of_files(directory, list(zip(names, folders, strict=True)), self.white_list_formats)
        self.filenames = [name for folder in folders for name in folder.names]
        self.samples = len(self.filenames)
        counts = [len(folder.names) for folder in folders]
        self.classes: NDArray[np.int32] = np.repeat(
            np.array([self.class_indices[name] for name in names], np.int32), counts
        )
        _keras.print_or_log(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        self._filepaths = [os.path.join(directory, name) for name in self.filenames]
        self._open_cache(shuffle)
        super().__init__(self.samples, batch_size, shuffle, seed)

    def _list(self, names: Sequence[str], follow_links: bool) -> list[ClassFolder]:
        folders: list[ClassFolder] = [ClassFolder()] * len(names)

        def list_one(index: int) -> None:
            folders[index] = list_class(
                self.directory, names[index], self.white_list_formats, self.split, follow_links
            )

        for_each(len(names), list_one)
        return folders

    @property
    def filepaths(self) -> list[str]:
        """Paths of the images, including `directory`."""
        return self._filepaths

    @property
    def labels(self) -> NDArray[np.int32]:
        """Class index of each file."""
        return self.classes

    @property
    def sample_weight(self) -> None:
        """None: class folders have no sample weights."""
        return None
