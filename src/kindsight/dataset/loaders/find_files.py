"""Find the image files that a table names: by path, or by a name without folder or extension."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset.columns.base import BLOCK
from kindsight.dataset.columns.codes import NumberColumn
from kindsight.dataset.columns.convert import as_codes, first_equal
from kindsight.dataset.columns.texts import TextColumn
from kindsight.dataset.loaders.from_names import loose_role
from kindsight.dataset.loaders.values import Faults, NoLabelsError, row_numbers
from kindsight.dataset.names import IgnoredFiles, n_images, quoted, quoted_list
from kindsight.dataset.walk import walk
from kindsight.encoding import unescape_name
from kindsight.errors import DatasetError
from kindsight.storage.address import is_address, join, split_member
from kindsight.storage.files import sizes as sizes_of

__all__ = ["FoundFiles", "find_files", "repeated_rows"]

MAX_SEARCHED = 1_000_000
"""Maximum number of image files that are searched for names without folder or extension."""

MAX_CHECKED = 1_000_000
"""Maximum number of rows for which every file is checked to exist. Of more, a sample is checked,
and a missing file is reported when it is read."""

SAMPLE = 1_000


class FoundFiles(NamedTuple):
    """The files of a table's rows."""

    paths: Sequence[str]  # with ``/``, relative to the root; as given for missing files
    sizes: Sequence[int]  # bytes; 0 for missing files
    ambiguous: list[int]  # rows whose name matches several files
    notes: list[str]  # for the user


def find_files(
    cells: Sequence[str],
    numbers: NDArray[np.int64],
    unit: str,
    where: str,
    root: Path | str,
    role: str = "train",
) -> FoundFiles:
    r"""Return the files of a column of paths.

    Paths may be absolute or lead out of `root`. If all use ``\`` only, they are Windows paths. A
    path that is no file may lack its extension or its first folders: it then stands for the only
    image below `root` with this name. Of several images, the one in a folder of the split `role` is
    preferred, such as ``train/1.jpg`` over ``test/1.jpg``. Paths and `root` may be addresses.

    Raises
    ------
    DatasetError
        If cells are empty, or no file exists.
    StorageError
        If the storage at an address cannot be used.
    """
    texts = TextColumn.of(cells) if not isinstance(cells, TextColumn) else cells
    faults, rule = Faults(unit), f"Every row of {where} must have a path."
    faults.add_rows(
        np.flatnonzero(texts.lengths == 0), lambda row: (rule, int(numbers[row]), "an empty cell")
    )
    faults.check()
    start = f"{root}/" if is_address(root) else os.path.join(root, "")  # noqa: PTH118
    if texts.contains("\\").any():
        plain = [_unescaped(cell, start) if "\\" in cell else cell for cell in texts]
        windows = os.sep == "\\" or _from_windows(plain, start)
        texts = TextColumn.of(cell.replace("\\", "/") if windows else cell for cell in plain)
    if len(texts) > MAX_CHECKED:
        return _sampled(texts, root, where)
    sizes = _sizes(root, texts)
    missing = np.flatnonzero(sizes < 0).tolist()
    ambiguous: dict[int, list[str]] = {}
    notes = []
    if unnamed := [row for row in missing if not is_address(texts[row])]:
        by_name = _Names(start, role)
        found = {row: by_name.find(texts[row]) for row in unnamed}
        resolved = {row: files[0] for row, files in found.items() if len(files) == 1}
        ambiguous = {row: files for row, files in found.items() if len(files) > 1}
        if resolved:
            row, file = next(iter(resolved.items()))
            notes.append(
                f"Found by name in {quoted(str(root))} and its subfolders: "
                f"{n_images(len(resolved))} of {where}, such as {quoted(texts[row])} in "
                f"{quoted(file)}."
            )
            sizes[list(resolved)] = [by_name.sizes[file] for file in resolved.values()]
            texts = TextColumn.of(resolved.get(row, path) for row, path in enumerate(texts))
        notes.extend(_ambiguity(ambiguous, texts, numbers, unit, where))
    if len(texts) and (sizes < 0).all():
        if ambiguous:
            raise DatasetError(f'{notes[-1]} Give their folder: `root="FOLDER"`.')
        raise _no_file(where, texts[0], str(root))
    return FoundFiles(texts, NumberColumn(np.maximum(sizes, 0)), list(ambiguous), notes)


def _sampled(texts: TextColumn, root: Path | str, where: str) -> FoundFiles:
    """Return the paths of very many rows, after checking that a sample of them exists."""
    rows = np.linspace(0, len(texts) - 1, SAMPLE).round().astype(np.int64)
    paths = texts.take(rows)
    missing = list(paths.take(np.flatnonzero(_sizes(root, paths) < 0)))
    if len(missing) == len(rows):
        raise _no_file(where, missing[0], str(root))
    notes = []
    if missing:
        notes.append(
            f"Of {SAMPLE:,} files in {where} that were checked, {len(missing):,} do not exist; "
            f"the first is {quoted(missing[0])}. They are reported when they are read."
        )
    sizes = NumberColumn(np.broadcast_to(np.int64(0), len(texts)))
    return FoundFiles(texts, sizes, [], notes)


def _no_file(where: str, path: str, root: str) -> NoLabelsError:
    return NoLabelsError(
        f"None of the files in {where} exists; the first is {quoted(path)} in {quoted(root)}. If "
        'the paths are relative to another folder, name it: `root="FOLDER"`.'
    )


