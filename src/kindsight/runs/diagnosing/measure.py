"""Measure images for a diagnosis: their pixel values, and how their files were made."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from kindsight import random_stream
from kindsight.cache.folder import Cache
from kindsight.checks.measurements import Measurements, measure_dataset
from kindsight.checks.rules.source_bias import FEWEST, compare_sources
from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.groups import connected_components
from kindsight.diagnosis.evidence import (
    MAX_PATHS,
    FrozenEstimate,
    LabelEvidence,
    SourceEvidence,
)
from kindsight.digest import content_digest
from kindsight.errors import CacheError, ImageError
from kindsight.models.backbones.backbone import TOP
from kindsight.models.backbones.table import BACKBONES
from kindsight.options import OPTIONS
from kindsight.training.frozen.feature_cache import HALF, FeatureTable

__all__ = ["Measured", "MeasuredImages", "estimate_frozen_head", "measure_images"]

T = TypeVar("T")

SAMPLE = 200
"""Number of images that are measured; takes a few tenths of a second, once per machine."""

MAX_TEXT = 4000
"""Maximum number of characters of a text that is read back."""

MAX_FIT = 2000
"""Maximum number of training images for the estimate of a frozen head."""

RIDGE = 0.1
"""L2 strength of that head, relative to the mean squared feature."""


@dataclass(frozen=True)
class MeasuredImages:
    """Measurements of a sample of the images.

    Parameters
    ----------
    std, largest : float
        Standard deviation of the grey levels, and the largest 99th percentile of an image, 0-255.
    images : int
        Number of measured images.
    source : SourceEvidence, optional
        How well file properties predict the class; None if they do not vary.
    """

    std: float
    largest: float
    images: int
    source: SourceEvidence | None = None


@dataclass(frozen=True)
class Measured:
    """Measurements of a run's images; each is None if it is unknown."""

    images: MeasuredImages | None = None
    labels: LabelEvidence | None = None  # of out-of-fold predictions
    frozen: FrozenEstimate | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the measurements, ready for JSON."""
        return {
            name: None if part is None else asdict(part)
            for name, part in (
                ("images", self.images), ("labels", self.labels), ("frozen", self.frozen)
            )
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], classes: int) -> Measured:
        """Return the measurements of a :meth:`to_dict`; None for each that is damaged.

        `classes` is the number of classes.
        """

        def read(name: str, make: Callable[[Mapping[str, Any]], T]) -> T | None:
            part = data.get(name)
            if not isinstance(part, Mapping):
                return None
            with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
                return make(part)
            return None

        return cls(
            read("images", _read_images),
            read("labels", lambda part: _read_labels(part, classes)),
            read("frozen", _read_estimate),
        )


def _read_images(data: Mapping[str, Any]) -> MeasuredImages:
    std, largest = float(data["std"]), float(data["largest"])
    _require(0 <= std <= 255 and 0 <= largest <= 255)
    source = data.get("source")
    return MeasuredImages(
        std, largest, int(data["images"]), None if source is None else _read_source(source)
    )


def _read_source(data: Mapping[str, Any]) -> SourceEvidence:
    accuracy, low, high, random = (
        float(data[name]) for name in ("accuracy", "low", "high", "random")
    )
    _require(all(0 <= number <= 1 for number in (accuracy, low, high)) and 0 <= random < 1)
    return SourceEvidence(
        accuracy, low, high, random,
        str(data["difference"])[:MAX_TEXT], str(data.get("source", ""))[:MAX_TEXT],
    )  # fmt: skip


def _read_labels(data: Mapping[str, Any], classes: int) -> LabelEvidence:
    images, mistakes, confident = (int(data[k]) for k in ("images", "mistakes", "confident"))
    label, predicted = int(data["label"]), int(data["predicted"])
    majority = float(data["majority"])
    paths = tuple(str(path)[:MAX_TEXT] for path in data["paths"][:MAX_PATHS])
    _require(0 <= confident <= mistakes <= images and 0 <= majority <= 1)
    _require(0 <= label < classes and 0 <= predicted < classes)
    return LabelEvidence(images, mistakes, confident, majority, label, predicted, paths)


def _read_estimate(data: Mapping[str, Any]) -> FrozenEstimate:
    correct, images = int(data["correct"]), int(data["images"])
    _require(0 <= correct <= images and images > 0)
    return FrozenEstimate(correct, images)


def _require(valid: bool) -> None:
    if not valid:
        raise ValueError("a value is out of range")


def measure_images(dataset: ImageDataset, cache: Cache) -> MeasuredImages | None:
    """Measure a sample of the images, or read the measurements from the cache.

    Parameters
    ----------
    dataset : ImageDataset
        The same number of images of each class is measured, where possible. The sample depends on
        the content of the images only, so that another training finds the measurements in the
        cache.
    cache : Cache
        Stores the measurements, which the checks use, too.

    Returns
    -------
    MeasuredImages or None
        None if no image can be read.
    """
    sample = dataset[_sample(dataset)]
    sample, found = measure_dataset(sample, cache)
    rows = np.flatnonzero(found.readable & (sample.targets >= 0))
    if not len(rows):
        return None
    contrast, brightness = (
        np.asarray(column[rows], np.float64) for column in (found.contrast, found.brightness)
    )
    return MeasuredImages(
        math.sqrt(float(np.square(contrast).mean() + brightness.var())),
        float(found.p99[rows].max()),
        len(rows),
        _predict_source(sample, found, rows),
    )


def _sample(dataset: ImageDataset) -> list[int]:
    """Return rows of labelled images, equally many of each class where possible."""
    keys = [digest or path for digest, path in zip(dataset.digest, dataset.path, strict=True)]
    order = sorted(range(len(keys)), key=lambda row: content_digest(f"diagnosis {keys[row]}"))
    targets = dataset.targets
    each = max(FEWEST, SAMPLE // max(1, len(dataset.classes)))
    taken = [0] * len(dataset.classes)
    rows: list[int] = []
    for row in order:
        label = int(targets[row])
        if label >= 0 and taken[label] < each and len(rows) < 2 * SAMPLE:
            taken[label] += 1
            rows.append(row)
    return sorted(rows)


def _predict_source(
    dataset: ImageDataset, measurements: Measurements, rows: NDArray[np.int64]
) -> SourceEvidence | None:
    targets = dataset.targets[rows]
    large = np.flatnonzero(np.bincount(targets, minlength=len(dataset.classes)) >= FEWEST)
    rows = rows[np.isin(targets, large)]
    if len(large) < 2 or dataset.arrays is not None:
        return None
    columns = {name: column[rows] for name, column in _columns(measurements).items()}
    groups = connected_components(
        [dataset.digest[row] for row in rows], [dataset.group[row] for row in rows]
    )
    names = tuple(dataset.classes[k] for k in large)
    found = compare_sources(columns, np.searchsorted(large, dataset.targets[rows]), names, groups)
    if found is None:
        return None
    accuracy, differences = found
    return SourceEvidence(
        accuracy.accuracy, accuracy.low, accuracy.high, accuracy.random, "; ".join(differences),
        "" if accuracy.source is None else names[accuracy.source],
    )  # fmt: skip


def _columns(found: Measurements) -> dict[str, NDArray[Any]]:
    """Return the properties of files that do not depend on what the images show.

    Compression does depend on it: a cracked solar cell needs more bytes than an intact one.
    """
    height, width = found.height.astype(np.float64), found.width.astype(np.float64)
    parts = zip(found.subsampling, found.progressive, found.encoder, strict=True)
    return {
        "size": np.sqrt(height * width),
        "aspect": width / np.maximum(height, 1),
        "quality": found.quality.astype(np.float64),
        "encoder": np.array(
            [f"{s} {'progressive' * int(p)} {e}".strip() for s, p, e in parts], object
        ),
        "format": found.format,
        "mode": found.mode,
        "camera": found.camera,
    }


def estimate_frozen_head(
    dataset: ImageDataset, train: NDArray[np.int64], held_out: NDArray[np.int64], cache: Cache
) -> FrozenEstimate | None:
    """Fit a linear head on cached features of the default backbone; None if any are missing.

    Parameters
    ----------
    dataset : ImageDataset
        With content digests.
    train, held_out : array
        int64 rows; the head is evaluated on the second.
    cache : Cache
        Only read.
    """
    name = str(OPTIONS["model"].default)
    folder = Path(cache.root, "features")
    pattern = f"{name}-[0-9]*x[0-9]*-*-[0-9]*x[0-9]*-crop-auto"
    paths = [path for end in ("", HALF) for path in folder.glob(f"{pattern}{end}.sqlite")]
    layout = BACKBONES[name].layout()
    if not len(train) or not len(held_out):
        return None
    order = random_stream.permutation(0, "diagnosis estimate", 0, len(train))
    rows = np.concatenate([train[np.sort(order[:MAX_FIT])], held_out])
    digests = [str(dataset.digest[row]) for row in rows]
    # Small images may have been trained on at a smaller size than the backbone's default.
    for path in sorted(paths, key=lambda path: _height(path, name), reverse=True):
        with contextlib.suppress(CacheError, OSError, ImageError):
            table = FeatureTable(path, layout.width)
            with contextlib.closing(table):
                if not set(digests) <= table.known(digests):
                    continue
                features = table.vectors(digests)[:, layout[TOP]]
            count = len(rows) - len(held_out)
            correct = _ridge_correct(features, dataset.targets[rows], count)
            return FrozenEstimate(correct, len(held_out))
    return None


def _height(path: Path, backbone: str) -> int:
    """Return the input's height in pixels, from the name of a feature cache; 0 for another name."""
    text = path.name.removeprefix(f"{backbone}-").partition("x")[0]
    return int(text) if text.isdecimal() else 0


def _ridge_correct(features: NDArray[np.float32], targets: NDArray[np.int64], count: int) -> int:
    """Return the number of rows from `count` that ridge regression on the others gets right."""
    mean, spread = features[:count].mean(axis=0), features[:count].std(axis=0)
    scaled = ((features - mean) / np.maximum(spread, 1e-6)).astype(np.float64)
    known, other = scaled[:count], scaled[count:]
    kernel = known @ known.T
    kernel[np.diag_indices(count)] += RIDGE * scaled.shape[1]
    hot = np.eye(int(targets.max()) + 1)[targets[:count]]
    weights = np.linalg.solve(kernel, hot - hot.mean(axis=0))
    scores = other @ (known.T @ weights) + hot.mean(axis=0)
    return int((scores.argmax(axis=1) == targets[count:]).sum())
