"""``kindsight diagnose`` and ``kindsight improve``: what limits a classifier, and experiments."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import BundleFolder, Debug, Json, Quiet
from kindsight.cli.terminal.progress import STAGES, Progress
from kindsight.cli.terminal.text import (
    Paint,
    echo_error,
    line_width,
    print_json,
    printable,
    say,
    table,
    wrapped,
)
from kindsight.report.format import amount, duration, elide, percent

if TYPE_CHECKING:
    from kindsight.diagnosis import Diagnosis
    from kindsight.evaluation.paired import PairedComparison
    from kindsight.runs.improve.experiments import Experiment
    from kindsight.runs.improve.folder import Timer
    from kindsight.runs.improve.result import ExperimentRow, ImproveResult
    from kindsight.runs.improve.search import Search

__all__ = ["diagnose", "improve"]

COMMANDS = 4
"""Maximum number of commands shown for each finding."""

MAX_WIDTH = 110


def diagnose(
    run: BundleFolder,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Find what limits a trained classifier, and what to try first.

    Analyses the training curves, the predictions and the images of a run: overfitting,
    underfitting, learning rate, labels, leakage, calibration and more. Differences within noise are
    not reported.

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
    from kindsight.cli.terminal.summary import finding_lines
    from kindsight.report.format import amount

    paint = Paint(sys.stdout)
    if not findings:
        yield paint(f"{printable(run)}: no findings", "bold", "green")
        yield "  No problem was found beyond noise. More or other images may help."
        return
    yield paint(f"{printable(run)}: {amount(len(findings), 'finding')}", "bold")
    width = min(line_width(), MAX_WIDTH)
    for finding in findings:
        yield ""
        yield from finding_lines([finding], width=width, evidence=True, commands=COMMANDS)


MIN_CHANGE = 24
BAR_COLUMNS = 45  # for the bar and its numbers
# Width of a row of the table without the change.
OTHER_COLUMNS = 70
# On a narrower terminal, the last two columns are left out.
NARROW, NARROW_OTHER_COLUMNS = 100, 54


def improve(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Folder of a finished run.")],
    budget: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="Time for all experiments and the final training, such as 30m."
        ),
    ] = "30m",
    any_model: Annotated[
        bool,
        typer.Option(
            "--any-model",
            help="Experiments that also include a head on a frozen backbone, whatever the run's "
            "kind of model.",
        ),
    ] = False,
    folder: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of the experiments.  [default: RUN-improve]",
            show_default=False,
        ),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Try changes to a finished training and recommend those that help.

    The run's diagnosis selects the first experiments: one change at a time with the same images and
    seed, then combinations. A change is recommended only if its gain is statistically significant;
    the final accuracy is measured on a test split that no experiment used, or by nested folds.
    After an interruption, the same command continues. Needs Optuna: pip install
    'kindsight[improve]'

    Example: kindsight improve runs/photos-1

    Example: kindsight improve runs/photos-1 --budget 2h --any-model
    """
    from kindsight.runs.improve.run import improve as improve_run

    with _watching(quiet) as (progress, write):
        result = improve_run(
            run, budget=budget, any_model=any_model, folder=folder, progress=progress,
            on_experiment=lambda *found: write(_line(*found)),
        )  # fmt: skip
    if json:
        print_json(result.to_dict())
    else:
        say(*result_lines(result))


@contextmanager
def _watching(quiet: bool) -> Iterator[tuple[Progress, Callable[[str], None]]]:
    """Yield a function for the progress of the running experiment, and one that writes a line.

    On a terminal, a bar below the lines shows the running experiment.
    """
    from kindsight.cli.terminal.progress import LineProgress, checked, make_bars

    if quiet:
        yield checked(None), lambda line: None
    elif sys.stderr.isatty():
        from rich.console import Console

        console = Console(stderr=True)
        with make_bars(console) as bars:
            latest: list[Any] = ["", None]

            def show(stage: str, done: int, total: int) -> None:
                if stage != latest[0]:
                    if latest[1] is not None:
                        bars.remove_task(latest[1])
                    room = max(MIN_CHANGE, console.width - BAR_COLUMNS)
                    title = elide(printable(STAGES.get(stage, stage)), room)
                    latest[:] = stage, bars.add_task(title, total=total or None)
                bars.update(latest[1], total=total or None, completed=done)

            def write(line: str) -> None:
                console.print(line, markup=False, highlight=False)

            yield checked(show), write
            if latest[1] is not None:
                bars.remove_task(latest[1])
    else:
        yield checked(LineProgress()), echo_error


