"""KS113: classes whose names differ only by case or blanks."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult

__all__ = ["SameClasses"]

_BLANKS = re.compile(r"[\s_-]+")


class SameClasses(Check):
    """One class under two names: ``Cat`` and ``cat``, ``great dane`` and ``great_dane ``."""

    code = "KS113"
    title = "Class names that differ only by case or blanks"
    severity = "error"
    advice = "Move the pictures of both into one folder."

    def run(self, context: CheckContext) -> CheckResult:
        """Look at the names of the classes."""
        counts = context.catalog.counts()
        if not counts:
            return self.not_applicable("The pictures have no labels.")
        alike: defaultdict[str, list[str]] = defaultdict(list)
        for name in counts:
            alike[_plain(name)].append(name)
        found = []
        for names in alike.values():
            if len(names) < 2:
                continue
            amounts = ", ".join(f"{counts[name]:,}" for name in names)
            most = max(names, key=lambda name: counts[name])
            message = f"They are taken for {len(names)} classes, of {amounts} pictures."
            found.append(self.finding_outside(names, message, suggestion=most))
        return self.result(found, len(counts))


def _plain(name: str) -> str:
    return _BLANKS.sub(" ", unicodedata.normalize("NFKC", name).casefold()).strip()
