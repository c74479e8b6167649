"""From data to findings: open, measure, ask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from kindsight.cache import Cache
from kindsight.catalog import Catalog, DataOptions
from kindsight.catalog.checks import (
    CheckContext,
    Surroundings,
    measure_catalog,
    run_checks,
)
from kindsight.catalog.checks.contract import Check
from kindsight.checking.opening import open_for_checking
from kindsight.checking.report import CheckReport
from kindsight.checking.settings import CheckSettings

__all__ = ["check_catalog", "check_data"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total): ``"pictures"``, ``"checks"``, and those of features."""


def check_data(
    data: str | os.PathLike[str],
    settings: CheckSettings | None = None,
    options: DataOptions | None = None,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check all pictures of a folder, a table or arrays in a file. Nothing of them is changed.

    Parameters
    ----------
    data : str or Path
        As for :func:`kindsight.checking.open_for_checking`.
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
        To be written by :func:`kindsight.checking.write_report`.

    Raises
    ------
    CatalogError
        If there are no pictures.
    CacheError
        Where the cache cannot be used.
    """
    started = time.monotonic()
    catalog, surroundings = open_for_checking(data, options)
    listed = time.monotonic() - started
    report = check_catalog(
        catalog, settings, surroundings=surroundings, data=os.fspath(data), cache=cache,
        progress=progress,
    )  # fmt: skip
    report.seconds["list"] = listed
    report.seconds["total"] += listed
    return report


def check_catalog(
    catalog: Catalog,
    settings: CheckSettings | None = None,
    *,
    surroundings: Surroundings | None = None,
    data: str = "",
    checks: tuple[Check, ...] | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> CheckReport:
    """Check the pictures of a catalog.

    Parameters
    ----------
    catalog : Catalog
        Which pictures.
    settings : CheckSettings, optional
        Which checks.
    surroundings : Surroundings, optional
        What lies beside the pictures.
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
        from kindsight.checking.answers import add_features, read_for_both

        read_for_both(catalog, settings, cache, progress)
    measured, measurements = measure_catalog(
        catalog, cache, workers=settings.workers, progress=step("pictures")
    )
    read = time.monotonic()
    context = CheckContext(measured, measurements, surroundings)
    if settings.full:
        add_features(context, settings, cache, progress)
    results = run_checks(
        context, checks=checks, ignore=settings.ignore, full=settings.full, progress=step("checks")
    )
    ended = time.monotonic()
    seconds = {"read": read - started, "checks": ended - read, "total": ended - started}
    return CheckReport(data, context, results, settings.ignore, seconds, measured.notes)
