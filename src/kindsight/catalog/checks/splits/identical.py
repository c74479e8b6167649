"""KS501: the same file in several parts."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.splits.parts import NO_PARTS, parts_of, stated_parts

__all__ = ["IdenticalInSeveralParts"]


class IdenticalInSeveralParts(Check):
    """Byte-identical files in more than one of training, validation and test part."""

    code = "KS501"
    title = "The same picture in several parts"
    severity = "error"
    advice = "Training leaves them out of its part: see kindsight train --leaks."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the parts of files with one digest."""
        catalog = context.catalog
        if len(stated_parts(catalog)) < 2:
            return self.not_applicable(NO_PARTS)
        rows_of: dict[str, list[int]] = {}
        for row in context.readable_rows.tolist():
            digest = catalog.digest[row]
            if digest is not None and catalog.split[row] is not None:
                rows_of.setdefault(digest, []).append(row)
        findings = []
        for rows in rows_of.values():
            parts = parts_of(catalog, rows) if len(rows) > 1 else ()
            if len(parts) > 1:
                named = f"{', '.join(parts[:-1])} and {parts[-1]}"
                message = f"One picture, byte for byte, is in {named}."
                findings.append(self.finding(context, rows, message))
        return self.result(findings, sum(map(len, rows_of.values())))
