"""Write docs/cli.md and docs/reference/options.md; tests hold that they are up to date.

Run it after a change of the command line: ``make docs``, or ``python docs/make_cli.py``. The help
is taken from the functions behind the commands, so that the pages do not depend on the layout of a
version of Typer.
"""

from __future__ import annotations

import html
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_origin

import typer
from typer.models import ArgumentInfo, OptionInfo

PAGE = Path(__file__).parent / "cli.md"
OPTIONS_PAGE = Path(__file__).parent / "reference" / "options.md"

BEGINNING = """\
# Commands

<!-- Written by docs/make_cli.py from the commands' own help. Do not edit it here. -->

`kindsight COMMAND --help` shows the same in the terminal, and `kindsight --version` the version.
`python -m kindsight` is the same as `kindsight`. The exit codes are explained in
[Errors and exit codes](guide/errors.md).

A program that runs a command gets its progress as lines of JSON on standard error if the
environment variable `KINDSIGHT_PROGRESS` is `json`: `{"stage", "title", "done", "total"}` for a
stage, and `{"epoch": {...}}` with a row of `history.csv` for each epoch of a training, those of an
interrupted training first. Notes and errors remain plain lines. `--json` gives the result as one
object on standard output.
"""

OPTIONS_BEGINNING = """\
# Training options

<!-- Written by docs/make_cli.py from kindsight.options. Do not edit it here. -->

Each option has one name: `learning_rate` is the option `--learning-rate` of `kindsight train`
and a key of `settings.toml`. If the last column has *yes*, it is also a parameter of
[`ImageClassifier`](classifier.md). The column *training* lists the kinds of training that take it:
*frozen* backbone, *network* from scratch, or *transfer* learning by epochs. A
backbone is trained by epochs as soon as an option marked * is given.
"""


def commands(app: typer.Typer, words: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every command with the function behind it, in the order of the help."""
    for command in app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__.replace("_", "-")
        yield f"{words} {name}", command.callback
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        yield from commands(inner, f"{words} {group.name or inner.info.name}")


def section(words: str, function: Callable[..., Any]) -> Iterator[str]:
    """Yield the lines about one command."""
    text, *examples = inspect.cleandoc(function.__doc__ or "").split("Example: ")
    found = list(parameters(function))
    arguments = [row for row in found if not row[0].startswith("-")]
    options = [row for row in found if row[0].startswith("-")]
    usage = " ".join([words, *(row[0] for row in arguments), "[OPTIONS]"])
    yield from ("", f"## {words}", "", text.strip(), "", "```text", usage, "```")
    if examples:
        title = "Example" if len(examples) == 1 else "Examples"
        yield from ("", f"{title}:", "", "```text", *map(str.strip, examples), "```")
    if arguments:
        yield from ("", "| argument | |", "|---|---|")
        yield from (f"| {code(name)} | {cell(text)} |" for name, text, *_ in arguments)
    for panel in dict.fromkeys(row[3] for row in options):
        yield from ("", f"| {panel or 'option'} | | default |", "|---|---|---|")
        yield from (
            f"| {code(name)} | {cell(text)} | {cell(rest)} |"
            for name, text, rest, own in options
            if own == panel
        )


def parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, help, default and panel of every argument and option, panel by panel."""
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        (info,) = parameter.annotation.__metadata__
        text, _, default = (info.help or "").rstrip("]").partition("[default: ")
        if isinstance(info, ArgumentInfo):
            many = "..." if get_origin(parameter.annotation.__origin__) is list else ""
            yield (info.metavar or name.upper()).rstrip(".") + many, text, "", ""
        elif isinstance(info, OptionInfo) and not info.hidden:
            if parameter.default not in (None, False, inspect.Parameter.empty):
                default = str(parameter.default)
            value = f" {info.metavar}" if info.metavar else ""
            spelled = ", ".join(spellings(name, info)) + value
            yield spelled, text, default, info.rich_help_panel or ""


def spellings(name: str, info: OptionInfo) -> list[str]:
    """Return an option's names; in an annotation, Typer stores the first as the default."""
    given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
    return given or [f"--{name.replace('_', '-')}"]


def cell(text: str) -> str:
    """Return a text as the cell of a table."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def code(text: str) -> str:
    """Return a text as code in the cell of a table; in backticks, a | would end the cell."""
    return f"<code>{cell(text)}</code>"


def page() -> str:
    """Return the page's text."""
    from kindsight.cli.app import app

    parts = [BEGINNING]
    for words, function in commands(app, "kindsight"):
        parts.append("\n".join(section(words, function)) + "\n")
    return "".join(parts)


def options_page() -> str:
    """Return the text of the page about the options."""
    from kindsight.options import CLASSIFIER_OPTIONS, OPTIONS, PANELS

    lines = [OPTIONS_BEGINNING.rstrip()]
    for panel in PANELS:
        lines += ["", f"## {panel}", ""]
        lines.append("| option | | type | default | training | `ImageClassifier` |")
        lines.append("|---|---|---|---|---|---|")
        for name, option in OPTIONS.items():
            if option.panel == panel:
                trainers = ", ".join(option.trainers) or "all"
                parameter = "yes" if name in CLASSIFIER_OPTIONS else ""
                values = (option.help, option.type_text, option.shown_default, trainers, parameter)
                lines.append(f"| {code(name)} | " + " | ".join(map(cell, values)) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    OPTIONS_PAGE.write_text(options_page(), encoding="utf-8", newline="\n")
