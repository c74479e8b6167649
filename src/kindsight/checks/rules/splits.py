"""KS503: classes that are missing from a part, or have another name in it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator

from kindsight.checks.check import Check, CheckResult, Finding
from kindsight.checks.context import CheckContext
from kindsight.checks.duplicates.search import find_duplicates
from kindsight.dataset.names import shown
from kindsight.dataset.table import SPLITS, ImageDataset

__all__ = [
    "NO_PARTS",
    "ClassesAbsent",
    "CopiesInSeveralParts",
    "IdenticalInSeveralParts",
    "parts_of",
    "stated_parts",
]

# SECTION: The parts of a dataset, as the checks of splits see them.

NO_PARTS = "The data state no parts."


def stated_parts(dataset: ImageDataset) -> tuple[str, ...]:
    """Return the parts that have images, in the order of their use."""
    present = set(dataset.split)
    return tuple(part for part in SPLITS if part in present)


def parts_of(dataset: ImageDataset, rows: Iterable[int]) -> tuple[str, ...]:
    """Return the parts that some rows are in, in the order of their use."""
    present = {dataset.split[row] for row in rows}
    return tuple(part for part in SPLITS if part in present)


class ClassesAbsent(Check):
    """Classes without an image in one of the parts.

    A class that is validated or tested on but not trained on cannot be answered: an error. One
    that is only trained on is not measured.
    """

    code = "KS503"
    title = "Classes missing from a part"
    severity = "error"
    advice = "Give one class one name, or leave it out of all parts."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the classes of the parts."""
        dataset = context.dataset
        parts = stated_parts(dataset)
        if len(parts) < 2 or not any(dataset.label):
            return self.not_applicable(NO_PARTS if any(dataset.label) else "There are no labels.")
        classes: dict[str, set[str]] = {part: set() for part in parts}
        for row in context.readable_rows.tolist():
            part, label = dataset.split[row], dataset.label[row]
            if part is not None and label is not None:
                classes[part].add(label)
        findings = list(self._missing(classes))
        findings.sort(key=lambda finding: finding.severity != "error")
        return self.result(findings, len(dataset.present_classes()))

    def _missing(self, classes: dict[str, set[str]]) -> Iterator[Finding]:
        every = sorted(set().union(*classes.values()))
        for part, there in classes.items():
            for name in every:
                if name in there:
                    continue
                others = [other for other, names in classes.items() if name in names]
                near = _near(name, [known for known in there if known not in classes[others[0]]])
                hint = f" Is {shown(near)} in it meant?" if near else ""
                yield self.finding_about(
                    [name],
                    f"The {part} part has no image of {shown(name)}, which the "
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


# SECTION: KS502: copies of an image, stored anew or nearly alike, in several parts.

_KINDS = (
    (("identical", "stored"), "The same image, stored anew, is in {}.", "error"),
    (("identical", "stored", "turned"), "The same image, mirrored or turned, is in {}.", "error"),
    (
        ("identical", "stored", "turned", "near"),
        "Nearly the same image, of a burst or cropped a little, is in {}.",
        "warning",
    ),
)


class CopiesInSeveralParts(Check):
    """Copies of an image, not byte-identical, in more than one part."""

    code = "KS502"
    title = "Copies of an image in several parts"
    severity = "error"
    advice = (
        "Training leaves them out: see --leakage. To keep them together: --group-near-duplicates."
    )

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the parts of copies."""
        dataset = context.dataset
        if len(stated_parts(dataset)) < 2:
            return self.not_applicable(NO_PARTS)
        if not len(context.readable_rows):
            return self.not_applicable("No image can be read.")
        copies = find_duplicates(context)
        told: set[tuple[int, ...]] = set()
        findings: list[Finding] = []
        for kinds, sentence, severity in _KINDS:
            for rows in copies.groups(kinds):
                group = tuple(rows.tolist())
                parts = parts_of(dataset, group)
                same = len({dataset.digest[row] for row in group}) == 1
                if len(parts) < 2 or same or group in told:
                    continue
                told.add(group)
                message = sentence.format(f"{', '.join(parts[:-1])} and {parts[-1]}")
                findings.append(
                    self.finding(context, group, message, severity=severity)  # type: ignore[arg-type]
                )
        return self.result(findings, len(context.readable_rows))


# SECTION: KS501: the same file in several parts.


class IdenticalInSeveralParts(Check):
    """Byte-identical files in more than one of training, validation and test part."""

    code = "KS501"
    title = "The same image in several parts"
    severity = "error"
    advice = "Training leaves them out of its part: see kindsight train --leakage."

    def run(self, context: CheckContext) -> CheckResult:
        """Compare the parts of files with one digest."""
        dataset = context.dataset
        if len(stated_parts(dataset)) < 2:
            return self.not_applicable(NO_PARTS)
        rows_of: dict[str, list[int]] = {}
        for row in context.readable_rows.tolist():
            digest = dataset.digest[row]
            if digest is not None and dataset.split[row] is not None:
                rows_of.setdefault(digest, []).append(row)
        findings = []
        for rows in rows_of.values():
            parts = parts_of(dataset, rows) if len(rows) > 1 else ()
            if len(parts) > 1:
                named = f"{', '.join(parts[:-1])} and {parts[-1]}"
                message = f"One image, byte for byte, is in {named}."
                findings.append(self.finding(context, rows, message))
        return self.result(findings, sum(map(len, rows_of.values())))
