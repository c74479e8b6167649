"""The iterator over class folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.errors import SettingsError
from kindsight.preprocessing import _keras
from kindsight.preprocessing._files import BatchFromFilesMixin
from kindsight.preprocessing._iterators import Iterator
from kindsight.preprocessing._listing import ClassFolder, find_classes, list_class, warn_of_files
from kindsight.preprocessing._threads import for_each

__all__ = ["DirectoryIterator"]


class DirectoryIterator(BatchFromFilesMixin, Iterator):
    """Batches of the pictures of class folders.

    Parameters
    ----------
    directory : path
        A folder with one folder for each class.
    image_data_generator : ImageDataGenerator or None
        What transforms and standardises them.
    target_size : pair of int, default=(256, 256)
        Height and width that every picture is brought to.
    color_mode : str, default="rgb"
        ``"rgb"``, ``"rgba"`` or ``"grayscale"``.
    classes : list of str, optional
        The class folders, in the order of their numbers; all of them, sorted, if omitted.
    class_mode : str or None, default="categorical"
        The labels: ``"categorical"`` (n, classes) of 0 and 1, ``"binary"`` or ``"sparse"`` numbers,
        ``"input"`` the pictures themselves, None no labels.
    batch_size : int, default=32
    shuffle : bool, default=True
    seed : int, optional
    data_format : str, optional
        ``"channels_last"`` or ``"channels_first"``; Keras's setting if omitted.
    save_to_dir : path, optional
        A folder into which each picture is written as well, stretched to 0 to 255.
    save_prefix : str, default=""
    save_format : str, default="png"
    follow_links : bool, default=False
        Whether to go into folders that are links.
    subset : str, optional
        ``"training"`` or ``"validation"``: the last or the first files of each class, by name.
    interpolation : str, default="nearest"
        How pictures are resized; ``"bilinear"`` and ``"lanczos"`` look better.
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
