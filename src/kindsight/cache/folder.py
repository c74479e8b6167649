"""The cache: what was computed once on this machine and need not be computed again.

One folder holds the backbones' built files (``backbones/``), the index of image files
(``files.sqlite``), one table of features for each combination of backbone, weights and input spec
(``features/``), what checks measured of images (``measurements/``), the resized images
themselves, for each input spec (``images/``), and what views of them give at a network's cut
(``views/``). Everything in it can be made again: deleting the
folder loses time only.

Where: ``$KINDSIGHT_CACHE``, else the user's cache folder. How much: ``$KINDSIGHT_CACHE_LIMIT``
(such as ``20GB``), else 10 GB for features and images together; what was not used for longest
goes first.
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from kindsight.errors import CacheError, SettingsError

__all__ = ["Cache", "CacheEntry", "parse_size"]

DEFAULT_LIMIT = 10_000_000_000  # bytes
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
PRUNED = ("features", "measurements", "images", "views")
MARKER = "CACHEDIR.TAG"
# The signature that backup programs look for: https://bford.info/cachedir/
MARKER_TEXT = "Signature: 8a477f597d28d172789f06886806bc55\n# This folder was made by kindsight.\n"


def parse_size(text: str) -> int:
    """Read a size such as ``"500MB"`` or ``"20 GB"`` into bytes.

    Raises
    ------
    SettingsError
        For anything else.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmMgGtT]?[bB]?)\s*", text)
    unit = match.group(2).upper() if match else ""
    unit = unit + "B" if unit in ("K", "M", "G", "T") else unit
    if match is None or unit not in UNITS:
        raise SettingsError(
            f"A size must be a number with KB, MB, GB or TB, such as 20GB. Received: {text!r}."
        )
    return int(float(match.group(1)) * UNITS[unit])


@dataclass(frozen=True)
class CacheEntry:
    """One thing in the cache.

    Parameters
    ----------
    kind : str
        ``"backbone"``, ``"features"``, ``"measurements"``, ``"images"``, ``"views"`` or
        ``"files"``.
    name : str
        The file's name without its folder and ending.
    path : pathlib.Path
        The file.
    size : int
        Bytes on disk.
    used : float
        When it was last used, in seconds since 1970.
    """

    kind: str
    name: str
    path: Path
    size: int
    used: float


