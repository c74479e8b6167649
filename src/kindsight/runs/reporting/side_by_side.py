"""Several finished runs on one page."""

from __future__ import annotations

import os
import re
from dataclasses import replace

from kindsight.errors import KindsightError, UsageError
from kindsight.report.side_by_side import MAX_RUNS, Difference, SideBySide, run_names
from kindsight.runs.evaluating.compare import compare
from kindsight.runs.record import load_run
from kindsight.runs.reporting.build import report_data

__all__ = ["side_by_side"]


def side_by_side(
    *runs: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
) -> SideBySide:
    """Return the content of the page of several runs.

    The runs are compared with the first one on the images that all of them held out. If there are
    none, the page says so and shows the metrics alone.

    Raises
    ------
    UsageError
        For less than two or too many runs, or one that is named twice.
    BundleError
        If a run is not finished or damaged.
    """
    if not 2 <= len(runs) <= MAX_RUNS:
        raise UsageError(f"`runs` must be 2 to {MAX_RUNS} run folders; got {len(runs)}.")
    folders = [os.path.realpath(run) for run in runs]
    if len(set(folders)) < len(folders):
        raise UsageError("`runs` must be different run folders; got one of them twice.")
    data = tuple(report_data(load_run(run), cache=cache, thumbnails=False) for run in runs)
    try:
        found = compare(*runs)
    except KindsightError as error:
        return SideBySide(data, notes=(f"The runs were not compared. {_as_typed(str(error))}",))
    # The page and its sentences have one name for each run.
    named = zip(found.runs, run_names(data), strict=True)
    found = replace(found, runs=tuple(replace(run, name=name) for run, name in named))
    differences = tuple(
        Difference(run.name, pair.difference, *pair.interval, pair.p_value, sentence)
        for run, pair, sentence in zip(found.runs[1:], found.pairs, found.sentences(), strict=True)
    )
    return SideBySide(data, differences, found.images, found.source, found.notes)


def _as_typed(message: str) -> str:
    """Return a message with parameters of ``compare`` as options of ``kindsight compare``."""
    return re.sub(r"`(\w+)`", lambda found: "--" + found[1].replace("_", "-"), message)
