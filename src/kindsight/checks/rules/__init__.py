"""The table of all checks, by kind. Each module holds the checks of one subject."""

from __future__ import annotations

from kindsight.checks.check import Check
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
from kindsight.checks.rules.label_errors import LabelErrors
from kindsight.checks.rules.labels import (
    DuplicatesWithDifferentLabels,
    IdenticalWithDifferentLabels,
    NearIdenticalClasses,
)
from kindsight.checks.rules.outliers import Outliers
from kindsight.checks.rules.source_bias import ClassSourceBias, SplitSourceBias
from kindsight.checks.rules.splits import (
    DuplicatesAcrossSplits,
    IdenticalAcrossSplits,
    MissingClasses,
)

__all__ = ["KINDS", "RULES"]

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