def _line(experiment: Experiment, search: Search, timer: Timer) -> str:
    """Return a line about a finished experiment, with the time left."""
    from kindsight.cli.terminal.progress import clock_time

    folds = search.explored
    if experiment.stopped:
        found = f"stopped: {experiment.stopped}"
    else:
        found = f"{percent(experiment.accuracy(folds))}, log loss {experiment.log_loss(folds):.3f}"
    left = clock_time(max(0.0, timer.left))
    return printable(f"[{left} left] {experiment.number}: {experiment.words}: {found}")


def result_lines(result: ImproveResult) -> Iterator[str]:
    """Yield the table of experiments, the decision, and the accuracy on the test split."""
    paint = Paint(sys.stdout)
    width = min(line_width(), 120)
    yield ""
    yield from _table(result, paint, width)
    yield ""
    for line in _decision(result):
        yield from wrapped(line, width, 2)
    for note in result.notes:
        yield from wrapped(f"note: {note}", width, 2)
    yield ""
    from kindsight.cli.terminal.summary import facts, quoted

    rows = {
        "time": f"{duration(result.seconds)} of {duration(result.budget)}",
        "settings": printable(str(result.folder / "settings.toml")) if result.helped else "",
        "experiments": printable(str(result.folder)),
        "run": "" if result.best_run is None else printable(str(result.best_run)),
        "report": ""
        if result.best_run is None
        else printable(str(result.best_run / "report.html")),
    }
    yield from facts(rows, paint)
    if result.best_run is not None:
        yield ""
        yield paint("Next", "bold")
        yield f"  kindsight predict {quoted(result.best_run)} new/"


def _table(result: ImproveResult, paint: Paint, width: int) -> Iterator[str]:
    narrow = width < NARROW
    room = max(MIN_CHANGE, width - (NARROW_OTHER_COLUMNS if narrow else OTHER_COLUMNS))
    rows = [line for row in result.experiments if not row.note for line in _rows(row, room)]
    heads = ("", "change", "accuracy", "difference (95% CI)", "effect", "against", "log loss")
    shown = 5 if narrow else len(heads)
    yield from table(heads[:shown], [row[:shown] for row in rows], paint=paint, left=2)
    given_up = sum(bool(row.note) for row in result.experiments)
    images = next((row.images for row in result.experiments if row.images), 0)
    line = f"On {amount(images, 'held-out image')}; differences are paired, in points."
    if given_up:
        line += f" {amount(given_up, 'experiment')} stopped early: see improve.json."
    for part in wrapped(line, width, 2):
        yield paint(part, "dim")


def _rows(row: ExperimentRow, room: int) -> Iterator[tuple[str, ...]]:
    """Yield the lines of an experiment: a change that is too long continues on the next ones."""
    lines = [""]
    for option in printable(row.change).split(", "):
        longer = f"{lines[-1]}, {option}" if lines[-1] else option
        if len(longer) < room or not lines[-1]:
            lines[-1] = longer
        else:
            lines[-1] += ","
            lines.append(option)
    yield (
        str(row.number),
        elide(lines[0], room),
        percent(row.accuracy),
        "" if row.difference is None else points(row.difference),
        row.effect,
        "" if row.number == 0 else str(row.against),
        "\N{EN DASH}" if row.log_loss is None else f"{row.log_loss:.3f}",
    )
    for line in lines[1:]:
        yield ("", elide(line, room), "", "", "", "", "")


def points(difference: PairedComparison) -> str:
    """Format a difference of accuracies in percentage points: ``+8.3 (2.1 to 14.4)``."""
    value, low, high = (100 * each for each in (difference.difference, *difference.interval))
    return f"{value:+.1f} ({low:+.1f} to {high:+.1f})"


def _decision(result: ImproveResult) -> Iterator[str]:
    if not result.helped:
        yield f"Nothing helped. {result.reason} The settings do not change."
        return
    yield f"Helped: {printable(result.change)}"
    if result.decided is not None:
        among = f", corrected for {result.tests} experiments" if result.tests > 1 else ""
        yield (
            f"On the {amount(result.decided.images, 'image')} of the decision: "
            f"{points(result.decided)} points of accuracy (p = {result.decided.p_value:.2g}; for "
            f"the lower log loss, p = {result.p_value:.2g}{among})."
        )
    if result.final is not None:
        yield printable(result.final.sentence())
        for each in result.final.outer:
            yield (
                f"Fold {each.fold}: {percent(each.original)} -> {percent(each.best)}, "
                f"{printable(each.change)}"
            )
