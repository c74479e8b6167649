"""Options of ``kindsight train``: the run, how pictures are divided, what is looked for."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "CheckBefore",
    "Fold",
    "GroupNear",
    "LeaksOption",
    "RunName",
    "Runs",
    "Seed",
    "SettingsFile",
    "SplitBy",
    "SplitOption",
    "Test",
    "TestData",
    "Validation",
    "ValidationData",
]


def _share(text: str) -> float | int:
    """Read a fraction or a number of pictures."""
    try:
        return int(text) if text.strip().isdigit() else float(text)
    except ValueError:
        raise typer.BadParameter(
            f"must be a fraction such as 0.2, or a number of pictures. Received: {text!r}"
        ) from None


RunName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The run folder's name or path.  [default: <name of DATA>-<next number>]",
    ),
]
Runs = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Where run folders are made.  [default: runs]"),
]
Validation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help="Pictures kept back to validate on, as a fraction or a number.  [default: 0.2]",
    ),
]
Test = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        parser=_share,
        help="Pictures kept back for a last test, as a fraction or a number.  [default: 0]",
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        metavar="NUMBER", help="Another seed divides the pictures otherwise.  [default: 0]"
    ),
]
SettingsFile = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Repeat a run by its settings.toml; options given beside it win.",
    ),
]
ValidationData = Annotated[
    str | None,
    typer.Option(
        "--validation-data",
        metavar="DATA",
        help="Other data, all of whose pictures are the validation part.",
    ),
]
TestData = Annotated[
    str | None,
    typer.Option(
        "--test-data",
        metavar="DATA",
        help="Other data, all of whose pictures are the test part.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="FILE",
        help="Divide as a table of paths and splits says, such as another run's split.csv.",
    ),
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        "--split-by",
        metavar="random|date",
        help="date: the newest pictures, by their EXIF data, are kept back.  [default: random]",
    ),
]
Fold = Annotated[
    str | None,
    typer.Option(
        "--fold",
        metavar="K/N",
        help="Validate on one fold of several: 2/5 is the second of five.",
    ),
]
GroupNear = Annotated[
    bool | None,
    typer.Option(
        "--group-near",
        help="Keep pictures that are nearly the same (bursts, copies stored anew) in one part.",
        show_default=False,
    ),
]
LeaksOption = Annotated[
    str | None,
    typer.Option(
        "--leaks",
        metavar="drop|move|keep",
        help="What becomes of pictures that the validation or test part has too, the same or "
        "nearly: drop leaves them out of training, move takes them to the training part.  "
        "[default: drop]",
    ),
]
CheckBefore = Annotated[
    str | None,
    typer.Option(
        "--check",
        metavar="cheap|full",
        help="full: run all checks, as kindsight check --full does, and write what they find into "
        "the run folder.  [default: cheap]",
    ),
]
