"""Check a dataset: open it, measure the images, run the checks."""

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
from kindsight.dataset import DataOptions, ImageDataset, open_dataset, with_value_range
from kindsight.dataset.columns.convert import concatenate
from kindsight.dataset.loaders.tables import data_files, folder_of_tables
from kindsight.dataset.names import n_images, quoted
from kindsight.distributed import require_cluster, reuse_executors
from kindsight.errors import DatasetError
from kindsight.report.format import amount
from kindsight.runs.checking.report import CheckReport, CheckSettings
from kindsight.runs.checking.write import PAGE_FILE, write_report
from kindsight.runs.settings import TrainSettings
from kindsight.storage.address import split_member
from kindsight.storage.files import is_folder
from kindsight.training.frozen.settings import FrozenTrainer

__all__ = ["CHECKS_FOLDER", "check_data", "check_dataset", "check_run", "open_for_checking"]

CHECKS_FOLDER = "checks"
"""Folder of a run in which the findings are written."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total); the stages are ``"images"``, ``"checks"`` and, for full checks,
``"backbone"`` and ``"features"``."""


@reuse_executors()
def check_data(
    data: str | os.PathLike[str],
    settings: CheckSettings | None = None,
    options: DataOptions | None = None,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check all images of a folder, table or array file. Nothing is changed.

    Parameters
    ----------
    data : str or Path
        As for :func:`open_for_checking`.
    settings : CheckSettings, optional
    options : DataOptions, optional
        How to read the data.
    cache : Cache, optional
        Stores the measurements. Default: the cache of this machine.
    progress : callable, optional
        Called from this thread with (stage, done, total).

    Returns
    -------
    CheckReport
        The results; :func:`write_report` writes them.

    Raises
    ------
    DatasetError
        If there are no images.
    CacheError
        If the cache cannot be used.
    """
    started = time.monotonic()
    dataset, contents = open_for_checking(data, options)
    dataset = with_value_range(dataset, None if options is None else options.value_range)
    listed = time.monotonic() - started
    report = check_dataset(
        dataset, settings, folder_contents=contents, data=os.fspath(data), cache=cache,
        progress=progress,
    )  # fmt: skip
    report.seconds["list"] = listed
    report.seconds["total"] += listed
    return report


@reuse_executors()
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
    settings : CheckSettings, optional
    folder_contents : FolderContents, optional
        The other files of the data folder.
    data : str
        Name of the data in the report.
    checks : tuple of Check, optional
        Checks to run. Default: all.
    cache : Cache, optional
        Stores the measurements. Default: the cache of this machine.
    progress : callable, optional
        Called from this thread with (stage, done, total).
    """
    settings, cache = settings or CheckSettings(), cache or Cache()
    require_cluster(settings.on)
    started = time.monotonic()

    def stage_progress(stage: str) -> Callable[[int, int], None]:
        def report(done: int, total: int) -> None:
            if progress is not None:
                progress(stage, done, total)

        return report

    if settings.full:
        # Importing the training code takes a tenth of a second, which cheap checks save.
        from kindsight.runs.checking.out_of_fold import (
            add_features,
            compute_features_and_measurements,
            with_input_size,
        )

        settings = with_input_size(dataset, settings, cache, progress)
        compute_features_and_measurements(dataset, settings, cache, progress)
    measured, measurements = measure_dataset(
        dataset, cache, workers=settings.workers, on=settings.on, progress=stage_progress("images")
    )
    read = time.monotonic()
    context = CheckContext(measured, measurements, folder_contents, progress=progress)
    if settings.full:
        add_features(context, settings, cache, progress)
    results = run_checks(
        context,
        checks=checks,
        ignore=settings.ignore,
        full=settings.full,
        progress=stage_progress("checks"),
    )
    ended = time.monotonic()
    seconds = {"read": read - started, "checks": ended - read, "total": ended - started}
    return CheckReport(data, context, results, settings.ignore, seconds, measured.notes)


def check_run(
    dataset: ImageDataset, settings: TrainSettings, folder: Path, progress: Progress
) -> str:
    """Run all checks on the data of a training and write the findings into its run folder.

    - `dataset`: all images, with the splits that the data define.
    - `settings`: settings of the training. The checks use its frozen backbone, whose features are
      cached, or the default backbone if a network is trained.
    - `folder`: the run folder.
    - `progress`: called with (stage, done, total).

    Returns
    -------
    str
        A sentence with the number of findings and the path of the report.
    """
    trainer = settings.training()
    frozen = isinstance(trainer, FrozenTrainer) and settings.weights in (None, "imagenet")
    chosen = CheckSettings(
        full=True,
        model=settings.model if frozen else CheckSettings.model,
        size=settings.size if frozen else None,
        workers=settings.workers,
        on=settings.on,
    )
    cache = Cache(trainer.cache)

    def report_progress(stage: str, done: int, total: int) -> None:
        progress("measure" if stage == "images" else stage, done, total)

    report = check_dataset(
        dataset, chosen, data=settings.data, cache=cache, progress=report_progress
    )
    written = write_report(report, parent=folder / CHECKS_FOLDER, cache=cache)
    counts = report.counts()
    found = ", ".join(amount(counts[name], name) for name in SEVERITIES if counts[name])
    total = f"{amount(sum(counts.values()), 'finding')} ({found})" if found else "no findings"
    return f"Checks of the data: {total}; see {written / PAGE_FILE}."


def open_for_checking(
    data: str | os.PathLike[str], options: DataOptions | None = None
) -> tuple[ImageDataset, FolderContents | None]:
    """Open data that may be unfit for training.

    Parameters
    ----------
    data : str or Path
        As for :func:`kindsight.dataset.open_dataset`. A folder may also have a single class or no
        class folders; images outside of class folders are added without labels.
    options : DataOptions, optional
        How to read the data.

    Returns
    -------
    dataset : ImageDataset
    folder_contents : FolderContents or None
        The other files of the folder; None if the data are not a folder.

    Raises
    ------
    DatasetError
        If there are no images or a table cannot be read.
    """
    try:
        dataset = open_dataset(data, options, min_classes=1)
    except DatasetError as error:
        labels_wanted = options is not None and (options.label_from or options.label_map)
        if not is_folder(os.fspath(data)) or labels_wanted:
            raise
        try:
            dataset = open_dataset(data, options, labelled=False)
        except DatasetError:
            raise error from None
        note = "The images are not in class folders; they were checked without labels."
        if data_files(folder_of_tables(os.fspath(data))):
            note = f"The images were checked without labels. {error}"
        dataset = dataset.with_notes(note)
    if not is_folder(os.fspath(data)) or dataset.root is None or dataset.arrays is not None:
        return dataset, None
    if len(dataset) and split_member(dataset.path[0]) is not None:  # its images are listed already
        return dataset, None
    follow = options is None or options.follow_links
    contents = scan_folder(dataset.root, dataset.path, follow_links=follow)
    return _add_unlabelled(dataset, contents), contents


_OUTSIDE = "Ignored outside the class folders"
"""Start of the dataset's note about images outside of the class folders."""


def _add_unlabelled(dataset: ImageDataset, contents: FolderContents) -> ImageDataset:
    """Add the images outside of the class folders, without labels."""
    outside = [other for other in contents.other_files if not other.reason]
    if not outside:
        return dataset
    n = len(outside)
    whole = replace(
        dataset,
        path=concatenate([dataset.path, tuple(other.path for other in outside)]),
        label=concatenate([dataset.label, (None,) * n]),
        split=concatenate([dataset.split, (None,) * n]),
        group=concatenate([dataset.group, (None,) * n]),
        digest=concatenate([dataset.digest, (None,) * n]),
        size=concatenate([dataset.size, tuple(other.size for other in outside)]),
        notes=tuple(note for note in dataset.notes if not note.startswith(_OUTSIDE)),
    )
    return whole.with_notes(
        f"Checked without labels because they are outside the class folders: {n_images(n)}, first "
        f"{quoted(outside[0].path)}."
    )
