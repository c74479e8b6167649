"""What a run folder holds on uncertainty and learning curves, as a report shows it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kindsight.bundle import Bundle
from kindsight.errors import BundleError, UsageError
from kindsight.files import read_json
from kindsight.report.values import (
    AccuracyAtSize,
    ClassOutlook,
    LearningCurve,
    PredictionSets,
    RiskCoverage,
    RiskPoint,
    UnknownScore,
)
from kindsight.uncertainty.stored import StoredSets, Unsure

__all__ = ["read_learning_curve", "read_uncertainty"]

LEARNING_CURVE_FILE = "learning_curve.json"

# Limits on untrusted files.
MAX_BYTES = 16 * 1024**2
MAX_ITEMS = 1_000


def read_learning_curve(folder: Path) -> LearningCurve | None:
    """Return the content of ``learning_curve.json``; None if the file is missing.

    Raises BundleError if it is damaged.
    """
    path = folder / LEARNING_CURVE_FILE
    values = _load(path)
    if not values:
        return None
    try:
        return LearningCurve(
            tuple(_at_size(row) for row in _items(values.get("points"))),
            tuple(_at_size(row) for row in _items(values.get("fit"))),
            str(values.get("sentence", "")),
            tuple(
                ClassOutlook(str(row["name"]), str(row["sentence"]))
                for row in _items(values.get("classes"))
                if row.get("sentence")
            ),
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"{type(error).__name__}: {error}. Make it again with kindsight learning-curve."
        raise _damaged(path, why) from error


def read_uncertainty(
    bundle: Bundle,
) -> tuple[RiskCoverage | None, PredictionSets | None, UnknownScore | None]:
    """Return what a bundle holds on unsure predictions, prediction sets and unknown images.

    Raises BundleError for a damaged entry.
    """
    values = bundle.facts.get("uncertainty")
    parts = values if isinstance(values, Mapping) else {}
    try:
        return (
            _risk(parts.get("unsure")),
            _sets(parts.get("sets"), len(bundle.classes)),
            _unknown(parts.get("unknown")),
        )
    except (UsageError, KeyError, TypeError, ValueError, OverflowError) as error:
        why = f"its entry on uncertainty is invalid ({error}). Restore it, or train again."
        raise _damaged(bundle.folder / "bundle.json", why) from error


def _risk(part: object) -> RiskCoverage | None:
    if not isinstance(part, Mapping):
        return None
    found = Unsure.from_dict(part)
    curve = found.curve
    points = zip(curve.thresholds, curve.coverage, curve.accuracy, strict=True)
    return RiskCoverage(
        tuple(RiskPoint(*map(float, point)) for point in points),
        found.threshold,
        found.target_accuracy,
        found.target_coverage,
        curve.images,
        found.source,
    )


def _sets(part: object, classes: int) -> PredictionSets | None:
    if not isinstance(part, Mapping):
        return None
    found = StoredSets.from_dict(part, classes)
    method = str(part.get("method", ""))[:100].upper()
    if part.get("per_class"):
        method += ", for each class"
    return PredictionSets(
        found.confidence_level, method, found.sets.images, found.source, found.mean_size
    )


def _unknown(part: object) -> UnknownScore | None:
    if not isinstance(part, Mapping) or part.get("threshold") is None:
        return None
    return UnknownScore(
        str(part.get("method", ""))[:100],
        float(part["threshold"]),
        float(part["known_kept"]),
        int(part["images"]),
        str(part.get("source", ""))[:200],
    )


def _at_size(row: Mapping[str, Any]) -> AccuracyAtSize:
    return AccuracyAtSize(
        int(row["images"]), *(float(row[name]) for name in ("accuracy", "low", "high"))
    )


def _items(values: object) -> list[Any]:
    if not isinstance(values, list) or len(values) > MAX_ITEMS:
        raise TypeError(f"expected a list of at most {MAX_ITEMS:,} items")
    return values


def _load(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; empty if the file is missing."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, MAX_BYTES)
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise _damaged(path, f"{error}. Delete it, or make it again.") from error


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged: {why}")
