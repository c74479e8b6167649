"""``kindsight demo``: real pictures, trained on and tested, beside what a paper reached on them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from kindsight.cli.options import Debug, Json, Quiet
from kindsight.cli.text import Paint, print_json, printable, say

if TYPE_CHECKING:
    from kindsight.demo import DemoResult

__all__ = ["demo"]


def demo(
    folder: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where the pictures are written.")
    ] = "demo-data",
    runs: Annotated[
        str, typer.Option(metavar="FOLDER", help="Where the run folder is made.")
    ] = "runs",
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train on pictures of solar cells, and compare.

    There are 2,624 of them, a quarter kept for the test; the accuracy is shown beside what the
    data's own paper reached. It takes some minutes, since each picture is looked at in three views
    by a larger network than usual. Needs the package elpv-dataset: pip install 'kindsight[demo]'

    Example: kindsight demo
    """
    from kindsight.cli.progress import watching
    from kindsight.demo import run_demo

    with watching(quiet) as progress:
        result = run_demo(folder, runs=runs, progress=progress)
    if json:
        print_json(result.to_dict())
    else:
        say(*demo_lines(result))


def demo_lines(result: DemoResult) -> Iterator[str]:
    """Yield what the demo prints: ours beside the paper's, and where the report is."""
    from kindsight.cli.summary import facts
    from kindsight.demo import LICENCE, PAPER, PICTURES
    from kindsight.report.words import duration, interval, percent

    paint, test, training = Paint(sys.stdout), result.test, result.training
    ends = paint(f"(95% interval {interval(test.accuracy_interval)})", "dim")
    yield ""
    yield paint("Solar cells, functional or defective: accuracy on the test part", "bold")
    yield ""
    yield f"  {paint(f'{percent(test.accuracy, 2):>7}  kindsight', 'bold')}  {ends}"
    for row in PAPER:
        yield f"  {percent(row.value, 2):>7}  {row.name}  {paint('(the paper)', 'dim')}"
    yield ""
    rows = {
        "test": f"{test.pictures:,} of {PICTURES:,} pictures, none of them trained on",
        "paper": f"{PAPER[0].source}; on a test part of its own",
        "head": printable(training.head),
        "time": duration(training.seconds["total"]),
        "pictures": f"{printable(str(result.data))}, licence {LICENCE}: not for commercial use",
        "run": printable(str(training.run)),
        "report": printable(str(training.report)),
    }
    yield from facts(rows, paint)
