"""A finished run, read back from its folder."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kindsight.bundle import Bundle, load_bundle
from kindsight.dataset.splits.leakage import LEAKAGE_FILE, DuplicateAcrossSplits
from kindsight.encoding import unescape_name
from kindsight.errors import BundleError, SettingsError
from kindsight.report.data import Predictions
from kindsight.runs.folder import FOLDS_TABLE
from kindsight.runs.settings import TrainSettings
from kindsight.training.engine.history import History, load_history

__all__ = ["PREDICTED_SPLITS", "RunImage", "RunProblem", "RunRecord", "load_run", "read_records"]

PREDICTED_SPLITS = ("train", "validation", "test")
"""Splits whose predictions a run may contain, each in a CSV of that name. For the train split, they
are of a sample of the images."""

# Limits on untrusted files.
MAX_TABLE_BYTES = 2 * 1024**3
MAX_CELL = 2**20

OOD_SCORE = "ood_score"
"""Last column of predictions that have an out-of-distribution score. Columns of classes begin with
p_."""

_FIRST_COLUMNS = ["path", "label", "prediction"]


@dataclass(frozen=True)
class RunImage:
    """A readable image of the run's dataset.

    Parameters
    ----------
    path, label : str
        Path and label in the dataset.
    split : str
        ``"train"``, ``"validation"``, ``"test"``, or ``"excluded"`` for a dropped duplicate.
    digest : str
        Content digest; empty if unknown.
    group : str
        Group that stays in one split; empty for none.
    """

    path: str
    label: str
    split: str
    digest: str = ""
    group: str = ""


@dataclass(frozen=True)
class RunProblem:
    """A skipped image or an ignored file: its path, its label or "", a code, and the reason."""

    path: str
    label: str
    code: str
    reason: str


@dataclass(frozen=True)
class RunRecord:
    """The content of a run folder.

    Parameters
    ----------
    folder : pathlib.Path
    bundle : Bundle
        The classifier and the facts of its training.
    settings : TrainSettings or None
        None for a bundle without ``settings.toml``.
    history : History or None
        The epochs; None if there were none.
    predictions : mapping of str to Predictions
        Predictions by split; splits that the folder lacks are missing. After a cross-validation,
        ``"validation"`` has the out-of-fold predictions.
    images : tuple of RunImage
        Empty if ``split.csv`` is missing.
    problems : tuple of RunProblem
        Skipped images and ignored files.
    leakage : tuple of DuplicateAcrossSplits
        Duplicates that were in several splits.
    """

    folder: Path
    bundle: Bundle
    settings: TrainSettings | None
    history: History | None
    predictions: Mapping[str, Predictions]
    images: tuple[RunImage, ...]
    problems: tuple[RunProblem, ...]
    leakage: tuple[DuplicateAcrossSplits, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the probabilities."""
        return self.bundle.classes

    def digests(self, split: str) -> tuple[str | None, ...]:
        """Return the content digests of a split's predicted images, in their order."""
        known = {image.path: image.digest or None for image in self.images}
        return tuple(known.get(path) for path in self.predictions[split].paths)


def load_run(folder: str | os.PathLike[str]) -> RunRecord:
    """Read a finished run.

    Parameters
    ----------
    folder : path
        A run folder; a bundle without the records of its training has empty fields.

    Returns
    -------
    RunRecord

    Raises
    ------
    BundleError
        If there is no finished run, or a file of it is damaged.
    """
    return read_records(load_bundle(folder))


def read_records(bundle: Bundle) -> RunRecord:
    """Return a bundle with the records of its training; BundleError if one is damaged."""
    path = bundle.folder
    settings = None
    if (path / "settings.toml").is_file():
        try:
            settings = TrainSettings.from_toml(path / "settings.toml")
        except SettingsError as error:
            raise BundleError(f"{error} Restore the file, or train again.") from error
    monitor = "loss" if bundle.facts.get("fine_tuning") else "accuracy"
    return RunRecord(
        path,
        bundle,
        settings,
        load_history(path, monitor),
        dict(_predictions(path, bundle.classes)),
        tuple(_read_images(path / "split.csv")),
        tuple(_read_problems(path / "problems.csv")),
        tuple(_read_leakage(path / LEAKAGE_FILE)),
    )


