"""What every benchmark says besides its figures, and where it leaves them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from common import Section, markdown, plain, verdict
from processes import say

__all__ = ["tell", "warn_if_busy"]

# More waiting processes than this, and a machine is not idle.
BUSY = 0.5


def warn_if_busy() -> None:
    """Say that figures of a busy machine are not to be kept."""
    if hasattr(os, "getloadavg") and os.getloadavg()[0] > BUSY:
        say("This machine is busy: take the ratios for trials only.")


def tell(sections: Sequence[Section], options: argparse.Namespace, end: str = "") -> None:
    """Print tables and what became of the targets; write them where the options say.

    Parameters
    ----------
    sections : sequence of Section
    options : argparse.Namespace
        With ``json`` and ``markdown``, a file or None.
    end : str
        Put after the verdict.
    """
    print("\n".join(map(plain, sections)))
    print(verdict(sections) + end)
    if options.json:
        found = [section.to_dict() for section in sections]
        options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    if options.markdown:
        options.markdown.write_text("\n".join(map(markdown, sections)), encoding="utf-8")
