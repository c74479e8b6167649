"""Options that several commands share, so that they are named and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

from kindsight.errors import SettingsError

__all__ = [
    "Column",
    "DataOf",
    "Debug",
    "GroupFrom",
    "Json",
    "LabelFrom",
    "LabelNames",
    "PixelShape",
    "Quiet",
    "Root",
    "Workers",
    "columns_of",
    "names_of",
]

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
        help="Images worked on at once.  [default: the number of cores]",
    ),
]

# How data are read that do not say it themselves: see kindsight.dataset.DataOptions.
LabelFrom = Annotated[
    str | None,
    typer.Option(
        "--label-from",
        metavar="PATTERN",
        help="Take the labels from the files' names: a regular expression whose first group, or "
        r"the one called label, is the label, such as '^(.+?)_\d+'. With a / in it, it is looked "
        "for in the path.",
    ),
]
GroupFrom = Annotated[
    str | None,
    typer.Option(
        "--group-from",
        metavar="PATTERN",
        help="The same for groups: images of one patient or scene, which stay together when the "
        "images are divided.",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="KIND=NAME",
        help="What a table's column of path, label, split or group is called, where it has no "
        "usual name: --column label=species. May be given several times.",
    ),
]
LabelNames = Annotated[
    str | None,
    typer.Option(
        "--label-names",
        metavar="NAME,NAME,...",
        help="What the labels 0, 1, 2, ... are called.",
    ),
]
PixelShape = Annotated[
    str | None,
    typer.Option(
        "--pixel-shape",
        metavar="HEIGHTxWIDTH[x3]",
        help="The shape of images that are given as rows of pixels.  [default: square]",
    ),
]
Root = Annotated[
    str | None,
    typer.Option(
        "--root",
        metavar="FOLDER",
        help="Where a table's paths start.  [default: the table's folder]",
    ),
]

DataOf = (
    "A folder with one folder of images for each class, or with train, validation and test "
    "folders of such folders; or a table (CSV, Parquet) of paths or pixels, or arrays (.npz)."
)
"""What data can be, for the help of every command that takes some."""


def columns_of(given: list[str] | None) -> dict[str, str] | None:
    """Read ``label=species`` and the like; None where there is none."""
    pairs = [text.partition("=") for text in given or ()]
    if bad := [kind for kind, equals, name in pairs if not equals or not kind or not name]:
        raise SettingsError(
            f"--column must be KIND=NAME, such as label=species. Received: {bad[0]!r}."
        )
    return {kind: name for kind, _, name in pairs} or None


def names_of(given: str | None) -> tuple[str, ...] | None:
    """Read names with commas between them; None where there is none."""
    return None if given is None else tuple(name.strip() for name in given.split(","))
