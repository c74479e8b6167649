"""From data to findings: open, measure, ask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from kindsight.cache.folder import Cache
from kindsight.checks import (
    SEVERITIES,
    CheckContext,
    FolderContents,
    measure_dataset,
    run_checks,
    scan_folder,
)
from kindsight.checks.check import Check
from kindsight.dataset import DataOptions, ImageDataset, open_dataset
from kindsight.dataset.names import images, shown
from kindsight.errors import DatasetError
from kindsight.report.format import amount
from kindsight.runs.checking.report import CheckReport
from kindsight.runs.checking.settings import CheckSettings
from kindsight.runs.checking.write import PAGE_FILE, write_report
from kindsight.runs.settings import TrainSettings
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = [
    "CHECKS_FOLDER",
    "check_data",
    "check_dataset",
    "check_run",
    "open_for_checking",
]

# SECTION: Opening data that may be faulty: what no classifier can be made of can still be checked.

UNLABELLED = "The images are not in class folders: they were checked without labels."

_LEFT_OUT = "Outside the class folders, and so left out"


def open_for_checking(
    data: str | os.PathLike[str], options: DataOptions | None = None
) -> tuple[ImageDataset, FolderContents | None]:
    """Make a dataset of data, and look what lies beside its images.

    Parameters
    ----------
    data : str or Path
        As for :func:`kindsight.dataset.open_dataset`. A folder of a single class is taken, and so
        is one without class folders; images outside of class folders are added without labels,
        which a note says.
    options : DataOptions, optional
        What the data do not say themselves.

    Returns
    -------
    dataset : ImageDataset
    folder_contents : FolderContents or None
        None where the data are not a folder.

    Raises
    ------
    DatasetError
        If there are no images, or a table cannot be read.
    """
    try:
        dataset = open_dataset(data, options, min_classes=1)
    except DatasetError as error:
        if not Path(data).is_dir() or (options is not None and options.label_from):
            raise
        try:
            dataset = open_dataset(data, options, labelled=False).with_notes(UNLABELLED)
        except DatasetError:
            raise error from None
    if not Path(data).is_dir() or dataset.root is None or dataset.arrays is not None:
        return dataset, None
    folder_contents = scan_folder(dataset.root, dataset.path)
    return _with_outsiders(dataset, folder_contents), folder_contents


def _with_outsiders(dataset: ImageDataset, folder_contents: FolderContents) -> ImageDataset:
    """Add the images that the dataset leaves out because they are in no class folder."""
    outside = [other for other in folder_contents.others if not other.reason]
    if not outside:
        return dataset
    more = len(outside)
    whole = replace(
        dataset,
        path=(*dataset.path, *(other.path for other in outside)),
        label=(*dataset.label, *(None,) * more),
        split=(*dataset.split, *(None,) * more),
        group=(*dataset.group, *(None,) * more),
        digest=(*dataset.digest, *(None,) * more),
        size=(*dataset.size, *(other.size for other in outside)),
        notes=tuple(note for note in dataset.notes if not note.startswith(_LEFT_OUT)),
    )
    return whole.with_notes(
        f"Outside the class folders, and checked without labels: {images(more)}, the first of "
        f"them {shown(outside[0].path)}."
    )


Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total): ``"images"``, ``"checks"``, and those of features."""


def check_data(
    data: str | os.PathLike[str],
    settings: CheckSettings | None = None,
    options: DataOptions | None = None,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check all images of a folder, a table or arrays in a file. Nothing of them is changed.

    Parameters
    ----------
    data : str or Path
        As for :func:`kindsight.runs.checking.open_for_checking`.
    settings : CheckSettings, optional
        Which checks.
    options : DataOptions, optional
        What the data do not say themselves.
    cache : Cache, optional
        Where measurements are kept; this machine's if omitted.
    progress : callable, optional
        Called from this thread.

    Returns
    -------
    CheckReport
        To be written by :func:`kindsight.runs.checking.write_report`.

    Raises
    ------
    DatasetError
        If there are no images.
    CacheError
        Where the cache cannot be used.
    """
    started = time.monotonic()
    dataset, folder_contents = open_for_checking(data, options)
    listed = time.monotonic() - started
    report = check_dataset(
        dataset, settings, folder_contents=folder_contents, data=os.fspath(data), cache=cache,
        progress=progress,
    )  # fmt: skip
    report.seconds["list"] = listed
    report.seconds["total"] += listed
    return report


def check_dataset(
    dataset: ImageDataset,
    settings: CheckSettings | None = None,
    *,
    folder_contents: FolderContents | None = None,
    data: str = "",
    checks: tuple[Check, ...] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check the images of a dataset.

    Parameters
    ----------
    dataset : ImageDataset
        Which images.
    settings : CheckSettings, optional
        Which checks.
    folder_contents : FolderContents, optional
        What lies beside the images.
    data : str
        What the report calls them.
    checks : tuple of Check, optional
        Some checks only.
    cache : Cache, optional
        Where measurements are kept; this machine's if omitted.
    progress : callable, optional
        Called from this thread.
    """
    settings, cache = settings or CheckSettings(), cache or Cache()
    started = time.monotonic()

    def step(stage: str) -> Callable[[int, int], None]:
        def said(done: int, total: int) -> None:
            if progress is not None:
                progress(stage, done, total)

        return said

    if settings.full:
        # Importing what trains takes a tenth of a second that a cheap check need not spend.
        from kindsight.runs.checking.out_of_fold import (
            add_features,
            compute_features_and_measurements,
        )

        compute_features_and_measurements(dataset, settings, cache, progress)
    measured, measurements = measure_dataset(
        dataset, cache, workers=settings.workers, progress=step("images")
    )
    read = time.monotonic()
    context = CheckContext(measured, measurements, folder_contents)
    if settings.full:
        add_features(context, settings, cache, progress)
    results = run_checks(
        context, checks=checks, ignore=settings.ignore, full=settings.full, progress=step("checks")
    )
    ended = time.monotonic()
    seconds = {"read": read - started, "checks": ended - read, "total": ended - started}
    return CheckReport(data, context, results, settings.ignore, seconds, measured.notes)


# SECTION: All checks as a part of a training: the findings are written into the run folder.

CHECKS_FOLDER = "checks"


def check_run(
    dataset: ImageDataset,
    settings: TrainSettings,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> str:
    """Run all checks on the data of a training, as they are, and write what they find.

    Parameters
    ----------
    dataset : ImageDataset
        As it was opened: all images, with the parts that the data state.
    settings : TrainSettings
        Of the training. The checks use its frozen backbone, whose features are in the cache by
        then; beside a network, the usual one.
    folder : pathlib.Path
        The run folder.
    progress : callable
        Called with (stage, done, total).

    Returns
    -------
    str
        A sentence: how much was found, and where it is shown.
    """
    training = settings.training()
    frozen = isinstance(training, FrozenTrainer) and settings.weights in (None, "imagenet")
    chosen = CheckSettings(
        full=True,
        model=settings.model if frozen else CheckSettings.model,
        size=settings.size if frozen else None,
        workers=settings.workers,
    )
    cache = Cache(training.cache)

    def step(stage: str, done: int, total: int) -> None:
        progress("measure" if stage == "images" else stage, done, total)

    report = check_dataset(dataset, chosen, data=settings.data, cache=cache, progress=step)
    written = write_report(report, parent=folder / CHECKS_FOLDER, cache=cache)
    counts = report.counts()
    found = ", ".join(amount(counts[name], name) for name in SEVERITIES if counts[name])
    return f"All checks: {found or 'nothing found'}; see {written / PAGE_FILE}."
