"""The table of all checks, by kind, and the function that runs them; one module per subject."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Collection, Iterable

from kindsight.checks.check import Check, CheckResult
from kindsight.checks.context import CheckContext
from kindsight.checks.rules.balance import ImbalancedClasses, SmallClasses, WideIntervals
from kindsight.checks.rules.content import (
    BlankImages,
    BlurredImages,
    BrightImages,
    ColourAmongGrey,
    DarkImages,
    FewGreyLevels,
    GreyAmongColour,
    LowContrastImages,
)
from kindsight.checks.rules.duplicates import (
    Crops,
    IdenticalFiles,
    NearDuplicates,
    ReencodedCopies,
    RotatedCopies,
)
from kindsight.checks.rules.file_names import (
    CaseCollisions,
    DuplicateClassNames,
    Masks,
    MismatchedThumbnails,
    OtherFiles,
    ThumbnailFolders,
    WrongExtensions,
)
from kindsight.checks.rules.file_properties import (
    EmptyFiles,
    ExifRotatedImages,
    ExtremeAspectRatios,
    MultiFrameFiles,
    NotImages,
    OversizedImages,
    TruncatedImages,
    UnreadableImages,
    UnsupportedFormats,
    UnusualPixelFormats,
    UnusualSizes,
)
from kindsight.checks.rules.labels import (
    DuplicatesWithDifferentLabels,
    IdenticalWithDifferentLabels,
    LabelErrors,
    NearIdenticalClasses,
)
from kindsight.checks.rules.outliers import Outliers
from kindsight.checks.rules.source_bias import ClassSourceBias, SplitSourceBias
from kindsight.checks.rules.splits import (
    DuplicatesAcrossSplits,
    IdenticalAcrossSplits,
    MissingClasses,
)
from kindsight.errors import SettingsError

__all__ = ["IGNORED", "KINDS", "RULES", "all_checks", "known_codes", "run_checks", "validate_codes"]

KINDS: dict[str, tuple[type[Check], ...]] = {
    "files": (
        UnreadableImages, TruncatedImages, EmptyFiles, NotImages, OversizedImages, WrongExtensions,
        MultiFrameFiles, UnusualPixelFormats, UnusualSizes, ExtremeAspectRatios, ExifRotatedImages,
        CaseCollisions, DuplicateClassNames, OtherFiles, Masks, MismatchedThumbnails,
        ThumbnailFolders, UnsupportedFormats,
    ),
    "content": (
        BlankImages, BlurredImages, DarkImages, BrightImages, LowContrastImages, GreyAmongColour,
        ColourAmongGrey, FewGreyLevels,
    ),
    "duplicates": (IdenticalFiles, ReencodedCopies, RotatedCopies, NearDuplicates, Crops),
    "labels": (
        IdenticalWithDifferentLabels, DuplicatesWithDifferentLabels, LabelErrors, Outliers,
        NearIdenticalClasses,
    ),
    "splits": (
        IdenticalAcrossSplits, DuplicatesAcrossSplits, MissingClasses, SplitSourceBias,
        ClassSourceBias,
    ),
    "balance": (SmallClasses, ImbalancedClasses, WideIntervals),
}  # fmt: skip
"""The checks of each kind, in the order of their codes; the position of a kind, from 1, is the
first digit of its codes."""

RULES = tuple(rule for rules in KINDS.values() for rule in rules)
"""All checks."""


IGNORED = "The check is ignored."
"""Reason of a check that was skipped because of `ignore`."""

NOT_REQUESTED = "The check needs features of all images; run it with --full."
"""Reason of a full check that was skipped in a cheap run."""


@functools.cache
def all_checks() -> tuple[Check, ...]:
    """Return all checks in the order of their codes."""
    return tuple(sorted((rule() for rule in RULES), key=lambda check: check.code))


def known_codes() -> tuple[str, ...]:
    """Return the codes of all checks in order."""
    return tuple(check.code for check in all_checks())


def run_checks(
    context: CheckContext,
    *,
    checks: Iterable[Check] | None = None,
    ignore: Collection[str] = (),
    full: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[CheckResult, ...]:
    """Run checks on a dataset.

    Parameters
    ----------
    context : CheckContext
        The dataset and its measurements.
    checks : iterable of Check, optional
        Checks to run. Default: all.
    ignore : collection of str
        Codes of checks to skip.
    full : bool
        Run the checks that need features, too.
    progress : callable, optional
        Called with (checks done, number of checks).

    Returns
    -------
    tuple of CheckResult
        One per check, in the order of their codes.

    Raises
    ------
    SettingsError
        If `ignore` contains an unknown code.
    """
    chosen = sorted(all_checks() if checks is None else checks, key=lambda check: check.code)
    validate_codes(ignore)
    results: list[CheckResult] = []
    for check in chosen:
        if progress is not None:
            progress(len(results), len(chosen))
        if check.code in ignore:
            results.append(check.skipped(IGNORED))
        elif check.cost == "full" and not full:
            results.append(check.skipped(NOT_REQUESTED))
        else:
            results.append(check.run(context))
    if progress is not None:
        progress(len(results), len(chosen))
    return tuple(results)


def validate_codes(codes: Collection[str]) -> None:
    """Raise SettingsError that names every unknown code and the closest known one."""
    known = known_codes()
    faults = []
    for code in codes:
        if code not in known:
            near = difflib.get_close_matches(str(code).upper(), known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"Known codes: {', '.join(known)}."
            faults.append(f"`ignore` must name checks; there is no check {code!r}. {hint}")
    if faults:
        raise SettingsError("\n".join(faults))
