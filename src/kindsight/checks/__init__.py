"""Checks of an image dataset before training.

A check is a stateless class with a code, a title, a severity, advice and a documentation page. It
receives a :class:`CheckContext` and returns a :class:`CheckResult`, whose state is ``"found"``,
``"passed"``, ``"not applicable"`` or ``"skipped"``. Checks print nothing and change nothing.

Every image is decoded once, in parallel, and its measurements are cached by content digest
(:func:`measure_dataset`). All checks read these measurements::

    context.dataset            all rows, unreadable images included, with their digests
    context.measurements       columns as attributes: context.measurements.brightness, ...
    context.readable_rows      int64 (m,)
    context.folder_contents    the other files of the data folder; None if the data are no folder
    context.features           RowFeatures(rows, vectors), or None; computed on first access
    context.out_of_fold        OutOfFoldPredictions(rows, probabilities), or None; likewise

To add a check: derive from :class:`Check` in the module of its kind in ``rules/``, set ``code``,
``title``, ``severity``, ``advice`` and, if it needs features, ``cost = "full"``; define ``run``;
add the class to ``rules/__init__.py``; write ``docs/checks/<code>.md`` and a test.
``tests/checks/test_checks_contract.py`` runs over all checks.
"""

from kindsight.checks.check import SEVERITIES, STATES, Check, CheckResult, Finding
from kindsight.checks.context import (
    CheckContext,
    FolderContents,
    OutOfFoldPredictions,
    RowFeatures,
    scan_folder,
)
from kindsight.checks.measurements import Measurements, measure_dataset
from kindsight.checks.rules import all_checks, known_codes, run_checks

__all__ = [
    "SEVERITIES", "STATES", "Check", "CheckContext", "CheckResult", "Finding", "FolderContents",
    "Measurements", "OutOfFoldPredictions", "RowFeatures", "all_checks", "known_codes",
    "measure_dataset", "run_checks", "scan_folder",
]  # fmt: skip
