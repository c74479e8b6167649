"""The frozen base of a backbone as a LiteRT file, built once per machine; candidate cuts."""

from __future__ import annotations

import contextlib
import json
import math
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
from kindsight.files import replace_file, write_json
from kindsight.models.backbones.backbone import FeatureLayout
from kindsight.models.backbones.build import BackboneFiles
from kindsight.models.backbones.weights import weights_digest
from kindsight.models.networks.fine_tuned import (
    activation_shape,
    base_feature_count,
    build_frozen_base,
    layers_after,
    load_network,
    stages_of,
)
from kindsight.models.worker.process import KerasProcess

__all__ = [
    "CutCandidate", "FrozenBase", "ensure_frozen_base", "frozen_base_job", "list_cut_candidates",
]  # fmt: skip

FORMAT = 3
"""Increased whenever the same backbone would give other activations, or the record changes."""

MAX_RECORD_BYTES = 2**20


@dataclass(frozen=True)
class FrozenBase:
    """The layers of a backbone up to a cut.

    Parameters
    ----------
    tflite : pathlib.Path
        float32 (1, height, width, 3), values 0-255, to float32 (1, features + activations).
    stage : str
        The cut is after this stage or layer.
    features : int
        Number of features of the stages up to the cut.
    shape : tuple of int
        (height, width, channels) of the activations at the cut.
    digest : str
        Of the file.
    peak : float
        Largest absolute value of the outputs for generated images.
    """

    tflite: Path
    stage: str
    features: int
    shape: tuple[int, int, int]
    digest: str
    peak: float


def ensure_frozen_base(
    files: BackboneFiles, stage: str, process: KerasProcess, *, features: bool = True
) -> FrozenBase:
    """Return the frozen base of a backbone; build it next to the backbone's files if it is missing.

    `stage` is one of :func:`.fine_tuned.stages_of`, or without `features`, the features of the
    stages up to the cut among the outputs, any layer with feature maps. `process` has the job
    ``"frozen-base"``, :func:`frozen_base_job`. CacheError if the cache is not writable; ParityError
    if Keras and LiteRT give different outputs; KindsightError if the worker process fails.
    """
    word = stage if features else f"{_file_word(stage)}-map"
    target = files.tflite.with_name(f"{files.key}-{word}-base{FORMAT}.tflite")
    record = target.with_suffix(".json")
    found = _find(target, record, stage)
    if found is not None:
        return found
    try:
        with tempfile.TemporaryDirectory(prefix=".building-", dir=target.parent) as folder:
            built = Path(folder, "base.tflite")
            result = process.run_job(
                job="frozen-base",
                keras=str(files.keras.resolve()),
                layout=files.layout.to_dict() if features else None,
                stage=stage,
                tflite=str(built.resolve()),
            )
            facts = {name: result[name] for name in ("features", "shape", "peak")}
            facts["digest"] = weights_digest(built)
            # Processes that build it at the same time build the same; the record comes last.
            replace_file(built, target)
            write_json(record, facts)
    except OSError as error:
        raise CacheError(f"Cannot write to the cache folder {target.parent}: {error}.") from error
    found = _find(target, record, stage)
    if found is None:
        raise CacheError(
            f"Files in the cache folder {target.parent} disappear or change after writing."
        )
    return found


def _file_word(layer: str) -> str:
    """Return a file-name-safe word for a layer of any name."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', layer)[:40]}-{content_digest(layer, 4)}"


def _find(target: Path, record: Path, stage: str) -> FrozenBase | None:
    try:
        with record.open("rb") as file:
            facts = json.loads(file.read(MAX_RECORD_BYTES))
        height, width, channels = (int(side) for side in facts["shape"])
        base = FrozenBase(
            target, stage, int(facts["features"]), (height, width, channels),
            str(facts["digest"]), float(facts["peak"]),
        )  # fmt: skip
        if weights_digest(target) != base.digest:
            return None
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None
    with contextlib.suppress(OSError):
        os.utime(target)
    return base


def frozen_base_job(job: dict[str, Any], connection: object) -> dict[str, Any]:
    """Write the frozen base as a job of the worker process; see :func:`ensure_frozen_base`."""
    layout = None if job["layout"] is None else FeatureLayout.from_dict(job["layout"])
    return write_frozen_base(load_network(job["keras"]), layout, job["stage"], Path(job["tflite"]))


def write_frozen_base(
    model: Any, layout: FeatureLayout | None, stage: str, tflite: Path
) -> dict[str, Any]:
    """Write the frozen base of a loaded backbone; arguments as of :func:`.build_frozen_base`.

    Returns ``"features"``, ``"shape"`` and ``"peak"`` as in :class:`FrozenBase`, and the
    ``"difference"`` between Keras and LiteRT.
    """
    from kindsight.models.runtime import (
        CHECKED_IMAGES,
        check_agreement,
        convert_to_litert,
        make_images,
    )

    base = build_frozen_base(model, layout, stage)
    converted = convert_to_litert(base)
    tflite.write_bytes(converted)
    images = make_images(CHECKED_IMAGES, base.input_shape[1:3])
    peaks = [
        float(abs(np.asarray(base(images[at : at + 1], training=False))).max())
        for at in range(len(images))
    ]
    return {
        "peak": max(peaks),
        "features": 0 if layout is None else base_feature_count(layout, stage),
        "shape": list(activation_shape(model, stage)),
        "difference": check_agreement(base, converted),
    }


@dataclass(frozen=True)
class CutCandidate:
    """A possible cut of a backbone, after a stage, and its costs.

    `features` and `shape` are as in :class:`FrozenBase`; `work_above` is the fraction of the
    network's multiplications above the cut.
    """

    stage: str
    features: int
    shape: tuple[int, ...]
    work_above: float

    def to_dict(self) -> dict[str, Any]:
        """Return the candidate as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CutCandidate:
        """Restore a candidate from :meth:`to_dict`."""
        return cls(**{**values, "shape": tuple(values["shape"])})


def list_cut_candidates(model: Any, layout: FeatureLayout) -> list[CutCandidate]:
    """Return a cut after each stage of a backbone (pixels to features), from the input on."""
    work = {layer.name: _multiplications(layer) for layer in model.layers}
    total = max(1, sum(work.values()))
    found = []
    for stage in stages_of(layout):
        above = sum(work.get(name, 0) for name in layers_after(model, stage)) / total
        shape = activation_shape(model, stage)
        found.append(CutCandidate(stage, base_feature_count(layout, stage), shape, above))
    return found


def _multiplications(layer: Any) -> int:
    """Return the number of multiplications of a layer for one image."""
    kernel = getattr(layer, "kernel", None)
    if kernel is None or layer.output.shape[1:] is None:
        return 0
    return math.prod(int(side) for side in (*kernel.shape, *layer.output.shape[1:-1]))
