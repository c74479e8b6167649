"""List pictures to be predicted: files, folders and patterns, one after the other."""

# os.path throughout: a Path object for each of 100,000 files costs more than the walk itself.
# ruff: noqa: PTH112, PTH119, PTH208

from __future__ import annotations

import fnmatch
import os
from collections import Counter
from collections.abc import Iterable, Iterator

from kindsight.catalog.names import file_is_passed_over, folder_is_passed_over, shown
from kindsight.catalog.walk import walk
from kindsight.errors import CatalogError

__all__ = ["iter_pictures"]

_MAGIC = frozenset("*?[")


def iter_pictures(
    targets: Iterable[str | os.PathLike[str]],
    *,
    patterns: bool = True,
    passed_over: Counter[str] | None = None,
) -> Iterator[str]:
    """Yield the paths of all pictures that are meant, lazily and in a fixed order.

    Parameters
    ----------
    targets : iterable of str or path
        A file is yielded as it is spelled, whatever its name. Of a folder all pictures below it
        are yielded, by name, under the rules of :func:`kindsight.catalog.walk.walk`. A pattern
        (``*``, ``?``, ``[ab]``, and ``**`` for any number of folders) is expanded as a shell
        would, except that hidden files and what is no picture by its name are passed over; a
        folder that it matches stands for the pictures below it. What exists under its very name
        is no pattern. What does not exist is yielded too: reading it will say so.
    patterns : bool
        False: take nothing for a pattern (a list that a program wrote).
    passed_over : Counter, optional
        Filled with what was passed over, by reason.

    Yields
    ------
    str
        A path; memory stays bounded by the largest single folder.

    Raises
    ------
    CatalogError
        When its turn comes: a folder or a pattern without any picture.
    """
    counted: Counter[str] = Counter() if passed_over is None else passed_over
    for given in targets:
        target = os.fspath(given)
        if os.path.isdir(target):
            yield from _some(_folder(target, counted), f"The folder {shown(target)} must hold")
        elif patterns and _MAGIC & set(target) and not os.path.lexists(target):
            found = _pattern(target, counted)
            yield from _some(found, f"The pattern {shown(target)} must match")
        else:
            yield target


def _some(pictures: Iterator[str], rule: str) -> Iterator[str]:
    """Pass pictures on; refuse where there is none."""
    first = next(pictures, None)
    if first is None:
        raise CatalogError(
            f"{rule} at least one picture. Received: none. Look at the spelling, and at the "
            "files' extensions."
        )
    yield first
    yield from pictures


def _folder(folder: str, passed_over: Counter[str]) -> Iterator[str]:
    start = folder if folder.endswith(("/", os.sep)) else folder + os.sep
    try:
        for inner, files in walk(folder, passed_over):
            prefix = start + (inner.replace("/", os.sep) + os.sep if inner else "")
            yield from (prefix + name for name, _ in files)
    except OSError as error:
        raise CatalogError(
            f"A folder must be open to be listed. Received: {shown(folder)}, {error.strerror}."
        ) from None


def _pattern(pattern: str, passed_over: Counter[str]) -> Iterator[str]:
    """Expand a pattern part by part; only in a pattern with several ** can paths recur."""
    text = pattern.replace(os.sep, "/")
    parts = [part for part in text.split("/") if part]
    drive, start = os.path.splitdrive(pattern)[0], os.sep if text.startswith("/") else ""
    if drive:
        parts, start = parts[1:], drive + os.sep
    # ** twice running says no more than once.
    parts = [p for i, p in enumerate(parts) if p != "**" or parts[i - 1 : i] != ["**"]]
    found = _expand(start, parts, passed_over)
    if parts.count("**") > 1:
        found = iter(dict.fromkeys(found))
    yield from found


def _expand(base: str, parts: list[str], passed_over: Counter[str]) -> Iterator[str]:
    """Yield the pictures below `base` (a folder's path that can be put before a name)."""
    part, rest = parts[0], parts[1:]
    if part == "**":
        yield from _expand_any_depth(base, rest, passed_over)
        return
    if not _MAGIC & set(part):
        names: list[str] = [part]
    else:
        hidden = part.startswith(".")
        names = [
            name
            for name in _names(base)
            if fnmatch.fnmatch(name, part) and (hidden or folder_is_passed_over(name) is None)
        ]
    for name in names:
        yield from _matched(base + name, rest, passed_over)


def _matched(path: str, rest: list[str], passed_over: Counter[str]) -> Iterator[str]:
    """Go on with what matched one part: into a folder, or to the picture that it is."""
    if os.path.isdir(path):
        below = _expand(path + os.sep, rest, passed_over) if rest else _folder(path, passed_over)
        yield from below
    elif not rest and os.path.lexists(path):
        reason = file_is_passed_over(os.path.basename(path))
        if reason is None:
            yield path
        else:
            passed_over[reason] += 1


def _expand_any_depth(base: str, rest: list[str], passed_over: Counter[str]) -> Iterator[str]:
    """Try the rest of the pattern here and in every folder below, never through a link."""
    if not rest:
        yield from _folder(base or os.curdir, passed_over)
        return
    pending = [base]
    while pending:
        here = pending.pop()
        yield from _expand(here, rest, passed_over)
        # A folder that the last part matches was listed with everything below it.
        below = (n for n in _folders(here) if len(rest) > 1 or not fnmatch.fnmatch(n, rest[0]))
        pending.extend(sorted((here + name + os.sep for name in below), reverse=True))


def _names(folder: str) -> list[str]:
    """Return the names of everything in a folder, sorted; none where it cannot be opened."""
    try:
        return sorted(os.listdir(folder or os.curdir))
    except OSError:
        return []


def _folders(folder: str) -> list[str]:
    """Return the names of the folders in a folder that are entered; links are not."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            return [
                entry.name
                for entry in entries
                if entry.is_dir(follow_symlinks=False) and folder_is_passed_over(entry.name) is None
            ]
    except OSError:
        return []
