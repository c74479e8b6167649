"""The starting point of experiments: the original run, its test split, and folds of the rest."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kindsight.dataset import ImageDataset
from kindsight.dataset.splits.from_file import write_split
from kindsight.dataset.splits.groups import fold_indices, group_indices
from kindsight.dataset.splits.leakage import merge_groups
from kindsight.dataset.splits.settings import SplitSettings
from kindsight.dataset.splits.stratified import check_group_counts
from kindsight.diagnosis import Diagnosis
from kindsight.encoding import unescape_name
from kindsight.errors import BundleError, DatasetError, KindsightError, UsageError
from kindsight.models.networks.small_cnn import NETWORKS
from kindsight.runs.folder import FOLDS_TABLE
from kindsight.runs.improve.changes import Changes, changed
from kindsight.runs.record import RunRecord
from kindsight.runs.settings import TrainSettings
from kindsight.runs.split import SPLIT_FILE, open_data, rows_of
from kindsight.training.common import Progress
from kindsight.training.frozen.settings import FrozenTrainer
from kindsight.training.near_duplicates import find_near_duplicates
from kindsight.training.protocols import Prepared
from kindsight.training.trainer import prepare

__all__ = [
    "ExperimentImages", "budget_choices", "computing_seconds", "final_settings", "findings_of",
    "plan_images", "seconds_of", "settings_of",
]  # fmt: skip

DIAGNOSIS_FILE = "diagnosis.json"
MAX_DIAGNOSIS_BYTES = 1 << 24
# Seconds of a final training in addition to its epochs: files, verification, report.
FINISH_SECONDS = 15.0
# Another backbone may be larger than the run's.
COMPUTING = 1.5


def settings_of(record: RunRecord) -> TrainSettings:
    """Return the settings of the run, with its input size; UsageError if they are unknown."""
    if record.settings is None:
        raise UsageError(
            f"{record.folder} is a bundle without settings.toml: the settings of its training are "
            "unknown. Give the folder of a run of 'kindsight train'."
        )
    trainer, size = record.settings.training(), record.bundle.spec.size
    if not isinstance(trainer, FrozenTrainer) or trainer.budget is not None or trainer.size:
        return record.settings
    if size == trainer.spec().size:
        return record.settings
    # The size was chosen for small images; experiments start from it.
    return record.settings.with_options(size=size[0])


def budget_choices(record: RunRecord, settings: TrainSettings) -> Changes | None:
    """Return the settings that a run's time budget chose, as changes; None without a budget.

    They are the model, size and test-time augmentation, and whether the model is fine-tuned. The
    size and crops of an ensemble's first backbone are left out, since no option can express them.
    """
    trainer = settings.training()
    if not isinstance(trainer, FrozenTrainer) or trainer.budget is None:
        return None
    accepted = bool(record.bundle.facts.get("fine_tuning"))
    stated = record.bundle.facts.get("settings")
    values = stated if isinstance(stated, dict) else {}
    if values.get("model") in NETWORKS:
        return _network_choices(values, settings)
    plain: dict[str, object] = {"budget": None, "fine_tune": trainer.fine_tune_mode}
    if not accepted:
        plain["fine_tune"] = "off"
    found = dict(plain)
    if "first_size" in values and "+" not in str(values.get("model")):
        # The backbone resizes the images itself, so the input size has no effect on it.
        values = {**values, "size": values["first_size"]}
    for name in ("model", "size", "tta_crops"):
        value = values.get(name)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and value != getattr(trainer, name):
            found[name] = value
    flips = values.get("flip_ids")
    if isinstance(flips, (list, tuple)) and len(flips) > 1:
        found["tta_flips"] = len(flips)
    size = found.get("size")
    if isinstance(size, tuple) and size == trainer.spec().size:
        del found["size"]
    elif isinstance(size, tuple) and len(set(size)) == 1:
        found["size"] = size[0]
    return found if changed(settings, found) is not None else plain


def _network_choices(values: Changes, settings: TrainSettings) -> Changes | None:
    """Return the changes to a network from scratch; None if they are invalid."""
    chosen = {name: values[name] for name in ("model", "preset") if name in values}
    network = {"budget": None, **chosen}
    plain = changed(settings, network)
    if plain is None:
        return None
    usual = plain.to_dict()
    found = network | {name: each for name, each in values.items() if usual.get(name) != each}
    return found if changed(settings, found) is not None else network


def seconds_of(record: RunRecord) -> tuple[float, float]:
    """Return the seconds of the original's training, and of the rest of its run."""
    stated = record.bundle.facts.get("seconds")
    names = ("fit", "total", "prepare", "folds")
    known = stated if isinstance(stated, dict) else {}
    fit, total, prepare, folds = (
        float(value) if isinstance(value := known.get(name), (int, float)) else 0.0
        for name in names
    )
    rest = total - prepare - fit - folds
    if record.history is not None:  # of an interrupted training, too
        fit = max(fit, sum(row.seconds for row in record.history))
    return max(0.1, fit), max(FINISH_SECONDS, rest)


