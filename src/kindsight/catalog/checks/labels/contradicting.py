"""KS401: one picture, byte for byte, under several labels."""

from __future__ import annotations

from kindsight.catalog.checks.context import CheckContext
from kindsight.catalog.checks.contract import Check, CheckResult
from kindsight.catalog.checks.labels.agreeing import label_of_most
from kindsight.catalog.names import shown_list

__all__ = ["SamePictureSeveralLabels"]


class SamePictureSeveralLabels(Check):
    """Byte-identical files with different labels: at least one of them is wrong."""

    code = "KS401"
    title = "The same picture under several labels"
    severity = "error"
    advice = "Keep the file that is in the right class."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the labels of files with one digest."""
        catalog = context.catalog
        if not any(catalog.label):
            return self.not_applicable("The pictures have no labels.")
        rows_of: dict[str, list[int]] = {}
        for row in context.readable_rows.tolist():
            digest, label = catalog.digest[row], catalog.label[row]
            if digest is not None and label is not None:
                rows_of.setdefault(digest, []).append(row)
        findings = []
        for rows in rows_of.values():
            labels = sorted({str(catalog.label[row]) for row in rows})
            if len(labels) > 1:
                findings.append(
                    self.finding(
                        context,
                        rows,
                        f"One picture, byte for byte, is labelled {shown_list(labels)}.",
                        suggestion=label_of_most(catalog, rows),
                    )
                )
        return self.result(findings, sum(map(len, rows_of.values())))
