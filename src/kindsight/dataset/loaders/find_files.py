"""Find the image files that a table names: by path, or by a name without folder or extension."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kindsight.dataset.loaders.from_names import loose_role
from kindsight.dataset.loaders.values import Faults, NoLabelsError, row_numbers
from kindsight.dataset.names import IgnoredFiles, n_images, quoted, quoted_list
from kindsight.dataset.walk import walk
from kindsight.encoding import unescape_name
from kindsight.errors import DatasetError

__all__ = ["FoundFiles", "find_files", "repeated_rows"]

MAX_SEARCHED = 1_000_000
"""Maximum number of image files that are searched for names without folder or extension."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class FoundFiles(NamedTuple):
    """The files of a table's rows."""

    paths: tuple[str, ...]  # with ``/``, relative to the root; as given for missing files
    sizes: tuple[int, ...]  # bytes; 0 for missing files
    ambiguous: list[int]  # rows whose name is that of several files
    notes: list[str]  # for the user


def find_files(
    cells: Sequence[str],
    numbers: Sequence[int],
    unit: str,
    where: str,
    root: Path,
    role: str = "train",
) -> FoundFiles:
    r"""Return the files of a column of paths.

    Paths may be absolute or lead out of `root`. If all use ``\`` only, they are Windows paths. A
    path of no file may lack its extension or its first folders: it stands for the only image below
    `root` with this name. Of several images, the one in a folder of the split `role` is preferred,
    as ``train/1.jpg`` to ``test/1.jpg``.

    Raises
    ------
    DatasetError
        If cells are empty or URLs, or no file exists.
    """
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if not cell:
            faults.add(f"Every row of {where} must have a path.", number, "an empty cell")
        elif _URL.match(cell):
            rule = f"The paths in {where} must be files, not URLs."
            faults.add(rule, number, quoted(cell[:60]), "Download the images first.")
    faults.check()
    start = os.path.join(root, "")  # noqa: PTH118
    cells = [_unescaped(cell, start) if "\\" in cell else cell for cell in cells]
    windows = os.sep == "\\" or _from_windows(cells, start)
    paths = [cell.replace("\\", "/") if windows else cell for cell in cells]
    sizes = [_size(os.path.join(start, path)) for path in paths]  # noqa: PTH118
    missing = [row for row, size in enumerate(sizes) if size is None]
    ambiguous: dict[int, list[str]] = {}
    notes = []
    if missing:
        by_name = _Names(start, role)
        found = {row: by_name.find(paths[row]) for row in missing}
        resolved = {row: files[0] for row, files in found.items() if len(files) == 1}
        ambiguous = {row: files for row, files in found.items() if len(files) > 1}
        if resolved:
            row, file = next(iter(resolved.items()))
            notes.append(
                f"Found by name in {quoted(str(root))} and its subfolders: "
                f"{n_images(len(resolved))} of {where}, such as {quoted(paths[row])} in "
                f"{quoted(file)}."
            )
        for row, file in resolved.items():
            paths[row], sizes[row] = file, _size(os.path.join(start, file))  # noqa: PTH118
        notes.extend(_ambiguity(ambiguous, paths, numbers, unit, where))
    if paths and all(size is None for size in sizes):
        if ambiguous:
            raise DatasetError(f'{notes[-1]} Give their folder: `root="FOLDER"`.')
        raise NoLabelsError(
            f"None of the files in {where} exists; the first is {quoted(paths[0])} in "
            f"{quoted(str(root))}. If the paths are relative to another folder, "
            'name it: `root="FOLDER"`.'
        )
    return FoundFiles(tuple(paths), tuple(size or 0 for size in sizes), list(ambiguous), notes)


def _ambiguity(
    ambiguous: Mapping[int, list[str]],
    paths: Sequence[str],
    numbers: Sequence[int],
    unit: str,
    where: str,
) -> list[str]:
    """Return a sentence on names that match several files; an empty list without any."""
    if not ambiguous:
        return []
    row, files = next(iter(ambiguous.items()))
    named = row_numbers(unit, [numbers[row] for row in ambiguous])
    return [
        f"Ambiguous names in {where}, {named} ({n_images(len(ambiguous))}): "
        f"{quoted(paths[row])} matches {quoted_list(files, 3)}."
    ]


class _Names:
    """The image files below a folder by name, with and without extension."""

    def __init__(self, start: str, role: str) -> None:
        self._role = role
        self._files: dict[str, list[str]] = {}
        searched = 0
        try:
            for listing in walk(start, IgnoredFiles()):
                prefix = f"{listing.folder}/" if listing.folder else ""
                for name, _ in listing.files:
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
    """Return the unescaped name of a file, if a table has it escaped because it is not UTF-8.

    A path of Windows with the same characters is unchanged if its file exists.
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


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size  # noqa: PTH116 (called once an image; Path is slower)
    except (OSError, ValueError):
        return None


def repeated_rows(
    paths: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    numbers: Sequence[int],
    unit: str,
    where: str,
) -> list[int]:
    """Return the rows that repeat an earlier path; DatasetError if they contradict it."""
    first: dict[str, int] = {}
    again = []
    faults = Faults(unit)
    for row, path in enumerate(paths):
        plain = os.path.normpath(path) if "./" in path or "//" in path else path
        earlier = first.setdefault(plain, row)
        if earlier == row:
            continue
        again.append(row)
        for kind, cells in columns.items():
            if cells[row] != cells[earlier]:
                rule = f"An image in {where} must have only one {kind}."
                said = (
                    f"{quoted(path)} is {quoted(cells[row] or '')}, and "
                    f"{quoted(cells[earlier] or '')} in {row_numbers(unit, [numbers[earlier]])}"
                )
                faults.add(rule, numbers[row], said)
    faults.check()
    return again
