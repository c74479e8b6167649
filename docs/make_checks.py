"""Write docs/checks/index.md, the list of all checks, from the checks themselves.

Run it after a check was added or renamed: ``make docs``, or ``python docs/make_checks.py``. A test
holds that page and checks agree.
"""

from __future__ import annotations

from pathlib import Path

from kindsight.checks import all_checks
from kindsight.checks.rules import KINDS

PAGE = Path(__file__).parent / "checks" / "index.md"

BEGINNING = """\
# Checks

<!-- Made by docs/make_checks.py from the checks themselves. Do not edit it here. -->

[`kindsight check`](../guide/check.md) asks these questions of all images before anything is
trained on them. Each has a code that keeps its meaning, and a page that says what it means and what
to do. An *error* makes results wrong or loses images, a *warning* may, a *note* is worth knowing.
"""

HEADINGS = {
    "files": "Files: what is there, and can it be read?",
    "content": "Content: is there something to see?",
    "duplicates": "Duplicates: is it there several times?",
    "labels": "Labels: is it called what it is?",
    "splits": "Splits: do the parts share nothing, and come from one source?",
    "balance": "Balance: are there enough of each?",
}


def page() -> str:
    """Return the page as it should be."""
    parts = [BEGINNING]
    for digit, kind in enumerate(KINDS, 1):
        checks = [check for check in all_checks() if check.code[2] == str(digit)]
        if not checks:
            continue
        lines = [
            f"## {HEADINGS[kind]}\n",
            "| code | what is found | severity | runs |",
            "|---|---|---|---|",
        ]
        for check in checks:
            when = "always" if check.cost == "cheap" else "with `--full`"
            link = f"[{check.code}]({Path(check.docs).name})"
            lines.append(f"| {link} | {check.title} | {check.severity} | {when} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
