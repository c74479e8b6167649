"""All checks as a part of a training: the findings are written into the run folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kindsight.cache import Cache
from kindsight.catalog import Catalog
from kindsight.catalog.checks import SEVERITIES
from kindsight.checking.run import check_catalog
from kindsight.checking.settings import CheckSettings
from kindsight.checking.writing import PAGE_FILE, write_report
from kindsight.report.words import amount
from kindsight.settings import TrainSettings
from kindsight.training.frozen import FrozenTraining

__all__ = ["CHECKS_FOLDER", "check_run"]

CHECKS_FOLDER = "checks"


def check_run(
    catalog: Catalog,
    settings: TrainSettings,
    folder: Path,
    progress: Callable[[str, int, int], None],
) -> str:
    """Run all checks on the data of a training, as they are, and write what they find.

    Parameters
    ----------
    catalog : Catalog
        As it was opened: all pictures, with the parts that the data state.
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
    frozen = isinstance(training, FrozenTraining) and settings.weights in (None, "imagenet")
    chosen = CheckSettings(
        full=True,
        model=settings.model if frozen else CheckSettings.model,
        size=settings.size if frozen else None,
        workers=settings.workers,
    )
    cache = Cache(training.cache)

    def step(stage: str, done: int, total: int) -> None:
        progress("measure" if stage == "pictures" else stage, done, total)

    report = check_catalog(catalog, chosen, data=settings.data, cache=cache, progress=step)
    written = write_report(report, parent=folder / CHECKS_FOLDER, cache=cache)
    counts = report.counts()
    found = ", ".join(amount(counts[name], name) for name in SEVERITIES if counts[name])
    return f"All checks: {found or 'nothing found'}; see {written / PAGE_FILE}."
