"""Write the project's public addresses into every file that has them.

Example::

    python docs/set_home.py https://host/owner/kindsight https://host/docs security@host

Run it again to change them. ``tests/test_packaging.py`` checks that the files agree.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# File, the text before the address, and which address it is.
PLACES = (
    ("pyproject.toml", r"Repository = \"", 0),
    ("pyproject.toml", r"Documentation = \"", 1),
    ("mkdocs.yml", r"site_url: ", 1),
    ("CITATION.cff", r"repository-code: ", 0),
    ("CITATION.cff", r"\nurl: ", 1),
    ("SECURITY.md", r"Write to <", 2),
)


def addresses() -> list[tuple[str, int, str]]:
    """Return (file, which address, the address) of each place."""
    found = []
    for name, before, which in PLACES:
        match = re.search(rf"{before}([^\"\s>]+)", (ROOT / name).read_text("utf-8"))
        found.append((name, which, match[1] if match else ""))
    return found


def main(repository: str, documentation: str, email: str) -> None:
    """Replace the addresses."""
    for name, before, which in PLACES:
        path, new = ROOT / name, (repository, documentation, email)[which]
        text = path.read_text("utf-8")
        path.write_text(
            re.sub(rf"({before})[^\"\s>]+", lambda m, new=new: m[1] + new, text), "utf-8"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
