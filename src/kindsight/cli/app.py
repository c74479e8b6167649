"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from kindsight.cli.backbones import backbones
from kindsight.cli.cache import cache_app
from kindsight.cli.check import check
from kindsight.cli.demo import demo
from kindsight.cli.evaluate import evaluate
from kindsight.cli.explain import explain
from kindsight.cli.info import info
from kindsight.cli.predict import predict
from kindsight.cli.preview import preview
from kindsight.cli.runs.compare import compare
from kindsight.cli.runs.diagnose import diagnose
from kindsight.cli.runs.improve import improve
from kindsight.cli.runs.learning_curve import learning_curve
from kindsight.cli.runs.report import report
from kindsight.cli.runs.suggest import suggest
from kindsight.cli.terminal.command import Command, Commands, ResumableCommand
from kindsight.cli.train import train

__all__ = ["app"]

app = typer.Typer(
    name="kindsight",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode=None,
    # Command shows plain tracebacks, with --debug only.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start with: kindsight train photos/   (one folder of images for each class)",
)


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"kindsight {version('kindsight')}")
        raise typer.Exit


@app.callback()
def kindsight(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Version of kindsight.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train, check and run image classifiers."""


app.command(cls=ResumableCommand)(check)
app.command(cls=ResumableCommand)(train)
app.command(cls=ResumableCommand)(improve)
app.command(cls=Command)(predict)
app.command(cls=Command)(evaluate)
app.command(cls=Command)(compare)
app.command(cls=Command)(diagnose)
app.command(cls=Command)(explain)
app.command(cls=Command)(learning_curve)
app.command(cls=Command)(suggest)
app.command(cls=Command)(report)
app.command(cls=Command)(preview)
app.command(cls=Command)(backbones)
app.command(cls=Command)(info)
app.command(cls=ResumableCommand)(demo)
app.add_typer(cache_app)
