"""Checks: questions that are asked of all images before anything is trained on them.

Three steps are kept apart. **Measure**: every image is read once, in parallel, and what is
measured of it is kept in the cache by the content of its file (:func:`measure_dataset` gives
:class:`Measurements`, one row a row of the dataset). **Check**: each check is a class in a file of
its own, without state, that looks at a :class:`CheckContext` and returns a :class:`CheckResult`
with :class:`Finding`. **Show**: who runs the checks decides what becomes of the findings; no check
prints, writes, or changes anything.

To add a check: derive from :class:`Check` in a new file of the package of its kind (``files``,
``content``, ``duplicates``, ``labels``, ``splits``, ``balance``), set ``code``, ``title``,
``severity`` and, if it needs features, ``cost = "full"``; define ``run``; add the class to the
tuple ``CHECKS`` of the package's ``__init__.py``; write its page ``docs/checks/<code>.md`` and its
test. ``tests/dataset/checks/test_checks_contract.py`` runs over all of them.

What a check is given::

    context.dataset          all rows, also those that cannot be read; digests filled in
    context.measurements     columns as attributes: context.measurements.brightness ...
    context.readable_rows    int64 (m,)
    context.folder_contents     other files and all folders; None where the data are no folder
    context.features         RowFeatures(rows, vectors), or None   (made when first asked for)
    context.out_of_fold      OutOfFoldPredictions(rows, probabilities), or None   (likewise)

What it returns: ``self.result(findings, examined)`` (found or passed), ``self.not_applicable(why)``
or ``self.skipped(why)``; findings by ``self.finding(context, rows, message, ...)`` and
``self.finding_about(paths, message, ...)``.
"""

from kindsight.checks.check import SEVERITIES, STATES, Check, CheckResult, Finding
from kindsight.checks.context import (
    CheckContext,
    FolderContents,
    OutOfFoldPredictions,
    RowFeatures,
    scan_folder,
)
from kindsight.checks.measurement_cache import measure_dataset
from kindsight.checks.measurements import Measurements
from kindsight.checks.runner import all_checks, known_codes, run_checks

__all__ = [
    "SEVERITIES",
    "STATES",
    "Check",
    "CheckContext",
    "CheckResult",
    "Finding",
    "FolderContents",
    "Measurements",
    "OutOfFoldPredictions",
    "RowFeatures",
    "all_checks",
    "known_codes",
    "measure_dataset",
    "run_checks",
    "scan_folder",
]
