"""Classes that labels stand for: by a table of names, and numbers with leading zeros."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

from kindsight.dataset.labels import WHOLE, class_order
from kindsight.dataset.names import n_images, quoted
from kindsight.dataset.table import ImageDataset

__all__ = ["RENAMED", "Renames", "find_renames", "rename_labels"]

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

    A label that is no class, but equals exactly one class except for leading zeros, is that class:
    ``"16"`` is ``"00016"``.

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
    found = find_renames(Counter(zip(dataset.label, dataset.split, strict=True)), mapped, classes)
    if not found.names:
        return dataset

    def renamed(label: str | None) -> str | None:
        return None if label is None else found.names.get(label, label)

    labels = tuple(map(renamed, dataset.label))
    files = (file._replace(label=renamed(file.label)) for file in dataset.ignored_files)
    classes = class_order(labels)
    result = replace(dataset, label=labels, classes=classes, ignored_files=tuple(files))
    return result.with_notes(*found.notes)
