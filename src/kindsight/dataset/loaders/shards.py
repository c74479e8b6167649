"""Datasets of tar files as used by WebDataset; they are read without unpacking.

The names of the files of one image are equal up to the first dot: ``000017.jpg``, ``000017.cls``.
The label is in a file that ends in ``.cls``, in ``label`` of one that ends in ``.json``, or else it
is the class folder in the names. Tar files may be splits by their names.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.build import ColumnBuilder
from kindsight.dataset.columns.codes import CodeColumn, NumberColumn
from kindsight.dataset.columns.convert import as_codes, count_values
from kindsight.dataset.columns.texts import TextColumn
from kindsight.dataset.labels import class_order
from kindsight.dataset.loaders.folders import FolderLabel, Tree, arrange
from kindsight.dataset.loaders.from_names import UNLABELLED, split_roles, with_names
from kindsight.dataset.loaders.samples import FURTHER, REPEATED, Samples
from kindsight.dataset.loaders.table_files import is_shards
from kindsight.dataset.loaders.values import (
    EXCLUDED,
    NoLabelsError,
    read_labels,
    read_splits,
    resolve_labels,
)
from kindsight.dataset.names import IgnoredFiles, n_images, quoted, quoted_list
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.dataset.walk import Listing, walk
from kindsight.errors import DatasetError, KindsightError
from kindsight.storage.address import absolute, base_name, common_folder, is_address, join, parent
from kindsight.storage.files import IN_FLIGHT, names_in
from kindsight.storage.shards import TEXT_ENDINGS, DamagedShardError, open_shard
from kindsight.storage.tar import TarIndex
from kindsight.threads import map_ordered

__all__ = ["DAMAGED", "UNREADABLE", "find_shards", "from_shards"]

MAX_SHARDS = 100_000
"""Limit of tar files in one dataset."""

_BLOCK = 1 << 13  # rows that are held as Python objects before they become columns

_BRACES = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")
DAMAGED, UNREADABLE = "rest of a damaged tar file", "unreadable tar file"
"""Reasons for which images of tar files are lost."""


def find_shards(folder: str, follow_links: bool = True) -> list[str]:
    """Return the tar files in a folder, or in its split folders, if there are no images in it."""
    try:
        names = names_in(folder)
        if not any(map(is_shards, names)):
            inner = [names_in(join(folder, name)) for name in split_roles(names) or ()]
            if not any(map(is_shards, itertools.chain.from_iterable(inner))):
                return []
        ignored = IgnoredFiles()
        if any(listing.files for listing in walk(folder, ignored, follow_links=follow_links)):
            return []
    except KindsightError:  # some are ValueErrors
        raise
    except (OSError, ValueError):
        return []
    names = sorted(file.path for file in ignored.files if file.reason.endswith("(.tar)"))
    return [join(folder, name) for name in names]


def _expanded(name: str) -> list[str]:
    """Return the tar files that a name with braces stands for."""
    parts = _BRACES.split(name)
    choices: list[Sequence[str]] = [[parts[0]]]
    for first, last, rest in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        numbers = range(int(first), int(last) + 1)
        choices.append([f"{number:0{len(first)}d}" for number in numbers[: MAX_SHARDS + 1]])
        choices.append([rest])
    total = math.prod(map(len, choices))
    if not 1 <= total <= MAX_SHARDS:
        raise DatasetError(
            f"{quoted(name)} must stand for 1 to {MAX_SHARDS:,} tar files, such as {{000..099}}."
        )
    return ["".join(each) for each in itertools.product(*choices)]


def from_shards(
    data: str, options: DataOptions | None = None, *, labelled: bool = True
) -> ImageDataset:
    """Return the dataset of the images in tar files.

    Parameters
    ----------
    data : str
        A tar file; several, as ``train-{000000..000099}.tar``; or a folder of them. A path or an
        address.
    options : DataOptions, optional
        ``columns={"label": "txt"}`` takes labels from files with another ending,
        ``columns={"label": "kind"}`` from another entry of the ``.json`` files.
    labelled : bool
        False: without labels and splits.

    Returns
    -------
    ImageDataset
        In the order of the tar files. A path is that of the tar file, ``!`` and the name in it.

    Raises
    ------
    DatasetError
        If there are no images, or images have no labels.
    """
    options = options or DataOptions()
    shards = _expanded(data) if is_shards(data) else find_shards(data, options.follow_links)
    folders = [parent(shard) for shard in shards]
    root, below = _common(folders)
    names = ["/".join(filter(None, (b, base_name(s)))) for b, s in zip(below, shards, strict=True)]
    found = _Found(options, labelled)
    roles = _roles(names) if labelled else {}
    # Few are read ahead: the index of a large tar file is large.
    indexes = map_ordered(_opened, shards, IN_FLIGHT, ahead=1)
    for name, index in zip(names, indexes, strict=True):
        found.add(name, index, roles.get(name))
    return found.dataset(root, quoted(data))


def _common(folders: Sequence[str]) -> tuple[Path | str, list[str]]:
    if any(map(is_address, folders)):
        root, below = common_folder(folders)
        assert root is not None  # the names differ in numbers only, or are in one folder
        return root, below
    whole = [str(absolute(folder)) for folder in folders]
    common = os.path.commonpath(whole)
    starts = [os.path.relpath(folder, common).replace(os.sep, "/") for folder in whole]
    return Path(common), ["" if start == "." else start for start in starts]


def _opened(shard: str) -> TarIndex | DamagedShardError:
    try:
        return open_shard(shard)
    except DamagedShardError as error:
        return error


def _roles(names: Sequence[str]) -> dict[str, str]:
    """Return the splits of tar files by their names, or else by those of their folders."""
    stems = {name: base_name(name).rpartition(".")[0] for name in names}
    folders = {name: name.partition("/")[0] for name in names if "/" in name}
    for parts in (stems, folders):
        roles = split_roles(set(parts.values())) if len(parts) == len(names) else None
        if roles is not None:
            return {name: roles[part] for name, part in parts.items()}
    return {}


class _Rows:
    """Columns of the images of tar files, which grow by blocks of rows."""

    def __init__(self) -> None:
        names = ("path", "role", "folder", "label", "split", "group")
        self._builders = {name: ColumnBuilder() for name in names}
        self._sizes: list[NDArray[np.int64]] = []
        self._block: list[tuple[int, tuple[str, ...]]] = []

    def add(
        self, size: int, path: str, role: str, folder: str, label: str, split: str, group: str
    ) -> None:
        """Add an image: its tar file's split, its folder in it, and what is stated beside it."""
        self._block.append((size, (path, role, folder, label, split, group)))
        if len(self._block) >= _BLOCK:
            self._flush()

    def finish(self) -> tuple[NumberColumn, dict[str, CodeColumn | TextColumn]]:
        """Return the sizes and the other columns."""
        self._flush()
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        return NumberColumn(sizes), {
            name: builder.finish() for name, builder in self._builders.items()
        }

    def _flush(self) -> None:
        if not self._block:
            return
        sizes, rows = zip(*self._block, strict=True)
        self._sizes.append(np.array(sizes, np.int64))
        for builder, texts in zip(self._builders.values(), zip(*rows, strict=True), strict=True):
            builder.add(texts)
        self._block = []


