"""The cache folder: results that were computed once on this machine, and locks of what is in use.

It holds the files of built backbones (``backbones/``), the index of image files
(``files.sqlite``), tables of image features (``features/``), measurements of the checks
(``measurements/``), resized images (``images/``), activations at a network's cut layer
(``activations/``), and the indexes of tar files (``shards/``). Everything can be computed again:
deleting the folder loses time only.

The folder is ``$KINDSIGHT_CACHE``, else the user's cache folder. Its tables may take
``$KINDSIGHT_CACHE_LIMIT`` (such as ``20GB``), by default 10 GB; the least recently used are deleted
first. Folders that a process uses are marked; tables need no mark, since SQLite's own locks show
whether a process has one open.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import sqlite3
import threading
import uuid
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kindsight.cache.location import choose_cache, default_folder
from kindsight.cache.sqlite_table import GENERATION, companions, delete_unused, lock_folder
from kindsight.errors import CacheError, SettingsError
from kindsight.files import delete_file

__all__ = ["Cache", "CacheEntry", "mark_used", "parse_size"]

_marks: dict[Path, FileLock] = {}
_marks_lock = threading.Lock()


def mark_used(folder: Path) -> None:
    """Mark a folder as used by this process until the process ends.

    A read-only folder is not marked, since nothing can be deleted from it.
    """
    with _marks_lock:
        mark = _marks.get(folder)
        # A mark from before a fork is not this process's, and the folder may have been deleted.
        file = Path(mark.lock_file) if mark is not None else None
        if file is not None and f"-{os.getpid()}-" in file.name and file.exists():
            return
        # A folder that cannot be marked (read-only, or a drive without locks) is used unprotected.
        with contextlib.suppress(CacheError, OSError, NotImplementedError), lock_folder(folder):
            mark = FileLock(folder / f".used-{os.getpid()}-{uuid.uuid4().hex[:8]}.lock")
            mark.acquire(timeout=0)
            _marks[folder] = mark


def is_used_elsewhere(folder: Path) -> bool:
    """Return whether another running process uses a folder; delete the marks of ended ones."""
    used = False
    for path in folder.glob(".used-*.lock"):
        if path.name.startswith(f".used-{os.getpid()}-"):
            continue
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            used = True
            continue
        lock.release()
        with contextlib.suppress(OSError):
            delete_file(path)
    return used


DEFAULT_LIMIT = 10_000_000_000  # bytes
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PATTERNS = (
    ("backbone", "backbones/*.tflite"),
    ("backbone", "backbones/*.keras"),
    ("features", "features/*.sqlite"),
    ("measurements", "measurements/*.sqlite"),
    ("images", "images/*.sqlite"),
    ("activations", "activations/*.sqlite"),
    ("shards", "shards/*.npz"),
    ("files", "files.sqlite"),
)
PRUNED = ("features", "measurements", "images", "activations")
MARKER = "CACHEDIR.TAG"
# The signature that backup programs check: https://bford.info/cachedir/
MARKER_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder was made by kindsight.\n"


def parse_size(text: str) -> int:
    """Return the bytes of a size such as ``"500MB"`` or ``"20 GB"``.

    Raises `SettingsError` for anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[bB]?)\s*", text)
    unit = match.group(2).upper() if match else ""
    unit = unit + "B" if unit in ("K", "M", "G", "T") else unit
    if match is None or unit not in UNITS:
        raise SettingsError(
            f"A size must be a number with KB, MB, GB or TB, such as 20GB; got {text!r}."
        )
    return int(float(match.group(1)) * UNITS[unit])


@dataclass(frozen=True)
class CacheEntry:
    """One file or table of the cache.

    `kind` is ``"backbone"``, ``"features"``, ``"measurements"``, ``"images"``, ``"activations"``,
    ``"shards"`` or ``"files"``.
    """

    kind: str
    name: str  # file name without extension
    path: Path
    size: int  # bytes on disk, with its companion files
    used: float  # time of the last use, in seconds since 1970


