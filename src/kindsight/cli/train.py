"""``kindsight train``, on a folder of images, and ``kindsight demo``, on images of solar cells."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kindsight.cli.terminal.options import (
    DataOf,
    Debug,
    Json,
    Quiet,
    as_typed,
    columns_of,
    declared_annotation,
)
from kindsight.cli.terminal.text import Paint, complain, note, print_json, printable, say, table
from kindsight.errors import SettingsError
from kindsight.options import OPTIONS

if TYPE_CHECKING:
    from kindsight.runs.demo import DemoResult
    from kindsight.runs.settings import TrainSettings
    from kindsight.training.engine.learning_rate_finder import RateSweep

__all__ = ["demo", "show_learning_rates", "train"]

DIVERGED = 1
"""Exit code if the loss became NaN or infinite; the bundle has the weights of the best earlier
epoch."""


def train(**given: Any) -> None:
    """Train a classifier on a folder of images.

    By default, a head is fitted on the features of a frozen backbone. Options marked * train the
    backbone by epochs instead. Intermediate results are cached: after an interruption, the same
    command continues.

    Example: kindsight train photos/

    Example: kindsight train photos/ --validation 200 --test 0.1 --group-near-duplicates

    Example: kindsight train photos/ --budget 10m

    Example: kindsight train photos/ --model small-cnn --epochs 15 --augment classic

    Example: kindsight train photos/ --model inception-v3 --cut mixed7 --freeze all --dropout 0.2
    """
    from kindsight.cli.terminal.live import watching_training
    from kindsight.runs.train import train as train_run

    json, quiet = given["json"], given["quiet"]
    settings = _settings(given.pop("settings"), given)
    if given["find_learning_rate"]:
        show_learning_rates(settings, json=json, quiet=quiet)
        return
    if given["summary"] and not json:
        say(*layer_lines(settings, quiet=quiet))
    training = settings.training()
    download = training.download()
    if download and not quiet:
        note(download)
    with watching_training(quiet, getattr(training, "budget_seconds", None)) as watch:
        result = train_run(settings, progress=watch.progress, callback=watch.callback)
    if json:
        print_json(result.to_dict())
    else:
        from kindsight.cli.terminal.summary import summary_lines

        say(*summary_lines(result))
    if result.diverged:
        complain(as_typed(result.diverged))
        raise typer.Exit(DIVERGED)


def _signature() -> inspect.Signature:
    """Return the parameters of the command: the declared options, and those of this command."""
    annotations: dict[str, Any] = {"data": Annotated[str | None, typer.Argument(help=DataOf)]}
    annotations["settings"] = _own(
        "Data",
        str | None,
        "Settings file (settings.toml) of a run to repeat; other options override it.",
        metavar="FILE",
    )
    for name, option in OPTIONS.items():
        if option.flag != "-":
            annotations[name] = declared_annotation(option, option.panel)
    annotations["find_learning_rate"] = _own(
        "Training",
        bool,
        "Learning-rate finder: increasing rates on a few batches, without training.",
        "--find-learning-rate",
    )
    annotations["summary"] = _own(
        "Model", bool, "Table of the network's layers before training.", "--summary"
    )
    annotations["json"] = _own("Output", bool, "One JSON object as output.", "--json")
    annotations["quiet"] = _own(
        "Output", bool, "No progress and notes: result and errors only.", "--quiet", "-q"
    )
    annotations["debug"] = _own("Output", bool, "Full traceback of an error.", "--debug")
    return inspect.Signature(
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=annotation,
                default=False if annotation.__origin__ is bool and name not in OPTIONS else None,
            )
            for name, annotation in annotations.items()
        ]
    )


def _own(panel: str, kind: Any, text: str, *names: str, metavar: str | None = None) -> Any:
    option = typer.Option(*names, help=text, metavar=metavar, rich_help_panel=panel)
    return Annotated[kind, option]


setattr(train, "__signature__", _signature())  # noqa: B010 (unknown to mypy)


def _settings(file: str | None, given: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a file, overridden by the given options."""
    from kindsight.runs.train import TrainSettings
    from kindsight.training.engine.plan import read_phase
    from kindsight.training.option_rules import read_option

    values = {
        name: read_option(OPTIONS[name], value)
        for name, value in given.items()
        if name in OPTIONS and value not in (None, [])
    }
    if "columns" in values:
        values["columns"] = columns_of(list(values["columns"]))
    if "phases" in values:
        values["phases"] = [read_phase(line) for line in values["phases"]]
    if file is not None:
        return TrainSettings.from_toml(file, **values)
    if "data" not in values:
        raise SettingsError(
            "No data given. Give a folder of images, as in kindsight train photos/, or a settings "
            "file with --settings."
        )
    return TrainSettings(**values)


# Number of printed rows of the sweep.
SHOWN = 20


def layer_lines(settings: TrainSettings, *, quiet: bool) -> Iterator[str]:
    """Yield the table of the network's layers, for the classes of the data.

    Raises
    ------
    SettingsError
        If the backbone is frozen.
    """
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.learning_rates import layers_of

    with watching(quiet) as progress:
        rows = layers_of(settings, progress=progress)
    transfer = any(row.trainable for row in rows)
    cells = [
        (
            row.name,
            row.kind,
            *([row.trainable] if transfer else []),
            " x ".join(map(str, row.output)),
            f"{row.parameters:,}",
        )
        for row in rows
    ]
    total = f"{sum(row.parameters for row in rows):,}"
    heads: tuple[str, ...] = ("layer", "type", "output", "parameters")
    last: tuple[str, ...] = ("total", "", "", total)
    if transfer:
        trainable = sum(row.parameters for row in rows if row.trainable.startswith("trainable"))
        heads = (*heads[:2], "training", *heads[2:])
        last = (*last[:2], f"{trainable:,} trainable", *last[2:])
    left = 3 if transfer else 2
    yield from table(heads, [*cells, last], paint=Paint(sys.stdout), left=left)
    yield ""


def show_learning_rates(settings: TrainSettings, *, json: bool, quiet: bool) -> None:
    """Run the learning-rate finder and print its losses and suggestion."""
    from kindsight.cli.terminal.progress import watching
    from kindsight.runs.learning_rates import find_learning_rate

    with watching(quiet) as progress:
        sweep, files = find_learning_rate(settings, progress=progress)
    if json:
        print_json({**sweep.to_dict(), "files": [str(file) for file in files]})
    else:
        from kindsight.cli.terminal.summary import facts

        say(*_sweep_lines(sweep), "")
        for file in files:
            say(*facts({"figure": printable(str(file))}, Paint(sys.stdout)))


def _sweep_lines(sweep: RateSweep) -> Iterator[str]:
    paint = Paint(sys.stdout)
    every = max(1, len(sweep.rates) // SHOWN)
    rows = [
        (f"{rate:.2e}", f"{loss:.4f}")
        for rate, loss in list(zip(sweep.rates, sweep.losses, strict=True))[::every]
    ]
    yield from table(("learning rate", "loss"), rows, paint=paint, left=0)
    yield ""
    if sweep.suggestion is None:
        yield "No suggestion: the loss increased from the lowest learning rate."
    else:
        yield paint(f"Suggested: --learning-rate {sweep.suggestion:g}", "bold")
        yield paint("A tenth of the highest learning rate before the loss rises.", "dim")


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

    A quarter of the 2,624 images is the test split. The accuracy is shown next to that of the paper
    on the data. Needs the package elpv-dataset: pip install 'kindsight[demo]'

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
    """Yield the output of the demo: the accuracy, the paper's, and the next command."""
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
