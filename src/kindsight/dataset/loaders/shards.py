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
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kindsight.dataset.labels import class_order
from kindsight.dataset.loaders.folders import FolderLabel, Tree, arrange
from kindsight.dataset.loaders.from_names import UNLABELLED, split_roles, with_names
from kindsight.dataset.loaders.table_files import is_shards
from kindsight.dataset.loaders.values import (
    EXCLUDED,
    NoLabelsError,
    read_labels,
    read_splits,
    resolve_labels,
)
from kindsight.dataset.names import (
    IMAGE_EXTENSIONS,
    NOT_AN_IMAGE,
    UNREAD_EXTENSIONS,
    IgnoredFiles,
    extension_of,
    n_images,
    quoted,
    quoted_list,
    why_folder_is_ignored,
    why_name_is_ignored,
)
from kindsight.dataset.options import DataOptions
from kindsight.dataset.table import ImageDataset, exclude_rows
from kindsight.dataset.walk import Listing, reason_with_extension, walk
from kindsight.errors import DatasetError, KindsightError
from kindsight.storage.address import absolute, base_name, common_folder, is_address, join, parent
from kindsight.storage.files import IN_FLIGHT, names_in
from kindsight.storage.shards import TEXT_ENDINGS, DamagedShardError, open_shard
from kindsight.storage.tar import Member, TarIndex
from kindsight.threads import map_ordered

__all__ = ["DAMAGED", "UNREADABLE", "find_shards", "from_shards"]

MAX_SHARDS = 100_000
"""Limit of tar files in one dataset."""

_BRACES = re.compile(r"\{(\d{1,12})\.\.(\d{1,12})\}")
_IMAGES = IMAGE_EXTENSIONS | UNREAD_EXTENSIONS
_FURTHER = "further image of a sample"
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
    for name, index in zip(names, map_ordered(_opened, shards, IN_FLIGHT), strict=True):
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


class _Row(NamedTuple):
    """One image."""

    path: str
    size: int
    role: str | None  # the split of its tar file
    folder: str  # within the tar file
    label: str | None  # stated in a file with the same name
    split: str
    group: str


