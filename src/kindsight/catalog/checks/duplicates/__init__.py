"""Checks of duplicates: one picture several times, as it is, stored anew, turned, nearly, in part.

For other checks: :func:`~kindsight.catalog.checks.duplicates.copies.find_copies` gives the pairs
and groups by kind, found once for a context.
"""

from kindsight.catalog.checks.contract import Check
from kindsight.catalog.checks.duplicates.identical import IdenticalFiles
from kindsight.catalog.checks.duplicates.near import NearDuplicates
from kindsight.catalog.checks.duplicates.parts import PartsOfOthers
from kindsight.catalog.checks.duplicates.stored_anew import StoredAnew
from kindsight.catalog.checks.duplicates.turned_copies import TurnedCopies

CHECKS: tuple[type[Check], ...] = (
    IdenticalFiles,
    StoredAnew,
    TurnedCopies,
    NearDuplicates,
    PartsOfOthers,
)
