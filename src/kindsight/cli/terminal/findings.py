"""Findings of a diagnosis on the terminal, with commands that can be copied."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from kindsight.cli.terminal.text import Paint, cells, printable, wrapped

if TYPE_CHECKING:
    from kindsight.diagnosis import Diagnosis

__all__ = ["command_lines", "finding_lines"]

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}
INDENT = 9


def finding_lines(
    findings: Sequence[Diagnosis], *, width: int, evidence: bool, commands: int
) -> Iterator[str]:
    """Yield lines for each finding.

    Parameters
    ----------
    findings : sequence of Diagnosis
    width : int
        Of the lines, in columns.
    evidence : bool
        Whether to show the evidence.
    commands : int
        Commands shown for each finding.
    """
    paint = Paint(sys.stdout)
    left = " " * INDENT
    for finding in findings:
        title = paint(printable(finding.title), "bold", COLOURS[finding.severity])
        code = printable(finding.code)
        yield f"  {paint(code, 'dim')}{' ' * (INDENT - 2 - cells(code))}{title}"
        yield from (left + line for line in wrapped(printable(finding.message), width - INDENT))
        if evidence and finding.evidence:
            lines = wrapped(printable(finding.evidence), width - INDENT)
            yield from (left + paint(line, "dim") for line in lines)
        for command in finding.commands[:commands]:
            lines = command_lines(printable(command), width - INDENT - 2)
            yield from (left + paint(line, "cyan") for line in lines)


def command_lines(command: str, width: int) -> list[str]:
    """Return a command in lines that can be pasted, each but the last ending in a backslash.

    It is broken before options only, so that a line may be longer than `width`.
    """
    words = [shlex.quote(word) for word in shlex.split(command)]
    groups: list[str] = []
    for word in words:
        if word.startswith("--") or not groups:
            groups.append(word)
        else:
            groups[-1] += f" {word}"
    lines: list[str] = []
    for group in groups:
        if lines and cells(lines[-1]) + 1 + cells(group) <= width - 2:
            lines[-1] += f" {group}"
        else:
            lines.append(group if not lines else f"    {group}")
    return [f"{line} \\" for line in lines[:-1]] + lines[-1:]
