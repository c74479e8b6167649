"""Classes that labels stand for: by a label map, or by numbers with other leading zeros."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from kindsight.dataset.columns.convert import as_codes, count_pairs
from kindsight.dataset.labels import WHOLE, class_order
from kindsight.dataset.loaders.table_files import CsvTable
from kindsight.dataset.names import n_images, quoted, quoted_list
from kindsight.dataset.table import ImageDataset
from kindsight.errors import DatasetError

__all__ = ["check_label_map", "find_renames", "read_label_map", "rename_labels"]

RENAMED = "Renamed by `label_map`: "
"""The start of a note on labels that the user's table renames."""

_ZEROS = "Matched, although leading zeros differ: "


class Renames(NamedTuple):
    """The new names of the labels of some data."""

    names: dict[str, str]  # label -> class
    notes: tuple[str, ...]


def find_renames(
    counts: Mapping[tuple[str | None, str | None], int],
    mapped: Mapping[str, str],
    classes: Collection[str] = (),
) -> Renames:
    """Return the classes that labels stand for.

    A label that is not a class, but equals exactly one class except for leading zeros, is that
    class: ``"16"`` is ``"00016"``.

    Parameters
    ----------
    counts : mapping of (label, split) to int
        Numbers of images.
    mapped : mapping of str to str
        Label -> class name, from the user's table.
    classes : collection of str
        Known class names; by default, those of the training images.
    """
    by_table: Counter[str] = Counter()
    named: Counter[str] = Counter()
    trained: set[str] = set()
    for (label, split), n in counts.items():
        if label is None:
            continue
        if label in mapped:
            by_table[label] += n
        name = mapped.get(label, label)
        named[name] += n
        if split in (None, "train"):
            trained.add(name)
    numbers = _equal_numbers(named, classes or trained)
    names = {label: mapped[label] for label in by_table}
    names = {label: numbers.get(name, name) for label, name in names.items()}
    names |= {label: name for label, name in numbers.items() if (label not in mapped)}
    zeros = Counter({label: named[label] for label in numbers})
    notes = (_note(RENAMED, by_table, mapped), _note(_ZEROS, zeros, numbers))
    return Renames(names, tuple(filter(None, notes)))


def _equal_numbers(labels: Iterable[str], classes: Collection[str]) -> dict[str, str]:
    of_number: dict[int, list[str]] = {}
    for name in classes:
        if WHOLE.fullmatch(name):
            of_number.setdefault(int(name), []).append(name)
    found = {}
    for label in {*labels} - {*classes}:
        if WHOLE.fullmatch(label) and len(equal := of_number.get(int(label), [])) == 1:
            found[label] = equal[0]
    return found


def _note(what: str, counts: Counter[str], names: Mapping[str, str]) -> str:
    if not counts:
        return ""
    first = class_order(counts)[0]
    labels = f"{len(counts):,} label{'' if len(counts) == 1 else 's'}"
    return (
        f"{what}{labels} of {n_images(sum(counts.values()))}; {quoted(first)}, for example, is "
        f"{quoted(names[first])}."
    )


def rename_labels(
    dataset: ImageDataset, mapped: Mapping[str, str], classes: Collection[str] = ()
) -> ImageDataset:
    """Return the dataset with the classes that its labels stand for; see :func:`find_renames`."""
    found = find_renames(count_pairs(dataset.label, dataset.split), mapped, classes)
    if not found.names:
        return dataset

    def renamed(label: str | None) -> str | None:
        return None if label is None else found.names.get(label, label)

    labels = as_codes(dataset.label).mapped(renamed)
    files = (file._replace(label=renamed(file.label)) for file in dataset.ignored_files)
    classes = class_order(labels)
    result = replace(dataset, label=labels, classes=classes, ignored_files=tuple(files))
    return result.with_notes(*found.notes)


_COLUMNS = ("label", "class")


@lru_cache(4)
def _read(path: str, changed: int) -> dict[str, str]:
    table = CsvTable(path, encoding="")
    if missing := [name for name in _COLUMNS if name not in table.header]:
        raise DatasetError(
            f"The label map {table.where} needs the columns label and class; it lacks "
            f"{' and '.join(missing)} and has {quoted_list(tuple(table.header))}. Make its first "
            "line label,class."
        )
    lines, (labels, names) = table.read([table.header.index(name) for name in _COLUMNS])
    found: dict[str, str] = {}
    for line, label, name in zip(lines, labels, names, strict=True):
        if not label or not name:
            raise DatasetError(
                f"Line {line:,} of the label map {table.where} lacks a label or a class. Fill it "
                "in, or delete the line."
            )
        if found.setdefault(label, name) != name:
            raise DatasetError(
                f"The label map {table.where} gives {quoted(label)} two classes, "
                f"{quoted(found[label])} and, in line {line:,}, {quoted(name)}. Delete one line."
            )
    if not found:
        raise DatasetError(f"The label map {table.where} is empty. Add a line for each label.")
    return found


def read_label_map(path: str | None) -> Mapping[str, str]:
    """Read a table with the columns ``label`` and ``class``.

    Returns
    -------
    mapping of str to str
        Label in the data -> class name; empty without a path.

    Raises
    ------
    DatasetError
        If the file cannot be read, lacks a column, is empty, or gives a label two classes.
    """
    if path is None:
        return {}
    try:
        changed = os.stat(path).st_mtime_ns  # noqa: PTH116 (a str)
    except (OSError, ValueError):
        changed = 0  # reading it reports the error
    return _read(path, changed)


def check_label_map(dataset: ImageDataset, path: str | None) -> None:
    """Raise DatasetError if a label map is given and no label of the data is in it."""
    if path is None or any(note.startswith(RENAMED) for note in dataset.notes):
        return
    mapped = read_label_map(path)
    raise DatasetError(
        f"The label map {quoted(path)} has no label of the data. It maps "
        f"{quoted_list(class_order(mapped))}; the data have {quoted_list(dataset.classes)}. "
        "Write the data's labels into its column label, or leave `label_map` out."
    )
