"""``kindsight demo``: train on images of solar cells and compare with the data's own paper."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.terminal.options import Debug, Json, Quiet
from kindsight.cli.terminal.text import Paint, print_json, printable, say

if TYPE_CHECKING:
    from kindsight.runs.demo import DemoResult

__all__ = ["demo"]

BEST_TAKES = "3 to 4 minutes on two cores"


def demo(
    folder: Annotated[
        str, typer.Option(metavar="FOLDER", help="Folder for the images.")
    ] = "demo-data",
    runs: Annotated[str, typer.Option(metavar="FOLDER", help="Folder of run folders.")] = "runs",
    best: Annotated[
        bool,
        typer.Option(
            "--best", help=f"Larger backbone and TTA: accuracy above the paper's, in {BEST_TAKES}."
        ),
    ] = False,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train on images of solar cells and compare with a paper.

    A quarter of the 2,624 images is the test split. The accuracy is shown beside that of the
    data's own paper. Needs the package elpv-dataset: pip install 'kindsight[demo]'

    Example: kindsight demo
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.demo import run_demo

    with watching(quiet) as progress:
        result = run_demo(folder, runs=runs, best=best, progress=progress)
    if json:
        print_json(result.to_dict())
    else:
        say(*_lines(result))


def _lines(result: DemoResult) -> Iterator[str]:
    """Yield the output of the demo: the accuracy beside the paper's, and the next command."""
    from kindsight.cli.terminal.summary import facts
    from kindsight.report.format import duration, interval, percent
    from kindsight.runs.demo import IMAGES, LICENCE, PAPER

    paint, test, training = Paint(sys.stdout), result.test, result.training
    ends = paint(f"(95% CI {interval(test.accuracy_interval)})", "dim")
    yield ""
    yield paint("Solar cells, functional or defective: accuracy on the test split", "bold")
    yield ""
    yield f"  {paint(f'{percent(test.accuracy, 2):>7}  kindsight', 'bold')}  {ends}"
    for row in PAPER:
        yield f"  {percent(row.value, 2):>7}  {row.name}  {paint('(the paper)', 'dim')}"
    yield ""
    rows = {
        "test split": f"{test.images:,} of {IMAGES:,} images",
        "paper": f"{PAPER[0].source}; on its own test split",
        **{name: printable(text) for name, text in training.model.items()},
        "time": duration(training.seconds["total"]),
        "images": f"{printable(str(result.data))}, licence {LICENCE}: not for commercial use",
        "run": printable(str(training.run)),
        "report": printable(str(training.report)),
    }
    yield from facts(rows, paint)
    if not result.best:
        yield ""
        yield paint("Next", "bold")
        yield f"  kindsight demo --best   {paint(f'above the paper, in {BEST_TAKES}', 'dim')}"
