"""The iterator over class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._batches import for_each
from kindsight.preprocessing._files import BatchFromFilesMixin
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._messages import warn_of

__all__ = [
    "ClassFolder",
    "DirectoryIterator",
    "find_classes",
    "list_class",
    "warn_of_files",
]

# SECTION: Which files of a class folder are images, in Keras's order; and which are left out.

Path = str  # Keras joins names as strings, and so its users compare them
_EXAMPLES = 3


@dataclass
class ClassFolder:
    """The files of one class.

    Parameters
    ----------
    names : list of str
        Relative to the folder that holds the class folders, sorted by folder and name.
    skipped : list of str
        Files of other kinds, in the same way; files of the system are not among them.
    """

    names: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)


def find_classes(directory: Any) -> list[str]:
    """List the folders in a folder, sorted."""
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
    """List the images of a class folder and of the folders in it.

    Parameters
    ----------
    directory : path
        What holds the class folders.
    name : str
        The class folder.
    formats : tuple of str
        Endings that count, in small letters.
    split : pair of float, optional
        From and to which share of them to take.
    follow_links : bool
        Whether to go into folders that are links.
    """
    folder = os.path.join(directory, name)
    found = ClassFolder()
    walk = sorted(os.walk(folder, followlinks=follow_links), key=lambda step: step[0])
    for root, _, files in walk:
        inner = os.path.relpath(root, folder)
        for file in sorted(files):
            path = os.path.normpath(os.path.join(name, inner, file))
            if file.lower().endswith(formats):
                found.names.append(path)
            elif not _of_the_system(file):
                found.skipped.append(path)
    if split is not None:
        count = len(found.names)
        found.names = found.names[int(split[0] * count) : int(split[1] * count)]
    return found


def warn_of_files(
    directory: Any, folders: Sequence[tuple[str, ClassFolder]], formats: tuple[str, ...]
) -> None:
    """Warn of files that were left out, and of folders that are hardly classes."""
    directory = os.fspath(directory)
    skipped = [path for _, folder in folders for path in folder.skipped]
    if skipped:
        warn_of(
            "skipped-files",
            about=directory,
            count=len(skipped),
            folder=directory,
            examples=_some(skipped),
            formats=", ".join(formats),
        )
    hidden = [name for name, _ in folders if os.path.basename(name).startswith((".", "__"))]
    if hidden:
        why = "their names are those of a program's own folders"
        warn_of(
            "odd-classes",
            about=f"hidden {directory}",
            folder=directory,
            why=why,
            examples=_some(hidden),
        )
    empty = [name for name, folder in folders if not folder.names and name not in hidden]
    if empty:
        why = "they hold no images"
        warn_of(
            "odd-classes",
            about=f"empty {directory}",
            folder=directory,
            why=why,
            examples=_some(empty),
        )
    bands = [path for _, folder in folders for path in folder.names if _is_tiff(path)]
    if bands:
        warn_of("several-bands", about=directory, examples=_some(bands))


def _of_the_system(name: str) -> bool:
    return name.startswith(".") or name in ("Thumbs.db", "desktop.ini")


def _is_tiff(path: str) -> bool:
    return path.lower().endswith(".tiff")


def _some(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + more


class DirectoryIterator(BatchFromFilesMixin, Iterator):
    """Batches of the images of class folders.

    Parameters
    ----------
    directory : path
        A folder with one folder for each class.
    image_data_generator : ImageDataGenerator or None
        What transforms and standardises them.
    target_size : pair of int, default=(256, 256)
        Height and width that every image is brought to.
    color_mode : str, default="rgb"
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    classes : list of str, optional
        The class folders, in the order of their numbers; all of them, sorted, if omitted.
    class_mode : str or None, default="categorical"
        The labels: ``"categorical"`` (n, classes) of 0 and 1, ``"binary"`` or ``"sparse"`` numbers,
        ``"input"`` the images themselves, None no labels.
    batch_size : int, default=32
    shuffle : bool, default=True
    seed : int, optional
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; Keras's setting if omitted.
    save_to_dir : path, optional
        A folder into which each image is written as well, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    follow_links : bool, default=False
        Whether to go into folders that are links.
    subset : str, optional
        ``"training"`` or ``"validation"``: the last or the first files of each class, by name.
    interpolation : str, default="nearest"
        How images are resized; ``"bilinear"`` and ``"lanczos"`` look better.
    keep_aspect_ratio : bool, default=False
        Whether to cut out the middle with the proportions of `target_size` first.
    dtype : str, optional
        Of the batches; Keras's float type if omitted.

    Attributes
    ----------
    samples, num_classes : int
        How many there are.
    class_indices : dict
        The number of each class.
    classes : int32 array of shape (samples,)
        The class of each file; also `labels`.
    filenames : list of str
        The files, relative to `directory`; `filepaths` are with it.

    Raises
    ------
    SettingsError
        For another class_mode; it is a ValueError.
    OSError
        For a folder that cannot be listed.
    """

    allowed_class_modes = {"categorical", "binary", "sparse", "input", None}  # noqa: RUF012

    def __init__(
        self,
        directory: Any,
        image_data_generator: Any,
        target_size: tuple[int, int] = (256, 256),
        color_mode: str = "rgb",
        classes: Sequence[str] | None = None,
        class_mode: str | None = "categorical",
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        data_format: str | None = None,
        save_to_dir: str | None = None,
        save_prefix: str = "",
        save_format: str = "png",
        follow_links: bool = False,
        subset: str | None = None,
        interpolation: str = "nearest",
        keep_aspect_ratio: bool = False,
        dtype: str | None = None,
    ) -> None:
        self.set_processing_attrs(
            image_data_generator,
            target_size,
            color_mode,
            data_format or _keras.image_data_format(),
            save_to_dir,
            save_prefix,
            save_format,
            subset,
            interpolation,
            keep_aspect_ratio,
        )
        if class_mode not in self.allowed_class_modes:
            known = sorted(str(mode) for mode in self.allowed_class_modes)
            raise SettingsError(
                f"class_mode must be one of {', '.join(known)}. Received: {class_mode!r}."
            )
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
        _keras.say(f"Found {self.samples} images belonging to {self.num_classes} classes.")
        self._filepaths = [os.path.join(directory, name) for name in self.filenames]
        self._be_ready(shuffle)
        super().__init__(self.samples, batch_size, shuffle, seed)

    def _list(self, names: Sequence[str], follow_links: bool) -> list[ClassFolder]:
        folders: list[ClassFolder] = [ClassFolder()] * len(names)

        def work(place: int) -> None:
            folders[place] = list_class(
                self.directory, names[place], self.white_list_formats, self.split, follow_links
            )

        for_each(len(names), work)
        return folders

    @property
    def filepaths(self) -> list[str]:
        """The files, each with the folder that was given."""
        return self._filepaths

    @property
    def labels(self) -> NDArray[np.int32]:
        """The class of each file, as a number."""
        return self.classes

    @property
    def sample_weight(self) -> None:
        """None: files in class folders have no weights."""
        return None