def computing_seconds(record: RunRecord) -> float:
    """Return the seconds that the features of another backbone may take, if the run's are known."""
    stated = record.bundle.facts.get("seconds")
    known = stated if isinstance(stated, dict) else {}
    found = [known.get(name) for name in ("prepare", "backbone")]
    return COMPUTING * sum(float(value) for value in found if isinstance(value, (int, float)))


def findings_of(record: RunRecord) -> tuple[Diagnosis, ...]:
    """Return the run's diagnosis; empty if it is missing or damaged."""
    try:
        with (record.folder / DIAGNOSIS_FILE).open("rb") as file:
            stored = json.loads(file.read(MAX_DIAGNOSIS_BYTES))
        return tuple(Diagnosis.from_dict(item) for item in stored["findings"])
    except (OSError, ValueError, KeyError, TypeError, KindsightError):
        return ()


TEST_FRACTION = 0.25
"""Fraction of the images that become the test split of a run without one."""

MAX_FOLDS = 10
USUAL_FOLDS = 5
# Maximum number of folds of a cross-validation that are read.
MAX_STATED = 1000

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ExperimentImages:
    """The images that an experiment is trained and evaluated on.

    Parameters
    ----------
    dataset : ImageDataset
        The readable images with their splits.
    fold_of : dict of str to int
        Path -> fold, from 1, of all images outside the test split. If the run has a validation
        split, it is the first fold.
    folds : int
        Number of folds that can be held out.
    test : str
        The test split that no experiment uses: ``"own"`` (the run's), ``"new"`` or ``"none"``.
    """

    dataset: ImageDataset
    fold_of: dict[str, int]
    folds: int
    test: str

    @property
    def every(self) -> tuple[int, ...]:
        """The folds that can be held out."""
        return tuple(range(1, self.folds + 1))

    @property
    def new_test(self) -> bool:
        """Whether the experiments use a new test split."""
        return self.test == "new"

    def rows(self, dataset: ImageDataset, fold: int, without: int = 0) -> tuple[Rows, Rows]:
        """Return the training and the held-out rows of a fold, in a dataset of these images.

        The images of the fold `without` are in neither.
        """
        folds = np.array([self.fold_of.get(path, 0) for path in dataset.path])
        usable = (folds > 0) & (folds != without)
        return np.flatnonzero(usable & (folds != fold)), np.flatnonzero(folds == fold)


