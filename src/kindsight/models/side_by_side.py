"""Backbones joined: two side by side, or over several views of the same picture, or both.

All see the same picture. The features of one backbone are averaged over the views; those of two
stand side by side. The joined files are made of the backbones' own without TensorFlow
(:mod:`.join_tflite`, :mod:`.join_keras`), so that whoever runs them need not know of views.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from kindsight.models.backbone_files import (
    BUILD_FORMAT,
    BackboneFiles,
    find_files,
    keep_files,
    make_once,
)
from kindsight.models.join_keras import join_keras
from kindsight.models.join_tflite import join_tflite
from kindsight.models.layout import FeatureLayout

__all__ = ["join_backbones"]

JOIN_FORMAT = 2
"""Raised whenever the same backbones would be joined to other files."""


def join_backbones(
    parts: Mapping[str, BackboneFiles], cache_folder: Path, views: tuple[int, ...] = (0,)
) -> BackboneFiles:
    """Find the files of joined backbones in the cache, or make them there.

    Parameters
    ----------
    parts : mapping
        The built backbones by their names, for pictures of one size.
    cache_folder : pathlib.Path
        The files are kept in its folder ``backbones``.
    views : tuple of int
        Over which views of the picture the features are averaged (:mod:`.views`).

    Returns
    -------
    BackboneFiles
        Of both, the first one's features first; ``parts`` are the two. A single backbone that
        sees a single view is returned as it is.

    Raises
    ------
    CacheError
        Where the cache cannot be written.
    WeightsError
        Where the files do not fit together.
    """
    every = tuple(parts.values())
    if len(every) == 1 and views == (0,):
        return every[0]
    layout = every[0].layout
    if len(every) > 1:
        layout = FeatureLayout.joined({name: files.layout for name, files in parts.items()})
    words = [*(files.key for files in every), *views, BUILD_FORMAT, JOIN_FORMAT]
    digest = hashlib.blake2b(" ".join(map(str, words)).encode(), digest_size=8)
    key = f"{'+'.join(parts)[:60]}-{digest.hexdigest()}"
    folder = Path(cache_folder) / "backbones"
    found = find_files(folder, key) or make_once(
        folder, key, lambda: _make(every, views, folder, key, layout)
    )
    return replace(found, parts=every, views=views)


def _make(
    parts: tuple[BackboneFiles, ...],
    views: tuple[int, ...],
    folder: Path,
    key: str,
    layout: FeatureLayout,
) -> None:
    with tempfile.TemporaryDirectory(prefix=f".building-{key}-", dir=folder) as temporary:
        made = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
        join_tflite([part.tflite for part in parts], views, made["tflite"])
        join_keras([part.keras for part in parts], views, made["keras"])
        keep_files(
            folder, key, made, layout, {"parts": [part.key for part in parts], "views": views}
        )