@dataclass
class _Found:
    """Collects the images of tar files."""

    options: DataOptions
    labelled: bool
    rows: list[_Row] = field(default_factory=list)
    ignored: IgnoredFiles = field(default_factory=IgnoredFiles)
    notes: list[str] = field(default_factory=list)
    folders: Counter[str] = field(default_factory=Counter)
    failures: list[DamagedShardError] = field(default_factory=list)

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
        for key, members in self._samples(shard, index.members).items():
            for member in self._images(shard, members):
                self._add_row(shard, key, member, index.texts, role)

    def _samples(self, shard: str, members: Sequence[Member]) -> dict[str, dict[str, Member]]:
        """Return the usable files by the part of the name that one image's share, and the rest."""
        samples: defaultdict[str, dict[str, Member]] = defaultdict(dict)
        why_folder: dict[str, str | None] = {}
        for member in members:
            folder, _, name = member.name.rpartition("/")
            if folder not in why_folder:
                reasons = map(why_folder_is_ignored, folder.split("/"))
                why_folder[folder] = next(filter(None, reasons), None)
            reason = why_folder[folder] or why_name_is_ignored(name)
            stem, _, ending = name.partition(".")
            key = f"{folder}/{stem}" if folder else stem
            if reason is None and ending.lower() in samples[key]:
                reason = "repeated name in an archive"
            if reason is None:
                samples[key][ending.lower()] = member
            else:
                self.ignored.add(f"{shard}!{member.name}", reason, member.size)
        return samples

    def _images(self, shard: str, members: Mapping[str, Member]) -> list[Member]:
        """Return the images among the files of one sample: one, unless all names have more dots."""
        plain = [member for ending, member in members.items() if ending in _IMAGES]
        every = [m for ending, m in members.items() if extension_of(f".{ending}") in _IMAGES]
        images = plain[:1] or every
        for ending, member in members.items():
            path = f"{shard}!{member.name}"
            if member in every and member not in images:
                self.ignored.add(path, _FURTHER, member.size)
            elif member not in every and f".{ending}" not in TEXT_ENDINGS:
                reason = reason_with_extension(NOT_AN_IMAGE, member.name)
                self.ignored.add(path, reason, member.size)
        return images

    def _add_row(
        self, shard: str, key: str, image: Member, texts: Mapping[str, bytes], role: str | None
    ) -> None:
        folder = image.name.rpartition("/")[0]
        label, split, group = None, "", ""
        if self.labelled:
            label, split, group = self._stated(key, texts)
            self.folders[folder] += 1
        row = _Row(f"{shard}!{image.name}", image.size, role, folder, label, split, group)
        self.rows.append(row)

    def _stated(self, key: str, texts: Mapping[str, bytes]) -> tuple[str | None, str, str]:
        """Return label, split and group from the files that accompany an image."""
        columns = self.options.columns
        facts = _facts(texts.get(f"{key}.json"))
        named = columns.get("label", "")
        ending = named.lower().removeprefix(".")
        label = None
        if f".{ending}" in TEXT_ENDINGS and ending != "json":
            label = _decoded(texts.get(f"{key}.{ending}"))
        elif named:
            label = facts.get(named)
        else:
            label = _decoded(texts.get(f"{key}.cls")) or facts.get("label")
        split = facts.get(columns.get("split", "split"), "")
        return label, split, facts.get(columns.get("group", "group"), "")

    def dataset(self, root: Path | str, where: str) -> ImageDataset:
        """Return the dataset; DatasetError if there are no images, or none with a label."""
        if not self.rows:
            if self.failures:
                raise self.failures[0]
            raise DatasetError(f"There are no images in {where}. Check the path.")
        if self.failures:
            bad = [file.path for file in self.ignored.files if file.reason == UNREADABLE]
            self.notes.append(f"Ignored unreadable tar files: {quoted_list(bad)}.")
        for reason, count in sorted(self.ignored.counts.items()):
            if reason in (_FURTHER, "repeated name in an archive") or reason.startswith("link "):
                first = next(file.path for file in self.ignored.files if file.reason == reason)
                self.notes.append(f"Ignored, {reason}: {count:,}; first {quoted(first)}.")
        dataset = ImageDataset(
            path=tuple(row.path for row in self.rows),
            size=tuple(row.size for row in self.rows),
            root=root,
            ignored=dict(sorted(self.ignored.counts.items())),
            ignored_files=tuple(self.ignored.files),
            notes=tuple(self.notes),
        )
        if not self.labelled:
            return dataset
        if self.options.label_from is not None:
            dataset = self._with_splits(dataset, {})
        elif any(row.label is not None for row in self.rows):
            dataset = self._with_stated_labels(dataset, where)
        else:
            dataset = self._with_folder_labels(dataset, where)
        return with_names(dataset, self.options)

    def _with_stated_labels(self, dataset: ImageDataset, where: str) -> ImageDataset:
        keep_na = self.options.keep_na_labels
        labels = read_labels([row.label or "" for row in self.rows], keep_na=keep_na)
        location = lambda row: quoted(self.rows[row].path)  # noqa: E731
        what = f"The labels in {where}"
        chosen, skipped = resolve_labels(labels, self.options, what, location)
        several = dict.fromkeys(skipped.tolist())
        dataset = dataset.with_columns(label=chosen)
        return self._with_splits(
            dataset,
            {
                "several labels": list(several),
                "image without a label": [
                    row for row, label in enumerate(chosen) if label is None and row not in several
                ],
            },
        )

    def _with_folder_labels(self, dataset: ImageDataset, where: str) -> ImageDataset:
        """Give labels by the class folders in the names, and splits by split folders."""
        arranged = arrange(Tree.of(_listings(self.folders)))
        known: dict[str, FolderLabel | None] = {}
        for folder in sorted(self.folders):
            parts = folder.split("/")
            above = ["/".join(parts[:depth]) for depth in range(len(parts), 0, -1)]
            known[folder] = next(
                (arranged.entries[f] for f in above if f in arranged.entries), None
            )
        labels = [known[row.folder] for row in self.rows]
        if not any(labels):
            raise NoLabelsError(
                f"The images in {where} have no labels: there are no .cls files, no 'label' in "
                ".json files and no class folders. Name the ending of other files with labels, "
                '`columns={"label": "txt"}`, or use `label_from`.'
            )
        dataset = dataset.with_columns(
            label=[None if label is None else label.label for label in labels],
            split=[None if label is None else label.split for label in labels],
        ).with_notes(*arranged.notes)
        outside = [row for row, label in enumerate(labels) if label is None]
        return self._with_splits(dataset, {"outside the class folders": outside})

    def _with_splits(self, dataset: ImageDataset, out: dict[str, list[int]]) -> ImageDataset:
        """Add the splits and groups that are stated, and exclude rows, with a note on each kind."""
        splits: list[str | None] = [
            row.role or s for row, s in zip(self.rows, dataset.split, strict=True)
        ]
        cells = [row.split for row in self.rows]
        if any(cells):
            named = "split" in self.options.columns
            numbers = np.arange(1, len(cells) + 1)
            stated = read_splits(cells, numbers, "image", "the .json files", named=named)
            splits = [new or old for new, old in zip(stated or splits, splits, strict=True)]
        unlabelled = [row for row, split in enumerate(splits) if split in (UNLABELLED, EXCLUDED)]
        dataset = dataset.with_columns(
            split=[None if split in (UNLABELLED, EXCLUDED) else split for split in splits]
        )
        if any(row.group for row in self.rows):
            dataset = dataset.with_columns(group=[row.group or None for row in self.rows])
            dataset = dataset.with_notes("Images of one group (.json files) stay in one split.")
        dropped: set[int] = set()
        for reason, every in {**out, "unlabelled or excluded image": unlabelled}.items():
            rows = [row for row in every if row not in dropped]
            if not rows:
                continue
            first = quoted(self.rows[rows[0]].path)
            kept = [row for row in range(len(self.rows)) if row not in dropped]
            place = {row: k for k, row in enumerate(kept)}
            note = f"Ignored, {reason}: {n_images(len(rows))}, first {first}."
            dataset = exclude_rows(dataset, [place[row] for row in rows], reason, note)
            dropped.update(rows)
        return replace(dataset, classes=class_order(dataset.label))


def _listings(folders: Mapping[str, int]) -> Iterator[Listing]:
    """Yield folders with their numbers of images, and the folders above them, as a walk does."""
    every = {""}
    for folder in folders:
        parts = folder.split("/")
        every.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    for folder in sorted(every, key=lambda name: name.split("/")):
        yield Listing(folder, [("", 0)] * folders.get(folder, 0))


def _decoded(text: bytes | None) -> str | None:
    return None if text is None else text.decode("utf-8-sig", "replace").strip()


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