def plan_images(
    record: RunRecord,
    settings: TrainSettings,
    folder: Path,
    progress: Progress,
    *,
    make_test: bool = True,
) -> ExperimentImages:
    """Split the run's images and write the split to a folder; an existing split is read.

    Parameters
    ----------
    record : RunRecord
    settings : TrainSettings
        Settings of the run.
    folder : pathlib.Path
        Folder for ``split.csv``.
    progress : callable
        Called with (stage, done, total).
    make_test : bool
        Whether a quarter of the images becomes the test split of a run without one.

    Raises
    ------
    DatasetError
        If the images are too few for the splits or folds.
    """
    own_test = any(image.split == "test" for image in record.images)
    trainer, path = settings.training(), folder / SPLIT_FILE
    dataset = open_data(settings)
    with ExitStack() as stack:
        keras = stack.enter_context(trainer.process())
        images: Prepared = prepare(trainer, dataset, progress, keras)
        stack.callback(images.close)
        readable = images.dataset
        near = find_near_duplicates(
            readable, images.measure_similarity, images.small_grey, progress
        )
        groups = [group.tolist() for group in near.groups]
    new = make_test and not own_test
    file = path if path.exists() else None if new else record.folder / SPLIT_FILE
    chosen = SplitSettings(
        0.0 if file else settings.validation or 0.2,
        0.0 if file else TEST_FRACTION,
        seed=settings.seed,
        file=None if file is None else str(file),
        group_near_duplicates=file is None or settings.split_settings().group_near_duplicates,
        leakage=settings.leakage,
    )
    split, _ = chosen.split_without_leakage(readable, groups)
    if not path.exists():
        write_split(split, path)
    test = "own" if own_test else "new" if "test" in split.split else "none"
    stated = {} if test == "new" else dict(_stated_folds(record.folder / FOLDS_TABLE))
    if stated:
        known = {path: stated[path] for path in split.path if path in stated}
        return ExperimentImages(split, known, max(known.values()), test)
    return ExperimentImages(split, *_folds(split, groups, settings.seed), test)


def _stated_folds(path: Path) -> Iterator[tuple[str, int]]:
    """Yield path and fold of each image of a cross-validation; nothing if there was none."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            number = row.get("fold") or ""
            if not (number.isascii() and number.isdigit() and 0 < int(number[:9]) <= MAX_STATED):
                raise BundleError(
                    f"{path} is damaged: {number[:20]!r} is not a fold. Restore it, or train again."
                )
            yield unescape_name(row["path"]), int(number)


def _folds(
    dataset: ImageDataset, duplicates: list[list[int]], seed: int
) -> tuple[dict[str, int], int]:
    """Return the fold of each path, and the number of folds.

    The first is the validation split, if there is one; the others, of about the same size, are from
    the train split.
    """
    validation, train = rows_of(dataset, "validation"), rows_of(dataset, "train")
    links: list[int | None] = [None] * len(dataset)
    for index, rows in enumerate(duplicates):
        for row in rows:
            links[row] = index
    subset = merge_groups(dataset, links)[train]
    groups = group_indices(subset)
    fold_of = {dataset.path[row]: 1 for row in validation}
    first = int(len(validation) > 0)
    wanted = USUAL_FOLDS
    if first:
        wanted = min(MAX_FOLDS, round((len(train) + len(validation)) / len(validation))) - 1
    for count in range(wanted, 1, -1):
        try:
            check_group_counts(subset, np.arange(len(subset)), groups, [], count)
        except DatasetError:
            continue
        digests = [str(digest) for digest in subset.digest]
        found = fold_indices(subset.targets, groups, count, seed, digests)
        others = {path: int(k) + 1 + first for path, k in zip(subset.path, found, strict=True)}
        return fold_of | others, count + first
    if not first:
        raise DatasetError(
            "Experiments need images that are not trained on: each class must have at least two "
            "images, or groups of images, outside the test split. Add images."
        )
    # There are too few groups: the train split is trained on in every experiment and never held
    # out.
    return fold_of | dict.fromkeys(subset.path, 2), 1


def final_settings(
    settings: TrainSettings, folder: Path, images: ExperimentImages
) -> TrainSettings:
    """Return the settings of the original for a final training, with the split of experiments.

    A run with a cross-validation is cross-validated again.
    """
    if settings.folds is not None and not images.new_test:
        return settings.with_options(run=None)
    return settings.with_options(
        run=None, split=str((folder / SPLIT_FILE).resolve()), fold=None, folds=None, test=0.0,
        split_by="random", group_near_duplicates=False,
        validation=settings.validation or 0.2 if images.new_test else settings.validation,
    )  # fmt: skip
