"""Build a backbone's files once per machine, and find them again in the cache.

The files in the cache are complete or not used, and built by one process at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kindsight.cache.folder import mark_used
from kindsight.cache.location import choose_cache
from kindsight.digest import content_digest
from kindsight.errors import CacheError, ParityError, SettingsError, WeightsError
from kindsight.files import replace_file, write_json
from kindsight.models.backbones.backbone import Backbone, FeatureLayout
from kindsight.models.backbones.table import get_backbone
from kindsight.models.backbones.weights import (
    WEIGHTS,
    check_weights,
    require_weights,
    source_digest,
    weights_digest,
)
from kindsight.models.worker.process import KerasProcess
from kindsight.threads import map_ordered

__all__ = [
    "BUILD_FORMAT",
    "BackboneFiles",
    "build_once",
    "ensure_backbone",
    "find_files",
    "store_files",
]

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


def ensure_backbone(
    name: str,
    size: tuple[int, int],
    cache_folder: Path,
    progress: Callable[[str], None] | None = None,
    *,
    weights: str | Path | None = None,
    seed: int = 0,
    process: KerasProcess | None = None,
    input_size: tuple[int, int] | None = None,
    fold_batch_norm: bool = True,
    layers: tuple[str, tuple[str | int, ...]] | None = None,
) -> BackboneFiles:
    """Return a backbone's files from the cache, building them first if needed.

    SettingsError, MissingExtraError and WeightsError for a name, size or weights that no backbone
    can be built from; CacheError when the cache cannot be written; ParityError when Keras and
    LiteRT do not give the same features; KindsightError when the Keras worker process fails.

    Parameters
    ----------
    name : str
        A key of :data:`.table.BACKBONES`, or a ``.keras`` file.
    size : tuple of int
        (height, width) in pixels of the images that the network computes features of.
    cache_folder : Path
        The files are stored in its folder ``backbones``.
    progress : callable, optional
        Called with one sentence when there is something to build or wait for.
    weights : str or Path, optional
        ``"imagenet"`` (default), ``"none"`` (random), or a file: Keras's ``.h5`` or
        ``.weights.h5``, or for some backbones one of PyTorch or safetensors.
    process : KerasProcess, optional
        The worker to build in; a new one is started by default.
    input_size : tuple of int, optional
        (height, width) of the images given to an EfficientNet-Lite, which resizes them to `size`.
    fold_batch_norm : bool
        Whether to fold batch normalisations into convolutions, which halves the work of a frozen
        network; layers that are to be trained need them.
    layers : (str, tuple of (str or int)), optional
        The cut layer, or ``""``, and the frozen layers of each phase: SettingsError, before the
        backbone is built, if it lacks them.
    """
    backbone = get_backbone(name)
    size = backbone.check_size(size)
    input_size = size if input_size is None else backbone.check_size(input_size)
    if input_size != size and (backbone.builder or backbone.file or backbone.required_file):
        raise SettingsError(
            "Only an EfficientNet-Lite can resize images inside the network; got "
            f"{backbone.name}. Use one size."
        )
    source = "imagenet" if weights is None else str(weights)
    check_weights(backbone, source)
    # Weights to be downloaded are checked against their published digest when they are loaded.
    key = _key(backbone, size, input_size, source_digest(backbone, source, seed))
    key += "" if fold_batch_norm else "-unfolded"
    folder = Path(cache_folder) / "backbones"
    mark_used(folder)
    found = find_files(folder, key)
    if found is not None:
        return found
    require_weights(backbone, source)

    def build() -> None:
        if progress is not None:
            progress(
                f"Building {backbone.name} for {size[0]} x {size[1]} pixels, once on this machine."
            )
        for old in folder.glob(f".building-{key}-*"):  # of a process that was killed
            shutil.rmtree(old, ignore_errors=True)
        with contextlib.ExitStack() as stack:
            keras = process or stack.enter_context(KerasProcess())
            temporary = stack.enter_context(
                tempfile.TemporaryDirectory(prefix=f".building-{key}-", dir=folder)
            )
            built = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
            result = keras.build(
                backbone.name if backbone.file is None else str(backbone.file),
                size,
                weights=source if source in WEIGHTS else str(Path(source).resolve()),
                seed=seed,
                input_size=None if input_size == size else input_size,
                fold_batch_norm=fold_batch_norm,
                layers=layers,
                **built,
            )
            layout = FeatureLayout.from_dict(result["layout"])
            _check_layout(backbone, layout, result["width"])
            facts = {
                "backbone": backbone.name,
                "size": list(size),
                "input_size": list(input_size),
                "versions": dict(keras.versions),
                "difference": result["difference"],
            }
            store_files(folder, key, built, layout, facts)

    return build_once(folder, key, build, progress)


def _key(
    backbone: Backbone, size: tuple[int, int], input_size: tuple[int, int], digest: str
) -> str:
    # The stages of a user's own file are found by a rule, given the file: its digest is enough.
    layout = backbone.layout().to_dict() if backbone.stages else {"rule": 3}
    statistics = content_digest(json.dumps(layout), 4)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", backbone.name)[:40]
    sizes = (size,) if input_size == size else (size, input_size)
    sides = "-of-".join(f"{height}x{width}" for height, width in sizes)
    return f"{name}-{sides}-{digest[:12]}-{statistics}-{BUILD_FORMAT}"


def _check_layout(backbone: Backbone, layout: FeatureLayout, width: int) -> None:
    if (backbone.stages and layout != backbone.layout()) or width != layout.width:
        raise ParityError(
            f"Keras built {backbone.name} with {width} features in {len(layout.blocks)} blocks, "
            "which differs from the table of backbones. Please report this with the version of "
            "keras."
        )


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
            f"or {choose_cache(folder, 'a folder on another disk')}."
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
        replace_file(path, target)
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
        # The sizes first: a truncated file need not be read through.
        if any(path.stat().st_size != record["files"][k]["bytes"] for k, path in paths.items()):
            return None
        found = map_ordered(weights_digest, paths.values(), len(paths))
        if dict(zip(paths, found, strict=True)) != digests:
            return None
    except (OSError, KeyError, TypeError, ValueError, RecursionError, WeightsError):
        return None
    # The cache is pruned by last use. A read-only cache works without that.
    with contextlib.suppress(OSError):
        os.utime(paths["tflite"])
    return BackboneFiles(paths["tflite"], paths["keras"], layout, key, digests["tflite"])
