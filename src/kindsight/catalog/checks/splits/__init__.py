"""Checks of splits: what leaks from one part into another, and how parts and classes differ."""

from kindsight.catalog.checks.contract import Check
from kindsight.catalog.checks.splits.absent import ClassesAbsent
from kindsight.catalog.checks.splits.copies import CopiesInSeveralParts
from kindsight.catalog.checks.splits.identical import IdenticalInSeveralParts
from kindsight.catalog.checks.splits.sources import (
    ClassesOfDifferentSources,
    PartsOfDifferentSources,
)

CHECKS: tuple[type[Check], ...] = (
    IdenticalInSeveralParts,
    CopiesInSeveralParts,
    ClassesAbsent,
    PartsOfDifferentSources,
    ClassesOfDifferentSources,
)