class Cache:
    """The cache folder of this machine, or another one.

    Parameters
    ----------
    root : path, optional
        The folder; made when first needed.
    limit : int, optional
        How many bytes features and resized images may take.
    """

    def __init__(
        self, root: str | os.PathLike[str] | None = None, limit: int | None = None
    ) -> None:
        chosen = root or os.environ.get("KINDSIGHT_CACHE")
        self.root = Path(chosen or platformdirs.user_cache_dir("kindsight", appauthor=False))
        if limit is None:
            text = os.environ.get("KINDSIGHT_CACHE_LIMIT")
            limit = parse_size(text) if text else DEFAULT_LIMIT
        self.limit = limit

    def __repr__(self) -> str:
        return f"Cache({str(self.root)!r}, limit={self.limit})"

    def folder(self, name: str = "") -> Path:
        """Return a folder of the cache, made if it is not there.

        Raises
        ------
        CacheError
            Where the folder cannot be made or written.
        """
        path = self.root / name
        try:
            path.mkdir(parents=True, exist_ok=True)
            marker = self.root / MARKER
            if not marker.exists():
                marker.write_text(MARKER_TEXT)
        except OSError as error:
            raise CacheError(
                f"The cache folder must be one that can be written. Received: {self.root} "
                f"({error.strerror}). Set KINDSIGHT_CACHE to another folder."
            ) from error
        return path

    def features_file(self, key: str) -> Path:
        """Return the path of the table of features made by what `key` names."""
        return self.folder("features") / f"{key}.sqlite"

    def images_file(self, key: str) -> Path:
        """Return the path of the table of images resized as `key` names it."""
        return self.folder("images") / f"{key}.sqlite"

    def views_file(self, key: str) -> Path:
        """Return the path of the table of views at the cut that `key` names."""
        return self.folder("views") / f"{key}.sqlite"

    def measurements_file(self, key: str) -> Path:
        """Return the path of the table of measurements of the format that `key` names."""
        return self.folder("measurements") / f"{key}.sqlite"

    @property
    def files_file(self) -> Path:
        """The index from a file's name, size and times to its content digest."""
        return self.folder() / "files.sqlite"

    def require_space(self, images: int, bytes_each: int, table: Path) -> None:
        """Check that the disk has room for a table of images, before the work begins.

        Parameters
        ----------
        images : int
            Number of images that the table will hold.
        bytes_each : int
            Bytes for one image.
        table : pathlib.Path
            The table; the images that it holds already need no room.

        Raises
        ------
        CacheError
            If there is not enough free space.
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
                "Free some space, or set KINDSIGHT_CACHE to a folder on another disk."
            )

    def entries(self) -> list[CacheEntry]:
        """List what the cache holds, what was used last coming first."""
        found = []
        patterns = (
            ("backbone", "backbones/*.tflite"),
            ("backbone", "backbones/*.keras"),
            ("features", "features/*.sqlite"),
            ("measurements", "measurements/*.sqlite"),
            ("images", "images/*.sqlite"),
            ("views", "views/*.sqlite"),
            ("files", "files.sqlite"),
        )
        for kind, pattern in patterns:
            for path in sorted(self.root.glob(pattern)):
                # Another process may delete it, or its journal, at any moment.
                with contextlib.suppress(FileNotFoundError):
                    used = path.stat().st_mtime
                    size = sum(_size(part) for part in _parts(path))
                    found.append(CacheEntry(kind, path.stem, path, size, used))
        return sorted(found, key=lambda entry: -entry.used)

    def size(self) -> int:
        """Bytes that the cache takes on disk."""
        return sum(entry.size for entry in self.entries())

    def prune(self, keep: Path | None = None) -> list[CacheEntry]:
        """Delete features and resized images, longest unused first, until they fit the limit.

        A table that another process has open stays.

        Parameters
        ----------
        keep : pathlib.Path, optional
            A table that is in use and stays.

        Returns
        -------
        list of CacheEntry
            What was deleted.
        """
        tables = [entry for entry in self.entries() if entry.kind in PRUNED]
        total = sum(entry.size for entry in tables)
        deleted = []
        for entry in reversed(tables):
            if total <= self.limit:
                break
            if entry.path != keep and not _in_use(entry.path):
                _delete(entry.path)
                total -= entry.size
                deleted.append(entry)
        return deleted

    def drop(self, path: Path) -> bool:
        """Delete one table, unless a process has it open; say whether it is gone."""
        if _in_use(path):
            return False
        try:
            # First what Windows keeps as long as a process has it mapped.
            path.with_suffix(".pixels").unlink(missing_ok=True)
            _delete(path)
        except PermissionError:
            return False
        return True

    def clear(self, kind: str | None = None) -> int:
        """Delete all entries, or those of one kind; return the bytes freed.

        Raises
        ------
        CacheError
            Where the folder does not look like a cache of ours, so that a mistyped name
            cannot delete anything else.
        """
        if not self.root.exists():
            return 0
        if not (self.root / MARKER).exists():
            raise CacheError(
                f"A cache folder must hold the file {MARKER}. Received: {self.root}, which does "
                "not; nothing was deleted. Check KINDSIGHT_CACHE."
            )
        freed = 0
        for entry in self.entries():
            if kind in (None, entry.kind):
                _delete(entry.path)
                freed += entry.size
        return freed


def _parts(path: Path) -> list[Path]:
    """Return a file and what belongs to it: SQLite's journals, pixels, a damaged forerunner."""
    companions = path.parent.glob(glob.escape(path.name) + "-*")
    beside = (path.with_suffix(ending) for ending in (".damaged", ".pixels"))
    return [path, *companions, *beside]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _delete(path: Path) -> None:
    for part in _parts(path):
        part.unlink(missing_ok=True)
    if path.suffix == ".tflite":  # The record that says that a backbone is whole.
        path.with_suffix(".json").unlink(missing_ok=True)


def _in_use(path: Path) -> bool:
    """Whether a process has a table open: SQLite then refuses to change how it keeps journals."""
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=0)) as connection:
            connection.execute("PRAGMA journal_mode=DELETE")
    except sqlite3.OperationalError as error:
        return "locked" in str(error)
    except sqlite3.DatabaseError:  # damaged, so of no use to anyone
        return False
    return False
