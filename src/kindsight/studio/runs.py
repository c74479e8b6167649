"""The runs of a project as the page shows them: accuracy, mistakes, diagnosis, exports."""

from __future__ import annotations

import glob
import shlex
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from kindsight.bundle import load_bundle
from kindsight.diagnosis.commands import applied, train_command
from kindsight.errors import BundleError, KindsightError
from kindsight.evaluation.metrics import evaluate
from kindsight.export.run import PROOF_FILE
from kindsight.files import read_json
from kindsight.options import OPTIONS
from kindsight.report.data import Predictions
from kindsight.runs.diagnosing.run import read_findings
from kindsight.runs.record import RunRecord, load_run
from kindsight.studio.shapes import Mistake, RunShape, RunSummary

__all__ = [
    "RUNS_FOLDER",
    "count_runs",
    "describe_run",
    "export_file",
    "list_exports",
    "list_runs",
    "run_folder",
]

RUNS_FOLDER = "runs"

MOST_RUNS = 500
MOST_MISTAKES = 500
TOP = 5
"""Number of probabilities shown for a mistake."""

MAX_PROOF_BYTES = 2**24


def run_folder(project: Path, name: str) -> Path:
    """Return the folder of a run; KeyError if there is no such run."""
    folder = project / RUNS_FOLDER / name
    if name in ("", ".", "..") or "/" in name or "\\" in name or not folder.is_dir():
        raise KeyError(f"There is no run {name!r}.")
    return folder


def count_runs(project: Path) -> int:
    """Return the number of runs of a project, unfinished ones included."""
    return len(_folders(project))


def list_runs(project: Path) -> list[RunSummary]:
    """Return the runs of a project, newest first; unfinished ones included."""
    folders = _folders(project)
    folders.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    return [_summary(path) for path in folders[:MOST_RUNS]]


def _folders(project: Path) -> list[Path]:
    parent = project / RUNS_FOLDER
    folders = list(parent.iterdir()) if parent.is_dir() else []
    return [path for path in folders if (path / "settings.toml").is_file()]


def _summary(folder: Path) -> RunSummary:
    try:
        changed = (folder / "bundle.json").stat().st_mtime
    except OSError:
        return _unfinished(folder)
    return {**_read_summary(folder, changed)}


def _unfinished(folder: Path) -> RunSummary:
    return {
        "name": folder.name, "finished": False, "created": folder.stat().st_mtime, "model": "",
        "images": 0, "classes": 0, "split": None, "accuracy": None, "interval": None,
        "seconds": None, "error": "",
    }  # fmt: skip


@lru_cache(MOST_RUNS)
def _read_summary(folder: Path, changed: float) -> RunSummary:
    """Return the summary of a finished run, read again only if its bundle has changed."""
    summary = _unfinished(folder)
    try:
        bundle = load_bundle(folder)
        metrics = bundle.facts.get("metrics") or {}
        split = next((name for name in ("validation", "test") if metrics.get(name)), None)
        scores = metrics[split] if split else {}
        counts = (bundle.facts.get("data") or {}).get("images") or {}
        summary.update({
            "finished": True,
            "created": changed,
            "model": bundle.backbone,
            "images": sum(int(count) for count in counts.values()),
            "classes": len(bundle.classes),
            "split": split,
            "accuracy": scores.get("accuracy"),
            "interval": scores.get("accuracy_interval"),
            "seconds": (bundle.facts.get("seconds") or {}).get("total"),
        })  # fmt: skip
    except (KindsightError, OSError, TypeError, ValueError, AttributeError) as error:
        summary["error"] = str(error)
    return summary


def describe_run(project: Path, name: str, ids: Mapping[str, int]) -> RunShape:
    """Return all data of a finished run for the page.

    - `ids`: the images' ids by path.

    Raises
    ------
    KeyError
        If there is no such run.
    BundleError
        If it is not finished, or damaged.
    """
    folder = run_folder(project, name)
    record = load_run(folder)
    split = next((name for name in ("validation", "test") if name in record.predictions), None)
    shape: RunShape = {
        **_summary(folder),
        "command": _command(record), "labels": list(record.classes), "confusion": [],
        "per_class": [], "mistakes": [], "wrong": 0, "correct": 0, "total": 0,
        "diagnosis": _diagnosis(record), "epochs": [], "best_epoch": None, "words": [],
        "uncertainty": _uncertainty(record), "exports": list_exports(project, name),
        "report": f"/api/reports/runs/{name}" if (folder / "report.html").is_file() else None,
    }  # fmt: skip
    if split is not None:
        shape["split"] = split
        _add_scores(shape, record.predictions[split], record.classes, ids)
    if record.history is not None:
        rows = record.history.rows()
        shape["epochs"] = [row.to_dict() for row in rows]
        shape["best_epoch"] = record.history.best_epoch
    return shape


