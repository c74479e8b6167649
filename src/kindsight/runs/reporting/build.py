"""The report of a finished run, from its folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from kindsight.bundle import Bundle
from kindsight.cache.folder import Cache
from kindsight.dataset.names import IgnoredFile
from kindsight.errors import BundleError, UsageError
from kindsight.evaluation import Evaluation, distinct_images
from kindsight.files import read_json
from kindsight.report.data import (
    CROSS_VALIDATION,
    AccuracyAtSize,
    ClassOutlook,
    FeatureMap,
    LearningCurve,
    Predictions,
    PredictionSets,
    ReportData,
    RiskCoverage,
    RiskPoint,
    SkippedImage,
    SplitResult,
    TrainingSummary,
    UnknownScore,
)
from kindsight.report.gallery import LARGE, SMALL, choose_images, thumbnail_uri
from kindsight.runs.diagnosing.run import read_findings
from kindsight.runs.evaluate import report_slices
from kindsight.runs.record import RunRecord
from kindsight.runs.reporting.facts import ReportFacts
from kindsight.runs.reporting.images import find_images
from kindsight.storage.address import title_of
from kindsight.threads import count_cores, map_ordered, single_threaded_opencv
from kindsight.uncertainty.stored import StoredSets, Unsure

__all__ = ["report_data", "report_thumbnails"]

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
        why = f"{type(error).__name__}: {error}. Create it again with kindsight learning-curve."
        raise _damaged(path, why) from error


def read_uncertainty(
    bundle: Bundle,
) -> tuple[RiskCoverage | None, PredictionSets | None, UnknownScore | None]:
    """Return a bundle's data on unsure predictions, prediction sets and unknown images.

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
        raise _damaged(path, f"{error}. Delete it, or create it again.") from error


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged: {why}")


SPLITS = ("test", "validation")
"""The evaluated splits; the first one that a run has is shown in the headline."""

MAX_MAPPED = 400
"""Maximum number of images in the feature map."""

FORMATS = {"large_images": (LARGE, 82), "small_images": (SMALL, 72), "map_images": (40, 65)}
"""Longer side in pixels and JPEG quality of the thumbnails: about 5, 2.5 and 1 kB each."""

Thumbnails: TypeAlias = Mapping[str, Mapping[str, str]]

READ_SIDES = {"large_images": 2 * LARGE, "small_images": 2 * LARGE, "map_images": 40}
"""Minimum longer side at which their images are read."""


def report_data(
    record: RunRecord,
    *,
    cache: str | os.PathLike[str] | None = None,
    images: Thumbnails | None = None,
) -> ReportData:
    """Return the content of a run's report; see :func:`.make_report`.

    - `images`: the result of :func:`report_thumbnails`; they are read if omitted. With an empty
      mapping, the report has no images.
    """
    facts, bundle = ReportFacts.read(record.folder), record.bundle
    results = summary_of_splits(record)
    if images is None:
        images = report_thumbnails(record, facts.feature_map, facts.features_file, cache)
    history = record.history
    risk, sets, unknown = read_uncertainty(bundle)
    return ReportData(
        title=_title(record),
        run=record.folder.resolve().name,
        created=str(bundle.facts.get("created", "")).replace("T", " ").replace("+00:00", " UTC"),
        training=_summary(record, facts),
        results=results,
        reference=facts.reference,
        large_images=images.get("large_images", {}),
        small_images=images.get("small_images", {}),
        map_images=images.get("map_images", {}),
        skipped=tuple(
            SkippedImage(item.path, item.code, item.reason, item.label)
            for item in record.problems
            if item.code != "ignored"
        ),
        ignored=tuple(
            IgnoredFile(item.path, item.reason.rstrip(".").lower(), item.label or None)
            for item in record.problems
            if item.code == "ignored"
        ),
        leakage=record.leakage,
        notes=facts.notes,
        run_folder=str(record.folder),
        settings={}
        if record.settings is None
        else {name: str(value) for name, value in record.settings.to_dict().items()},
        history=() if history is None else history.rows(),
        best_epoch=None if history is None else history.best_epoch,
        diagnoses=read_findings(record.folder) or (),
        risk_coverage=risk,
        prediction_sets=sets,
        unknown=unknown,
        slices=report_slices(record, Cache(cache)),
        overlays=facts.overlays,
        feature_map=facts.feature_map,
        learning_curve=read_learning_curve(record.folder),
    )


