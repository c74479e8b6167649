"""Write docs/cli.md from the commands' own help; a test holds that the two agree.

Run it after a change of the command line: ``make docs``, or ``python docs/make_cli.py``. The help
is taken from the functions behind the commands, so that the page does not depend on how a version
of Typer lays it out.
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

BEGINNING = """\
# Commands

<!-- Made by docs/make_cli.py from the commands' own help. Do not edit it here. -->

`kindsight COMMAND --help` says the same on the terminal, and `kindsight --version` the version.
`python -m kindsight` is the same as `kindsight`. What the exit codes mean is said in
[Errors and exit codes](guide/errors.md).
"""


def commands(app: typer.Typer, words: str) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Yield every command as it is typed, with the function behind it, in the order of the help."""
    for command in app.registered_commands:
        assert command.callback is not None
        yield f"{words} {command.name or command.callback.__name__}", command.callback
    for group in app.registered_groups:
        inner = group.typer_instance
        assert inner is not None
        yield from commands(inner, f"{words} {group.name or inner.info.name}")


def section(words: str, function: Callable[..., Any]) -> Iterator[str]:
    """Yield the lines about one command."""
    said, _, example = inspect.cleandoc(function.__doc__ or "").rpartition("Example: ")
    found = list(parameters(function))
    arguments = [row for row in found if not row[0].startswith("-")]
    options = [row for row in found if row[0].startswith("-")]
    usage = " ".join([words, *(row[0] for row in arguments), "[OPTIONS]"])
    yield from ("", f"## {words}", "", said.strip(), "", "```text", usage, "```", "")
    yield f"Example: `{example.strip()}`"
    if arguments:
        yield from ("", "| argument | |", "|---|---|")
        yield from (f"| {code(name)} | {cell(text)} |" for name, text, _ in arguments)
    yield from ("", "| option | | if left out |", "|---|---|---|")
    yield from (f"| {code(name)} | {cell(text)} | {cell(rest)} |" for name, text, rest in options)


def parameters(function: Callable[..., Any]) -> Iterator[tuple[str, str, str]]:
    """Yield name, help and default of every argument and option."""
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        (info,) = parameter.annotation.__metadata__
        text, _, default = (info.help or "").rstrip("]").partition("[default: ")
        if isinstance(info, ArgumentInfo):
            many = "..." if get_origin(parameter.annotation.__origin__) is list else ""
            yield (info.metavar or name.upper()).rstrip(".") + many, text, ""
        elif isinstance(info, OptionInfo) and not info.hidden:
            if parameter.default not in (None, False):
                default = str(parameter.default)
            value = f" {info.metavar}" if info.metavar else ""
            yield ", ".join(spellings(name, info)) + value, text, default


def spellings(name: str, info: OptionInfo) -> list[str]:
    """Return what an option is called; in an annotation, Typer keeps the first as the default."""
    given = [text for text in (info.default, *(info.param_decls or ())) if isinstance(text, str)]
    return given or [f"--{name.replace('_', '-')}"]


def cell(text: str) -> str:
    """Make a text fit for a cell of a table."""
    return html.escape(" ".join(text.split()), quote=False).replace("|", "&#124;")


def code(text: str) -> str:
    """Make a text fit for a cell of a table, as code; in backticks a | would end the cell."""
    return f"<code>{cell(text)}</code>"


def page() -> str:
    """Return the page's text."""
    from kindsight.cli.app import app

    parts = [BEGINNING]
    for words, function in commands(app, "kindsight"):
        parts.append("\n".join(section(words, function)) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
