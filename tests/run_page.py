"""Runs the code blocks of one page of the documentation, in order, in the current folder.

Used by test_docs.py, which starts it as a program: ``python run_page.py PAGE [--output]``.
It ends with 1 and says where, when a block fails. What is run:

- ```` ```python ````: all blocks of a page in one namespace.
- ```` ```{.text .output} ````: what the block before it must have printed.
- ```` ```console ````: each line that starts with ``$``, through bash; what follows it is its
  output. A command must end with 0, unless ``$ echo $?`` after it says otherwise. Commands that
  set up a machine (make, pip, git) are not run.

With ``--output`` the outputs are compared line by line, loosely: numbers, paths of the cache and
the details of a choice differ between machines, so a line must start with the same word and be
much like the one that is shown. ``...`` stands for anything, in a line and for any lines.
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

ALIKE = 0.6
SET_UP = ("make ", "pip ", "git ", "cd ", "sudo ", "kindsight demo")
HANGING = " " * 10
# Not printed if the classifier makes no mistakes.
SOMETIMES = "Lowest recall "
_FENCE = re.compile(r"^```(\S.*?)\n(.*?)^```\s*$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the page where the text starts."""

    language: str
    text: str
    line: int


class PageError(Exception):
    """A block that did not do what the page says."""


def blocks(text: str) -> Iterator[Block]:
    """Yield the fenced blocks of a Markdown page that name a language."""
    for match in _FENCE.finditer(text):
        language = match[1].strip()
        if language == "{.text .output}":
            language = "output"
        yield Block(language, match[2], text.count("\n", 0, match.start(2)) + 1)


def run_page(page: Path, compare: bool) -> int:
    """Run a page; return how many blocks were run."""
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
    """Run a block; return what it printed. Its lines keep their numbers on the page."""
    stream = io.StringIO()
    source = "\n" * (block.line - 1) + block.text
    with redirect_stdout(stream):
        exec(compile(source, str(page), "exec"), namespace)
    return stream.getvalue()


def run_console(block: Block, compare: bool) -> None:
    """Run the commands of a block, one after the other."""
    steps = commands(block.text)
    for number, (command, shown) in enumerate(steps):
        if command == "echo $?" or command.startswith(SET_UP):
            continue
        following = steps[number + 1] if number + 1 < len(steps) else ("", "")
        expected = int(following[1]) if following[0] == "echo $?" else 0
        done = subprocess.run(
            ["bash", "-c", command],
            capture_output=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            timeout=240,
            check=False,
        )
        if done.returncode != expected:
            raise PageError(
                f"$ {command}\nended with {done.returncode}, not {expected}:\n{done.stderr}"
            )
        if compare and shown.strip():
            said = shown.splitlines()
            errors = [line for line in said if line.startswith(("kindsight:", "note:"))]
            check_output("\n".join(line for line in said if line not in errors), done.stdout)
            check_output("\n".join(["...", *errors, "..."]), done.stderr)


def commands(text: str) -> list[tuple[str, str]]:
    """Split a console block into commands and what is shown below each."""
    found = re.split(r"^\$ ", text, flags=re.M)[1:]
    return [(part.partition("\n")[0], part.partition("\n")[2]) for part in found]


def check_output(shown: str, printed: str) -> None:
    """Hold what the page shows to what was printed."""
    wanted, given = whole_lines(shown), whole_lines(printed)
    place, skipping = 0, False
    for line in wanted:
        if line == "...":
            skipping = True
            continue
        while skipping and place < len(given) and not alike(line, given[place]):
            place += 1
        if place == len(given) or not alike(line, given[place]):
            found = given[place] if place < len(given) else "nothing more"
            raise PageError(f"the page shows\n{line}\nand there is\n{found}\n\nin\n{printed}")
        place, skipping = place + 1, False
    if wanted and not skipping and place != len(given):
        raise PageError(f"the page does not show\n{given[place]}\n\nin\n{printed}")


def whole_lines(text: str) -> list[str]:
    """Return the lines that say something, with those that were wrapped put together again."""
    found: list[str] = []
    for line in text.splitlines():
        if line.strip() and not line.startswith(SOMETIMES):
            if line.startswith(HANGING) and found:
                found[-1] += " " + line.strip()
            else:
                found.append(line.rstrip())
    return found


def alike(shown: str, given: str) -> bool:
    """Say whether two lines are the same but for numbers and details."""
    start, dots, end = shown.partition("...")
    if dots and not end.strip():
        return alike(start, given[: len(start)]) if start.strip() else True
    one, two = plain(shown), plain(given)
    if one.split()[:1] != two.split()[:1]:
        return False
    return difflib.SequenceMatcher(None, one, two, autojunk=False).ratio() >= ALIKE


def plain(line: str) -> str:
    """Return a line with every number, absolute path and run of spaces made the same."""
    words = ("/" if word.startswith("/") else word for word in line.split())
    return re.sub(r"\d[\d.,]*", "0", " ".join(words))


if __name__ == "__main__":
    print(run_page(Path(sys.argv[1]), compare="--output" in sys.argv[2:]))
