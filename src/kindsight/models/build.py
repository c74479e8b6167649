"""A backbone's files, built once on a machine and found again afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.errors import AgreementError, CacheError, WeightsError
from kindsight.files import write_json
from kindsight.models.backbones import Backbone, FeatureLayout, get_backbone
from kindsight.models.keras_process import KerasProcess
from kindsight.models.keras_weights import check_weights, require_weights, source_digest
from kindsight.models.weights import weights_digest

__all__ = [
    "BUILD_FORMAT",
    "BackboneFiles",
    "ensure_backbone",
    "find_files",
    "keep_files",
    "locked",
]

BUILD_FORMAT = 1
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
    views : int
        Over how many views of the picture it averages.
    """

    tflite: Path
    keras: Path
    layout: FeatureLayout
    key: str
    digest: str
    parts: tuple[BackboneFiles, ...] = ()
    views: int = 1


def ensure_backbone(
    name: str,
    size: tuple[int, int],
    cache_folder: Path,
    progress: Callable[[str], None] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    process: KerasProcess | None = None,
) -> BackboneFiles:
    """Find a backbone's files in the cache, or build them there.

    Parameters
    ----------
    name : str
        A key of :data:`.backbones.BACKBONES`, or a user's own ``.keras`` file.
    size : tuple of int
        (height, width) of the pictures in pixels.
    cache_folder : Path
        The files are kept in its folder ``backbones``.
    progress : callable, optional
        Given one sentence where there is something to build or wait for.
    weights : str or Path, optional
        ``"imagenet"`` (the published ones, if omitted), ``"none"`` (random, by the seed), or a
        file: Keras's ``.h5`` or ``.weights.h5``, or for EfficientNet-Lite one of PyTorch.
    seed : int
        Of random weights.
    process : KerasProcess, optional
        Where to build; a process started for it if omitted.

    Returns
    -------
    BackboneFiles
        Whole: their digests were compared with those taken when they were built.

    Raises
    ------
    SettingsError, MissingExtraError, WeightsError
        For a name, size or weights that no backbone can be built of.
    CacheError
        Where the cache cannot be written.
    AgreementError
        Where Keras and LiteRT do not give the same features.
    KindsightError
        Where the process with Keras fails.
    """
    backbone = get_backbone(name)
    size = backbone.check_size(size)
    source = "imagenet" if weights is None else str(weights)
    check_weights(backbone, source)
    # A published file is fetched, and its digest compared, when a backbone is built of it.
    key = _key(backbone, size, source_digest(backbone, source, seed))
    folder = Path(cache_folder) / "backbones"
    found = find_files(folder, key)
    if found is not None:
        return found
    require_weights(backbone, source)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, key, progress):
            # Another process may have built it while this one waited.
            found = find_files(folder, key)
            if found is not None:
                return found
            if progress is not None:
                progress(
                    f"Building {backbone.name} for {size[0]} x {size[1]} pixels, once on this "
                    "machine."
                )
            with contextlib.ExitStack() as stack:
                keras = process or stack.enter_context(KerasProcess())
                _build(keras, backbone, size, source, seed, folder, key)
    except OSError as error:
        raise CacheError(
            f"The cache folder must be one that can be written. Received: {folder}: {error}."
        ) from error
    found = find_files(folder, key)
    if found is None:
        raise CacheError(f"The cache folder must keep what is written. Received: {folder}.")
    return found


def _key(backbone: Backbone, size: tuple[int, int], digest: str) -> str:
    # Of a user's own file the stages are found by rule: the digest says what they are.
    layout = backbone.layout().to_dict() if backbone.stages else {"rule": 1}
    statistics = hashlib.blake2b(json.dumps(layout).encode(), digest_size=4).hexdigest()
    name = re.sub(r"[^A-Za-z0-9.]+", "-", backbone.name)[:40]
    return f"{name}-{size[0]}x{size[1]}-{digest[:12]}-{statistics}-{BUILD_FORMAT}"


@contextlib.contextmanager
def locked(folder: Path, key: str, progress: Callable[[str], None] | None) -> Any:
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


def _build(
    process: KerasProcess,
    backbone: Backbone,
    size: tuple[int, int],
    weights: str,
    seed: int,
    folder: Path,
    key: str,
) -> None:
    """Build into a folder beside, then rename; the record comes last and makes it count."""
    prefix = f".building-{key}-"
    for left in folder.glob(f"{prefix}*"):  # Of a process that was killed: the lock is ours.
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as temporary:
        made = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
        name = backbone.name if backbone.file is None else str(backbone.file)
        answer = process.build(name, size, weights=weights, seed=seed, **made)
        layout = FeatureLayout.from_dict(answer["layout"])
        if (backbone.stages and layout != backbone.layout()) or answer["width"] != layout.width:
            raise AgreementError(
                f"The backbone {backbone.name} must give the features of its table. Received: "
                f"{answer['width']} features in {len(layout.blocks)} blocks. Please report this "
                "with the version of keras."
            )
        facts = {"backbone": backbone.name, "size": list(size), "versions": dict(process.versions)}
        keep_files(folder, key, made, layout, {**facts, "difference": answer["difference"]})


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
