"""A backbone's files in the cache: complete or not used, and built by one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.errors import CacheError, WeightsError
from kindsight.files import write_json
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.weights import weights_digest

__all__ = ["BUILD_FORMAT", "BackboneFiles", "build_once", "find_files", "store_files"]

BUILD_FORMAT = 3
"""Increased whenever the same weights would give other features, or other files."""

LOCK_SECONDS = 900.0
MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class BackboneFiles:
    """The files of a built backbone, or of an ensemble of backbones.

    Parameters
    ----------
    tflite : Path
        LiteRT file: ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to
        ``"features"``, float32 (1, layout.width). Its batch can be resized.
    keras : Path
        The same as a Keras file, the template of :func:`.assemble.write_keras`.
    key : str
        Identifies what the files were built from; usable in a file name.
    digest : str
        Of the LiteRT file: equal digests mean equal features.
    members : tuple of BackboneFiles
        The backbones of an ensemble; empty for a single backbone.
    variants : tuple of int
        The TTA variants (:mod:`.tta`) that a member's features are averaged over.
    """

    tflite: Path
    keras: Path
    layout: FeatureLayout
    key: str
    digest: str
    members: tuple[BackboneFiles, ...] = ()
    variants: tuple[int, ...] = (0,)


def build_once(
    folder: Path, key: str, build: Callable[[], None], progress: Callable[[str], None] | None = None
) -> BackboneFiles:
    """Build files that are not in the cache, in one process of the machine at a time.

    `build` calls :func:`store_files`; `progress` gets a sentence when another process has to be
    waited for. CacheError when the folder, ``backbones`` of the cache, cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, key, progress):
            # Another process may have built them while this one waited.
            found = find_files(folder, key)
            if found is not None:
                return found
            build()
    except OSError as error:
        raise CacheError(f"Cannot write to the cache folder {folder}: {error}.") from error
    found = find_files(folder, key)
    if found is None:
        raise CacheError(
            f"Files written to the cache folder {folder} could not be read back. Check the disk, "
            "or choose another cache folder."
        )
    return found


@contextlib.contextmanager
def _locked(folder: Path, key: str, progress: Callable[[str], None] | None) -> Iterator[None]:
    lock = FileLock(folder / f"{key}.lock")
    try:
        lock.acquire(timeout=0.1)
    except Timeout:
        if progress is not None:
            progress("Waiting for another process that is building the same backbone.")
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout:
            raise CacheError(
                f"Another process has been building this backbone for {LOCK_SECONDS:g} seconds. "
                f"End it, or delete {folder / key}.lock if it is gone."
            ) from None
    try:
        yield
    finally:
        lock.release()


def store_files(
    folder: Path,
    key: str,
    built: Mapping[str, Path],
    layout: FeatureLayout,
    facts: Mapping[str, Any],
) -> None:
    """Move built files into the cache, then write the record, with `facts`, that makes them valid.

    `built` has the keys ``"tflite"`` and ``"keras"``; its files are in the cache's file system.
    """
    files = {}
    for ending, path in built.items():
        target = folder / f"{key}.{ending}"
        path.replace(target)
        files[ending] = {"digest": weights_digest(target), "bytes": target.stat().st_size}
    record = {"format": BUILD_FORMAT, **facts, "layout": layout.to_dict(), "files": files}
    write_json(folder / f"{key}.json", record)


def find_files(folder: Path, key: str) -> BackboneFiles | None:
    """Return a backbone's files, or None unless all are there with the recorded digests."""
    paths = {ending: folder / f"{key}.{ending}" for ending in ("tflite", "keras")}
    try:
        with (folder / f"{key}.json").open("rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        layout = FeatureLayout.from_dict(record["layout"])
        digests = {ending: str(record["files"][ending]["digest"]) for ending in paths}
        if record["format"] != BUILD_FORMAT:
            return None
        for ending, path in paths.items():
            # The size first: a truncated file need not be read through.
            complete = path.stat().st_size == record["files"][ending]["bytes"]
            if not complete or weights_digest(path) != digests[ending]:
                return None
    except (OSError, KeyError, TypeError, ValueError, RecursionError, WeightsError):
        return None
    # The cache is pruned by last use. A read-only cache works without that.
    with contextlib.suppress(OSError):
        os.utime(paths["tflite"])
    return BackboneFiles(paths["tflite"], paths["keras"], layout, key, digests["tflite"])
