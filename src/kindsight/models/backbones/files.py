"""A backbone's files in the cache: found whole or not at all, and made by one process at a time."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.errors import CacheError, WeightsError
from kindsight.files import write_json
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.weights import weights_digest

__all__ = ["BUILD_FORMAT", "BackboneFiles", "find_files", "keep_files", "make_once"]

BUILD_FORMAT = 3
"""Raised whenever the same weights would give other features, or other files."""

LOCK_SECONDS = 900.0
MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class BackboneFiles:
    """A built backbone.

    Parameters
    ----------
    tflite : Path
        LiteRT file: ``"pixels"``, float32 (1, height, width, 3) with values 0-255, to
        ``"features"``, float32 (1, layout.width). Its batch can be resized.
    keras : Path
        The same as a Keras file, the template of :func:`.assemble.write_keras`.
    layout : FeatureLayout
    key : str
        What the files were made of, fit for a file's name.
    digest : str
        Of the LiteRT file: features are the same where this is the same.
    parts : tuple of BackboneFiles
        The backbones that it was joined from; none where it is one as it was built.
    views : tuple of int
        As a part of others: over which views of the image it averages (:mod:`.views`).
    """

    tflite: Path
    keras: Path
    layout: FeatureLayout
    key: str
    digest: str
    parts: tuple[BackboneFiles, ...] = ()
    views: tuple[int, ...] = (0,)


def make_once(
    folder: Path, key: str, make: Callable[[], None], progress: Callable[[str], None] | None = None
) -> BackboneFiles:
    """Make files that are not there yet, in one process of the machine at a time.

    Parameters
    ----------
    folder : pathlib.Path
        The folder ``backbones`` of the cache.
    key : str
        Of the files.
    make : callable
        Puts them there, as :func:`keep_files` does.
    progress : callable, optional
        Told, in words, where another process has to be waited for.

    Raises
    ------
    CacheError
        Where the cache cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, key, progress):
            # Another process may have made them while this one waited.
            found = find_files(folder, key)
            if found is not None:
                return found
            make()
    except OSError as error:
        raise CacheError(
            f"The cache folder must be one that can be written. Received: {folder}: {error}."
        ) from error
    found = find_files(folder, key)
    if found is None:
        raise CacheError(f"The cache folder must keep what is written. Received: {folder}.")
    return found


@contextlib.contextmanager
def _locked(folder: Path, key: str, progress: Callable[[str], None] | None) -> Any:
    """Let one process of the machine build at a time."""
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
                f"A backbone must be built within {LOCK_SECONDS:g} seconds. Received: a process "
                f"that still holds {folder / key}.lock."
            ) from None
    try:
        yield
    finally:
        lock.release()


def keep_files(
    folder: Path,
    key: str,
    made: Mapping[str, Path],
    layout: FeatureLayout,
    facts: Mapping[str, Any],
) -> None:
    """Put finished files in their place; the record of them comes last and makes them count.

    Parameters
    ----------
    folder : pathlib.Path
        The folder ``backbones`` of the cache.
    key : str
    made : mapping
        The finished files in the same file system, by ``"tflite"`` and ``"keras"``.
    layout : FeatureLayout
    facts : mapping
        More for the record.
    """
    files = {}
    for ending, path in made.items():
        target = folder / f"{key}.{ending}"
        path.replace(target)
        files[ending] = {"digest": weights_digest(target), "bytes": target.stat().st_size}
    record = {"format": BUILD_FORMAT, **facts, "layout": layout.to_dict(), "files": files}
    write_json(folder / f"{key}.json", record)


def find_files(folder: Path, key: str) -> BackboneFiles | None:
    """Return a built backbone, or None where it is not there whole."""
    paths = {ending: folder / f"{key}.{ending}" for ending in ("tflite", "keras")}
    try:
        with (folder / f"{key}.json").open("rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        layout = FeatureLayout.from_dict(record["layout"])
        digests = {ending: str(record["files"][ending]["digest"]) for ending in paths}
        if record["format"] != BUILD_FORMAT:
            return None
        for ending, path in paths.items():
            # The size first: a file cut short need not be read through.
            whole = path.stat().st_size == record["files"][ending]["bytes"]
            if not whole or weights_digest(path) != digests[ending]:
                return None
    except (OSError, KeyError, TypeError, ValueError, RecursionError, WeightsError):
        return None
    # For the cache's order of last use; a cache that may only be read is of use without it.
    with contextlib.suppress(OSError):
        os.utime(paths["tflite"])
    return BackboneFiles(paths["tflite"], paths["keras"], layout, key, digests["tflite"])
