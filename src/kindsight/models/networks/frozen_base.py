"""The lower part of a backbone as a LiteRT file, made once a machine and kept beside its files."""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.digest import content_digest
from kindsight.errors import CacheError
from kindsight.files import write_json
from kindsight.models.backbones.files import BackboneFiles
from kindsight.models.backbones.layout import FeatureLayout
from kindsight.models.backbones.weights import weights_digest
from kindsight.models.networks.fine_tuned import cut_width, layers_after, low_width, stages_of
from kindsight.models.worker.process import KerasProcess

__all__ = [
    "CutCandidate",
    "FrozenBase",
    "ensure_frozen_base",
    "list_cut_candidates",
    "write_frozen_base",
]

FORMAT = 2
"""Raised whenever the same backbone would give other numbers at its cut."""

MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class FrozenBase:
    """The lower part of a backbone.

    Parameters
    ----------
    tflite : pathlib.Path
        LiteRT file: float32 (1, height, width, 3), values 0-255, to float32 (1, low + map).
    stage : str
        After which the cut is.
    low : int
        How many of its numbers are features of the stages up to the cut.
    shape : tuple of int
        Of the map that passes the cut: (height, width, channels).
    digest : str
        Of the file.
    peak : float
        The largest of its numbers, without sign, for generated images.
    """

    tflite: Path
    stage: str
    low: int
    shape: tuple[int, int, int]
    digest: str
    peak: float


def ensure_frozen_base(
    files: BackboneFiles, stage: str, process: KerasProcess, *, features: bool = True
) -> FrozenBase:
    """Find the lower part of a backbone beside its files, or build it there.

    Parameters
    ----------
    files : BackboneFiles
    stage : str
        After which the cut is: one of :func:`.divided.stages_of` its layout; without features any
        layer that gives maps.
    features : bool
        Whether the part gives the features of the stages up to the cut besides.
    process : KerasProcess
        Which knows the job ``"lower"``: :func:`write_frozen_base`.

    Raises
    ------
    CacheError
        Where the cache cannot be written.
    ParityError
        Where Keras and LiteRT do not give the same numbers.
    KindsightError
        Where the process with Keras fails.
    """
    # A layer of a user's own file may have any name.
    word = stage if features else f"{_word(stage)}-map"
    target = files.tflite.with_name(f"{files.key}-{word}-lower{FORMAT}.tflite")
    record = target.with_suffix(".json")
    found = _find(target, record, stage)
    if found is not None:
        return found
    try:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
            made = Path(folder, "lower.tflite")
            answer = process.run_job(
                job="lower",
                keras=str(files.keras.resolve()),
                layout=files.layout.to_dict() if features else None,
                stage=stage,
                tflite=str(made.resolve()),
            )
            told = {name: answer[name] for name in ("low", "shape", "peak")}
            told["digest"] = weights_digest(made)
            # Processes that build it at once build the same; the record comes last.
            made.replace(target)
            write_json(record, told)
    except OSError as error:
        raise CacheError(
            f"The cache folder must be one that can be written. Received: {target.parent}: {error}."
        ) from error
    found = _find(target, record, stage)
    if found is None:
        raise CacheError(f"The cache folder must keep what is written. Received: {target.parent}.")
    return found


def _word(layer: str) -> str:
    digest = content_digest(layer, 4)
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', layer)[:40]}-{digest}"


def _find(target: Path, record: Path, stage: str) -> FrozenBase | None:
    try:
        with record.open("rb") as file:
            told = json.loads(file.read(MAX_RECORD_BYTES))
        height, width, channels = (int(side) for side in told["shape"])
        part = FrozenBase(
            target, stage, int(told["low"]), (height, width, channels), str(told["digest"]),
            float(told["peak"]),
        )  # fmt: skip
        if weights_digest(target) != part.digest:
            return None
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(target)
    return part


def write_frozen_base(
    model: Any, layout: FeatureLayout | None, stage: str, tflite: Path
) -> dict[str, Any]:
    """Build the file of a loaded backbone; in the process with Keras.

    Parameters
    ----------
    model : keras.Model
        From pixels to features.
    layout : FeatureLayout or None
        Of the features; None where only the map is wanted.
    stage : str
        After which the cut is: one of the layout's, or any layer.
    tflite : pathlib.Path
        To be written.

    Returns
    -------
    dict
        ``"low"``, ``"shape"`` and ``"peak"`` as :class:`FrozenBase` has them; ``"difference"`` from
        Keras.
    """
    from kindsight.models.formats.convert import (
        CHECKED_IMAGES,
        check_agreement,
        convert_to_litert,
        make_images,
    )
    from kindsight.models.networks.fine_tuned import build_frozen_base, cut_width, low_width

    lower = build_frozen_base(model, layout, stage)
    converted = convert_to_litert(lower)
    tflite.write_bytes(converted)
    images = make_images(CHECKED_IMAGES, lower.input_shape[1:3])
    return {
        "peak": float(abs(np.asarray(lower(images, training=False))).max()),
        "low": 0 if layout is None else low_width(layout, stage),
        "shape": list(cut_width(model, stage)),
        "difference": check_agreement(lower, converted),
    }


# SECTION: What each place to cut a backbone would cost: how much of it lies above, and what passes.


@dataclass(frozen=True)
class CutCandidate:
    """A place to cut a backbone.

    Parameters
    ----------
    stage : str
        After which the cut is.
    low : int
        How many features of the stages up to the cut go past it.
    shape : tuple of int
        Of the map that passes: (height, width, channels).
    share : float
        Of the network's multiplications above the cut, 0-1.
    """

    stage: str
    low: int
    shape: tuple[int, ...]
    share: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CutCandidate:
        """Make a place of what :meth:`to_dict` gave."""
        return cls(**{**values, "shape": tuple(values["shape"])})


def list_cut_candidates(model: Any, layout: FeatureLayout) -> list[CutCandidate]:
    """Look at every stage of a backbone, the earliest first.

    Parameters
    ----------
    model : keras.Model
        Pixels to features.
    layout : FeatureLayout
        Of the features.
    """
    work = {layer.name: _multiplications(layer) for layer in model.layers}
    total = max(1, sum(work.values()))
    found = []
    for stage in stages_of(layout):
        above = layers_after(model, stage)
        share = sum(work.get(name, 0) for name in above) / total
        found.append(CutCandidate(stage, low_width(layout, stage), cut_width(model, stage), share))
    return found


def _multiplications(layer: Any) -> int:
    """Return how often a layer multiplies by a number of its kernel for one image."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or layer.output.shape[1:] is None:
        return 0
    size = 1
    for side in kernel.shape:
        size *= int(side)
    for side in layer.output.shape[1:-1]:
        size *= int(side)
    return size