def _predictions(folder: Path, classes: tuple[str, ...]) -> Iterator[tuple[str, Predictions]]:
    for split in PREDICTED_SPLITS:
        for name in (f"{split}.csv", *([FOLDS_TABLE] if split == "validation" else [])):
            if (folder / name).is_file():
                yield split, _read_predictions(folder / name, classes)
                break


def _read_predictions(path: Path, classes: tuple[str, ...]) -> Predictions:
    rows = _rows(path)
    if path.name == FOLDS_TABLE:
        rows = (row[:2] + row[3:] for row in rows)
    header = next(rows, [])
    expected = [*_FIRST_COLUMNS, *(f"p_{name}" for name in classes)]
    scored = header[-1:] == [OOD_SCORE]
    expected += [OOD_SCORE] if scored else []
    if header != expected:
        raise _damaged(path, f"its columns are not {', '.join(expected)[:120]}")
    index = {name: number for number, name in enumerate(classes)}
    paths, targets, values = list[str](), list[int](), list[list[str]]()
    for row in rows:
        if len(row) != len(expected) or row[1] not in index:
            raise _damaged(path, f"line {len(paths) + 2} is invalid")
        paths.append(unescape_name(row[0]))
        targets.append(index[row[1]])
        values.append(row[3:])
    try:
        numbers = np.array(values, np.float32).reshape(len(paths), len(classes) + scored)
    except ValueError:
        raise _damaged(path, "a probability is not a number") from None
    probabilities = numbers[:, : len(classes)]
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise _damaged(path, "a probability is not from 0 to 1")
    scores = numbers[:, -1] if scored else None
    return Predictions(tuple(paths), np.array(targets, np.int64), probabilities, scores)


def _read_images(path: Path) -> Iterator[RunImage]:
    for row in _dicts(path, ("path", "label", "split")):
        yield RunImage(
            unescape_name(row["path"]),
            row["label"],
            row["split"],
            row.get("digest", ""),
            row.get("group", ""),
        )


def _read_problems(path: Path) -> Iterator[RunProblem]:
    for row in _dicts(path, ("path", "label", "code", "reason")):
        yield RunProblem(unescape_name(row["path"]), row["label"], row["code"], row["reason"])


def _read_leakage(path: Path) -> Iterator[DuplicateAcrossSplits]:
    needed = ("group", "path", "label", "split_before", "split_after", "match")
    for row in _dicts(path, needed):
        if not (row["group"].isascii() and row["group"].isdigit() and len(row["group"]) < 10):
            raise _damaged(path, f"{row['group'][:20]!r} is not the number of a group")
        image = (unescape_name(row["path"]), *(row[name] for name in needed[2:]))
        yield DuplicateAcrossSplits(int(row["group"]), *image)


def _dicts(path: Path, needed: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of a table by column name; none if the file is missing."""
    if not path.is_file():
        return
    rows = _rows(path)
    header = next(rows, [])
    if missing := [name for name in needed if name not in header]:
        raise _damaged(path, f"it has no column {missing[0]}")
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise _damaged(path, f"line {number} is invalid")
        yield dict(zip(header, row, strict=True))


def _rows(path: Path) -> Iterator[list[str]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TABLE_BYTES + 1)
        if len(content) > MAX_TABLE_BYTES:
            raise _damaged(path, f"it is larger than {MAX_TABLE_BYTES // 2**20} MB")
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise BundleError(f"Could not read {path}: {error.strerror}.") from error
    except UnicodeDecodeError:
        raise _damaged(path, "it is not UTF-8 text") from None
    previous = csv.field_size_limit(MAX_CELL)
    try:
        yield from csv.reader(io.StringIO(text, newline=""))
    except csv.Error as error:
        raise _damaged(path, str(error)) from None
    finally:
        csv.field_size_limit(previous)


def _damaged(path: Path, why: str) -> BundleError:
    return BundleError(f"{path} is damaged: {why}. Restore it, or train again.")
