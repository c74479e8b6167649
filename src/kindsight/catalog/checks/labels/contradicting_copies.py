"""KS402: copies of one picture, stored anew or nearly alike, under several labels."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult, Finding
from kindsight.catalog.checks.duplicates.copies import find_copies
from kindsight.catalog.checks.labels.agreeing import label_of_most
from kindsight.catalog.names import shown_list

__all__ = ["CopiesSeveralLabels"]


class CopiesSeveralLabels(Check):
    """Copies of a picture with different labels, where they are not byte-identical.

    A picture that was merely stored anew cannot be of two classes: an error. Mirrored ones, and
    pictures of one burst, can be.
    """

    code = "KS402"
    title = "Copies of a picture under several labels"
    severity = "error"
    advice = "Look at them side by side and give them one label."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of copies."""
        catalog = context.catalog
        if not any(catalog.label):
            return self.not_applicable("The pictures have no labels.")
        if not len(context.readable_rows):
            return self.not_applicable("No picture can be read.")
        copies = find_copies(context)
        told: set[tuple[int, ...]] = set()
        findings: list[Finding] = []
        for kinds, what in (
            (("identical", "stored"), "The same picture, stored anew,"),
            (("identical", "stored", "turned"), "The same picture, mirrored or turned,"),
            (("identical", "stored", "turned", "near"), "Nearly the same picture"),
        ):
            severity = "error" if len(kinds) == 2 else "warning"
            for rows in copies.groups(kinds):
                group = tuple(rows.tolist())
                labels = sorted({str(catalog.label[r]) for r in group if catalog.label[r]})
                same = len({catalog.digest[row] for row in group}) == 1
                if len(labels) < 2 or same or group in told:
                    continue
                told.add(group)
                findings.append(
                    self.finding(
                        context,
                        group,
                        f"{what} is labelled {shown_list(labels)}.",
                        suggestion=label_of_most(catalog, group),
                        severity=severity,  # type: ignore[arg-type]
                    )
                )
        return self.result(findings, len(context.readable_rows))
