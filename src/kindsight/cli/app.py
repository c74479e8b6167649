"""The Typer application with all commands."""

from __future__ import annotations

from kindsight.cli.commands import make_app

__all__ = ["app"]

app = make_app()
