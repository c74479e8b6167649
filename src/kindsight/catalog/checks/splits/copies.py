"""KS502: copies of a picture, stored anew or nearly alike, in several parts."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.checks.duplicates.copies import find_copies
from kindsight.catalog.checks.splits.parts import NO_PARTS, parts_of, stated_parts

__all__ = ["CopiesInSeveralParts"]

_KINDS = (
    (("identical", "stored"), "The same picture, stored anew, is in {}.", "error"),
    (("identical", "stored", "turned"), "The same picture, mirrored or turned, is in {}.", "error"),
    (
        ("identical", "stored", "turned", "near"),
        "Nearly the same picture, of a burst or cropped a little, is in {}.",
        "warning",
    ),
)


class CopiesInSeveralParts(Check):
    """Copies of a picture, not byte-identical, in more than one part."""

    code = "KS502"
    title = "Copies of a picture in several parts"
    severity = "error"
    advice = "Training leaves them out: see --leaks. To keep them together: --group-near."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the parts of copies."""
        catalog = context.catalog
        if len(stated_parts(catalog)) < 2:
            return self.not_applicable(NO_PARTS)
        if not len(context.readable_rows):
            return self.not_applicable("No picture can be read.")
        copies = find_copies(context)
        told: set[tuple[int, ...]] = set()
        findings: list[Finding] = []
        for kinds, sentence, severity in _KINDS:
            for rows in copies.groups(kinds):
                group = tuple(rows.tolist())
                parts = parts_of(catalog, group)
                same = len({catalog.digest[row] for row in group}) == 1
                if len(parts) < 2 or same or group in told:
                    continue
                told.add(group)
                message = sentence.format(f"{', '.join(parts[:-1])} and {parts[-1]}")
                findings.append(
                    self.finding(context, group, message, severity=severity)  # type: ignore[arg-type]
                )
        return self.result(findings, len(context.readable_rows))