def _ambiguity(
    ambiguous: Mapping[int, list[str]],
    paths: Sequence[str],
    numbers: NDArray[np.int64],
    unit: str,
    where: str,
) -> list[str]:
    """Return a sentence on names that match several files; an empty list without any."""
    if not ambiguous:
        return []
    row, files = next(iter(ambiguous.items()))
    named = row_numbers(unit, [int(numbers[row]) for row in ambiguous])
    return [
        f"Ambiguous names in {where}, {named} ({n_images(len(ambiguous))}): "
        f"{quoted(paths[row])} matches {quoted_list(files, 3)}."
    ]


class _Names:
    """The image files below a folder by name, with and without extension."""

    def __init__(self, start: str, role: str) -> None:
        self._role = role
        self._files: dict[str, list[str]] = {}
        self.sizes: dict[str, int] = {}
        searched = 0
        try:
            for listing in walk(start, IgnoredFiles()):
                prefix = f"{listing.folder}/" if listing.folder else ""
                for name, size in listing.files:
                    self.sizes[prefix + name] = size
                    for key in {name, name.rpartition(".")[0]}:
                        self._files.setdefault(key, []).append(prefix + name)
                searched += len(listing.files)
                if searched > MAX_SEARCHED:
                    break
        except OSError:  # the folder does not exist: neither does any file
            self._files = {}

    def find(self, path: str) -> list[str]:
        """Return the files that a path may stand for."""
        plain = os.path.normpath(path).replace(os.sep, "/")
        name = plain.rpartition("/")[2]
        files = self._files.get(name, [])
        if name != plain:
            files = [file for file in files if _ends_with(file, plain)]
        for wanted in (self._role, None):
            preferred = [file for file in files if _role_of_folders(file) == wanted]
            if preferred:
                return preferred
        return files


def _ends_with(file: str, path: str) -> bool:
    """Return whether a file's path ends with the folders and the name of `path`."""
    whole = f"/{file}"
    return whole.endswith(f"/{path}") or whole.rpartition(".")[0].endswith(f"/{path}")


def _role_of_folders(file: str) -> str | None:
    roles = (loose_role(folder) for folder in file.split("/")[:-1])
    return next((role for role in roles if role is not None), None)


def _unescaped(cell: str, start: str) -> str:
    """Return the unescaped name of a file, if a table contains it escaped because it is not UTF-8.

    A Windows path with the same characters is unchanged if its file exists.
    """
    name = unescape_name(cell)
    if name == cell or _size(start + name) is not None:
        return name
    there = _size(start + cell) is not None or _size(start + cell.replace("\\", "/")) is not None
    return cell if there else name


def _from_windows(cells: Sequence[str], start: str) -> bool:
    """Return whether paths were written on Windows, with backslashes."""
    if any("/" in cell for cell in cells):
        return False
    with_backslash = [cell for cell in cells if "\\" in cell]
    return bool(with_backslash) and all(_size(start + cell) is None for cell in with_backslash)


def _sizes(root: Path | str, paths: TextColumn) -> NDArray[np.int64]:
    """Return the bytes of files; -1 for missing ones."""
    start = os.path.join(root, "")  # noqa: PTH118
    if not is_address(root) and not paths.contains("://").any():
        found = (_size(os.path.join(start, path)) for path in paths)  # noqa: PTH118
        return np.fromiter((-1 if size is None else size for size in found), np.int64, len(paths))
    sizes = np.full(len(paths), -1, np.int64)
    for first in range(0, len(paths), BLOCK):
        names = [join(root, path) for path in paths.take(slice(first, first + BLOCK))]
        remote = [row for row, name in enumerate(names) if is_address(name)]
        for row, size in zip(remote, sizes_of([names[row] for row in remote]), strict=True):
            sizes[first + row] = -1 if size is None else size
        for row, name in enumerate(names):
            if not is_address(name) and (size := _size(name)) is not None:
                sizes[first + row] = size
    return sizes


def _size(file: str) -> int | None:
    if is_address(file):
        return sizes_of([file])[0]
    if (member := split_member(file)) is not None and not os.path.lexists(file):
        return _member_size(*member)
    try:
        return os.stat(file).st_size  # noqa: PTH116 (called once an image; Path is slower)
    except (OSError, ValueError):
        return None


def _member_size(shard: str, place: tuple[int, int] | None, member: str) -> int | None:
    from kindsight.storage.shards import find_member

    try:
        place = place or find_member(shard, member)
    except DatasetError:
        return None
    return None if place is None else place[1]


def repeated_rows(
    paths: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    numbers: NDArray[np.int64],
    unit: str,
    where: str,
) -> NDArray[np.int64]:
    """Return the rows that repeat an earlier path; DatasetError if they contradict it."""
    texts = paths if isinstance(paths, TextColumn) else TextColumn.of(paths)
    if (texts.contains("./") | texts.contains("//")).any():
        texts = TextColumn.of(
            os.path.normpath(path)
            if ("./" in path or "//" in path) and not is_address(path)
            else path
            for path in texts
        )
    first = first_equal(texts)
    again = np.flatnonzero(first != np.arange(len(first)))
    faults = Faults(unit)
    wrong: list[tuple[str, Sequence[str | None], NDArray[np.int64]]] = []
    for kind, cells in columns.items():
        codes = as_codes(cells).codes
        rows = again[codes[again] != codes[first[again]]]
        if len(rows):
            wrong.append((kind, cells, rows))
    for kind, cells, rows in sorted(wrong, key=lambda one: int(one[2][0])):
        rule = f"An image in {where} must have only one {kind}."

        def fault(
            row: int, rule: str = rule, cells: Sequence[str | None] = cells
        ) -> tuple[str, int, str]:
            earlier = int(first[row])
            said = (
                f"{quoted(paths[row])} is {quoted(cells[row] or '')}, and "
                f"{quoted(cells[earlier] or '')} in {row_numbers(unit, [int(numbers[earlier])])}"
            )
            return rule, int(numbers[row]), said

        faults.add_rows(rows, fault)
    faults.check()
    return again
