"""Backbones joined: two side by side, or over several views of the same image, or both.

All see the same image. The features of one backbone are averaged over the views; those of two
stand side by side. The joined files are made of the backbones' own without TensorFlow
(:mod:`.join_tflite`, :mod:`.join_keras`), so that whoever runs them need not know of views.
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
    find_files,
    keep_files,
    make_once,
)
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.formats.join import join_keras, join_tflite

__all__ = ["join_backbones"]

JOIN_FORMAT = 3
"""Raised whenever the same backbones would be joined to other files."""


def join_backbones(
    parts: Mapping[str, BackboneFiles],
    cache_folder: Path,
    views: Sequence[tuple[int, ...]] | None = None,
) -> BackboneFiles:
    """Find the files of joined backbones in the cache, or make them there.

    Parameters
    ----------
    parts : mapping
        The built backbones by their names, for images of one size.
    cache_folder : pathlib.Path
        The files are kept in its folder ``backbones``.
    views : sequence of tuple of int, optional
        For each backbone, over which views of the image its features are averaged
        (:mod:`.views`); the image as it is if omitted.

    Returns
    -------
    BackboneFiles
        Of all, the first one's features first; ``parts`` are the backbones with their views. A
        single backbone that sees a single view is returned as it is.

    Raises
    ------
    CacheError
        Where the cache cannot be written.
    WeightsError
        Where the files do not fit together.
    """
    seen = list(views or [(0,)] * len(parts))
    if seen == [(0,)]:
        return next(iter(parts.values()))
    every = tuple(
        replace(part, views=looks) for part, looks in zip(parts.values(), seen, strict=True)
    )
    layout = every[0].layout
    if len(every) > 1:
        layout = FeatureLayout.joined({name: files.layout for name, files in parts.items()})
    words = [(files.key, files.views) for files in every]
    told = json.dumps([words, BUILD_FORMAT, JOIN_FORMAT])
    key = f"{'+'.join(parts)[:60]}-{content_digest(told, 8)}"
    folder = Path(cache_folder) / "backbones"
    found = find_files(folder, key) or make_once(
        folder, key, lambda: _make(every, folder, key, layout)
    )
    return replace(found, parts=every)


def _make(
    parts: tuple[BackboneFiles, ...],
    folder: Path,
    key: str,
    layout: FeatureLayout,
) -> None:
    with tempfile.TemporaryDirectory(prefix=f".building-{key}-", dir=folder) as temporary:
        made = {ending: Path(temporary, f"{key}.{ending}") for ending in ("tflite", "keras")}
        views = [part.views for part in parts]
        join_tflite([part.tflite for part in parts], views, made["tflite"])
        join_keras([part.keras for part in parts], views, made["keras"])
        keep_files(
            folder, key, made, layout, {"parts": [part.key for part in parts], "views": views}
        )