class _Found:
    """Collects the images of tar files."""

    def __init__(self, options: DataOptions, labelled: bool) -> None:
        self.options, self.labelled = options, labelled
        self.rows = _Rows()
        self.ignored = IgnoredFiles()
        self.notes: list[str] = []
        self.failures: list[DamagedShardError] = []
        self.has_labels = False  # whether a label is stated beside an image
        # The ending of files with labels, and the entry of .json files.
        named = options.columns.get("label", "")
        ending = named.lower().removeprefix(".")
        is_ending = f".{ending}" in TEXT_ENDINGS and ending != "json"
        self._ending = ending if is_ending else "" if named else "cls"
        self._entry = "" if is_ending else named or "label"

    def add(self, shard: str, index: TarIndex | DamagedShardError, role: str | None) -> None:
        """Add the images of a tar file."""
        if isinstance(index, DamagedShardError):
            self.failures.append(index)
            self.ignored.add(shard, UNREADABLE)
            return
        for name, reason in index.ignored:
            self.ignored.add(f"{shard}!{name}", reason)
        if index.damage:
            self.ignored.add(shard, DAMAGED)
            self.notes.append(
                f"{quoted(shard)} {index.damage}. The {len(index.members):,} files before are used."
            )
        samples = Samples(index.members, self._ending)
        for name, reason, size in samples.ignored():
            self.ignored.add(f"{shard}!{name}", reason, size)
        for name, size, facts, text in samples.images():
            folder = name.rpartition("/")[0]
            stated = self._stated(facts, text) if self.labelled else ("", "", "")
            self.rows.add(size, f"{shard}!{name}", role or "", folder, *stated)

    def _stated(self, facts: bytes | None, text: bytes | None) -> tuple[str, str, str]:
        """Return label, split and group from the files that accompany an image."""
        columns = self.options.columns
        entries = _facts(facts)
        label = None if text is None else _decoded(text)
        if self._entry:
            label = label or entries.get(self._entry)
        self.has_labels |= label is not None
        split = entries.get(columns.get("split", "split"), "")
        return label or "", split, entries.get(columns.get("group", "group"), "")

    def dataset(self, root: Path | str, where: str) -> ImageDataset:
        """Return the dataset; DatasetError if there are no images, or none with a label."""
        sizes, columns = self.rows.finish()
        if not len(sizes):
            if self.failures:
                raise self.failures[0]
            raise DatasetError(f"There are no images in {where}. Check the path.")
        if self.failures:
            bad = [file.path for file in self.ignored.files if file.reason == UNREADABLE]
            self.notes.append(f"Ignored unreadable tar files: {quoted_list(bad)}.")
        for reason, count in sorted(self.ignored.counts.items()):
            if reason in (FURTHER, REPEATED) or reason.startswith("link "):
                first = next(file.path for file in self.ignored.files if file.reason == reason)
                self.notes.append(f"Ignored, {reason}: {count:,}; first {quoted(first)}.")
        dataset = ImageDataset(
            path=columns["path"],
            size=sizes,
            root=root,
            ignored=dict(sorted(self.ignored.counts.items())),
            ignored_files=tuple(self.ignored.files),
            notes=tuple(self.notes),
        )
        if not self.labelled:
            return dataset
        labels = _Labels(columns, self.options, where)
        if self.options.label_from is not None:
            dataset = labels.with_splits(dataset, {})
        elif self.has_labels:
            dataset = labels.with_stated_labels(dataset)
        else:
            dataset = labels.with_folder_labels(dataset)
        return with_names(dataset, self.options)


