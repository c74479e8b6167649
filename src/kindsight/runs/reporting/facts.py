"""``report.json``: data for a run's report that no other file of the run folder contains."""

from __future__ import annotations

import base64
import binascii
import math
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from kindsight.errors import BundleError
from kindsight.files import read_json, write_json
from kindsight.models.networks.small_cnn import LayerRow
from kindsight.report.data import FeatureMap, HeadCandidateRow, MappedImage, Overlay, Reference
from kindsight.threads import count_cores
from kindsight.training.protocols import FittedModel

__all__ = ["REPORT_FACTS_FILE", "ReportFacts"]

REPORT_FACTS_FILE = "report.json"

FORMAT = 1

# Limits on untrusted files.
MAX_BYTES = 64 * 1024**2
MAX_ITEMS = 10_000
MAX_TEXT = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class ReportFacts:
    """Facts of a training for its report.

    Parameters
    ----------
    notes : tuple of str
        Sentences on the data and the training.
    seconds : mapping of str to float
        Seconds of each stage until the report; ``total`` is the whole run.
    machine : str
        The machine, in one line.
    details : mapping of str to str
        Rows of the section on the training.
    temperature_source : str
        The predictions that the temperature was fitted on; empty if it was not fitted.
    candidates : tuple of HeadCandidateRow
        The heads compared by cross-validation.
    layers : tuple of LayerRow
        The network's layers.
    reference : tuple of Reference
        Published accuracies on the same data.
    features_file : str
        Name of the feature cache that contains the images of a frozen backbone; empty for others.
    overlays : tuple of Overlay
        Saliency maps of the worst mistakes.
    feature_map : FeatureMap or None
        The map of a split's images.
    """

    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    machine: str = ""
    details: Mapping[str, str] = field(default_factory=dict)
    temperature_source: str = ""
    candidates: tuple[HeadCandidateRow, ...] = ()
    layers: tuple[LayerRow, ...] = ()
    reference: tuple[Reference, ...] = ()
    features_file: str = ""
    overlays: tuple[Overlay, ...] = ()
    feature_map: FeatureMap | None = None

    @classmethod
    def of_training(cls, fitted: FittedModel, **more: Any) -> ReportFacts:
        """Return the facts of a fitted model, with `more` fields."""
        sections = fitted.report_sections()
        return cls(
            machine=f"{platform.system()} {platform.machine()}, {count_cores()} cores",
            details=sections.details,
            temperature_source=sections.temperature_source,
            candidates=tuple(
                HeadCandidateRow(
                    item.description, item.accuracy, None, item.log_loss, selected=item.selected
                )
                for item in sections.candidates
            ),
            layers=sections.layers,
            features_file=sections.features_file,
            **more,
        )

    def write(self, folder: Path) -> None:
        """Write ``report.json`` to a run folder."""
        write_json(folder / REPORT_FACTS_FILE, {"format": FORMAT, **self.to_dict()})

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``report.json``."""
        plan = self.feature_map
        return {
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
            "machine": self.machine,
            "details": dict(self.details),
            "temperature_source": self.temperature_source,
            "candidates": [vars(row) for row in self.candidates],
            "layers": [row._asdict() for row in self.layers],
            "reference": [row._asdict() for row in self.reference],
            "features_file": self.features_file,
            "overlays": [_encoded(row) for row in self.overlays],
            "feature_map": None
            if plan is None
            else {**vars(plan), "images": [row._asdict() for row in plan.images]},
        }

    @classmethod
    def read(cls, folder: Path) -> ReportFacts:
        """Read ``report.json`` of a run folder; empty facts if there is none.

        Raises
        ------
        BundleError
            If it is damaged or of a newer format.
        """
        path = folder / REPORT_FACTS_FILE
        if not path.is_file():
            return cls()
        try:
            return cls.from_dict(_load(path))
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise BundleError(
                f"{path} is damaged ({type(error).__name__}: {str(error)[:100]}). Delete it; the "
                "report is then created without the facts in it."
            ) from error

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReportFacts:
        """Return the facts of :meth:`to_dict`; KeyError, TypeError or ValueError if invalid."""
        return cls(
            notes=tuple(_texts(data.get("notes"))),
            seconds={_text(k): _number(v) for k, v in _items(data.get("seconds"))},
            machine=_text(data.get("machine", "")),
            details={_text(k): _text(v) for k, v in _items(data.get("details"))},
            temperature_source=_text(data.get("temperature_source", "")),
            candidates=_rows(data.get("candidates"), _candidate),
            layers=_rows(data.get("layers"), _layer),
            reference=_rows(
                data.get("reference"),
                lambda row: Reference(
                    _text(row["name"]), _number(row["value"]), _text(row["source"])
                ),
            ),
            features_file=_text(data.get("features_file", "")),
            overlays=_rows(data.get("overlays"), _overlay),
            feature_map=_feature_map(data.get("feature_map")),
        )


def _load(path: Path) -> dict[str, Any]:
    try:
        data = read_json(path, MAX_BYTES)
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error
    version = data.get("format")
    if type(version) is int and version > FORMAT:
        raise BundleError(
            f"{path} has format {version}; this kindsight reads formats up to {FORMAT}. Install a "
            "newer kindsight: pip install -U kindsight"
        )
    return data


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {str(value)[:40]!r}")
    return value[:MAX_TEXT]


def _texts(values: object) -> Iterable[str]:
    return (_text(value) for value in _list(values))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"expected a number, got {str(value)[:40]!r}")
    return float(value)


def _optional(value: object) -> float | None:
    return None if value is None else _number(value)


def _list(values: object) -> list[Any]:
    if values is None:
        return []
    if not isinstance(values, list) or len(values) > MAX_ITEMS:
        raise TypeError(f"expected a list of at most {MAX_ITEMS:,} items")
    return values


def _items(values: object) -> Iterable[tuple[Any, Any]]:
    if values is None:
        return ()
    if not isinstance(values, dict) or len(values) > MAX_ITEMS:
        raise TypeError(f"expected an object of at most {MAX_ITEMS:,} items")
    return values.items()


def _rows(values: object, make: Callable[[Mapping[str, Any]], T]) -> tuple[T, ...]:
    return tuple(make(dict(_items(row))) for row in _list(values))


def _candidate(row: Mapping[str, Any]) -> HeadCandidateRow:
    return HeadCandidateRow(
        _text(row["name"]), _number(row["accuracy"]), _optional(row["spread"]),
        _number(row["log_loss"]), _optional(row["seconds"]), row["selected"] is True,
    )  # fmt: skip


def _layer(row: Mapping[str, Any]) -> LayerRow:
    output = tuple(int(_number(side)) for side in _list(row["output"]))
    return LayerRow(
        _text(row["name"]), _text(row["kind"]), output, int(_number(row["parameters"])),
        _text(row.get("trainable", "")),
    )  # fmt: skip


def _encoded(row: Overlay) -> dict[str, Any]:
    files = {name: base64.b64encode(getattr(row, name)).decode() for name in ("image", "overlay")}
    return {**vars(row), **files}


def _overlay(row: Mapping[str, Any]) -> Overlay:
    label = row["label"]
    image, overlay = (
        base64.b64decode(row[name].encode(), validate=True) for name in ("image", "overlay")
    )
    return Overlay(
        _text(row["path"]), image, overlay, None if label is None else _text(label),
        _text(row["prediction"]), _number(row["confidence"]), _text(row["method"]),
    )  # fmt: skip


def _feature_map(value: object) -> FeatureMap | None:
    if value is None:
        return None
    data = dict(_items(value))
    images = _rows(
        data["images"],
        lambda row: MappedImage(_text(row["path"]), _number(row["x"]), _number(row["y"])),
    )
    return FeatureMap(
        _text(data["split"]), _text(data["method"]), images, _optional(data.get("explained"))
    )
