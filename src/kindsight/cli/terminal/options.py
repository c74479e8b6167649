"""Options on the command line: created from their declarations, and shared by commands."""

from __future__ import annotations

import inspect
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from kindsight.errors import SettingsError
from kindsight.options import OPTIONS, Option

if TYPE_CHECKING:
    from kindsight.dataset import DataOptions

__all__ = [
    "BundleFolder", "Data", "DataOf", "Debug", "Json", "On", "Quiet", "SetsPerClass",
    "TargetAccuracy", "TargetCoverage", "Workers", "as_typed", "columns_of",
    "declared_annotation", "declared_option", "with_data_options",
]  # fmt: skip


Command: TypeAlias = "Callable[..., None]"


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


def declared_annotation(option: Option, panel: str | None = None) -> Any:
    """Return the annotation of a command's parameter; values arrive as text."""
    kind: Any = bool if bool in option.types else str
    if option.flag in ("--phase", "--column"):
        kind = list[str]
    return Annotated[kind | None, declared_option(option.name, panel)]


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

On = Annotated[
    str | None,
    typer.Option(
        "--on",
        metavar=OPTIONS["on"].metavar,
        help=f"{OPTIONS['on'].help}  [default: local]",
    ),
]

_FORM = ("columns", "pixel_shape", "root", "follow_links", "encoding")
_LABELS = ("label_from", "label_names", "label_map", "multi_label", "keep_na_labels")


def with_data_options(*more: str, labels: bool = True) -> Callable[[Command], Command]:
    """Return a decorator that adds the options for reading data to a command.

    They take the place of the command's parameter `options`, which gets them as
    :class:`kindsight.dataset.DataOptions`.

    Parameters
    ----------
    *more : str
        Names of further options.
    labels : bool
        Whether the command reads labels and has the options for them.
    """
    names = [
        name
        for name, option in OPTIONS.items()
        if name in (*_FORM, *(_LABELS if labels else ()), *more) and option.flag != "-"
    ]

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True, locals={"DataOptions": object})
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name != "options":
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
                continue
            parameters += [
                inspect.Parameter(
                    name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=declared_annotation(OPTIONS[name]),
                    default=None,
                )
                for name in names
            ]

        def run(**given: Any) -> None:
            options = _data_options({name: given.pop(name) for name in names})
            command(**given, options=options)

        run.__name__, run.__doc__, run.__module__ = (
            command.__name__, command.__doc__, command.__module__
        )  # fmt: skip
        setattr(run, "__signature__", inspect.Signature(parameters))  # noqa: B010 (unknown to mypy)
        return run

    return decorate


def _data_options(given: Mapping[str, Any]) -> DataOptions:
    from kindsight.dataset import DataOptions

    values = {name: value for name, value in given.items() if value not in (None, [])}
    if "columns" in values:
        values["columns"] = columns_of(values["columns"])
    if "label_names" in values:
        values["label_names"] = tuple(name.strip() for name in values["label_names"].split(","))
    if "value_range" in values:
        values["value_range"] = _value_range_of(values["value_range"])
    return DataOptions(**values)


# Rules by which a prediction has no label, and prediction sets; see kindsight.Predictor.
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
"""The kinds of data, for the help of every command that takes data."""

Data = Annotated[str, typer.Argument(help=DataOf)]
BundleFolder = Annotated[str, typer.Argument(help="Run folder or model bundle.")]


_NAMED = re.compile(r"`(\w+)(?:=([^`]+))?`")


def as_typed(text: str, params: Iterable[Any] = ()) -> str:
    """Return a message that names options as they are typed: ``--size`` for `` `size` ``.

    A value is translated, too: ``--freeze all`` for `` `freeze="all"` ``. Other names stay
    unchanged.

    Parameters
    ----------
    text : str
        Message that names options in backticks, by their key in :data:`kindsight.options.OPTIONS`
        or by the parameter of the command.
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
    """Return columns such as ``label=species`` as a mapping; None if there are none.

    Raises
    ------
    SettingsError
        If a text has another form.
    """
    pairs = [text.partition("=") for text in given or ()]
    if bad := [text for text, pair in zip(given or (), pairs, strict=True) if not all(pair)]:
        raise SettingsError(f"--column must be KIND=NAME, such as label=species; got {bad[0]!r}.")
    return {kind: name for kind, _, name in pairs} or None


def _value_range_of(given: str) -> Any:
    """Return ``0,4095`` as a pair of numbers; other text unchanged, which DataOptions rejects."""
    try:
        return tuple(float(number) for number in given.split(","))
    except ValueError:
        return given
