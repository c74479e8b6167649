"""A project: images with labels in a folder, changed by actions that can be undone.

The journal is authoritative. ``dataset.csv``, which every command reads, is written from it soon
after each change, before a command is run, and when a project is opened. If somebody has edited the
table, the edits are read back as a change.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.dataset.table import SPLITS
from kindsight.errors import DatasetError
from kindsight.studio.shapes import Change
from kindsight.studio.state.images import (
    NO_LABEL,
    ImageColumns,
    Rows,
    check_class_names,
    clean_class_name,
)
from kindsight.studio.state.journal import JOURNAL_FILE, Journal
from kindsight.studio.state.table import TABLE_FILE, read_edits, unusable, write_table

__all__ = ["NewImage", "Project", "names_of_images"]

SEVERAL = 3
"""Maximum number of images that are named in a command or title."""


@dataclass(frozen=True)
class NewImage:
    """An image to be added; its path is relative to the project's folder.

    `label` is the name of a class, `split` one of SPLITS.
    """

    path: str
    name: str
    label: str | None = None
    size: int = 0
    digest: str = ""
    split: str | None = None
    group: str | None = None


@dataclass
class _Entry:
    """A change that can be undone, without the rows that it added."""

    number: int
    title: str
    command: str
    changes: dict[str, Any] = field(repr=False)
    batch: str = ""


class Project:
    """An open project. Methods may be called from any thread.

    Parameters
    ----------
    folder : pathlib.Path
        The folder, which must exist.
    changed : callable, optional
        Called after each change, from the thread that made it.

    Attributes
    ----------
    images : ImageColumns
        The images; read them only while holding `lock`.
    revision : int
        Number of lines of the journal.
    data : str or None
        Absolute path of the dataset that is used in place; of several, the newest.
    sources : list of str
        All datasets that are used in place, in the order in which they were added.
    notes : list of str
        Notes on these datasets.

    Raises
    ------
    DatasetError
        If the journal is damaged.
    """

    def __init__(self, folder: Path, changed: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self.lock = threading.RLock()
        self._writing = threading.Lock()
        self.images = ImageColumns()
        self.revision = 0
        self.data: str | None = None
        self.sources: list[str] = []
        self.notes: list[str] = []
        self._changed = changed or (lambda: None)
        self._journal = Journal(folder / JOURNAL_FILE)
        self._done: list[_Entry] = []
        self._undone: list[_Entry] = []
        self._written = -1
        """Revision of dataset.csv."""
        self._stat: tuple[int, int] | None = None
        """Time and size of dataset.csv when it was written."""
        self._load()
        self.write()

    @property
    def table(self) -> Path:
        """The table of the dataset."""
        return self.folder / TABLE_FILE

    # Reading

    def present(self) -> Rows:
        """Return the ids of all images of the project."""
        return np.flatnonzero(self.images.present).astype(np.int64)

    def undo_titles(self) -> tuple[str | None, str | None]:
        """Return the titles of the changes that would be undone and redone next."""
        return _next_title(self._done), _next_title(self._undone)

    def check_ids(self, ids: Sequence[int]) -> Rows:
        """Return ids as rows, without repetitions; KeyError for one that does not exist."""
        rows = np.unique(np.array(ids, np.int64))
        count = len(self.images)
        inside = rows[(rows >= 0) & (rows < count)]
        if len(inside) < len(rows) or not self.images.present[inside].all():
            unknown = next(i for i in ids if not 0 <= i < count or not self.images.present[i])
            raise KeyError(f"There is no image {unknown}.")
        return rows

    def class_key(self, name: str) -> int:
        """Return the key of a class; KeyError if there is none."""
        for key, known in self.images.classes.items():
            if known == name:
                return key
        raise KeyError(f"There is no class {name!r}.")

    # Changes

    def label(self, ids: Sequence[int], label: str | None) -> Change:
        """Give images a label, or none; a new label becomes a class."""
        with self.lock:
            classes, key = self.images.classes, NO_LABEL
            if label is not None:
                if label not in classes.values():
                    label = clean_class_name(label)
                classes = self._with_classes([label])
                key = next(k for k, name in classes.items() if name == label)
            rows, entry = self.images.change("label", self.check_ids(ids), key)
            what = "Remove the label of" if label is None else "Label"
            named = f" {label!r}" if label is not None else ""
            command = f"# {TABLE_FILE}: label '{label or ''}' in {self._table_rows(rows)}"
            title = f"{what} {_count(rows)}{named}"
            changes = {"classes": [_listed(self.images.classes), _listed(classes)], "label": entry}
            return self._record("label", title, command, changes)

    def exclude(self, ids: Sequence[int], excluded: bool) -> Change:
        """Exclude images from checks and trainings, or include them again."""
        with self.lock:
            rows, entry = self.images.change("excluded", self.check_ids(ids), excluded)
            word = "excluded" if excluded else ""
            command = f"# {TABLE_FILE}: split '{word}' in {self._table_rows(rows)}"
            title = f"{'Exclude' if excluded else 'Include'} {_count(rows)}"
            return self._record("exclude", title, command, {"excluded": entry})

    def correct(
        self,
        labels: Mapping[int, str | None],
        excluded: Mapping[int, bool],
        groups: Mapping[int, str | None],
        title: str,
        command: str,
    ) -> Change:
        """Change labels, exclusions and groups of images as one change; new labels become classes.

        Each is a mapping from an image's id.
        """
        with self.lock:
            self.check_ids([*labels, *excluded, *groups])
            names = list(dict.fromkeys(name for name in labels.values() if name is not None))
            classes = self._with_classes(names)
            keys = {name: key for key, name in classes.items()}
            changes: dict[str, Any] = {"classes": [_listed(self.images.classes), _listed(classes)]}
            wanted = {
                "label": {i: NO_LABEL if n is None else keys[n] for i, n in labels.items()},
                "excluded": excluded,
                "group": groups,
            }
            for column, values in wanted.items():
                rows = np.array(sorted(values), np.int64)
                cells = [values[row] for row in rows.tolist()]
                changes[column] = self.images.change(column, rows, cells)[1]
            return self._record("correct", title, command, changes)

    def add_class(self, name: str) -> Change:
        """Add a class without images."""
        with self.lock:
            name = clean_class_name(name)
            if name in self.images.classes.values():
                raise DatasetError(f"The class {name!r} exists already.")
            classes = self._with_classes([name])
            command = f"# {TABLE_FILE}: the label {name!r} for some images"
            return self._change_classes(classes, f"Add the class {name!r}", command)

    def rename_class(self, name: str, to: str) -> Change:
        """Rename a class; its images are labelled with the new name."""
        with self.lock:
            key, to = self.class_key(name), clean_class_name(to)
            if to != name and to in self.images.classes.values():
                raise DatasetError(
                    f"The class {to!r} exists already. Merge the two classes instead."
                )
            classes = {**self.images.classes, key: to}
            command = f"# {TABLE_FILE}: the label {to!r} in place of {name!r}"
            return self._change_classes(classes, f"Rename {name!r} to {to!r}", command)

    def remove_class(self, name: str) -> Change:
        """Remove a class; its images become unlabelled."""
        with self.lock:
            key = self.class_key(name)
            rows = np.flatnonzero(self.images.label == key).astype(np.int64)
            entry = self.images.change("label", rows, NO_LABEL)[1]
            classes = {k: n for k, n in self.images.classes.items() if k != key}
            command = f"# {TABLE_FILE}: no label in place of {name!r}"
            title = f"Remove the class {name!r}"
            return self._change_classes(classes, title, command, {"label": entry})

    def merge_classes(self, names: Sequence[str], to: str) -> Change:
        """Give the images of some classes the label of another class, which may be new."""
        with self.lock:
            to = clean_class_name(to)
            merged = {self.class_key(name) for name in names if name != to}
            if not merged:
                raise DatasetError("A class cannot be merged into itself. Choose another class.")
            classes = self._with_classes([to], without=merged)
            key = next(key for key, name in classes.items() if name == to)
            rows = np.flatnonzero(np.isin(self.images.label, list(merged))).astype(np.int64)
            before = self.images.label[rows].tolist()
            entry = [rows.tolist(), before, key]
            listed = ", ".join(map(repr, names))
            command = f"# {TABLE_FILE}: the label {to!r} in place of {listed}"
            title = f"Merge {listed} into {to!r}"
            return self._change_classes(classes, title, command, {"label": entry})

    def add(
        self,
        images: Sequence[NewImage],
        source: str,
        *,
        command: str,
        batch: str = "",
        lasting: bool = False,
    ) -> tuple[Change, list[int]]:
        """Add images; new labels become classes.

        - `source`: a word for the journal.
        - `batch`: consecutive additions with the same text are undone at once.
        - `lasting`: whether this cannot be undone, as when a project starts with a dataset.

        Returns the change and the ids.
        """
        with self.lock:
            labels = list(dict.fromkeys(image.label for image in images if image.label is not None))
            classes = self._with_classes(labels)
            keys = {name: key for key, name in classes.items()}
            first = len(self.images)
            ids = list(range(first, first + len(images)))
            rows = [
                [
                    image.path, image.name,
                    NO_LABEL if image.label is None else keys[image.label],
                    0 if image.split is None else 1 + SPLITS.index(image.split),
                    image.group, image.size, image.digest,
                ]
                for image in images
            ]  # fmt: skip
            changes = {
                "classes": [_listed(self.images.classes), _listed(classes)],
                "rows": rows, "first": first, "present": [ids, False, True],
            }  # fmt: skip
            title = f"Add {_count(ids)}"
            more = {"source": source, "batch": batch, "lasting": lasting}
            return self._record("add", title, command, changes, **more), ids

    def set_data(self, data: str, notes: Sequence[str]) -> None:
        """Record the dataset whose images are used in place."""
        with self.lock:
            self._write_entry({"data": data, "notes": list(notes)})
            self._take_data(data, notes)

    def _take_data(self, data: str, notes: Sequence[str]) -> None:
        self.data, self.notes = data, list(notes)
        if data not in self.sources:
            self.sources.append(data)

    def undo(self) -> Change:
        """Undo the newest change; DatasetError if there is none."""
        return self._step(self._done, self._undone, "undo")

    def redo(self) -> Change:
        """Redo the change that was undone last; DatasetError if there is none."""
        return self._step(self._undone, self._done, "redo")

    def _step(self, source: list[_Entry], target: list[_Entry], word: str) -> Change:
        with self.lock:
            if not source:
                raise DatasetError(f"There is nothing to {word}.")
            entry, count = source[-1], 0
            while source and (source[-1] is entry or source[-1].batch == entry.batch != ""):
                self._write_entry({word: source[-1].number})
                count += self.images.apply(source[-1].changes, back=word == "undo")
                target.append(source.pop())
            back = word == "undo"
            title = f"{'Undo' if back else 'Redo'}: {_title(entry, count)}"
            return self._finish(title, f"# {title}" if back else entry.command, count)

    # The table

    def write(self) -> int:
        """Update dataset.csv; return its revision."""
        with self._writing:
            with self.lock:
                found = self._table_stat()
                if found != self._stat:
                    self._read_edits()
                revision = self.revision
                if self._written == revision and found is not None and found == self._stat:
                    return revision
                # Without the lock, so that changes need not wait until a large table is on disk.
                images = self.images.snapshot()
            write_table(self.folder, images)
            self._written, self._stat = revision, self._table_stat()
            return revision

    def _table_stat(self) -> tuple[int, int] | None:
        try:
            found = self.table.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    # The journal

    def _load(self) -> None:
        for number, entry in enumerate(self._journal.read(), 1):
            try:
                self._replay(entry)
            except (KeyError, TypeError, ValueError, IndexError, OverflowError):
                raise self._journal.damaged(f"line {number:,} is not a change") from None
            self.revision = number

    def _replay(self, entry: dict[str, Any]) -> None:
        if "data" in entry:
            self._take_data(str(entry["data"]), [str(note) for note in entry["notes"]])
        elif "undo" in entry:
            self.images.apply(self._done[-1].changes, back=True)
            self._undone.append(self._done.pop())
        elif "redo" in entry:
            self.images.apply(self._undone[-1].changes)
            self._done.append(self._undone.pop())
        else:
            self.images.apply(entry["changes"])
            self._push(entry)

    def _push(self, entry: dict[str, Any]) -> None:
        """Make a change the next one to be undone."""
        if entry.get("lasting"):
            self._done.clear()
        else:
            # When an addition is undone, its rows remain, but are not present.
            changes = {name: value for name, value in entry["changes"].items() if name != "rows"}
            texts = str(entry["title"]), str(entry["command"])
            batch = str(entry.get("batch", ""))
            self._done.append(_Entry(int(entry["number"]), *texts, changes, batch))
        self._undone.clear()

    def _record(
        self, action: str, title: str, command: str, changes: dict[str, Any], **more: Any
    ) -> Change:
        """Write a change to the journal and apply it; nothing is written if nothing changes."""
        kept = {name: value for name, value in changes.items() if _changes(name, value)}
        if not set(kept) - {"first"}:
            return self._answer(title, command, 0)
        entry = {
            "number": self.revision + 1, "time": round(time.time(), 3), "action": action,
            "title": title, "command": command, "changes": kept, **more,
        }  # fmt: skip
        self._write_entry(entry)
        count = self.images.apply(kept)
        self._push(entry)
        return self._finish(title, command, count)

    def _write_entry(self, entry: dict[str, Any]) -> None:
        self._journal.append(entry)
        self.revision += 1

    def _finish(self, title: str, command: str, count: int) -> Change:
        self._changed()
        return self._answer(title, command, count)

    def _answer(self, title: str, command: str, count: int) -> Change:
        undo, redo = self.undo_titles()
        return {
            "revision": self.revision, "changed": count, "title": title, "command": command,
            "undo": undo, "redo": redo,
        }  # fmt: skip

    def _change_classes(
        self,
        classes: dict[int, str],
        title: str,
        command: str,
        more: Mapping[str, Any] | None = None,
    ) -> Change:
        check_class_names(classes.values())
        changes = {"classes": [_listed(self.images.classes), _listed(classes)], **(more or {})}
        return self._record("classes", title, command, changes)

    def _with_classes(self, names: Sequence[str], without: Collection[int] = ()) -> dict[int, str]:
        """Return the classes with further new ones, and without some."""
        classes = {key: name for key, name in self.images.classes.items() if key not in without}
        known = set(classes.values())
        if known.issuperset(names):
            return classes
        # A key is never reused: images whose addition was undone may have it.
        used = int(self.images.label.max(initial=-1))
        key = 1 + max([*self.images.classes, used, self._highest_key()])
        for name in names:
            if name not in known:
                classes[key] = name
                key += 1
        check_class_names(classes.values())
        return classes

    def _highest_key(self) -> int:
        listed = (
            key
            for entry in (*self._done, *self._undone)
            for part in entry.changes.get("classes", ())
            for key, _ in part
        )
        return max(listed, default=-1)

    def _read_edits(self) -> None:
        """Apply the changes that somebody made to dataset.csv since it was written."""
        edits = read_edits(self.folder, self.images)
        if edits is not None:
            title = f"Edit {TABLE_FILE} outside the studio"
            try:
                self.correct(edits.labels, edits.excluded, {}, title, f"# {TABLE_FILE} was edited")
            except DatasetError as error:
                raise unusable(self.table, str(error)) from error

    def _table_rows(self, rows: Rows) -> str:
        paths = [self.images.path[row] for row in rows[:SEVERAL].tolist()]
        return names_of_images(paths, len(rows))


def names_of_images(paths: Sequence[str], total: int) -> str:
    """Return the rows of a table as text: ``the rows images/1.jpg, images/2.jpg and 10 more``."""
    more = f" and {total - len(paths):,} more" if total > len(paths) else ""
    return f"the row{'' if total == 1 else 's'} {', '.join(paths)}{more}"


def _changes(name: str, value: Any) -> bool:
    if name == "classes":
        return bool(value[0] != value[1])
    return name == "first" or (bool(value) if name == "rows" else bool(value[0]))


def _listed(classes: Mapping[int, str]) -> list[list[Any]]:
    return [[key, name] for key, name in classes.items()]


def _next_title(entries: Sequence[_Entry]) -> str | None:
    """Return the title of the newest change, including all that are undone or redone with it."""
    if not entries:
        return None
    newest, count = entries[-1], 0
    for entry in reversed(entries):
        if (entry is not newest and entry.batch != newest.batch) or not newest.batch:
            break
        count += len(entry.changes.get("present", [[]])[0])
    return _title(newest, count)


def _title(entry: _Entry, count: int) -> str:
    return f"Add {_count(range(count))}" if entry.batch else entry.title


def _count(rows: Collection[int] | Rows) -> str:
    return f"{len(rows):,} image{'' if len(rows) == 1 else 's'}"


def count_classes(images: ImageColumns) -> Counter[int]:
    """Return the number of images of each class key that are present and not excluded."""
    rows = images.present & ~images.excluded
    keys, counts = np.unique(images.label[rows], return_counts=True)
    return Counter(dict(zip(keys.tolist(), counts.tolist(), strict=True)))
