"""Options on the command line: made from their declarations, and those that commands share."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from kindsight.errors import SettingsError
from kindsight.options import OPTIONS, Option

__all__ = [
    "Column",
    "DataOf",
    "Debug",
    "Encoding",
    "FollowLinks",
    "Json",
    "KeepNaLabels",
    "LabelFrom",
    "LabelNames",
    "MultiLabel",
    "PixelShape",
    "Quiet",
    "Root",
    "SetsPerClass",
    "TargetAccuracy",
    "TargetCoverage",
    "Workers",
    "as_typed",
    "columns_of",
    "declared_annotation",
    "declared_option",
    "names_of",
]


def declared_option(name: str, panel: str | None = None) -> Any:
    """Return the Typer option for a declared option.

    Parameters
    ----------
    name : str
        A key of :data:`kindsight.options.OPTIONS`.
    panel : str, optional
        The group in the help of a command that has groups.
    """
    option = OPTIONS[name]
    switch = bool in option.types
    spelling = option.spelling
    if switch and (option.trainers or option.default is True):
        spelling += f"/--no-{spelling.removeprefix('--')}"
    default = option.default_text if switch else option.shown_default
    return typer.Option(
        spelling,
        metavar=None if switch else option.metavar or "|".join(option.choices) or "N",
        help=option.help + (f"  [default: {default}]" if default else ""),
        rich_help_panel=panel,
        show_default=False,
    )


def declared_annotation(option: Option) -> Any:
    """Return the annotation of a command's parameter; values arrive as text."""
    kind: Any = bool if bool in option.types else str
    if option.flag in ("--phase", "--column"):
        kind = list[str]
    return Annotated[kind | None, declared_option(option.name, option.panel)]


Json = Annotated[bool, typer.Option("--json", help="One JSON object as output.")]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress and notes: result and errors only.")
]
# Every command takes it and none uses it: Command reads it when an error is raised.
Debug = Annotated[bool, typer.Option("--debug", help="Full traceback of an error.")]
Workers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        metavar="N",
        help=f"{OPTIONS['workers'].help}  [default: number of cores]",
    ),
]

# How data are read that do not describe themselves: see kindsight.dataset.DataOptions.
LabelFrom = Annotated[str | None, declared_option("label_from")]
Column = Annotated[list[str] | None, declared_option("columns")]
LabelNames = Annotated[str | None, declared_option("label_names")]
PixelShape = Annotated[str | None, declared_option("pixel_shape")]
Root = Annotated[str | None, declared_option("root")]
FollowLinks = Annotated[bool | None, declared_option("follow_links")]
MultiLabel = Annotated[str | None, declared_option("multi_label")]
KeepNaLabels = Annotated[bool, declared_option("keep_na_labels")]
Encoding = Annotated[str | None, declared_option("encoding")]
ValueRange = Annotated[str | None, declared_option("value_range")]

# When a prediction has no label, and prediction sets: see kindsight.Predictor.
TargetAccuracy = Annotated[
    float | None,
    typer.Option(
        "--target-accuracy",
        metavar="ACCURACY",
        help=f"{OPTIONS['target_accuracy'].help}  [default: as trained]",
        show_default=False,
    ),
]
TargetCoverage = Annotated[
    float | None,
    typer.Option(
        "--target-coverage",
        metavar="FRACTION",
        help=f"{OPTIONS['target_coverage'].help}  [default: as trained]",
        show_default=False,
    ),
]
SetsPerClass = Annotated[
    bool, typer.Option("--sets-per-class", help="This confidence level for each class.")
]

DataOf = OPTIONS["data"].help
"""The forms of data, for the help of every command that takes some."""


_NAMED = re.compile(r"`(\w+)(?:=([^`]+))?`")


def as_typed(text: str, params: Iterable[Any] = ()) -> str:
    """Return a message that names options as they are typed: ``--size`` for `` `size` ``.

    A value is typed, too: ``--freeze all`` for `` `freeze="all"` ``. Other names stay unchanged.

    Parameters
    ----------
    text : str
        Names options in backticks by their key in :data:`kindsight.options.OPTIONS`, or by the
        parameter of the command.
    params : iterable of click.Parameter
        The parameters of the command.
    """
    spellings = {name: option.spelling for name, option in OPTIONS.items() if option.flag != "-"}
    for param in params:
        is_option = param.param_type_name == "option"
        spellings[param.name] = param.opts[0] if is_option else param.name.upper()

    def typed(found: re.Match[str]) -> str:
        name, value = found.groups()
        if name not in spellings:
            return found[0]
        if value is None:
            return spellings[name]
        plain = value.replace('": "', "=").strip('{}"')
        return f"{spellings[name]} {shlex.quote(plain)}"

    return _NAMED.sub(typed, text)


def columns_of(given: list[str] | None) -> dict[str, str] | None:
    """Return ``label=species`` and the like as a mapping; None for none.

    Raises
    ------
    SettingsError
        For anything else.
    """
    pairs = [text.partition("=") for text in given or ()]
    if bad := [text for text, pair in zip(given or (), pairs, strict=True) if not all(pair)]:
        raise SettingsError(f"--column must be KIND=NAME, such as label=species; got {bad[0]!r}.")
    return {kind: name for kind, _, name in pairs} or None


def names_of(given: str | None) -> tuple[str, ...] | None:
    """Return names separated by commas; None for none."""
    return None if given is None else tuple(name.strip() for name in given.split(","))
