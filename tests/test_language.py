"""Help, messages, docstrings and documentation use the standard terms and no others."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from typer.models import OptionInfo

from kindsight.options import OPTIONS

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "kindsight"

# The terms to avoid, as regular expressions, with the standard term.
WORDS = {
    r"pictures?|Pictures?": "image",
    r"catalog(ue)?s?": "dataset",
    r"parted|divisions?": "split",
    r"set aside|passed over": "skipped, ignored",
    r"(held|kept|holds?|keeps?) back": "validation or test split; L2 strength",
    r"leaks?": "leakage, duplicate across splits",
    r"alike|likeness": "near-duplicate",
    r"(augmented|flipped|turned|more|all|averaged) views?": "copy, TTA",
    r"looks? (at|as if)|looked (at|for)": "is measured, is read, similar",
    r"([Ww]here|[Ww]hat) (it|the (model|network|classifier)) (looks|sees)": "saliency map",
    r"kept (views|parts|pixels)": "cached",
    r"(backbones|networks|heads) side by side": "ensemble",
    r"pace": "learning rate, speed",
    r"running mean": "EMA of weights",
    r"curved": "RBF",
    r"sure|surer": "confidence, overconfident",
    r"told|heard|listeners?|lessons?": "settings, callback, samples",
    r"by heart|as (it is|they are)(?=[.,;)])|unasked|so many|goes on|went on": "",
    r"how it (learns|goes on)|what (lies below|is kept|is read|is told|is said|is asked)": "",
    r"Received: .*": "got ...",
    r"are right|is right|right answers?": "correct",
}
PATTERN = re.compile(rf"\b(?:{'|'.join(WORDS)})\b")

# Files that still have some of these words.
EXCEPTED: tuple[str, ...] = ("CHANGELOG.md",)  # its table has the old names


# Names of random streams: other ones would change every seeded result.
FIXED = ("order of pictures",)


def found(text: str) -> list[str]:
    return [match[0][:40] for match in PATTERN.finditer(text)]


def commands(app: typer.Typer) -> Iterator[object]:
    for command in app.registered_commands:
        yield command.callback
    for group in app.registered_groups:
        yield from commands(group.typer_instance)


def option_helps() -> dict[str, str]:
    """Return the help of every option and argument of every command."""
    import inspect

    from kindsight.cli.app import app

    helps = {f"kindsight.options {name}": option.help for name, option in OPTIONS.items()}
    for function in commands(app):
        for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
            (info,) = parameter.annotation.__metadata__
            helps[f"{function.__name__} {name}"] = info.help or ""
            if isinstance(info, OptionInfo) and parameter.default not in (None, False):
                helps[f"{function.__name__} {name}"] += f"  [default: {parameter.default}]"
    return helps


def texts(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of all strings and comments of a module.

    Strings are docstrings, errors, notes, help, JSON keys and column names.
    """
    code = file.read_text("utf-8")
    for node in ast.walk(ast.parse(code)):
        is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if is_text and node.value not in FIXED:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def errors(file: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of the strings in raise statements of a module."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        for inner in ast.walk(node) if isinstance(node, ast.Raise) else ():
            if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
                yield inner.lineno, inner.value


def is_excepted(path: Path) -> bool:
    return path.relative_to(ROOT).as_posix().startswith(EXCEPTED) if EXCEPTED else False


@pytest.mark.parametrize(("name", "text"), option_helps().items(), ids=option_helps())
def test_the_help_of_an_option(name, text):
    assert found(text) == []
    text = re.split(r"\s+\[default:", text)[0].removesuffix(" *")
    assert text[0].isupper() and text[-1] in ".)", text
    assert not re.match(r"(The|A|An|How|What|Whether|Which|Of|Let|Over|Where|Overwrite)\b", text)


def test_an_option_with_a_default_states_it():
    from kindsight.cli.terminal.options import declared_option

    for name, option in OPTIONS.items():
        if option.flag != "-" and option.default is not None and bool not in option.types:
            assert "[default: " in declared_option(name).help, name


def test_the_descriptions_of_the_commands():
    from kindsight.cli.app import app

    for function in commands(app):
        assert found(function.__doc__) == []
        assert re.match(r"[A-Z][a-z]+ ", function.__doc__) and "Example: " in function.__doc__


FILES = [path for path in sorted(SOURCE.rglob("*.py")) if not is_excepted(path)]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_strings_and_comments(file):
    wrong = [f"{file.name}:{line} {words}" for line, text in texts(file) if (words := found(text))]
    assert wrong == []


# Templates of the pages, with their style and script: their text is what a reader of a report sees.
# Third-party scripts are not ours to word.
TEMPLATES = [
    path
    for path in sorted(SOURCE.rglob("*"))
    if path.suffix in (".j2", ".css", ".js", ".html") and "vendor" not in path.parts
]


@pytest.mark.parametrize("file", TEMPLATES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_templates(file):
    lines = file.read_text("utf-8").splitlines()
    wrong = [
        f"{file.name}:{n} {words}" for n, line in enumerate(lines, 1) if (words := found(line))
    ]
    assert wrong == []


def test_templates_are_read():
    names = {path.name for path in TEMPLATES}
    assert {"report.html.j2", "macros.html.j2", "side_by_side.html.j2", "report.js"} <= names


def test_errors_name_options_as_in_python():
    """The command line translates `size` to --size; what it raises itself may be either."""
    outside = [file for file in FILES if SOURCE / "cli" not in file.parents]
    wrong = [
        f"{file.name}:{line} {text}"
        for file in outside
        for line, text in errors(file)
        if re.search(r"(?<![\w-])--[a-z]", text)
    ]
    assert wrong == []


def test_the_documentation_in_python_names_no_option_of_the_command_line():
    import kindsight

    text = kindsight.ImageClassifier.__doc__ or ""
    assert re.findall(r"(?<![\w-])--[a-z][a-z-]*| \*$|given once|\bLAYER\b", text) == []


PAGES = [
    page
    for page in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
    if not is_excepted(page)
]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages(page):
    lines = page.read_text("utf-8").splitlines()
    wrong = [
        f"{page.name}:{n} {words}" for n, line in enumerate(lines, 1) if (words := found(line))
    ]
    assert wrong == []