class _Labels:
    """Labels, splits and groups of the images of tar files."""

    def __init__(
        self, columns: Mapping[str, CodeColumn | TextColumn], options: DataOptions, where: str
    ) -> None:
        self._columns, self._options, self._where = columns, options, where

    def with_stated_labels(self, dataset: ImageDataset) -> ImageDataset:
        """Give the labels that are stated in files beside the images."""
        labels = read_labels(self._columns["label"], keep_na=self._options.keep_na_labels)
        location = lambda row: quoted(dataset.path[row])  # noqa: E731
        what = f"The labels in {self._where}"
        chosen, several = resolve_labels(labels, self._options, what, location)
        missing = np.setdiff1d(np.flatnonzero(chosen.equals(None)), several)
        dataset = dataset.with_columns(label=chosen)
        return self.with_splits(
            dataset, {"several labels": several, "image without a label": missing}
        )

    def with_folder_labels(self, dataset: ImageDataset) -> ImageDataset:
        """Give labels by the class folders in the names, and splits by split folders."""
        folders = as_codes(self._columns["folder"])
        arranged = arrange(Tree.of(_listings(count_values(folders))))
        labels = folders.mapped(partial(_label_above, arranged.entries))
        if not labels.names:
            raise NoLabelsError(
                f"The images in {self._where} have no labels: there are no .cls files, no 'label' "
                "in .json files and no class folders. Name the ending of other files with labels, "
                '`columns={"label": "txt"}`, or use `label_from`.'
            )
        dataset = dataset.with_columns(
            label=labels.mapped(lambda label: label and label.label),
            split=labels.mapped(lambda label: label and label.split),
        ).with_notes(*arranged.notes)
        outside = np.flatnonzero(labels.equals(None))
        return self.with_splits(dataset, {"outside the class folders": outside})

    def with_splits(
        self, dataset: ImageDataset, out: Mapping[str, NDArray[np.int64]]
    ) -> ImageDataset:
        """Add the splits and groups that are stated, and exclude rows, with a note on each kind."""
        splits = _either(_blank_as_none(self._columns["role"]), as_codes(dataset.split))
        cells = self._columns["split"]
        if _has_text(cells):
            named = "split" in self._options.columns
            numbers = np.arange(1, len(cells) + 1)
            stated = read_splits(cells, numbers, "image", "the .json files", named=named)
            splits = splits if stated is None else _either(stated, splits)
        unlabelled = np.flatnonzero(splits.equals(UNLABELLED) | splits.equals(EXCLUDED))
        dataset = dataset.with_columns(
            split=splits.mapped(lambda split: None if split in (UNLABELLED, EXCLUDED) else split)
        )
        if _has_text(self._columns["group"]):
            dataset = dataset.with_columns(group=_blank_as_none(self._columns["group"]))
            dataset = dataset.with_notes("Images of one group (.json files) stay in one split.")
        left = np.arange(len(dataset))
        for reason, every in {**out, "unlabelled or excluded image": unlabelled}.items():
            rows = np.flatnonzero(np.isin(left, every))
            if not len(rows):
                continue
            first = quoted(dataset.path[rows[0]])
            note = f"Ignored, {reason}: {n_images(len(rows))}, first {first}."
            dataset = exclude_rows(dataset, rows, reason, note)
            left = np.delete(left, rows)
        return replace(dataset, classes=class_order(dataset.label))


