"""Run the code blocks of a page of the documentation, in order, in the current folder.

test_docs.py runs ``python run_page.py PAGE [--output]``. If a block fails, the exit code is 1 and
the error names the line. These blocks are run:

- ```` ```python ````: all blocks of a page in one namespace.
- ```` ```{.text .output} ````: the output of the block before it.
- ```` ```console ````: each line that starts with ``$``, by bash; the lines after it are its
  output. The exit code must be 0, or the one shown after ``$ echo $?``. Commands that set up a
  machine (make, pip, git) are not run.

With ``--output`` the outputs are compared line by line. Numbers, absolute paths and selected models
differ between machines, so a line must start with the same word as the one shown and be similar to
it. ``...`` matches anything: the rest of a line, or any number of lines.
"""

from __future__ import annotations

import difflib
import io
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

SIMILARITY = 0.6
NOT_RUN = ("make ", "pip ", "git ", "cd ", "sudo ", "kindsight demo")
CONTINUATION = " " * 10
# Not printed if the classifier makes no mistakes.
OPTIONAL = "Lowest recall "
_FENCE = re.compile(r"^```(\S.*?)\n(.*?)^```\s*$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where the text starts."""

    language: str
    text: str
    line: int


class PageError(Exception):
    """A block failed or printed something else."""


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks with a language of a Markdown page."""
    for match in _FENCE.finditer(text):
        language = match[1].strip()
        if language == "{.text .output}":
            language = "output"
        yield Block(language, match[2], text.count("\n", 0, match.start(2)) + 1)


def run_page(page: Path, compare: bool) -> int:
    """Run a page and return the number of blocks that were run."""
    namespace: dict[str, object] = {"__name__": "__main__"}
    printed, count = "", 0
    for block in blocks(page.read_text("utf-8")):
        try:
            if block.language == "python":
                printed = run_python(block, page, namespace)
            elif block.language == "output" and compare:
                check_output(block.text, printed)
            elif block.language == "console":
                run_console(block, compare)
            else:
                continue
        except (Exception, SystemExit) as error:
            where = f"{page}, the block at line {block.line}"
            raise PageError(f"{where}: {type(error).__name__}: {error}") from error
        count += 1
    return count


def run_python(block: Block, page: Path, namespace: dict[str, object]) -> str:
    """Run a Python block and return its output. Tracebacks have the line numbers of the page."""
    stream = io.StringIO()
    source = "\n" * (block.line - 1) + block.text
    with redirect_stdout(stream):
        exec(compile(source, str(page), "exec"), namespace)
    return stream.getvalue()


def run_console(block: Block, compare: bool) -> None:
    """Run the commands of a block, one after the other."""
    steps = commands(block.text)
    for number, (command, shown) in enumerate(steps):
        if command == "echo $?" or command.startswith(NOT_RUN):
            continue
        following = steps[number + 1] if number + 1 < len(steps) else ("", "")
        expected = int(following[1]) if following[0] == "echo $?" else 0
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            timeout=600,
            check=False,
        )
        if done.returncode != expected:
            raise PageError(
                f"$ {command}\nexit code {done.returncode}, expected {expected}:\n{done.stderr}"
            )
        if compare and shown.strip():
            lines = shown.splitlines()
            errors = [line for line in lines if line.startswith(("kindsight:", "note:"))]
            check_output("\n".join(line for line in lines if line not in errors), done.stdout)
            check_output("\n".join(["...", *errors, "..."]), done.stderr)


def commands(text: str) -> list[tuple[str, str]]:
    """Return the commands of a console block with their outputs."""
    found = re.split(r"^\$ ", text, flags=re.M)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in found]


def check_output(shown: str, printed: str) -> None:
    """Raise PageError if a printed text differs from the one shown."""
    expected, actual = whole_lines(shown), whole_lines(printed)
    row, skipping = 0, False
    for line in expected:
        if line == "...":
            skipping = True
            continue
        while skipping and row < len(actual) and not similar(line, actual[row]):
            row += 1
        if row == len(actual) or not similar(line, actual[row]):
            found = actual[row] if row < len(actual) else "nothing more"
            raise PageError(f"the page shows\n{line}\nbut the output is\n{found}\n\nin\n{printed}")
        row, skipping = row + 1, False
    if expected and not skipping and row != len(actual):
        raise PageError(f"the page does not show\n{actual[row]}\n\nin\n{printed}")


def whole_lines(text: str) -> list[str]:
    """Return the lines that are not empty, with wrapped lines joined."""
    found: list[str] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(OPTIONAL):
            if line.startswith(CONTINUATION) and found:
                found[-1] += " " + line.strip()
            else:
                found.append(line.rstrip())
    return found


def similar(shown: str, given: str) -> bool:
    """Return whether two lines are equal up to numbers and details."""
    start, dots, end = shown.partition("...")
    if dots and not end.strip():
        return similar(start, given[: len(start)]) if start.strip() else True
    one, two = plain(shown), plain(given)
    if one.split()[:1] != two.split()[:1]:
        return False
    return difflib.SequenceMatcher(None, one, two, autojunk=False).ratio() >= SIMILARITY


def plain(line: str) -> str:
    """Return a line with its numbers, absolute paths and spaces normalised."""
    words = ("/" if word.startswith("/") else word for word in line.split())
    return re.sub(r"\d[\d.,]*", "0", " ".join(words))


if __name__ == "__main__":
    print(run_page(Path(sys.argv[1]), compare="--output" in sys.argv[2:]))
