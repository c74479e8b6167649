"""KS503: classes that are missing from a part, or have another name in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.checks.splits.parts import NO_PARTS, stated_parts
from kindsight.catalog.names import shown

__all__ = ["ClassesAbsent"]


class ClassesAbsent(Check):
    """Classes without a picture in one of the parts.

    A class that is validated or tested on but not trained on cannot be answered: an error. One
    that is only trained on is not measured.
    """

    code = "KS503"
    title = "Classes missing from a part"
    severity = "error"
    advice = "Give one class one name, or leave it out of all parts."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the classes of the parts."""
        catalog = context.catalog
        parts = stated_parts(catalog)
        if len(parts) < 2 or not any(catalog.label):
            return self.not_applicable(NO_PARTS if any(catalog.label) else "There are no labels.")
        classes: dict[str, set[str]] = {part: set() for part in parts}
        for row in context.readable_rows.tolist():
            part, label = catalog.split[row], catalog.label[row]
            if part is not None and label is not None:
                classes[part].add(label)
        findings = list(self._missing(classes))
        findings.sort(key=lambda finding: finding.severity != "error")
        return self.result(findings, len(catalog.present_classes()))

    def _missing(self, classes: dict[str, set[str]]) -> Iterator[Finding]:
        every = sorted(set().union(*classes.values()))
        for part, there in classes.items():
            for name in every:
                if name in there:
                    continue
                others = [other for other, names in classes.items() if name in names]
                near = _near(name, [known for known in there if known not in classes[others[0]]])
                hint = f" Is {shown(near)} in it meant?" if near else ""
                yield self.finding_outside(
                    [name],
                    f"The {part} part has no picture of {shown(name)}, which the "
                    f"{' and the '.join(others)} part has." + hint,
                    suggestion=near,
                    severity="error" if part == "train" else "warning",
                )


def _near(name: str, known: list[str]) -> str | None:
    """Return the class that is meant by another spelling; None where there is none."""
    by_plain = {" ".join(other.split()).casefold(): other for other in sorted(known, reverse=True)}
    plain = " ".join(name.split()).casefold()
    close = difflib.get_close_matches(plain, by_plain, 1, 0.8)
    return by_plain[close[0]] if close else None