def _has_text(column: CodeColumn | TextColumn) -> bool:
    """Return whether a cell is not empty."""
    return len(column.data) > 0 if isinstance(column, TextColumn) else any(column.names)


def _blank_as_none(column: CodeColumn | TextColumn) -> CodeColumn:
    """Return a column with None in place of empty texts."""
    coded = as_codes(column)
    return CodeColumn(np.where(coded.equals(""), np.int8(-1), coded.codes), coded.names)


def _either(first: CodeColumn, second: CodeColumn) -> CodeColumn:
    """Return the first column, with the values of the second where it is None."""
    both, rows = CodeColumn.joined([first, second]), len(first)
    codes = np.where(both.codes[:rows] < 0, both.codes[rows:], both.codes[:rows])
    return CodeColumn(codes, both.names)


def _label_above(entries: Mapping[str, FolderLabel], folder: str) -> FolderLabel | None:
    """Return the label of the nearest folder that has one, from a folder upwards."""
    parts = folder.split("/")
    above = ("/".join(parts[:depth]) for depth in range(len(parts), 0, -1))
    return next((entries[name] for name in above if name in entries), None)


def _listings(folders: Mapping[str, int]) -> Iterator[Listing]:
    """Yield folders with their numbers of images, and the folders above them, as a walk does."""
    every = {""}
    for folder in folders:
        parts = folder.split("/")
        every.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    for folder in sorted(every, key=lambda name: name.split("/")):
        yield Listing(folder, CodeColumn.constant(("", 0), folders.get(folder, 0)))


def _decoded(text: bytes) -> str:
    return text.decode("utf-8-sig", "replace").strip()


def _facts(text: bytes | None) -> dict[str, str]:
    """Return the entries of a JSON object as texts; lists as JSON."""
    try:
        found = {} if text is None else json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {key: _as_text(value) for key, value in found.items() if value is not None}


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return json.dumps([_as_text(item) for item in value])
    return str(value)