class Cache:
    """A cache folder.

    Parameters
    ----------
    root : path, optional
        The folder, created when first needed; see the module for the default.
    limit : int, optional
        Bytes that the tables may take.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, limit: int | None = None
    ) -> None:
        self._given = bool(root)
        self.root = Path(root) if root else default_folder()
        # A Path has one slash fewer than an address.
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", self.root.as_posix()):
            raise SettingsError(
                f"The cache folder must be on a local disk; got {root or self.root}."
            )
        if limit is None:
            text = os.environ.get("KINDSIGHT_CACHE_LIMIT")
            limit = parse_size(text) if text else DEFAULT_LIMIT
        self.limit = limit

    def _choose(self, what: str) -> str:
        return choose_cache(self.root, what, given=self._given)

    def __repr__(self) -> str:
        return f"Cache({str(self.root)!r}, limit={self.limit})"

    def folder(self, name: str = "") -> Path:
        """Return a folder of the cache; create it if needed.

        Raises `CacheError` if the folder cannot be created or written.
        """
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            marker = self.root / MARKER
            if not marker.exists():
                marker.write_text(MARKER_TEXT)
        except OSError as error:
            raise CacheError(
                f"Cannot write to the cache folder {self.root} ({error.strerror}). To use another "
                f"one, {self._choose('a folder')}."
            ) from error
        return path

    def features_file(self, key: str) -> Path:
        """Return the path of a table of features."""
        return self.folder("features") / f"{key}.sqlite"

    def images_file(self, key: str) -> Path:
        """Return the path of a table of resized images."""
        return self.folder("images") / f"{key}.sqlite"

    def activations_file(self, key: str) -> Path:
        """Return the path of a table of activations at a cut layer."""
        return self.folder("activations") / f"{key}.sqlite"

    def measurements_file(self, key: str) -> Path:
        """Return the path of a table of measurements."""
        return self.folder("measurements") / f"{key}.sqlite"

    @property
    def files_file(self) -> Path:
        """The index from a file's name, size and times to its content digest."""
        return self.folder() / "files.sqlite"

    def require_space(self, images: int, bytes_each: int, table: Path) -> None:
        """Check that the disk has space for a table of images, before it is computed.

        `images` that the table already holds need no space. Raises `CacheError` if there is not
        enough free space.
        """
        free = shutil.disk_usage(self.folder()).free
        if images * bytes_each <= free:
            return
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(table)) as rows:
            images -= rows.execute("SELECT count(*) FROM images").fetchone()[0]
        if images * bytes_each > free:
            raise CacheError(
                f"Not enough space on the disk of {self.root}: {images:,} images need "
                f"{images * bytes_each / 1e9:.1f} GB in the cache, {free / 1e9:.1f} GB are free. "
                f"Free some space, or {self._choose('a folder on another disk')}."
            )

    def entries(self) -> list[CacheEntry]:
        """Return the content of the cache, most recently used first."""
        found = []
        for kind, pattern in PATTERNS:
            for path in sorted(self.root.glob(pattern)):
                # Another process may delete the file, or its journal, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    used = path.stat().st_mtime
                    size = sum(_size(file) for file in companions(path))
                    found.append(CacheEntry(kind, path.stem, path, size, used))
        return sorted(found, key=lambda entry: -entry.used)

    def size(self) -> int:
        """Return the bytes of the cache on disk."""
        return sum(entry.size for entry in self.entries())

    def prunable_size(self) -> int:
        """Return the bytes of the tables that the limit applies to."""
        return sum(entry.size for entry in self.entries() if entry.kind in PRUNED)

    def prune(self, keep: Path | None = None) -> list[CacheEntry]:
        """Delete tables, least recently used first, until they fit the limit; return the deleted.

        Tables that a process has open, and the table `keep`, are not deleted.
        """
        tables = [entry for entry in self.entries() if entry.kind in PRUNED]
        total = sum(entry.size for entry in tables)
        deleted = []
        for entry in reversed(tables):
            if total <= self.limit:
                break
            if entry.path != keep and delete_unused(entry.path):
                total -= entry.size
                deleted.append(entry)
        for folder in self._array_folders():
            _delete_orphans(folder)
        return deleted

    def clear(self, kind: str | None = None) -> int:
        """Delete all entries, or those of one kind; return the bytes freed.

        Entries that a running process uses are not deleted. Raises `CacheError` if the folder is
        not a cache of kindsight, so that a mistyped name deletes nothing.
        """
        if not self.root.exists():
            return 0
        if not (self.root / MARKER).exists():
            raise CacheError(
                f"{self.root} has no file {MARKER}, so it is not a cache folder; nothing was "
                f"deleted. To clear another one, {self._choose('its folder')}."
            )
        freed = 0
        for entry in self.entries():
            if kind in (None, entry.kind) and _delete(entry):
                freed += entry.size
        return freed + sum(map(_delete_orphans, self._array_folders(kind)))

    def _array_folders(self, kind: str | None = None) -> list[Path]:
        return [self.root / name for name in ("images", "activations") if kind in (None, name)]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _delete(entry: CacheEntry) -> bool:
    """Delete an entry unless a process uses it; return whether it was deleted."""
    if entry.path.suffix == ".sqlite":
        return delete_unused(entry.path)
    try:
        with lock_folder(entry.path.parent):
            if is_used_elsewhere(entry.path.parent):
                return False
            delete_file(entry.path)
            if entry.path.suffix == ".tflite":  # The record of a complete backbone.
                delete_file(entry.path.with_suffix(".json"))
    except PermissionError:
        return False
    return True


def _delete_orphans(folder: Path) -> int:
    """Delete array files whose table is gone; return the bytes freed."""
    files = list(folder.glob("*.pixels"))
    freed = 0
    with lock_folder(folder) if files else contextlib.nullcontext():
        for file in files:
            stem = re.sub(rf"(\.{GENERATION})?\.pixels", "", file.name)
            if not file.with_name(f"{stem}.sqlite").exists():
                # On Windows, a process may still have it mapped.
                with contextlib.suppress(PermissionError):
                    size = _size(file)
                    delete_file(file)
                    freed += size
    return freed
