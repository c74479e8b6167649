"""Checks of files: what is there, and whether it can be read."""

from __future__ import annotations

from kindsight.checks.check import Check
from kindsight.checks.rules.balance import FewImages, RoughRecalls, UnevenClasses
from kindsight.checks.rules.content import (
    BlankImages,
    BlurredImages,
    BrightImages,
    ColouredAmongGrey,
    DarkImages,
    FewTones,
    GreyAmongColoured,
    LowContrast,
)
from kindsight.checks.rules.crops import PartsOfOthers
from kindsight.checks.rules.duplicates import (
    IdenticalFiles,
    NearDuplicates,
    StoredAnew,
    TurnedCopies,
)
from kindsight.checks.rules.file_names import (
    Masks,
    MisnamedImages,
    OtherFiles,
    OtherThumbnails,
    SameClasses,
    SameNames,
    ThumbnailFolders,
)
from kindsight.checks.rules.file_properties import (
    ExtremeShapes,
    SeveralFrames,
    TurnedImages,
    UnusualPixels,
    UnusualSizes,
)
from kindsight.checks.rules.label_errors import WrongLabels
from kindsight.checks.rules.labels import (
    ClassesAlike,
    CopiesSeveralLabels,
    SameImageSeveralLabels,
)
from kindsight.checks.rules.outliers import Outliers
from kindsight.checks.rules.source_bias import (
    ClassesOfDifferentSources,
    PartsOfDifferentSources,
)
from kindsight.checks.rules.splits import (
    ClassesAbsent,
    CopiesInSeveralParts,
    IdenticalInSeveralParts,
)
from kindsight.checks.rules.unreadable_files import (
    EmptyFiles,
    NotImages,
    TooLargeImages,
    TruncatedImages,
    UnreadableImages,
    UnreadFormats,
)

FILE_CHECKS: tuple[type[Check], ...] = (
    UnreadableImages,
    TruncatedImages,
    EmptyFiles,
    NotImages,
    TooLargeImages,
    MisnamedImages,
    SeveralFrames,
    UnusualPixels,
    UnusualSizes,
    ExtremeShapes,
    TurnedImages,
    SameNames,
    SameClasses,
    OtherFiles,
    Masks,
    OtherThumbnails,
    ThumbnailFolders,
    UnreadFormats,
)


CONTENT_CHECKS: tuple[type[Check], ...] = (
    BlankImages,
    BlurredImages,
    DarkImages,
    BrightImages,
    LowContrast,
    GreyAmongColoured,
    ColouredAmongGrey,
    FewTones,
)


DUPLICATE_CHECKS: tuple[type[Check], ...] = (
    IdenticalFiles,
    StoredAnew,
    TurnedCopies,
    NearDuplicates,
    PartsOfOthers,
)


LABEL_CHECKS: tuple[type[Check], ...] = (
    SameImageSeveralLabels,
    CopiesSeveralLabels,
    WrongLabels,
    Outliers,
    ClassesAlike,
)


SPLIT_CHECKS: tuple[type[Check], ...] = (
    IdenticalInSeveralParts,
    CopiesInSeveralParts,
    ClassesAbsent,
    PartsOfDifferentSources,
    ClassesOfDifferentSources,
)


BALANCE_CHECKS: tuple[type[Check], ...] = (FewImages, UnevenClasses, RoughRecalls)

KINDS = {
    "files": FILE_CHECKS,
    "content": CONTENT_CHECKS,
    "duplicates": DUPLICATE_CHECKS,
    "labels": LABEL_CHECKS,
    "splits": SPLIT_CHECKS,
    "balance": BALANCE_CHECKS,
}
"""The checks of each kind; a kind's position, from 1, is the first digit of its codes."""

RULES = tuple(rule for rules in KINDS.values() for rule in rules)
"""Every check."""