def summary_of_splits(record: RunRecord) -> tuple[SplitResult, ...]:
    """Return the evaluated splits with the predictions of their distinct images."""
    metrics = record.bundle.facts.get("metrics")
    folds = record.settings is not None and bool(record.settings.folds)
    results = []
    for split in SPLITS:
        values = metrics.get(split) if isinstance(metrics, Mapping) else None
        if not isinstance(values, Mapping):
            continue
        try:
            evaluation = Evaluation.from_dict(values)
        except UsageError as error:
            raise BundleError(
                f"{record.folder / 'bundle.json'} is damaged: {error} Restore it, or train again."
            ) from error
        name = CROSS_VALIDATION if folds and split == "validation" else split
        results.append(SplitResult(name, evaluation, _distinct(record, split)))
    return tuple(results)


def _distinct(record: RunRecord, split: str) -> Predictions | None:
    """Return the predictions that the metrics count: those of distinct images."""
    predictions = record.predictions.get(split)
    if predictions is None or not len(predictions):
        return None
    return predictions[distinct_images(record.digests(split), predictions.targets)]


def _title(record: RunRecord) -> str:
    if record.settings is None:
        return record.folder.resolve().name
    return title_of(str(record.settings.data)) or "run"


def _summary(record: RunRecord, facts: ReportFacts) -> TrainingSummary:
    bundle, settings = record.bundle, record.settings
    counts: dict[str, dict[str, int]] = {name: {} for name in record.classes}
    for image in record.images:
        if image.label in counts:
            row = counts[image.label]
            row[image.split] = row.get(image.split, 0) + 1
    digests = [image.digest for image in record.images if image.digest]
    details = dict(facts.details)
    parity, data = _entries(bundle.facts, "parity"), _entries(bundle.facts, "data")
    if "largest_difference" in parity and "images" in parity:
        details["Keras and LiteRT"] = (
            f"probabilities agree to {float(parity['largest_difference']):.1e} on "
            f"{parity['images']} images"
        )
    if "digest" in data:
        details["Data"] = f"digest {data['digest']}"
    return TrainingSummary(
        source="" if settings is None else settings.data,
        classes=counts,
        input_size=bundle.spec.size,
        temperature=bundle.temperature,
        temperature_source=facts.temperature_source,
        seed=int(bundle.facts.get("seed", 0)),
        seconds=facts.seconds,
        duplicates=len(digests) - len(set(digests)),
        versions={str(k): str(v) for k, v in _entries(bundle.facts, "versions").items()},
        machine=facts.machine,
        details=details,
        candidates=facts.candidates,
        layers=facts.layers,
    )


def _entries(facts: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = facts.get(name)
    return found if isinstance(found, Mapping) else {}


def report_thumbnails(
    record: RunRecord,
    feature_map: FeatureMap | None,
    features_file: str,
    cache: str | os.PathLike[str] | None,
) -> Thumbnails:
    """Return the thumbnails of galleries, cells and feature map: fields of `ReportData`."""
    results = summary_of_splits(record)
    paths: dict[str, list[str]] = {"large_images": [], "small_images": [], "map_images": []}
    predictions = results[0].predictions if results else None
    if predictions is not None:
        gallery = choose_images(predictions)
        paths["large_images"] = [predictions.paths[row] for row in gallery.large]
        paths["small_images"] = [predictions.paths[row] for row in gallery.small]
    if feature_map is not None:
        paths["map_images"] = [image.path for image in feature_map.images[:MAX_MAPPED]]
    wanted = {path for group in paths.values() for path in group}
    digest_of = {
        image.path: image.digest for image in record.images if image.digest and image.path in wanted
    }
    sides: dict[str, int] = {}
    for name, group in paths.items():
        for digest in (digest_of[path] for path in group if path in digest_of):
            sides[digest] = max(sides.get(digest, 0), READ_SIDES[name])
    images = find_images(record, sides, features_file, Cache(cache))
    shown = [
        (name, path)
        for name, group in paths.items()
        for path in dict.fromkeys(group)
        if digest_of.get(path) in images
    ]

    def encode(item: tuple[str, str]) -> str:
        name, path = item
        return thumbnail_uri(images[digest_of[path]], *FORMATS[name])

    found: dict[str, dict[str, str]] = {name: {} for name in paths}
    with single_threaded_opencv():
        encoded = list(map_ordered(encode, shown, count_cores()))
    for (name, path), uri in zip(shown, encoded, strict=True):
        found[name][path] = uri
    return found
