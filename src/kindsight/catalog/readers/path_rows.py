"""The paths that a table gives: where they start, which of them are there, which occur twice."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from kindsight.catalog.names import shown
from kindsight.catalog.readers.faults import Faults, places
from kindsight.errors import CatalogError

__all__ = ["find_files", "unlike_twins"]

_ELSEWHERE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


def find_files(
    cells: Sequence[str], numbers: Sequence[int], unit: str, where: str, root: Path
) -> tuple[list[str], list[int]]:
    r"""Turn a column of paths into paths below a folder, and look up how large the files are.

    A path may be absolute, or lead out of the folder: a table says which pictures are meant, as a
    command line does. Where all paths are written with ``\`` they are those of Windows.

    Parameters
    ----------
    cells : sequence of str
        The paths.
    numbers, unit, where : sequence of int, str, str
        The rows' numbers, what they count, and the table, for messages.
    root : Path
        The folder at which relative paths start.

    Returns
    -------
    list of str
        The paths, ``/`` between the parts.
    list of int
        Bytes; 0 where there is no such file: reading it will say so.

    Raises
    ------
    CatalogError
        If a cell is empty or names no file of a disk, or if none of the files is there.
    """
    faults = Faults(unit)
    for cell, number in zip(cells, numbers, strict=True):
        if not cell:
            faults.add(f"Every row of {where} must have a path.", number, "an empty cell")
        elif _ELSEWHERE.match(cell):
            rule = f"The paths in {where} must be those of files."
            faults.add(rule, number, shown(cell[:60]), "Fetch the pictures first.")
    faults.check()
    start = os.path.join(root, "")  # noqa: PTH118
    windows = os.sep == "\\" or _from_windows(cells, start)
    paths = [cell.replace("\\", "/") for cell in cells] if windows else list(cells)
    sizes = [_size(os.path.join(start, path)) for path in paths]  # noqa: PTH118
    if paths and not any(size is not None for size in sizes):
        raise CatalogError(
            f"The paths in {where} must be those of files. Received: none that is there; the first "
            f"is {shown(paths[0])}, looked for in {shown(str(root))}. If they start at another "
            "folder, name it: --root FOLDER, in Python root."
        )
    return paths, [size or 0 for size in sizes]


def _from_windows(cells: Sequence[str], start: str) -> bool:
    """Say whether paths were written on Windows, where a backslash parts folders."""
    if any("/" in cell for cell in cells):
        return False
    parted = [cell for cell in cells if "\\" in cell]
    return bool(parted) and all(_size(start + cell) is None for cell in parted)


def _size(file: str) -> int | None:
    try:
        return os.stat(file).st_size  # noqa: PTH116 (called once a picture; Path is slower)
    except (OSError, ValueError):
        return None


def unlike_twins(
    paths: Sequence[str],
    columns: Mapping[str, Sequence[str | None]],
    numbers: Sequence[int],
    unit: str,
    where: str,
) -> list[int]:
    """Return the rows that repeat an earlier one; refuse those that contradict it.

    Parameters
    ----------
    paths : sequence of str
        Of all rows.
    columns : mapping of str to sequence
        What else is known of them.
    numbers, unit, where : sequence of int, str, str
        The rows' numbers, what they count, and the table, for messages.

    Raises
    ------
    CatalogError
        Naming the rows that have a path of an earlier row and another label, split or group.
    """
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
                rule = f"A picture in {where} must have one {kind}."
                said = (
                    f"{shown(path)} is {shown(cells[row] or '')}, and "
                    f"{shown(cells[earlier] or '')} in {places(unit, [numbers[earlier]])}"
                )
                faults.add(rule, numbers[row], said)
    faults.check()
    return again
