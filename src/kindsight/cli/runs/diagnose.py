"""``kindsight diagnose``: find what limits a trained classifier, and what to try first."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, line_width, print_json, printable, say

if TYPE_CHECKING:
    from kindsight.diagnosis import Diagnosis

__all__ = ["diagnose"]

COMMANDS = 4
"""Commands shown for each finding."""

MAX_WIDTH = 110


def diagnose(
    run: Annotated[str, typer.Argument(help="Run folder or model bundle.")],
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find what limits a trained classifier, and what to try first.

    Analyses the training curves, the predictions and the images of a run: overfitting,
    underfitting, learning rate, labels, leakage, calibration and more. Differences that noise
    explains are not reported.

    Example: kindsight diagnose runs/photos-1
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.diagnosing import diagnose as diagnose_run

    with watching(quiet) as progress:
        progress("measure", 0, 0)
        findings = diagnose_run(run)
    if json:
        print_json({"run": run, "findings": [finding.to_dict() for finding in findings]})
    else:
        say(*_lines(run, findings))


def _lines(run: str, findings: Sequence[Diagnosis]) -> Iterator[str]:
    from kindsight.cli.terminal.findings import finding_lines
    from kindsight.report.format import amount

    paint = Paint(sys.stdout)
    if not findings:
        yield paint(f"{printable(run)}: no findings", "bold", "green")
        yield "  No problem was found that noise does not explain. More or other images may help."
        return
    yield paint(f"{printable(run)}: {amount(len(findings), 'finding')}", "bold")
    width = min(line_width(), MAX_WIDTH)
    for finding in findings:
        yield ""
        yield from finding_lines([finding], width=width, evidence=True, commands=COMMANDS)
