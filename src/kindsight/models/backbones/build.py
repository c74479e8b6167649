"""A backbone's files, built once on a machine and found again afterwards."""

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
from kindsight.models.backbones.files import (
    BUILD_FORMAT,
    BackboneFiles,
    find_files,
    keep_files,
    make_once,
)
from kindsight.models.backbones.table import Backbone, FeatureLayout, get_backbone
from kindsight.models.backbones.weights import check_weights, require_weights, source_digest
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
    given: tuple[int, int] | None = None,
    folded: bool = True,
) -> BackboneFiles:
    """Find a backbone's files in the cache, or build them there.

    Parameters
    ----------
    name : str
        A key of :data:`.backbones.BACKBONES`, or a user's own ``.keras`` file.
    size : tuple of int
        (height, width) in pixels at which the network sees the images.
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
    given : tuple of int, optional
        (height, width) of the images as they come, where the network is to bring them to `size`
        itself; for an EfficientNet-Lite only.
    folded : bool
        Whether batch normalisations are folded into the convolutions before them: half the work
        for a network that stays as it is, but another one for who trains its layers.

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
    ParityError
        Where Keras and LiteRT do not give the same features.
    KindsightError
        Where the process with Keras fails.
    """
    backbone = get_backbone(name)
    size = backbone.check_size(size)
    given = None if given is None or given == size else backbone.check_size(given)
    if given is not None and (backbone.builder or backbone.file):
        raise SettingsError(
            "The network that resizes images itself must be an EfficientNet-Lite. Received: "
            f"{backbone.name}."
        )
    source = "imagenet" if weights is None else str(weights)
    check_weights(backbone, source)
    # A published file is fetched, and its digest compared, when a backbone is built of it.
    key = _key(backbone, size, given, source_digest(backbone, source, seed))
    key += "" if folded else "-unfolded"
    folder = Path(cache_folder) / "backbones"

    def build() -> None:
        if progress is not None:
            progress(
                f"Building {backbone.name} for {size[0]} x {size[1]} pixels, once on this machine."
            )
        with contextlib.ExitStack() as stack:
            keras = process or stack.enter_context(KerasProcess())
            _build(keras, backbone, size, given, source, seed, folder, key, folded=folded)

    found = find_files(folder, key)
    if found is not None:
        return found
    require_weights(backbone, source)
    return make_once(folder, key, build, progress)


def _key(
    backbone: Backbone, size: tuple[int, int], given: tuple[int, int] | None, digest: str
) -> str:
    # Of a user's own file the stages are found by rule: the digest says what they are.
    layout = backbone.layout().to_dict() if backbone.stages else {"rule": 2}
    statistics = content_digest(json.dumps(layout), 4)
    name = re.sub(r"[^A-Za-z0-9.]+", "-", backbone.name)[:40]
    sides = "-of-".join(f"{height}x{width}" for height, width in filter(None, (size, given)))
    return f"{name}-{sides}-{digest[:12]}-{statistics}-{BUILD_FORMAT}"


def _build(
    process: KerasProcess,
    backbone: Backbone,
    size: tuple[int, int],
    given: tuple[int, int] | None,
    weights: str,
    seed: int,
    folder: Path,
    key: str,
    *,
    folded: bool,
) -> None:
    """Build into a folder beside, then rename; the record comes last and makes it count."""
    prefix = f".building-{key}-"
    for left in folder.glob(f"{prefix}*"):  # Of a process that was killed: the lock is ours.
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder) as temporary:
        made = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
        name = backbone.name if backbone.file is None else str(backbone.file)
        answer = process.build(
            name, size, weights=weights, seed=seed, given=given, folded=folded, **made
        )
        layout = FeatureLayout.from_dict(answer["layout"])
        if (backbone.stages and layout != backbone.layout()) or answer["width"] != layout.width:
            raise ParityError(
                f"The backbone {backbone.name} must give the features of its table. Received: "
                f"{answer['width']} features in {len(layout.blocks)} blocks. Please report this "
                "with the version of keras."
            )
        facts = {
            "backbone": backbone.name,
            "size": list(size),
            "given": list(given or size),
            "versions": dict(process.versions),
        }
        keep_files(folder, key, made, layout, {**facts, "difference": answer["difference"]})
