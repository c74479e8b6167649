"""Options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["Debug", "Json", "Quiet", "Workers"]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the result and errors only."),
]
# Taken by every command and used by none: Command looks it up when an error comes by.
Debug = Annotated[bool, typer.Option("--debug", help="Show an error's full traceback.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help="Pictures worked on at once.  [default: the number of cores]",
    ),
]
