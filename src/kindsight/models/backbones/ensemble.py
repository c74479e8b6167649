"""Combine backbones, and TTA variants of each, into one backbone, without TensorFlow.

All members get the same image. The features of one member are averaged over its TTA variants; the
features of several members are concatenated.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kindsight.digest import content_digest
from kindsight.models.backbones.files import (
    BUILD_FORMAT,
    BackboneFiles,
    build_once,
    find_files,
    store_files,
)
from kindsight.models.backbones.join import join_keras, join_tflite
from kindsight.models.backbones.layout import FeatureLayout

__all__ = ["build_ensemble"]

JOIN_FORMAT = 4
"""Increased whenever the same backbones would be joined to other files."""


def build_ensemble(
    backbones: Mapping[str, BackboneFiles],
    cache_folder: Path,
    variants: Sequence[tuple[int, ...]] | None = None,
) -> BackboneFiles:
    """Return the files of an ensemble from the cache, building them first if needed.

    `variants` are the TTA variants (:mod:`.tta`) of each backbone; default: the image itself. All
    backbones take images of one size. A single one without TTA is returned unchanged. CacheError
    when the cache cannot be written; WeightsError for files that do not fit together.
    """
    variants = list(variants or [(0,)] * len(backbones))
    if variants == [(0,)]:
        return next(iter(backbones.values()))
    members = tuple(
        replace(files, variants=chosen)
        for files, chosen in zip(backbones.values(), variants, strict=True)
    )
    layout = members[0].layout
    if len(members) > 1:
        layout = FeatureLayout.concatenated(
            {name: files.layout for name, files in backbones.items()}
        )
    source = json.dumps(
        [[(files.key, files.variants) for files in members], BUILD_FORMAT, JOIN_FORMAT]
    )
    key = f"{'+'.join(backbones)[:60]}-{content_digest(source, 8)}"
    folder = Path(cache_folder) / "backbones"

    def build() -> None:
        with tempfile.TemporaryDirectory(prefix=f".building-{key}-", dir=folder) as temporary:
            built = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
            join_tflite([member.tflite for member in members], variants, built["tflite"])
            join_keras([member.keras for member in members], variants, built["keras"])
            facts = {"members": [member.key for member in members], "variants": variants}
            store_files(folder, key, built, layout, facts)

    found = find_files(folder, key) or build_once(folder, key, build)
    return replace(found, members=members)
