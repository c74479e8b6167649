"""The commands; each is imported when it is needed."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Annotated

import typer

from kindsight.cli.terminal.command import Command, Commands, ResumableCommand

__all__ = ["COMMANDS", "make_app"]

_RESUMABLE = {"check", "train", "improve", "demo"}

COMMANDS = {
    "check": "check",
    "train": "train",
    "improve": "improve",
    "predict": "predict",
    "evaluate": "evaluate",
    "compare": "report",
    "diagnose": "improve",
    "explain": "explain",
    "learning-curve": "suggest",
    "suggest": "suggest",
    "report": "report",
    "export": "export",
    "serve": "serve",
    "studio": "serve",
    "preview": "preview",
    "backbones": "backbones",
    "info": "cache",
    "demo": "train",
    "cache": "cache",
}
"""The module of each command, which has a function of its name; in the order of the help."""


def make_app(names: Iterable[str] = tuple(COMMANDS)) -> typer.Typer:
    """Return the Typer application with some of :data:`COMMANDS`, whose modules are imported."""
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
    app.callback()(kindsight)
    for name in names:
        module = importlib.import_module(f"kindsight.cli.{COMMANDS[name]}")
        if name == "cache":
            app.add_typer(module.cache_app)
            continue
        command = getattr(module, name.replace("-", "_"))
        app.command(cls=ResumableCommand if name in _RESUMABLE else Command)(command)
    return app


def _show_version(requested: bool) -> None:
    if requested:
        from importlib.metadata import version

        typer.echo(f"kindsight {version('kindsight')}")
        raise typer.Exit


def kindsight(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Version of kindsight.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Train, check and run image classifiers."""