def _add_scores(
    shape: RunShape, found: Predictions, classes: tuple[str, ...], ids: Mapping[str, int]
) -> None:
    scores = evaluate(found.probabilities, found.targets, classes, resamples=0)
    low, high = scores.accuracy_interval
    shape["accuracy"], shape["interval"] = scores.accuracy, [low, high]
    shape["confusion"] = scores.confusion.tolist()
    shape["per_class"] = [
        {
            "name": each["name"], "images": each["support"], "precision": each["precision"],
            "recall": each["recall"], "interval": each["recall_interval"], "f1": each["f1"],
        }
        for each in (one.to_dict() for one in scores.classes)
    ]  # fmt: skip
    predicted = found.probabilities.argmax(axis=1)
    confidence = found.probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != found.targets)
    shape["wrong"], shape["total"] = len(wrong), len(predicted)
    shape["correct"] = len(predicted) - len(wrong)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:MOST_MISTAKES]
    shape["mistakes"] = [_mistake(found, int(row), classes, ids) for row in wrong]
    shape["words"] = _words(shape)


def _mistake(
    found: Predictions, row: int, classes: tuple[str, ...], ids: Mapping[str, int]
) -> Mistake:
    probabilities = found.probabilities[row]
    order = np.argsort(-probabilities, kind="stable")[:TOP].tolist()
    return {
        "id": ids.get(found.paths[row]),
        "path": found.paths[row],
        "label": classes[int(found.targets[row])],
        "prediction": classes[order[0]],
        "confidence": float(probabilities[order[0]]),
        "probabilities": {classes[index]: float(probabilities[index]) for index in order},
    }


def _words(shape: RunShape) -> list[str]:
    """Return the result in sentences."""
    from kindsight.report.format import interval, percent

    accuracy, ends, split = shape["accuracy"], shape["interval"], shape["split"]
    if accuracy is None or ends is None:
        return []
    words = [
        f"{shape['correct']:,} of {shape['total']:,} {split} images are classified correctly: "
        f"{percent(accuracy)} accuracy (95% CI {interval((ends[0], ends[1]))})."
    ]
    if shape["wrong"]:
        matrix = np.array(shape["confusion"])
        np.fill_diagonal(matrix, 0)
        label, prediction = np.unravel_index(int(matrix.argmax()), matrix.shape)
        count = int(matrix[label, prediction])
        names = shape["labels"]
        words.append(
            f"The most frequent mistake: {count:,} image{'' if count == 1 else 's'} of "
            f"{names[int(label)]!r} classified as {names[int(prediction)]!r}."
        )
    return words


def _command(record: RunRecord) -> str:
    if record.settings is None:
        return ""
    return train_command(record.settings.to_dict(), {}, str(record.folder))


def _diagnosis(record: RunRecord) -> list[dict[str, Any]]:
    """Return the findings of a run, each with the trainings that apply its remedies."""
    settings = {} if record.settings is None else record.settings.to_dict()
    found = []
    for finding in read_findings(record.folder) or ():
        trainings = [{"options": training_options(settings, each)} for each in finding.remedies]
        found.append({**finding.to_dict(), "trainings": trainings})
    return found


def training_options(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a training that differ from the defaults, without its data."""
    values = applied(settings, changes)
    return {
        name: value
        for name, value in values.items()
        if name in OPTIONS
        and name not in ("data", "run", "runs")
        and value != OPTIONS[name].default
        and value is not None
    }


def _uncertainty(record: RunRecord) -> dict[str, Any]:
    parts = record.bundle.uncertainty
    return {
        "unsure": parts.get("unsure", {}).get("threshold"),
        "unknown": parts.get("unknown", {}).get("threshold"),
        "sets": "sets" in parts,
    }


def list_exports(project: Path, run: str | None = None) -> list[dict[str, Any]]:
    """Return the exports of a run, or of all, with their proofs."""
    parent = project / RUNS_FOLDER
    pattern = f"{glob.escape(run) if run else '*'}/export/*/{PROOF_FILE}"
    found = []
    for path in sorted(parent.glob(pattern))[:MOST_RUNS] if parent.is_dir() else ():
        try:
            content = read_json(path, MAX_PROOF_BYTES)
            files = sorted(str(name) for name in content["files"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
        folder = path.parent
        main = max(
            (name for name in files if (folder / name).is_file()),
            key=lambda name: (folder / name).stat().st_size,
            default="",
        )
        name = folder.parent.parent.name
        found.append({
            "run": name, "format": folder.name, "folder": str(folder.relative_to(project)),
            "main": main, "files": files, "bytes": content.get("bytes"),
            "status": content.get("status"), "faults": content.get("faults"),
            "proof": content.get("proof"),
            "command": shlex.join(
                ["kindsight", "export", f"{RUNS_FOLDER}/{name}", "--to", folder.name]
            ),
        })  # fmt: skip
    return found


def export_file(project: Path, run: str, target: str, name: str) -> Path:
    """Return a file of an export; KeyError for one that its proof does not list."""
    for export in list_exports(project, run_folder(project, run).name):
        if export["format"] == target and name in export["files"]:
            folder = project / str(export["folder"])
            path = (folder / name).resolve()
            if path.is_relative_to(folder.resolve()) and path.is_file():
                return path
    raise KeyError(f"There is no file {name!r} in this export.")


def require_finished(project: Path, name: str) -> Path:
    """Return the folder of a finished run; KeyError or BundleError otherwise."""
    folder = run_folder(project, name)
    if not (folder / "bundle.json").is_file():
        raise BundleError(f"The run {name} is not finished.")
    return folder
