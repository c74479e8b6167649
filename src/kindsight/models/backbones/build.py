"""Build a backbone's files once per machine, and find them again afterwards."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from kindsight.digest import content_digest
from kindsight.errors import ParityError, SettingsError
from kindsight.models.backbones.backbone import Backbone
from kindsight.models.backbones.files import (
    BUILD_FORMAT,
    BackboneFiles,
    build_once,
    find_files,
    store_files,
)
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.table import get_backbone
from kindsight.models.backbones.weights import (
    WEIGHTS,
    check_weights,
    require_weights,
    source_digest,
)
from kindsight.models.worker.process import KerasProcess

__all__ = ["ensure_backbone"]


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
        ``.weights.h5``, or for EfficientNet-Lite one of PyTorch.
    process : KerasProcess, optional
        The worker to build in; a new one is started by default.
    input_size : tuple of int, optional
        (height, width) of the images given to an EfficientNet-Lite, which resizes them to `size`.
    fold_batch_norm : bool
        Whether to fold batch normalisations into convolutions, which halves the work of a frozen
        network; layers that are to be trained need them.
    """
    backbone = get_backbone(name)
    size = backbone.check_size(size)
    input_size = size if input_size is None else backbone.check_size(input_size)
    if input_size != size and (backbone.builder or backbone.file):
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
    layout = backbone.layout().to_dict() if backbone.stages else {"rule": 2}
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
